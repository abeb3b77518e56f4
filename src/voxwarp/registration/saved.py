"""A registration read back from its folder: the record, the scans it names, the whole result."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_readable, sha256_of
from ..layout import AFFINE, FIXED_MASK, INVERSE_WARP, METRICS, MOVING_MASK, WARP
from ..preparation.prepare import Findings, brain_mask, read_scan, template_path
from ..space.formats import read_affine, read_warp
from ..space.transform import Affine
from ..space.volume import Volume, read_labels
from .registration import Registration

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
        InputError: the input was no file, or that is gone, or another one by now.
    """
    told, what = record["inputs"].get(role), role.replace("_", " ")
    if told is None:
        return None
    if not isinstance(told, dict):
        raise InputError(f"{what}: the record does not tell which file it was")
    if "template" in told:
        return template_path()
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


def load_registration(folder: str | os.PathLike[str]) -> Registration:
    """A registration as it was, from the folder that it was saved to and the scans it names.

    Raises:
        InputError: files are missing or damaged, or a scan is not at its place any more.
    """
    folder = Path(folder)
    record = read_record(folder)
    fixed, fixed_labels = _scan(record, "fixed", "fixed_labels")
    moving, labels = _scan(record, "moving", "labels")
    affine = read_affine(folder / AFFINE)
    warp, inverse_warp = read_warp(folder / WARP), read_warp(folder / INVERSE_WARP)
    if not warp.grid.matches(fixed.grid):
        raise InputError(f"result {folder}: its deformation is not on the fixed scan's grid")
    fixed_mask = _mask(folder / FIXED_MASK, fixed)
    whole = Findings("brain", fixed.grid, Affine(np.eye(4)))
    return Registration(
        fixed=fixed,
        moving=moving,
        affine=affine,
        warp=warp,
        inverse_warp=inverse_warp,
        labels=labels,
        fixed_labels=fixed_labels,
        brain=fixed_mask or brain_mask(whole, fixed, fixed.grid),
        moving_mask=_mask(folder / MOVING_MASK, moving),
        fixed_mask=fixed_mask,
        metrics=record,
    )


def _scan(record: dict[str, Any], role: str, labels: str) -> tuple[Volume, Volume | None]:
    path = original(record, role)
    if path is None:
        raise InputError(f"{role}: the record does not tell which file it was")
    volume, mapped, _ = read_scan(path, role, original(record, labels))
    return volume, mapped


def _mask(path: Path, scan: Volume) -> Volume | None:
    return read_labels(path, scan, "brain mask") if path.is_file() else None
