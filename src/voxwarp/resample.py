"""Values of a volume on another grid, through any chain of transforms, interpolated once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from . import field
from .grid import Grid
from .transform import SLAB_VOXELS, Chain, Transform
from .volume import Volume

Interpolation = Literal["linear", "nearest", "cubic"]


def resample(
    volume: Volume,
    onto: Grid,
    through: Transform | None = None,
    *,
    interpolation: Interpolation = "linear",
    beyond: field.Padding = "zeros",
) -> Volume:
    """out(x) = volume(through(x)) for every voxel centre x of ``onto``.

    Args:
        volume: the moving volume, (X, Y, Z) or (X, Y, Z, T).
        onto: grid of the result.
        through: maps points of ``onto``'s space to the volume's, RAS mm; identity by default.
        interpolation: "nearest" copies values exactly; "linear"; "cubic" (B-spline).
        beyond: where the volume does not reach: "zeros", or, but not with "cubic", the value at
            the nearest "border" point.

    Returns:
        The values in the type of ``volume``: integers are rounded and kept in range.
    """
    frames = volume.data[..., None] if volume.data.ndim == 3 else volume.data
    out = np.empty((*onto.shape, frames.shape[-1]), dtype=frames.dtype)
    read = [_reader(frames[..., t], interpolation, beyond) for t in range(frames.shape[-1])]
    through = through or Chain([])
    rows = max(1, SLAB_VOXELS // (onto.shape[1] * onto.shape[2]))
    for first in range(0, onto.shape[0], rows):
        last = min(first + rows, onto.shape[0])
        voxels = volume.grid.to_voxel(through.map_nodes(onto, first, last))
        for t, frame in enumerate(read):
            out[first:last, ..., t] = _cast(frame(voxels), out.dtype)
    data = out[..., 0] if volume.data.ndim == 3 else out
    return replace(volume, data=data, grid=onto)


def _reader(
    frame: np.ndarray, interpolation: Interpolation, beyond: field.Padding
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from voxel coordinates (..., 3) to values."""
    nearest = interpolation == "nearest"
    wanted = frame.dtype.newbyteorder("=") if nearest else _float(frame.dtype)
    frame = np.array(frame, dtype=wanted, order="C")
    if interpolation == "cubic":
        return _spline(frame)
    source = torch.from_numpy(frame)[None, None]

    def read(voxels: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(np.ascontiguousarray(np.moveaxis(voxels, -1, 0)))[None]
        return field.sample(source, at, nearest=nearest, padding=beyond)[0, 0].numpy()

    return read


def _spline(frame: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    coefficients = ndimage.spline_filter(frame, order=3, output=np.float64)
    last = np.asarray(frame.shape) - 1

    def read(voxels: np.ndarray) -> np.ndarray:
        # SciPy has zero from the outer voxel centres on: rounding must not push nodes past them.
        snapped = np.clip(voxels, 0, last)
        voxels = np.where(np.abs(snapped - voxels) < 1e-3, snapped, voxels)
        at = np.moveaxis(voxels, -1, 0)
        return ndimage.map_coordinates(coefficients, at, order=3, mode="constant", prefilter=False)

    return read


def _float(dtype: np.dtype) -> type:
    """float32 holds values of up to 16 bits exactly; wider types are interpolated in float64."""
    return np.float32 if dtype == np.float32 or dtype.itemsize <= 2 else np.float64


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind in "iu" and values.dtype.kind == "f":
        info = np.iinfo(dtype)
        return np.clip(np.rint(values), info.min, info.max).astype(dtype)
    return values.astype(dtype, copy=False)
