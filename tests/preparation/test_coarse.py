"""Volumes averaged down: their values, their grids, and how long they are kept."""

import gc
import weakref

import numpy as np
import pytest
import torch
from phantoms import apply_affine, blobs, homogeneous, near_identity, oblique_grid

from voxwarp.preparation.coarse import Coarse
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume


def fine_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    """An oblique grid with the given spacing."""
    turned = oblique_grid(4, shape).direction
    return Grid(shape, homogeneous(turned * spacing, (12, -30, 7)))


def test_a_coarse_image_has_the_means_of_blocks():
    grid = fine_grid((12, 9, 10), (2.0, 2.7, 4.0))
    data = np.random.default_rng(0).integers(-500, 500, grid.shape).astype(np.int16)
    expected = data.reshape(3, 4, 3, 3, 5, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(Coarse.of(Volume(data, grid), 8.0).image[0, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("spacing", [2.0, 4.0, 8.0, 11.0])
def test_coarse_voxels_are_where_their_grid_says(spacing):
    """The R, A and S coordinates as images: after averaging they still are the coordinates."""
    grid = fine_grid((13, 21, 10), (1.9, 1.2, 4.1))
    for axis, coordinate in enumerate(np.moveaxis(grid.nodes(), -1, 0)):
        coarse = Coarse.of(Volume(coordinate, grid), spacing)
        np.testing.assert_allclose(
            coarse.image[0, 0], coarse.grid.nodes()[..., axis], rtol=0, atol=1e-3
        )


def test_axes_that_are_coarse_already_stay():
    grid = fine_grid((16, 6, 3), (1.0, 7.0, 20.0))
    data = blobs(2, grid.shape)
    coarse = Coarse.of(Volume(data, grid), 4.0)
    np.testing.assert_allclose(coarse.image[0, 0], data.reshape(4, 4, 6, 3).mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(coarse.grid.spacing, (4.0, 7.0, 20.0))


def test_an_axis_shorter_than_a_block_becomes_one_voxel_in_its_middle():
    grid = fine_grid((3, 16, 16), (1.0, 1.0, 1.0))
    coarse = Coarse.of(Volume(np.ones(grid.shape), grid), 8.0)
    assert coarse.grid.shape == (1, 2, 2)
    np.testing.assert_allclose(coarse.grid.to_world([0, 0, 0]), grid.to_world([1, 3.5, 3.5]))


def test_centre_and_volume_are_those_of_the_voxels_that_are_not_zero():
    grid = oblique_grid(1, (12, 13, 14))
    data = (blobs(5, grid.shape) > 0.3).astype(np.float32) * 7
    centre, volume = Coarse.of(Volume(data, grid), 0.1).centre_and_volume
    expected = apply_affine(grid.affine, np.argwhere(data > 0)).mean(axis=0)
    np.testing.assert_allclose(centre, expected, atol=1e-9)
    assert volume == pytest.approx(np.count_nonzero(data) * np.prod(grid.spacing))


def test_nodes_in_another_image_are_mapped_to_its_voxels():
    grids = oblique_grid(1, (7, 8, 9)), oblique_grid(2, (9, 6, 8))
    one, other = (Coarse(torch.zeros(1, 1, *grid.shape), grid) for grid in grids)
    transform = Affine(near_identity(5))
    expected = other.grid.to_voxel(transform.map(one.grid.nodes()))
    got = one.nodes_in(other, transform)[0]
    np.testing.assert_allclose(np.moveaxis(got.numpy(), 0, -1), expected, atol=1e-3)


def test_an_image_reaches_half_a_voxel_beyond_its_outer_centres():
    grid = fine_grid((4, 5, 6), (1.0, 1.0, 1.0))
    coarse = Coarse(torch.zeros(1, 1, *grid.shape), grid)
    at = torch.tensor([[-0.6, 2, 2], [-0.5, 2, 2], [3.5, 4.5, 5.5], [3.6, 2, 2], [2, 2, 5.6]])
    reached = coarse.reaches(at.T.reshape(1, 3, 5, 1, 1))
    assert reached.flatten().tolist() == [False, True, True, False, False]


def test_averages_are_kept_as_long_as_their_volume():
    grid = fine_grid((16, 16, 16), (1.0, 1.0, 1.0))
    volume = Volume(blobs(3, grid.shape), grid)
    first, other = Coarse.of(volume, 4.0), Coarse.of(volume, 8.0)
    assert Coarse.of(volume, 4.0) is first
    assert (first.grid.shape, other.grid.shape) == ((4, 4, 4), (2, 2, 2))
    kept = weakref.ref(first)
    del first, volume
    gc.collect()
    assert kept() is None
