"""The brain of a scan on any grid: bias field removed, masked, interpolated once."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms import homogeneous, near_identity, oblique_grid
from scipy import ndimage

from voxwarp.preparation.examination import Examination
from voxwarp.preparation.intensity import from_zero
from voxwarp.preparation.masking import brain_mask, brain_on, mask_on, unbiased
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume, read_volume


def sampled(volume: Volume, points: np.ndarray, mode: str = "constant") -> np.ndarray:
    """SciPy's linear interpolation at RAS points."""
    at = np.moveaxis(volume.grid.to_voxel(points), -1, 0)
    return ndimage.map_coordinates(volume.data.astype(np.float64), at, order=1, mode=mode)


def test_on_its_own_grid_a_brain_is_not_interpolated(phantoms, poses, make_grid):
    grid = make_grid("LPI", (4, 4.5, 4), turn=(5, -4, 8))
    volume = from_zero(read_volume(phantoms.image(grid, poses.moving, dtype=np.int16)))
    found = Examination("brain", volume.grid, Affine(np.eye(4)))
    got = found.brain_of(volume, volume.grid)
    np.testing.assert_array_equal(got.data, volume.data)


def test_a_brain_is_interpolated_once_divided_by_the_field_and_masked(phantoms, poses, make_grid):
    """On another grid through an affine map, as SciPy interpolates it."""
    grid = make_grid("LPI", (4, 4.5, 4), turn=(5, -4, 8), room=25)
    volume = from_zero(read_volume(phantoms.head(grid, poses.moving)))
    coarse = volume.grid.resized((5, 6, 7))
    log = np.random.default_rng(0).normal(0, 0.3, coarse.shape).astype(np.float32)
    other = make_grid(spacing=6, turn=(0, 9, 0), room=10)
    mask = Volume(phantoms.values(other) > 0, other)
    found = Examination("head", volume.grid, Affine(np.eye(4)), mask, Volume(log, coarse))
    transform, target = Affine(near_identity(4)), make_grid(spacing=(4.7, 5, 5.2))
    points = transform.map(target.nodes())
    soft = sampled(replace(mask, data=mask.data * 1.0), points)
    inside, sure = soft >= 0.5, np.abs(soft - 0.5) > 1e-3
    field = sampled(found.log_bias, points, mode="nearest")
    expected = np.where(inside, sampled(volume, points) / np.exp(field), 0)
    got = brain_on(volume, target, transform, mask=mask, log_bias=found.log_bias).data
    assert 0.05 < inside.mean() < 0.9
    np.testing.assert_allclose(got[sure], expected[sure], atol=0.05)
    np.testing.assert_array_equal(found.brain_of(volume, target, transform).data, got)


def test_beyond_its_grid_the_field_keeps_its_border_value():
    coarse = Grid((4, 5, 6), np.diag([8.0, 8, 8, 1]))
    log = np.random.default_rng(1).normal(0, 0.4, coarse.shape).astype(np.float32)
    grid = Grid((20, 20, 20), homogeneous(np.diag([4.0, 4, 4]), (-20, -20, -20)))
    scan = Volume(np.full(grid.shape, 100, np.float32), grid)
    got = unbiased(scan, Volume(log, coarse)).data
    field = sampled(Volume(log, coarse), grid.nodes(), mode="nearest")
    assert (grid.nodes()[0, 0, 0] < 0).all()
    np.testing.assert_allclose(got, 100 / np.exp(field), rtol=1e-4)
    assert unbiased(scan, None) is scan


def test_a_mask_on_another_grid_is_where_its_interpolation_is_half():
    grid, target = oblique_grid(1, (14, 15, 16)), oblique_grid(1, (14, 15, 16)).resized((9, 20, 11))
    mask = np.zeros(grid.shape, np.int32)
    mask[3:11, 2:9, 5:12] = np.random.default_rng(0).integers(0, 3, (8, 7, 7)) * 7
    soft = sampled(Volume((mask != 0) * 1.0, grid), target.nodes())
    sure = np.abs(soft - 0.5) > 1e-4
    got = mask_on(Volume(mask, grid), target)
    np.testing.assert_array_equal(got[sure], soft[sure] >= 0.5)
    assert 0.05 < got.mean() < 0.5
    np.testing.assert_array_equal(mask_on(Volume(mask, grid), grid), mask != 0)


@pytest.mark.parametrize("background", [0.0, -1000.0, 17.0])
def test_the_mask_of_a_skull_stripped_brain_is_all_but_the_background(
    phantoms, make_grid, background
):
    grid = make_grid("PSR", 5.0)
    values = phantoms.values(grid)
    scan = Volume(np.where(values > 0, values + background + 1, background), grid, "brain.nii")
    mask = brain_mask(scan, grid)
    np.testing.assert_array_equal(mask.data, values > 0)
    assert (mask.data.dtype, mask.grid, mask.name) == (np.uint8, grid, "brain.nii")
    assert mask.is_label_file
