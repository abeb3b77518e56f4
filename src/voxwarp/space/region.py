"""Blocks of an array: the one around a mask, and a block as a grid is cropped by."""

from collections.abc import Sequence

import numpy as np


def bounding_box(mask: np.ndarray, margin: int = 1) -> tuple[slice, slice, slice]:
    """Slices of the smallest block that holds a mask and a margin; everything if it is empty."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (hit[0], hit[-1] + 1) if hit.size else (0, mask.shape[axis])
        box.append(slice(max(0, low - margin), min(mask.shape[axis], high + margin)))
    return box[0], box[1], box[2]


def start_and_shape(box: Sequence[slice]) -> tuple[list[int], list[int]]:
    """First voxel and number of voxels along each axis of a block, as ``Grid.crop`` wants them."""
    return [side.start for side in box], [side.stop - side.start for side in box]
