"""Resampling: values of a volume on another grid, through any transform, interpolated once."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from ..fields import compiled, field
from .grid import Grid
from .transform import PART_VOXELS, SLAB_VOXELS, Chain, Transform, grid_map, planes_of
from .volume import Volume

Interpolation = Literal["linear", "nearest", "cubic"]

_Interpolator = Callable[[np.ndarray], np.ndarray]  # voxel coordinates (..., 3) to values
_CORNERS = list(itertools.product((0, 1), repeat=3))  # of a cell between 2³ voxel centres
# Weights that differ by less are ties, because coordinates are rounded. Set by hand.
_TIE = 1e-6
# Voxels by which a coordinate may miss the outer voxel centres and still count as on them.
# Set by hand, far above the rounding of coordinates.
_SNAP = 1e-3


def resample(
    volume: Volume,
    grid: Grid,
    transform: Transform | None = None,
    *,
    interpolation: Interpolation = "linear",
    padding: field.Padding = "zeros",
    background: float = 0.0,
) -> Volume:
    """Resample a volume onto a grid: moved(x) = volume(transform(x)) at every voxel centre x.

    Args:
        volume: the moving volume, (X, Y, Z) or (X, Y, Z, T).
        grid: grid of the result.
        transform: maps points of the result's space to points of the volume's space, RAS mm;
            by default the identity.
        interpolation: "linear"; "cubic" (B-spline); or "nearest", which copies values exactly.
        padding: values outside the volume: "zeros", which is ``background``, or "border" for the
            value at the nearest point of its border (not with "cubic").
        background: the value outside the volume, see ``Volume.background``.

    Returns:
        The values in the type of ``volume``: integers are rounded and kept in range. A NaN or
        infinite voxel makes NaN or infinite what is interpolated from it (with "cubic", what is
        in the eight cells around it), and nothing else.
    """
    moved = frame_resampler(
        _first_frame(volume),
        grid,
        transform,
        interpolation=interpolation,
        padding=padding,
        background=background,
    )
    return _frame_by_frame(volume, grid, moved)


def frame_resampler(
    first: Volume,
    grid: Grid,
    transform: Transform | None = None,
    *,
    interpolation: Interpolation = "linear",
    padding: field.Padding = "zeros",
    background: float = 0.0,
    many: bool = False,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that resamples the frames of a series as ``resample`` does, one at a time.

    Where the voxels go is computed once, unless that would take much more memory than a frame.

    Args:
        first: the first frame; all others have its grid and its type.
        grid, transform, interpolation, padding, background: see ``resample``.
        many: whether many frames follow, so that it pays to arrange more beforehand.

    Returns:
        From a frame, (X, Y, Z), to its values on ``grid``, in its type.
    """
    if background != 0 and padding == "zeros":
        return _with_background(first, grid, transform, interpolation, background, many)
    planes = max(1, PART_VOXELS // (grid.shape[1] * grid.shape[2]))
    if grid.shape[0] > planes and _has_kernel(first, interpolation, padding):
        return lambda frame: _in_parts(
            replace(first, data=frame), grid, planes, transform, interpolation, padding
        )
    fast = _compiled_interpolator(first, grid, transform, interpolation, padding, many)
    if fast is not None:
        return fast
    return _slab_by_slab(
        first.grid, grid, transform, lambda frame: _interpolator(frame, interpolation, padding)
    )


def _with_background(
    first: Volume,
    grid: Grid,
    transform: Transform | None,
    interpolation: Interpolation,
    background: float,
    many: bool,
) -> Callable[[np.ndarray], np.ndarray]:
    """``frame_resampler`` for a background other than 0.

    Copied values, and NaN, are put where the image does not reach. Interpolated values fade into
    the background as they do into 0: it is subtracted before and added afterwards.
    """
    dtype = first.data.dtype
    if interpolation == "nearest" or np.isnan(background):
        outside = ~reached(first, grid, transform)
        copied = frame_resampler(first, grid, transform, interpolation=interpolation, many=many)
        return lambda frame: np.where(outside, dtype.type(background), copied(frame))
    worked = np.dtype(_float(dtype))
    level = worked.type(background)
    shifted_resampler = frame_resampler(
        replace(first, data=first.data.astype(worked)),
        grid,
        transform,
        interpolation=interpolation,
        many=many,
    )

    def moved(frame: np.ndarray) -> np.ndarray:
        shifted = frame.astype(worked)
        shifted -= level
        values = shifted_resampler(shifted)
        values += level
        return _cast(values, dtype)

    return moved


def reached(volume: Volume, grid: Grid, transform: Transform | None = None) -> np.ndarray:
    """Whether an image reaches the voxels of a grid, half a voxel beyond its outer centres."""
    ones = replace(_first_frame(volume), data=np.ones(volume.grid.shape, np.uint8))
    return resample(ones, grid, transform, interpolation="nearest").data != 0


def border_warning(volume: Volume, what: str, grid: Grid, transform: Transform) -> str:
    """What is in doubt where a grid reaches beyond an image, see ``Volume.background``.

    Args:
        volume: the image.
        what: its role, the first words of the sentence.
        grid, transform: as in ``resample``.

    Returns:
        A sentence; "" if nothing is, or the grid reaches nowhere beyond the image.
    """
    doubt = volume.background.doubt
    if not doubt or reached(volume, grid, transform).all():
        return ""
    return f"{what} {volume.name}: the result reaches beyond the image; {doubt}"


def resample_labels(
    labels: Volume,
    grid: Grid,
    transform: Transform | None = None,
    *,
    interpolation: Literal["nearest", "linear"] = "nearest",
) -> Volume:
    """Resample a label map onto a grid; outside the map the label is 0.

    Args:
        labels: label map, (X, Y, Z) or (X, Y, Z, T); whole numbers in any type.
        grid: grid of the result.
        transform: maps points of the result's space to points of the labels' space, RAS mm; by
            default the identity.
        interpolation: "nearest" copies the label of the nearest voxel. "linear" interpolates the
            indicator of each label (1 in its voxels, else 0), background included, and takes
            the label with the largest value; ties go to the lowest label. The time does not
            depend on the number of labels.

    Returns:
        The labels in their type: only values of the map, and 0.
    """
    if interpolation == "nearest":
        return resample(labels, grid, transform, interpolation="nearest")
    moved = _slab_by_slab(labels.grid, grid, transform, _label_interpolator)
    return _frame_by_frame(labels, grid, moved)


def _in_parts(
    volume: Volume,
    grid: Grid,
    planes: int,
    transform: Transform | None,
    interpolation: Interpolation,
    padding: field.Padding,
) -> np.ndarray:
    """``resample`` onto so many planes of a large grid at a time.

    At once, coordinates and interpolated displacements would take several times the memory of the
    result.
    """
    out = np.empty(grid.shape, volume.data.dtype)
    dtype = np.float32 if interpolation == "linear" else out.dtype
    source = replace(volume, data=np.ascontiguousarray(volume.data, dtype))  # once for all parts
    for first in range(0, grid.shape[0], planes):
        last = min(first + planes, grid.shape[0])
        part, through = planes_of(grid, transform or Chain([]), first, last)
        values = resample(source, part, through, interpolation=interpolation, padding=padding)
        out[first:last] = _cast(values.data, out.dtype)
    return out


def _first_frame(volume: Volume) -> Volume:
    return volume if volume.data.ndim == 3 else replace(volume, data=volume.data[..., 0])


def _frame_by_frame(
    volume: Volume, grid: Grid, moved: Callable[[np.ndarray], np.ndarray]
) -> Volume:
    """The volume on another grid, by a function for one frame."""
    if volume.data.ndim == 3:
        return replace(volume, data=moved(volume.data), grid=grid)
    frames = volume.data.shape[-1]
    out = np.empty((*grid.shape, frames), volume.data.dtype, order="F")
    for t in range(frames):
        out[..., t] = moved(volume.data[..., t])
    return replace(volume, data=out, grid=grid)


def _slab_by_slab(
    source: Grid,
    grid: Grid,
    transform: Transform | None,
    interpolator: Callable[[np.ndarray], _Interpolator],
) -> Callable[[np.ndarray], np.ndarray]:
    """From a frame to its values on ``grid``, some planes of it at a time."""
    through = transform or Chain([])
    rows = max(1, SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    slabs = [(first, min(first + rows, grid.shape[0])) for first in range(0, grid.shape[0], rows)]

    def coordinates() -> Iterator[np.ndarray]:
        for slab in slabs:
            yield source.to_voxel(through.map_nodes(grid, *slab))

    kept = list(coordinates()) if len(slabs) == 1 else None

    def moved(frame: np.ndarray) -> np.ndarray:
        out, interpolate = np.empty(grid.shape, frame.dtype), interpolator(frame)
        for (first, last), voxels in zip(slabs, kept or coordinates(), strict=True):
            out[first:last] = _cast(interpolate(voxels), out.dtype)
        return out

    return moved


def _compiled_interpolator(
    volume: Volume,
    grid: Grid,
    transform: Transform | None,
    interpolation: Interpolation,
    padding: field.Padding,
    many: bool,
) -> Callable[[np.ndarray], np.ndarray] | None:
    """From a frame to its values on ``grid`` by compiled kernels; None if they cannot do it."""
    if not _has_kernel(volume, interpolation, padding):
        return None
    where = grid_map(transform or Chain([]), grid)
    if where is None:
        return None
    to_voxels = where.then(np.linalg.inv(volume.grid.affine))
    if interpolation == "linear":

        def interpolated(frame: np.ndarray) -> np.ndarray:
            values = np.ascontiguousarray(frame, np.float32)
            extend = padding == "border"
            out = compiled.resample(values, grid.shape, to_voxels, extend=extend)
            return _cast(out, volume.data.dtype)

        return interpolated
    voxels = compiled.nearest_voxels(volume.grid.shape, grid.shape, to_voxels)
    voxels[voxels < 0] = volume.data.size  # a zero beyond the last voxel
    if many:  # in the order of a file, so that frames need not be brought into it
        voxels = np.ascontiguousarray(voxels.T, np.uint32)

    def copied(frame: np.ndarray) -> np.ndarray:
        values = np.zeros(frame.size + 1, frame.dtype)
        values[:-1] = frame.ravel()
        return compiled.copied(values, voxels).T if many else values.take(voxels)

    return copied


def _has_kernel(volume: Volume, interpolation: Interpolation, padding: field.Padding) -> bool:
    linear = interpolation == "linear" and _float(volume.data.dtype) is np.float32
    nearest = interpolation == "nearest" and padding == "zeros"
    return (linear or nearest) and compiled.enabled() and min(volume.data.shape[:3]) > 1


def _interpolator(
    frame: np.ndarray, interpolation: Interpolation, padding: field.Padding
) -> _Interpolator:
    nearest = interpolation == "nearest"
    dtype = frame.dtype.newbyteorder("=") if nearest else _float(frame.dtype)
    frame = np.array(frame, dtype=dtype, order="C")
    if interpolation == "cubic":
        return _spline_interpolator(frame)
    source = torch.from_numpy(frame)[None, None]

    def interpolate(voxels: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(np.ascontiguousarray(np.moveaxis(voxels, -1, 0)))[None]
        return field.sample(source, at, nearest=nearest, padding=padding)[0, 0].numpy()

    return interpolate


def _spline_interpolator(frame: np.ndarray) -> _Interpolator:
    missing = ~np.isfinite(frame)
    if missing.any():  # the filter would spread them through the whole image
        return _spline_around(frame, missing)
    coefficients = ndimage.spline_filter(frame, order=3, output=np.float64)
    last = np.asarray(frame.shape) - 1

    def interpolate(voxels: np.ndarray) -> np.ndarray:
        # SciPy returns zero beyond the outer voxel centres; rounding must not push nodes there.
        snapped = np.clip(voxels, 0, last)
        voxels = np.where(np.abs(snapped - voxels) < _SNAP, snapped, voxels)
        at = np.moveaxis(voxels, -1, 0)
        return ndimage.map_coordinates(coefficients, at, order=3, mode="constant", prefilter=False)

    return interpolate


def _spline_around(frame: np.ndarray, missing: np.ndarray) -> _Interpolator:
    """Splines through the other voxels; NaN in the cells of those that are missing."""
    if missing.all():
        frame = np.zeros_like(frame)
    else:
        nearest = ndimage.distance_transform_edt(
            missing, return_distances=False, return_indices=True
        )
        frame = frame[tuple(nearest)]
    interpolate = _spline_interpolator(frame)
    gaps = missing.astype(np.float32)

    def interpolate_around(voxels: np.ndarray) -> np.ndarray:
        at = np.moveaxis(voxels, -1, 0)
        share = ndimage.map_coordinates(gaps, at, order=1, mode="grid-constant")
        return np.where(share > _TIE, np.nan, interpolate(voxels))

    return interpolate_around


def _label_interpolator(frame: np.ndarray) -> _Interpolator:
    """A function from voxel coordinates (..., 3) to the label with the largest linear weight.

    Weights are computed only in the cells whose corners have several labels: they are few.
    """
    padded = np.pad(frame.astype(frame.dtype.newbyteorder("=")), 1)  # 0 outside the volume
    offsets = np.array(_CORNERS) @ (padded[0].size, padded.shape[2], 1)
    source, mixed = padded.ravel(), _mixed_cells(padded).ravel()

    def interpolate(voxels: np.ndarray) -> np.ndarray:
        at = np.clip(voxels.reshape(-1, 3), -1, frame.shape) + 1
        low = np.minimum(at.astype(np.intp), frame.shape)
        cell = np.ravel_multi_index((low[:, 0], low[:, 1], low[:, 2]), padded.shape)
        out = source[cell]
        points = np.flatnonzero(mixed[cell])
        corners = source[cell[points] + offsets[:, None]]
        out[points] = _heaviest(corners, _corner_weights(at[points] - low[points]))
        return out.reshape(voxels.shape[:-1])

    return interpolate


def _mixed_cells(labels: np.ndarray) -> np.ndarray:
    """(X, Y, Z): whether the cell of 2³ voxels that starts at a voxel has several labels."""
    x, y, z = (n - 1 for n in labels.shape)
    mixed = np.zeros(labels.shape, bool)
    for i, j, k in _CORNERS:
        mixed[:x, :y, :z] |= labels[i : i + x, j : j + y, k : k + z] != labels[:x, :y, :z]
    return mixed


def _corner_weights(fraction: np.ndarray) -> np.ndarray:
    """(8, n) trilinear weights of a cell's corners for points (n, 3) in [0, 1]."""
    x, y, z = ((1 - f, f) for f in fraction.T)
    return np.stack([x[i] * y[j] * z[k] for i, j, k in _CORNERS])


def _heaviest(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,): the label with the largest sum of weights among (8, n); of ties, the lowest."""
    total = np.stack([(weights * (labels == one)).sum(axis=0) for one in labels])
    best = total >= total.max(axis=0) - _TIE
    return np.where(best, labels, labels.max(axis=0)).min(axis=0)


def _float(dtype: np.dtype) -> type:
    """The type to interpolate in: float32 holds values of up to 16 bits exactly."""
    return np.float32 if dtype == np.float32 or dtype.itemsize <= 2 else np.float64


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The values in another type; they may change, to save a copy."""
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind in "iu" and values.dtype.kind == "f":
        info = np.iinfo(dtype)
        np.rint(values, out=values)
        return np.clip(values, info.min, info.max, out=values).astype(dtype)
    return values.astype(dtype, copy=False)
