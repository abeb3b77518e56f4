"""Use a saved registration: carry images, labels and series through it, either way."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..files import check_readable
from ..layout import AFFINE, INVERSE_WARP, METRICS, PREPROCESSED, WARP
from ..space.formats import read_affine, read_warp
from ..space.grid import Grid
from ..space.resample import Interpolation, resample
from ..space.transform import Chain
from ..space.volume import Source, Volume, read_series
from .result import Registration


@dataclass(frozen=True, eq=False)
class SavedTransform:
    """A registration read back from its folder.

    Args:
        transform: points of the fixed scan to points of the moving scan, RAS mm.
        inverse: points of the moving scan to points of the fixed scan, RAS mm.
        fixed_grid: grid of the fixed scan; None for an affine alone.
        moving_grid: grid of the moving scan, where it is on record.
    """

    transform: Chain
    inverse: Chain
    fixed_grid: Grid | None
    moving_grid: Grid | None


def load_transform(path: str | os.PathLike[str]) -> SavedTransform:
    """Read a folder that ``register`` or ``preprocess`` wrote, or a single ITK affine.

    The folder may also be one of ANTs' antsRegistration, with any one prefix of the files. Of a
    preprocessed scan, the scan is the moving side and its aligned brain the fixed.

    Raises:
        InputError: the files are missing or not ITK transforms.
    """
    path = Path(path)
    check_readable(path, "transform")
    if not path.is_dir():
        affine = read_affine(path)
        return SavedTransform(Chain([affine]), Chain([affine.inverse()]), None, None)
    if (path / PREPROCESSED).is_file() and (path / METRICS).is_file():
        raise InputError(f"transform {path}: results of register and of preprocess lie in it")
    if (path / PREPROCESSED).is_file():
        return _load_preprocessed(path)
    affine, warp = read_affine(_only(path, AFFINE)), read_warp(_only(path, WARP))
    inverse_warp = read_warp(_only(path, INVERSE_WARP))
    return SavedTransform(
        transform=Chain([warp, affine]),
        inverse=Chain([affine.inverse(), inverse_warp]),
        fixed_grid=warp.grid,
        moving_grid=_grid_of(path / METRICS, "moving"),
    )


def apply_to_image(
    image: Source,
    saved: SavedTransform | Registration,
    *,
    reference: Source | None = None,
    inverse: bool = False,
    interpolation: Interpolation | None = None,
) -> tuple[Volume, Interpolation]:
    """Carry an image, a label map or a 4-D series onto the other scan's grid.

    Args:
        image: a volume in the moving scan's space (in the fixed scan's with ``inverse``).
        saved: the registration.
        reference: an image whose grid the result gets; by default the fixed scan's (with
            ``inverse`` the moving scan's).
        inverse: carry from the fixed space to the moving space.
        interpolation: by default "nearest" for labels (see ``Volume.holds_labels``) and "linear"
            for everything else.

    Returns:
        The result in the image's own type, and the interpolation that was used.
    """
    volume = read_series(image)
    if reference is not None:
        grid = read_series(reference, "reference").grid
    else:
        known = saved.moving_grid if inverse else saved.fixed_grid
        if known is None:
            raise InputError(
                "this transform does not tell the grid of the result: give --reference"
            )
        grid = known
    volume = replace(volume, is_label_file=volume.holds_labels())
    if interpolation is None:
        interpolation = "nearest" if volume.is_label_file else "linear"
    through = saved.inverse if inverse else saved.transform
    return resample(volume, grid, through, interpolation=interpolation), interpolation


def _load_preprocessed(path: Path) -> SavedTransform:
    """The affine map between a scan and its aligned brain, as a registration to that."""
    affine = read_affine(path / AFFINE)
    grids = [_grid_of(path / PREPROCESSED, name) for name in ("aligned", "scan")]
    return SavedTransform(Chain([affine]), Chain([affine.inverse()]), *grids)


def _only(folder: Path, name: str) -> Path:
    """The file of that name, or else the one whose name ends in it."""
    found = [folder / name] if (folder / name).is_file() else sorted(folder.glob(f"*{name}"))
    if len(found) != 1:
        number = f"{len(found)} files like" if found else "no"
        raise InputError(f"transform {folder}: the folder has {number} {name}")
    return found[0]


def _grid_of(record: Path, name: str) -> Grid | None:
    """One of the grids that a record in JSON tells, if it does."""
    try:
        return Grid(**json.loads(record.read_text())["grids"][name])
    except (OSError, KeyError, ValueError, TypeError):
        return None
