"""Outlines, borders and classes of small arrays."""

import numpy as np
import pytest

from voxwarp.pictures.contours import (
    FINER,
    borders,
    brightest_class,
    enlarged,
    interpolated,
    outline,
)


def square() -> np.ndarray:
    """A rectangle of ones in zeros, 4 pixels high and 5 wide, from (2, 3) on."""
    image = np.zeros((9, 10), np.float32)
    image[2:6, 3:8] = 1
    return image


def test_the_outline_is_the_outermost_ring_above_the_level():
    expected = square() > 0
    expected[3:5, 4:7] = False
    np.testing.assert_array_equal(outline({"axial": square()}, 0.5)["axial"], expected)
    assert not outline({"axial": square()}, 1.5)["axial"].any()


def test_borders_are_left_of_and_above_changes():
    """A line one pixel wide, also between two labels that are not 0."""
    labels = np.full((4, 6), 3)
    labels[:, 3:] = 7
    expected = np.zeros((4, 6), bool)
    expected[:, 2] = True
    np.testing.assert_array_equal(borders({"axial": labels})["axial"], expected)
    expected[:, 3] = True
    np.testing.assert_array_equal(borders({"axial": labels}, inner=True)["axial"], expected)


def test_finer_pixels_repeat_or_interpolate():
    ramp = np.arange(12, dtype=np.float32).reshape(3, 4)
    large, smooth = enlarged({"axial": ramp})["axial"], interpolated({"axial": ramp})["axial"]
    assert large.shape == smooth.shape == (3 * FINER, 4 * FINER)
    blocks = [x.reshape(3, FINER, 4, FINER) for x in (large, smooth)]
    assert (blocks[0] == ramp[:, None, :, None]).all()
    np.testing.assert_allclose(blocks[1].mean(axis=(1, 3))[1, 1:-1], ramp[1, 1:-1], atol=1e-5)


def test_the_threshold_of_the_brightest_class_is_half_way_to_the_next():
    """For three tissues, whatever their numbers of voxels."""
    rng = np.random.default_rng(2)
    kinds = [rng.normal(centre, 0.01, n) for centre, n in ((0.2, 300), (0.5, 900), (0.9, 600))]
    assert brightest_class(np.concatenate(kinds)) == pytest.approx(0.7, abs=0.01)
    assert brightest_class(np.empty(0)) == 0
