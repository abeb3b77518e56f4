"""The record of a registration, ``metrics.json``, read back, and the files that it names."""

import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import check_readable, sha256_of
from ..layout import METRICS
from ..preparation.template import mni152

LONGEST = 10_000  # characters of a text in a record


def read_record(folder: Path) -> dict[str, Any]:
    """What a folder's ``metrics.json`` holds.

    Raises:
        InputError: it is not there, or not a record.
    """
    path = folder / METRICS
    check_readable(folder, "result")
    if not path.exists():
        raise InputError(f"result {folder}: no {METRICS} in it: a folder of register's is wanted")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"result {path}: not a record of a registration ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("inputs"), dict):
        raise InputError(f"result {path}: not a record of a registration")
    return _bounded(record)


def _bounded(value: Any, depth: int = 12) -> Any:
    """A record without what no registration writes, and what reads it need not expect."""
    if isinstance(value, (dict, list)) and not depth:
        return "…"
    if isinstance(value, dict):
        return {_bounded(key): _bounded(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_bounded(inner, depth - 1) for inner in value]
    if isinstance(value, str):
        return value[:LONGEST].encode("utf-8", "replace").decode()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value if abs(value) < 1e15 else None
    return value


def original(record: dict[str, Any], role: str) -> Path | None:
    """The file of an input, if it is still the one that was registered; None: there was none.

    Args:
        record: see ``read_record``.
        role: "moving", "fixed", "labels", "fixed_labels", "mask" or "fixed_mask".

    Raises:
        InputError: the input was no file, or that is gone, or another one by now; or it was the
            template of a model of the user's own.
    """
    told, what = record["inputs"].get(role), role.replace("_", " ")
    if told is None:
        return None
    if not isinstance(told, dict):
        raise InputError(f"{what}: the record does not tell which file it was")
    if "template" in told and "path" not in told:
        if "sha256" in told:  # one that is not MNI152
            raise InputError(f"{what}: it was a model's own template, {told['template']}")
        return mni152().path
    path, digest = told.get("path"), told.get("sha256")
    if not isinstance(path, str) or not isinstance(digest, str):
        raise InputError(f"{what}: the record does not tell which file it was")
    try:
        check_readable(Path(path), what)
        if not Path(path).is_file():  # a pipe or a device has no end
            raise InputError(f"{what} {path}: this is no file")
        same = sha256_of(path) == digest
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {path!r}: cannot be read: {error}") from error
    if not same:
        raise InputError(f"{what} {path}: it is another file than was registered (by its hash)")
    return Path(path)
