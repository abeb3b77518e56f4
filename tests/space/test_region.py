"""Blocks of an array against masks of two voxels."""

import numpy as np

from voxwarp.space.region import bounding_box, start_and_shape

SHAPE = (12, 13, 14)


def test_the_bounding_box_holds_the_mask_and_its_margin_and_no_more() -> None:
    mask = np.zeros((10, 11, 12), bool)
    mask[3, 5, 2], mask[6, 5, 11] = True, True
    assert bounding_box(mask, margin=0) == (slice(3, 7), slice(5, 6), slice(2, 12))
    assert bounding_box(mask, margin=2) == (slice(1, 9), slice(3, 8), slice(0, 12))
    everything = (slice(0, 10), slice(0, 11), slice(0, 12))
    assert bounding_box(np.zeros_like(mask)) == everything
    assert start_and_shape(bounding_box(mask)) == ([2, 4, 1], [6, 3, 11])
