"""The record of a registration, ``metrics.json``, read back, and the input files that it names."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files import check_readable, sha256_of
from .._json import read_json
from .._layout import METRICS
from ..errors import InputError
from ..preparation.template import mni152

# Limits on what is read, because records come from other people's folders, and their texts and
# numbers are shown on pages. Set by hand, far above what a registration writes.
MAX_TEXT = 10_000  # characters of a text
MAX_DEPTH = 12  # of objects and lists within each other
MAX_NUMBER = 1e15

#: The inputs on record, as messages name them.
INPUTS = {
    "moving": "moving scan",
    "fixed": "fixed scan",
    "labels": "labels of the moving scan",
    "fixed_labels": "labels of the fixed scan",
    "mask": "mask of the moving scan",
    "fixed_mask": "mask of the fixed scan",
    "lesion_masks": "lesion mask of the moving scan",
    "fixed_lesion_masks": "lesion mask of the fixed scan",
}


def read_record(folder: Path) -> dict[str, Any]:
    """Read the ``metrics.json`` of a folder.

    Raises:
        InputError: the file is missing, or is not the record of a registration.
    """
    path = folder / METRICS
    check_readable(folder, "result")
    if not os.path.lexists(path):
        raise InputError(
            f"result {folder}: {METRICS} is missing; give a folder that register wrote"
        )
    check_readable(path, "result")
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"result {path}: this is not the record of a registration ({error})"
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("inputs"), dict):
        raise InputError(
            f"result {path}: this is not the record of a registration (it has no inputs)"
        )
    return _bounded(record)


def _bounded(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A record within the limits, so that code that shows it need not expect anything else."""
    if isinstance(value, (dict, list)) and not depth:
        return "…"
    if isinstance(value, dict):
        return {_bounded(key): _bounded(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_bounded(inner, depth - 1) for inner in value]
    if isinstance(value, str):
        return value[:MAX_TEXT].encode("utf-8", "replace").decode()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value if abs(value) < MAX_NUMBER else None
    return value


def is_linear(record: Mapping[str, Any]) -> bool:
    """Whether a registration was rigid or affine; earlier versions had deformable ones alone."""
    settings = record.get("settings")
    return isinstance(settings, Mapping) and settings.get("transform") in ("rigid", "affine")


def had_mask(record: Mapping[str, Any], role: str) -> bool:
    """Whether the moving or fixed scan had a brain mask, given or extracted."""
    preparation = record.get("preparation")
    scan = preparation.get(role) if isinstance(preparation, Mapping) else None
    return isinstance(scan, Mapping) and scan.get("brain_mask_ml") is not None


def input_path(record: Mapping[str, Any], role: str) -> Path | None:
    """The file of an input, if it is still the one that was registered.

    Args:
        record: the contents of ``metrics.json``.
        role: one of ``INPUTS``.

    Returns:
        The path; None if the registration had no such input.

    Raises:
        InputError: the input was an image in memory or the template of a model; or its file is
            missing or has changed.
    """
    entry = record["inputs"].get(role)
    return None if entry is None else _path_of(entry, role)


def input_paths(record: Mapping[str, Any], role: str) -> list[Path]:
    """The files of an input of which there may be several, as ``input_path``."""
    entries = record["inputs"].get(role)
    return [_path_of(entry, role) for entry in entries] if isinstance(entries, list) else []


def _path_of(entry: Any, role: str) -> Path:
    """The file of an entry of the inputs, see ``input_path``."""
    what = INPUTS[role]
    entry = entry if isinstance(entry, dict) else {}
    if "template" in entry and "path" not in entry:
        if "sha256" in entry:  # a template other than MNI152
            raise InputError(
                f"{what}: this is the template of a model ({entry['template']}), which is not in "
                f"a file of its own and cannot be read again"
            )
        return mni152().path
    path, digest = entry.get("path"), entry.get("sha256")
    if not isinstance(path, str) or not isinstance(digest, str):
        raise not_on_record(role)
    try:
        check_readable(Path(path), what)
        if not Path(path).is_file():  # reading a pipe or a device might never end
            raise InputError(f"{what} {path}: this is not a regular file")
        is_same = sha256_of(path) == digest
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {path!r}: cannot be read: {error}") from error
    if not is_same:
        raise InputError(
            f"{what} {path}: the file has changed since the registration (its SHA-256 is not the "
            f"one in {METRICS})"
        )
    return Path(path)


def not_on_record(role: str) -> InputError:
    """The error for an input whose file is not on record, such as an image in memory."""
    return InputError(
        f"{INPUTS[role]}: {METRICS} does not name its file, so it cannot be read again"
    )
