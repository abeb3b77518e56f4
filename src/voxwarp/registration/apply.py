"""Use registrations: carry images, labels and series through one, or through a chain of them."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from ..errors import InputError
from ..files import check_readable
from ..layout import AFFINE, INVERSE_WARP, METRICS, PREPROCESSED, WARP
from ..space.formats import read_affine, read_warp
from ..space.grid import Grid
from ..space.resample import Interpolation, resample
from ..space.transform import Chain
from ..space.volume import ImageLike, Volume, read_series
from .result import Registration

_ANTS_INVERSE = re.compile(r"\[\s*(.+?)\s*,\s*1\s*\]")  # antsApplyTransforms -t [PATH,1]


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

    def inverted(self) -> "SavedTransform":
        """The same the other way: what was fixed is moving."""
        return SavedTransform(self.inverse, self.transform, self.moving_grid, self.fixed_grid)


#: What carries images and points: a registration, in memory or read back, or where one is.
AnyTransform = SavedTransform | Registration | str | os.PathLike[str]


def load_transform(path: str | os.PathLike[str]) -> SavedTransform:
    """Read a folder that ``register`` or ``preprocess`` wrote, or a single ITK transform.

    ``[PATH,1]``, as ANTs writes it, is the inverse of what is at PATH.

    The folder may also be one of ANTs' antsRegistration, with any one prefix of the files. Of a
    preprocessed scan, the scan is the moving side and its aligned brain the fixed.

    Raises:
        InputError: the files are missing or not ITK transforms.
    """
    inverted = _ANTS_INVERSE.fullmatch(os.fspath(path))
    if inverted:
        return load_transform(inverted[1]).inverted()
    path = Path(path)
    check_readable(path, "transform")
    if not path.is_dir():
        affine = read_affine(path)
        return SavedTransform(Chain([affine]), Chain([affine.inverse()]), None, None)
    if (path / PREPROCESSED).is_file() and (path / METRICS).is_file():
        raise InputError(f"transform {path}: results of register and of preprocess lie in it")
    if (path / PREPROCESSED).is_file():
        return _load_preprocessed(path)
    affine = read_affine(_only(path, AFFINE))
    if not any(path.glob("*Warp.nii.gz")):  # a rigid or affine registration
        grids = (_grid_of(path / METRICS, name) for name in ("fixed", "moving"))
        return SavedTransform(Chain([affine]), Chain([affine.inverse()]), *grids)
    warp = read_warp(_only(path, WARP))
    inverse_warp = read_warp(_only(path, INVERSE_WARP))
    return SavedTransform(
        transform=Chain([warp, affine]),
        inverse=Chain([affine.inverse(), inverse_warp]),
        fixed_grid=warp.grid,
        moving_grid=_grid_of(path / METRICS, "moving"),
    )


def chain_of(transforms: AnyTransform | Sequence[AnyTransform]) -> SavedTransform:
    """Several registrations as one, in the order in which an image travels through them.

    [a, b] takes an image from the moving space of a to the fixed space of a, which is the moving
    space of b, and on to the fixed space of b. (ANTs lists its transforms the other way round.)

    Raises:
        InputError: there is none.
    """
    alone = isinstance(transforms, SavedTransform | Registration | str | os.PathLike)
    given = cast(Sequence[AnyTransform], [transforms] if alone else transforms)
    steps = [load_transform(one) if isinstance(one, str | os.PathLike) else one for one in given]
    if not steps:
        raise InputError("transforms: one or more are needed, found none")
    return SavedTransform(
        transform=Chain([step for one in reversed(steps) for step in one.transform.transforms]),
        inverse=Chain([step for one in steps for step in one.inverse.transforms]),
        fixed_grid=steps[-1].fixed_grid,
        moving_grid=steps[0].moving_grid,
    )


def apply_to_image(
    image: ImageLike,
    transforms: AnyTransform | Sequence[AnyTransform],
    *,
    reference: ImageLike | None = None,
    inverse: bool = False,
    interpolation: Interpolation | None = None,
) -> Volume:
    """Carry an image, a label map or a 4-D series onto the other scan's grid, resampled once.

    Args:
        image: in the moving scan's space (in the fixed scan's with ``inverse``).
        transforms: a registration, or several in the order in which the image travels through
            them, see ``chain_of``.
        reference: an image whose grid the result gets; by default the (last) fixed scan's (with
            ``inverse`` the (first) moving scan's).
        inverse: carry from the fixed space to the moving space.
        interpolation: see ``interpolation_of``.

    Returns:
        The result in the image's own type.

    Raises:
        InputError: an image cannot be read, or the grid of the result is not known.
    """
    volume, through = read_series(image), chain_of(transforms)
    through = through.inverted() if inverse else through
    grid = through.fixed_grid if reference is None else read_series(reference, "reference").grid
    if grid is None:
        raise InputError("this transform does not tell the grid of the result: give --reference")
    chosen = interpolation or interpolation_of(volume)
    volume = replace(volume, is_label_file=volume.holds_labels())
    return resample(volume, grid, through.transform, interpolation=chosen)


def interpolation_of(volume: Volume) -> Interpolation:
    """Nearest neighbour for labels (see ``Volume.holds_labels``), linear for everything else."""
    return "nearest" if volume.holds_labels() else "linear"


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
