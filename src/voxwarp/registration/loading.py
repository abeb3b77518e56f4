"""Load a saved registration: its transforms and masks, and the scans that its record names."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._layout import AFFINE, FIXED_MASK, INVERSE_WARP, MOVING_MASK, WARP
from ..errors import InputError
from ..preparation.masking import brain_mask
from ..preparation.scan import Scan
from ..space import formats
from ..space.grid import Grid
from ..space.transform import Warp
from ..space.volume import Volume, read_labels
from .outputs import MissingWarp
from .record import had_mask, input_path, input_paths, is_linear, not_on_record, read_record
from .result import Registration


def load(folder: str | os.PathLike[str]) -> Registration:
    """Load a registration from the folder that it was saved to.

    The scans are read again from the files that ``metrics.json`` names. A folder without the
    inverse warp or without brain masks loads, too; what needs them then raises an error.

    Raises:
        InputError: the record or the transforms are missing or damaged, or a scan is not where it
            was or has changed.

    Example:
        >>> import voxwarp
        >>> result = voxwarp.register("moving.nii.gz", "fixed.nii.gz")
        >>> files = result.save("out")
        >>> loaded = voxwarp.load("out")
        >>> loaded.metrics["similarity"] == result.metrics["similarity"]
        True
    """
    folder = Path(folder)
    record = read_record(folder)
    _check_transforms(folder, record)
    try:
        fixed, moving = _read_scan(record, "fixed"), _read_scan(record, "moving")
    except InputError as error:
        raise InputError(f"result {folder}: {error}") from error
    affine = formats.read_affine(folder / AFFINE)
    warp, inverse_warp = _read_warps(folder, record, fixed.grid)
    if not warp.grid.matches(fixed.grid):
        raise InputError(
            f"result {folder}: {WARP} is not on the grid of the fixed scan {fixed.name}; the "
            f"folder holds files of different registrations"
        )
    fixed_mask = _read_mask(folder / FIXED_MASK, fixed)
    is_brain = fixed_mask is None and not had_mask(record, "fixed")
    return Registration(
        fixed=fixed,
        moving=moving,
        affine=affine,
        warp=warp,
        inverse_warp=inverse_warp,
        brain=brain_mask(fixed.image, fixed.grid) if is_brain else fixed_mask,
        moving_mask=_read_mask(folder / MOVING_MASK, moving),
        fixed_mask=fixed_mask,
        metrics=record,
    )


def _check_transforms(folder: Path, record: dict[str, Any]) -> None:
    """Check that the files of the transform from the fixed to the moving scan exist."""
    needed = (AFFINE,) if is_linear(record) else (AFFINE, WARP)
    missing = [name for name in needed if not os.path.lexists(folder / name)]
    if missing:
        raise InputError(
            f"result {folder}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
            f"missing; register again and save the transforms"
        )


def _read_warps(
    folder: Path, record: dict[str, Any], grid: Grid
) -> tuple[Warp, Warp | MissingWarp]:
    """The warp and its inverse; they are zero for a linear registration, which has no files."""
    if is_linear(record):
        zero = Warp(np.zeros((3, *grid.shape), np.float32), grid)
        return zero, zero
    inverse = folder / INVERSE_WARP
    return (
        formats.read_warp(folder / WARP),
        formats.read_warp(inverse) if os.path.lexists(inverse) else MissingWarp(inverse),
    )


def _read_scan(record: dict[str, Any], role: Literal["fixed", "moving"]) -> Scan:
    path = input_path(record, role)
    if path is None:
        raise not_on_record(role)
    prefix = "" if role == "moving" else "fixed_"
    labels = input_path(record, f"{prefix}labels")
    lesions = input_paths(record, f"{prefix}lesion_masks")
    return Scan.read(path, role=role, labels=labels, lesion_mask=lesions)


def _read_mask(path: Path, scan: Scan) -> Volume | None:
    return read_labels(path, scan.image, "brain mask") if os.path.lexists(path) else None
