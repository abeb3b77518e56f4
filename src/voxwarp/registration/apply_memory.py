"""Predict the memory and disk space that a transformed image takes, before it is made."""

import math
from pathlib import Path

import numpy as np
from isal import isal_zlib

from .._files import free_space
from .._memory import free_memory
from ..errors import NotEnoughMemoryError, NotEnoughSpaceError
from ..space.grid import Grid
from ..space.resample import Interpolation
from ..space.transform import PART_VOXELS, SLAB_VOXELS
from ..space.volume import Volume

# Bytes, by reckoning which arrays exist at the same time; a test compares them with the peaks of
# whole commands. The program with the transforms and the first frame is in memory already.
AT_ONCE = 3  # frames of the result, in its type: one is made while one is reordered and written
GRID_MAP = 32  # for each voxel of a part: where it goes, by compiled loops
COORDINATES = 120  # for each voxel of a slab: where it goes, without compiled loops
SLACK = 100_000_000  # compiled loops, buffers of files, small pieces


def predicted_apply_memory(
    shape: tuple[int, ...],
    grid_shape: tuple[int, ...],
    dtype: np.dtype,
    interpolation: Interpolation,
    frames: int,
) -> int:
    """Predict what is added to the memory of the process, in bytes.

    For V voxels of a frame and R of the result, of b bytes, interpolated in f bytes (4 for types
    of up to 16 bits and for floats of 32, else 8): R (b (frames + 2) + f) + V (b + f), for splines
    V (b + 3 f); where the voxels go, 32 for each of at most 2²⁴ and 120 for each of at most 2²⁰;
    and 100 MB.

    Args:
        shape: of a frame.
        grid_shape: of the result's grid.
        dtype: of the values.
        interpolation: how they are interpolated.
        frames: of the result that are in memory at the end; 1 if they are written one by one.
    """
    voxels, result = math.prod(shape), math.prod(grid_shape)
    narrow = dtype == np.float32 or dtype.itemsize <= 2
    worked = 4 if narrow else 8
    source = dtype.itemsize + worked * (3 if interpolation == "cubic" else 1)
    return int(
        result * (dtype.itemsize * (frames - 1 + AT_ONCE) + worked)
        + voxels * source
        + GRID_MAP * min(result, PART_VOXELS)
        + COORDINATES * min(result, SLAB_VOXELS)
        + SLACK
    )


def check_apply_memory(
    first: Volume, grid: Grid, interpolation: Interpolation, *, frames: int
) -> None:
    """Make sure that there is enough memory to transform an image.

    Args:
        first: its first frame.
        grid: of the result.
        interpolation, frames: see ``predicted_apply_memory``.

    Raises:
        NotEnoughMemoryError: less is free.
    """
    need = predicted_apply_memory(
        first.data.shape, grid.shape, first.data.dtype, interpolation, frames
    )
    free = free_memory()
    if need > free:
        images = f"{frames} frames" if frames > 1 else "an image"
        raise NotEnoughMemoryError(
            f"image {first.name}: to transform it to {images} of "
            f"{'×'.join(map(str, grid.shape))} voxels takes about {_size(need)} of memory, "
            f"but only {_size(free)} are free; give a reference with larger voxels, or free "
            f"some memory"
        )


def check_disk(target: Path, first: Volume, frames: int) -> None:
    """Make sure that there is room on the disk for a result.

    A gzipped one that may be too large is taken to be as small, for each frame, as the first.

    Args:
        target: its file.
        first: its first frame.
        frames: number of frames.

    Raises:
        NotEnoughSpaceError: there is less room.
    """
    need, free = first.data.nbytes * frames, free_space(target.parent)
    if need > free and target.name.lower().endswith(".gz"):
        need = frames * len(isal_zlib.compress(first.data.tobytes(order="F"), 1))
    if need > free:
        raise NotEnoughSpaceError(
            f"output {target.name}: there is not enough space on this disk: the result has about "
            f"{_size(need)}, but only {_size(free)} are free; give a reference with larger voxels, "
            f"or make room"
        )


def _size(bytes_: int) -> str:
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e9 else f"{bytes_ / 1e6:.1f} MB"
