"""Saved transforms: read from folders and files, inverted, and chained."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from .._files import check_readable
from .._json import read_json
from .._layout import AFFINE, COMPOSITE, INVERSE_COMPOSITE, INVERSE_WARP, METRICS, PREPROCESSED
from ..errors import InputError
from ..space.composite import is_composite_name, read_composite
from ..space.formats import read_affine, read_warp, warp_warnings
from ..space.grid import Grid
from ..space.transform import Affine, Chain, Warp
from .outputs import MissingWarp
from .result import Registration
from .transform_folder import transform_files

#: By the absolute path of a file, what its header leaves in doubt, a sentence each.
HeaderWarnings = Mapping[str, tuple[str, ...]]

_BRACKETS = re.compile(r"\[\s*(.+?)\s*,\s*([01])\s*\]")  # antsApplyTransforms -t [PATH,1]
# The last two, of 3D Slicer and ITK, are read by nobody here, but refused with what helps.
_FIELD = re.compile(r".*\.(nii(\.gz)?|nrrd|mha)", re.IGNORECASE)
_ANTS_WARP = re.compile(r"(.*)1(Inverse)?Warp\.nii(\.gz)?")


@dataclass(frozen=True, eq=False)
class SavedTransform:
    """The transforms of a registration, or of a chain, in both directions, and their grids.

    Made by ``load_transform`` and ``chain_of``.

    Args:
        transform: the map from points of the fixed scan to points of the moving scan, RAS mm.
        inverse: the map from points of the moving scan to points of the fixed scan, RAS mm.
        fixed_grid: the grid of the fixed scan; None if it is unknown, as for a single file.
        moving_grid: the grid of the moving scan; None if it is unknown.
        header_warnings: by the path of a file, what its header leaves in doubt, a sentence each:
            of the warps, and of the scans that were registered.
    """

    transform: Chain
    inverse: Chain
    fixed_grid: Grid | None
    moving_grid: Grid | None
    header_warnings: HeaderWarnings = field(default_factory=dict)

    def inverted(self) -> "SavedTransform":
        """Exchange the roles of the fixed and the moving scan."""
        return replace(
            self,
            transform=self.inverse,
            inverse=self.transform,
            fixed_grid=self.moving_grid,
            moving_grid=self.fixed_grid,
        )


#: A registration or an affine in memory, loaded transforms, or the path of what is saved.
AnyTransform = SavedTransform | Registration | Affine | str | os.PathLike[str]


def load_transform(path: str | os.PathLike[str]) -> SavedTransform:
    """Load the transforms of a folder that ``register`` wrote, or an ITK transform file.

    The folder may also come from ``preprocess`` (the scan is the moving side, its aligned brain
    the fixed side) or from antsRegistration, with any one prefix of the file names; see
    ``transform_files``. A composite (``.h5``) of antsRegistration or fMRIPrep can be read, too; the
    inverse of one with a deformation is the file of the opposite direction beside it. A
    displacement field alone (``.nii.gz``) serves one direction.

    Args:
        path: the folder or file; ``[PATH,1]``, as ANTs writes it, is the inverse of PATH, and
            ``[PATH,0]`` is PATH.

    Raises:
        InputError: a file is missing, or is not an ITK transform.

    Example:
        >>> import numpy as np
        >>> import voxwarp
        >>> result = voxwarp.register("moving.nii.gz", "fixed.nii.gz")
        >>> files = result.save("out", save="transforms,inverse")
        >>> saved = voxwarp.load_transform("out")
        >>> point = np.array([[0.0, -18.0, 4.0]])  # of the fixed scan, RAS mm
        >>> np.allclose(saved.transform.map(point), result.transform.map(point))
        True
    """
    in_brackets = _BRACKETS.fullmatch(os.fspath(path))
    if in_brackets:
        loaded = load_transform(in_brackets[1])
        return loaded.inverted() if in_brackets[2] == "1" else loaded
    path = Path(path)
    check_readable(path, "transform")
    if not path.is_dir():
        if is_composite_name(path):
            return _of_composite(path, _counterpart(path))
        if _FIELD.fullmatch(path.name):
            return _of_field(path)
        return _of_affine(read_affine(path))
    if all(os.path.lexists(path / record) for record in (PREPROCESSED, METRICS)):
        raise InputError(
            f"transform {path}: the folder holds results of register and of preprocess; they need "
            f"separate folders"
        )
    if os.path.lexists(path / PREPROCESSED):
        return _load_preprocessed(path)
    files, warnings = transform_files(path), _recorded_warnings(path / METRICS)
    if files.composite is not None:
        loaded = _of_composite(files.composite, files.inverse_composite)
        moving_grid = _read_grid(path / METRICS, "moving")
        return replace(loaded, moving_grid=moving_grid, header_warnings=warnings)
    affine = Affine(np.eye(4)) if files.affine is None else read_affine(files.affine)
    if files.warp is None:
        grids = (_read_grid(path / METRICS, name) for name in ("fixed", "moving"))
        return replace(_of_affine(affine, *grids), header_warnings=warnings)
    warp = read_warp(files.warp)
    for file in filter(None, (files.warp, files.inverse_warp)):
        warnings[os.path.abspath(file)] = warp_warnings(file)
    inverse_warp: Warp | MissingWarp = MissingWarp(path / INVERSE_WARP)
    if files.inverse_warp is not None:
        inverse_warp = read_warp(files.inverse_warp)
    return SavedTransform(
        transform=Chain([warp, affine]),
        inverse=Chain([affine.inverse(), inverse_warp]),
        fixed_grid=warp.grid,
        moving_grid=_read_grid(path / METRICS, "moving"),
        header_warnings=warnings,
    )


def chain_of(transforms: AnyTransform | Sequence[AnyTransform]) -> SavedTransform:
    """Chain several registrations into one, in the order in which an image travels.

    [a, b] takes an image from the moving space of a to the fixed space of a, which is the moving
    space of b, and then to the fixed space of b. (ANTs lists transforms in the reverse order.)

    Args:
        transforms: a registration, an ``Affine``, loaded transforms or a path, or several of
            these.

    Raises:
        InputError: the list is empty, a path cannot be loaded, or a deformation of ANTs comes
            without its linear part, or on the wrong side of it.

    Example:
        >>> import voxwarp
        >>> bold_to_t1 = voxwarp.register("bold.nii.gz", "moving.nii.gz", transform="rigid")
        >>> t1_to_fixed = voxwarp.register("moving.nii.gz", "fixed.nii.gz")
        >>> chain = voxwarp.chain_of([bold_to_t1, t1_to_fixed])
        >>> chain.fixed_grid == t1_to_fixed.fixed_grid
        True
        >>> moved = voxwarp.apply_to_image("bold.nii.gz", chain)  # resampled once
        >>> moved.grid == t1_to_fixed.fixed_grid
        True
    """
    is_single = isinstance(transforms, SavedTransform | Registration | Affine | str | os.PathLike)
    several = cast(Sequence[AnyTransform], [transforms] if is_single else transforms)
    _check_parts_of_ants(several)
    parts = [_loaded(transform) for transform in several]
    if not parts:
        raise InputError("transforms must name at least one transform, got an empty list")
    return SavedTransform(
        transform=Chain([x for part in reversed(parts) for x in part.transform.transforms]),
        inverse=Chain([x for part in parts for x in part.inverse.transforms]),
        fixed_grid=parts[-1].fixed_grid,
        moving_grid=parts[0].moving_grid,
        header_warnings={k: v for part in parts for k, v in part.header_warnings.items()},
    )


def one_of_each(warnings: HeaderWarnings) -> tuple[str, ...]:
    """All of the warnings, the same sentence once."""
    return tuple(dict.fromkeys(text for texts in warnings.values() for text in texts))


def _loaded(transform: AnyTransform) -> SavedTransform | Registration:
    if isinstance(transform, Affine):
        return _of_affine(transform)
    return load_transform(transform) if isinstance(transform, str | os.PathLike) else transform


def _of_affine(
    affine: Affine, fixed_grid: Grid | None = None, moving_grid: Grid | None = None
) -> SavedTransform:
    return SavedTransform(Chain([affine]), Chain([affine.inverse()]), fixed_grid, moving_grid)


def _check_parts_of_ants(transforms: Sequence[AnyTransform]) -> None:
    """Refuse a warp of antsRegistration without its affine, or in the order of ANTs.

    Both would be wrong results that nobody notices.
    """
    names = [os.fspath(t) if isinstance(t, str | os.PathLike) else "" for t in transforms]
    words = [match.groups() if (match := _BRACKETS.fullmatch(n)) else (n, "0") for n in names]
    files = [(os.path.abspath(name) if name else "", back) for name, back in words]
    for place, (file, _) in enumerate(files):
        parts = _ANTS_WARP.fullmatch(os.path.basename(file))
        affine = os.path.join(os.path.dirname(file), f"{parts[1]}{AFFINE}") if parts else ""
        if not parts or not os.path.lexists(affine) or os.path.isdir(file):
            continue
        beside, need = (place + 1, "1") if parts[2] else (place - 1, "0")
        if 0 <= beside < len(files) and files[beside] == (affine, need):
            continue
        linear = f"[{affine},1]" if parts[2] else affine
        order = f"{file}, then {linear}" if parts[2] else f"{linear}, then {file}"
        raise InputError(
            f"transform {file}: this is one part of a registration, and {os.path.basename(affine)} "
            f"beside it is the other; give their folder, or {order}: the order in which an image "
            f"travels, which is the reverse of that of ANTs"
        )


def _of_field(path: Path) -> SavedTransform:
    """A displacement field alone, whose inverse is not known."""
    warp = read_warp(path)
    missing = MissingWarp(
        path,
        f"transform {path}: a displacement field holds one direction, and the other is needed "
        f"here; give the field of the other direction in its place, if there is one",
    )
    warnings = {os.path.abspath(path): warp_warnings(path)}
    return SavedTransform(Chain([warp]), Chain([missing]), warp.grid, None, warnings)


def _of_composite(path: Path, inverse_path: Path | None) -> SavedTransform:
    """A composite with the file of its inverse, if that exists.

    Raises:
        InputError: one of them cannot be read, or they are not inverse to each other.
    """
    steps = read_composite(path)
    grid = steps[0].grid if isinstance(steps[0], Warp) else None
    if all(isinstance(step, Affine) for step in steps):
        backward = Chain([cast(Affine, step).inverse() for step in reversed(steps)])
        return SavedTransform(Chain(steps), backward, grid, None)
    if inverse_path is None:
        missing = MissingWarp(
            path,
            f"transform {path}: the file holds one direction, and the other is needed here; give "
            f"the file of the other direction, such as {INVERSE_COMPOSITE} beside {COMPOSITE}, or "
            f"from-B_to-A beside from-A_to-B",
        )
        return SavedTransform(Chain(steps), Chain([missing]), grid, None)
    backward = Chain(read_composite(inverse_path))
    _check_inverse(Chain(steps), backward, (path, inverse_path))
    return SavedTransform(Chain(steps), backward, grid, None)


_DIRECTION = re.compile(r"_from-([A-Za-z0-9+]+)_to-([A-Za-z0-9+]+)_")


def _counterpart(path: Path) -> Path | None:
    """The file of the opposite direction beside a composite, by its name; None if there is none."""
    if _DIRECTION.search(path.name):
        name = _DIRECTION.sub(r"_from-\2_to-\1_", path.name)
    elif path.name.endswith(INVERSE_COMPOSITE):
        name = path.name.removesuffix(INVERSE_COMPOSITE) + COMPOSITE
    elif path.name.endswith(COMPOSITE):
        name = path.name.removesuffix(COMPOSITE) + INVERSE_COMPOSITE
    else:
        return None
    return path.with_name(name) if os.path.lexists(path.with_name(name)) else None


# Millimetres. Set by hand: the median error of our own inverses is below a hundredth.
_INVERSE_ERROR = 1.0


def _check_inverse(forward: Chain, backward: Chain, paths: tuple[Path, Path]) -> None:
    """Refuse two files that are of different registrations, although their names say otherwise."""
    grids = [step.grid for step in forward.transforms if isinstance(step, Warp)]
    points = _inner_points(grids[0])
    start = forward.transforms[0]
    if not isinstance(start, Warp):  # the field is not where the points come from
        points = backward.map(points)
    error = np.linalg.norm(backward.map(forward.map(points)) - points, axis=1)
    if np.median(error) > _INVERSE_ERROR:
        raise InputError(
            f"transform {paths[0]}: {paths[1].name} beside it is not its inverse (points come back "
            f"{np.median(error):.1f} mm off); the files are of different registrations: register "
            f"again"
        )


def _inner_points(grid: Grid) -> np.ndarray:
    """Points (N, 3) within a grid, away from its borders, RAS mm."""
    axes = [np.linspace(0.3, 0.7, 5) * (n - 1) for n in grid.shape]
    return grid.to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))


def _load_preprocessed(path: Path) -> SavedTransform:
    """The affine map between a scan and its aligned brain, as a registration to the brain."""
    grids = (_read_grid(path / PREPROCESSED, name) for name in ("aligned", "scan"))
    loaded = _of_affine(read_affine(path / AFFINE), *grids)
    return replace(loaded, header_warnings=_recorded_warnings(path / PREPROCESSED))


def _read_grid(record: Path, name: str) -> Grid | None:
    """A grid from a JSON record; None if the record or the grid is missing.

    Raises:
        InputError: the content of the record was not fetched.
    """
    if os.path.lexists(record):
        check_readable(record, "transform")
    try:
        return Grid(**read_json(record)["grids"][name])
    except (OSError, KeyError, ValueError, TypeError):
        return None


def _recorded_warnings(record: Path) -> dict[str, tuple[str, ...]]:
    """What a JSON record says of the headers of the scans; nothing if there is no such record."""
    try:
        inputs = read_json(record)["inputs"]
        entries = [inputs[name] for name in ("moving", "fixed", "scan") if inputs.get(name)]
        return {
            str(entry.get("path")): tuple(str(text) for text in entry["header_warnings"])
            for entry in entries
            if "header_warnings" in entry
        }
    except (OSError, KeyError, ValueError, TypeError, AttributeError):
        return {}
