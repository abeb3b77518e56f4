"""Intensities that start at zero, and their scale."""

import numpy as np

from voxwarp.preparation.intensity import from_zero, scale, scaled
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume


def test_intensities_are_scaled_by_a_percentile_of_what_is_positive():
    image = np.concatenate([np.zeros(50), np.arange(1.0, 102.0)])
    assert scale(image, 99) == 100
    assert scale(image, 50) == 51
    np.testing.assert_allclose(scaled(image, 99), np.minimum(image / 100, 1))
    assert scale(np.zeros(9), 99) == 1
    np.testing.assert_array_equal(scaled(np.array([-3.0, 0]), 99), [0, 0])


def test_intensities_below_zero_are_shifted_and_the_background_is_not():
    brain_values = np.arange(-100.0, 101.0)  # the half percent is -99
    data = np.concatenate([np.zeros(15), brain_values]).reshape(6, 6, 6)
    got = from_zero(Volume(data, Grid(data.shape, np.eye(4)))).data.ravel()
    expected = np.where(brain_values == 0, 0, np.maximum(brain_values + 99.0, 0))
    np.testing.assert_array_equal(got[:15], 0)
    np.testing.assert_allclose(got[15:], expected, atol=0.1)
    assert got.dtype == np.float32


def test_intensities_from_zero_are_as_they_were():
    data = np.random.default_rng(0).integers(0, 4000, (5, 6, 7)).astype(np.uint16)
    data[0, 0, 0] = 0
    grid = Grid(data.shape, np.eye(4))
    np.testing.assert_array_equal(from_zero(Volume(data, grid)).data, data)
    # A background that is not zero becomes zero.
    np.testing.assert_array_equal(from_zero(Volume(data + 17, grid)).data, data)
