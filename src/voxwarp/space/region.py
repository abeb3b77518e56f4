"""Blocks of an array: the bounding box of a mask, and its start and shape for a grid."""

from collections.abc import Sequence

import numpy as np


def bounding_box(mask: np.ndarray, margin: int = 1) -> tuple[slice, slice, slice]:
    """Slices of the smallest block around a mask, with a margin.

    Args:
        mask: (X, Y, Z) boolean array; the box of an empty mask is the whole array.
        margin: voxels on each side, within the array.
    """
    box = []
    for axis in range(3):
        planes = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (planes[0], planes[-1] + 1) if planes.size else (0, mask.shape[axis])
        box.append(slice(max(0, low - margin), min(mask.shape[axis], high + margin)))
    return box[0], box[1], box[2]


def start_and_shape(box: Sequence[slice]) -> tuple[list[int], list[int]]:
    """First voxel and number of voxels of a block along each axis, as for ``Grid.crop``."""
    return [side.start for side in box], [side.stop - side.start for side in box]
