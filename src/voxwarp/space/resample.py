"""Values of a volume on another grid, through any chain of transforms, interpolated once."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from ..fields import field
from .grid import Grid
from .transform import SLAB_VOXELS, Chain, Transform
from .volume import Volume

Interpolation = Literal["linear", "nearest", "cubic"]

_Reader = Callable[[np.ndarray], np.ndarray]  # voxel coordinates (..., 3) to values
_CELL = list(itertools.product((0, 1), repeat=3))  # corners of a cell of 2³ voxels
_TIE = 1e-6  # weights that differ by less are equal: coordinates carry rounding


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
    read = [_reader(frame, interpolation, beyond) for frame in _frames(volume)]
    return _resampled(volume, onto, through, read)


def resample_labels(
    labels: Volume,
    onto: Grid,
    through: Transform | None = None,
    *,
    interpolation: Literal["nearest", "linear"] = "nearest",
) -> Volume:
    """The label at through(x) for every voxel centre x of ``onto``; outside of the map it is 0.

    Args:
        labels: label map, (X, Y, Z) or (X, Y, Z, T); integers of any type, or floats that hold
            whole numbers.
        onto: grid of the result.
        through: maps points of ``onto``'s space to the labels', RAS mm; identity by default.
        interpolation: "nearest" copies the nearest voxel's label. "linear" takes the label,
            background included, whose indicator (1 where the map has it, else 0) is largest
            when interpolated trilinearly; ties go to the lowest label. The time does not depend
            on the number of labels.

    Returns:
        The labels in their type; no value that was not there, but for 0.
    """
    if interpolation == "nearest":
        return resample(labels, onto, through, interpolation="nearest")
    return _resampled(labels, onto, through, [_majority(frame) for frame in _frames(labels)])


def _frames(volume: Volume) -> list[np.ndarray]:
    data = volume.data
    return [data] if data.ndim == 3 else [data[..., t] for t in range(data.shape[-1])]


def _resampled(
    volume: Volume, onto: Grid, through: Transform | None, read: Sequence[_Reader]
) -> Volume:
    """The volume with what the readers, one a frame, find at the nodes of ``onto``."""
    out = np.empty((*onto.shape, len(read)), dtype=volume.data.dtype)
    through = through or Chain([])
    rows = max(1, SLAB_VOXELS // (onto.shape[1] * onto.shape[2]))
    for first in range(0, onto.shape[0], rows):
        last = min(first + rows, onto.shape[0])
        voxels = volume.grid.to_voxel(through.map_nodes(onto, first, last))
        for t, frame in enumerate(read):
            out[first:last, ..., t] = _cast(frame(voxels), out.dtype)
    data = out[..., 0] if volume.data.ndim == 3 else out
    return replace(volume, data=data, grid=onto)


def _reader(frame: np.ndarray, interpolation: Interpolation, beyond: field.Padding) -> _Reader:
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


def _spline(frame: np.ndarray) -> _Reader:
    coefficients = ndimage.spline_filter(frame, order=3, output=np.float64)
    last = np.asarray(frame.shape) - 1

    def read(voxels: np.ndarray) -> np.ndarray:
        # SciPy has zero from the outer voxel centres on: rounding must not push nodes past them.
        snapped = np.clip(voxels, 0, last)
        voxels = np.where(np.abs(snapped - voxels) < 1e-3, snapped, voxels)
        at = np.moveaxis(voxels, -1, 0)
        return ndimage.map_coordinates(coefficients, at, order=3, mode="constant", prefilter=False)

    return read


def _majority(frame: np.ndarray) -> _Reader:
    """A function from voxel coordinates (..., 3) to the label of the largest linear weight.

    Only cells whose corners differ are looked at closely: they are few.
    """
    padded = np.pad(frame.astype(frame.dtype.newbyteorder("=")), 1)  # 0 beyond the volume
    steps = np.array(_CELL) @ (padded[0].size, padded.shape[2], 1)
    source, mixed = padded.ravel(), _mixed(padded).ravel()

    def read(voxels: np.ndarray) -> np.ndarray:
        at = np.clip(voxels.reshape(-1, 3), -1, frame.shape) + 1
        low = np.minimum(at.astype(np.intp), frame.shape)
        cell = np.ravel_multi_index((low[:, 0], low[:, 1], low[:, 2]), padded.shape)
        out = source[cell]
        unsure = np.flatnonzero(mixed[cell])
        corners = source[cell[unsure] + steps[:, None]]
        out[unsure] = _heaviest(corners, _corner_weights(at[unsure] - low[unsure]))
        return out.reshape(voxels.shape[:-1])

    return read


def _mixed(labels: np.ndarray) -> np.ndarray:
    """(X, Y, Z): whether the cell of 2³ voxels that begins at a voxel has several labels."""
    x, y, z = (n - 1 for n in labels.shape)
    mixed = np.zeros(labels.shape, bool)
    for i, j, k in _CELL:
        mixed[:x, :y, :z] |= labels[i : i + x, j : j + y, k : k + z] != labels[:x, :y, :z]
    return mixed


def _corner_weights(fraction: np.ndarray) -> np.ndarray:
    """(8, n) trilinear weights of a cell's corners for points (n, 3) in [0, 1]."""
    x, y, z = ((1 - f, f) for f in fraction.T)
    return np.stack([x[i] * y[j] * z[k] for i, j, k in _CELL])


def _heaviest(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,) the label with the largest sum of weights among (8, n); the lowest of equal ones."""
    total = np.stack([(weights * (labels == one)).sum(axis=0) for one in labels])
    best = total >= total.max(axis=0) - _TIE
    return np.where(best, labels, labels.max(axis=0)).min(axis=0)


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
