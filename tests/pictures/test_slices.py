"""Slices through volumes: positions of the pixels, and their values."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from voxwarp.pictures.slices import (
    MOST_PIXELS,
    PLANES,
    SampledTransform,
    Slices,
    fine,
    side_by_side,
)
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Warp
from voxwarp.space.volume import Volume


def through(grid: Grid, **more: int) -> Slices:
    return Slices.through(grid, np.ones(grid.shape, bool), **more)


@pytest.mark.parametrize("axes", ["RAS", "LPI", "ASR", "SLP", "IAR"])
def test_up_is_up_and_left_is_left(make_grid, axes):
    """The volume holds its own world coordinates."""
    grid = make_grid(axes, spacing=(4, 5, 6))
    slices = through(grid)
    for world in range(3):
        volume = Volume(grid.nodes()[..., world], grid)
        for plane, image in slices.sample(volume).items():
            right, up, step = PLANES[plane]
            plane_grid = slices.grids[plane]
            first = image[:, : plane_grid.shape[0]]
            across, down = np.diff(first, axis=1), np.diff(first, axis=0)
            pixel = plane_grid.spacing[0]
            np.testing.assert_allclose(across, pixel if world == right else 0, atol=1e-4)
            np.testing.assert_allclose(down, -pixel if world == up else 0, atol=1e-4)
            if world == step:  # grows from slice to slice
                tiles = image[0, :: plane_grid.shape[0]]
                np.testing.assert_allclose(np.diff(tiles), plane_grid.spacing[2], atol=1e-4)


def test_all_ways_of_storing_a_scan_give_the_same_pictures(phantoms, make_grid):
    image = phantoms.image(make_grid(spacing=(4, 5, 6), turn=(5, -8, 12)))
    expected = None
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            turned = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)])
            stored = image.as_reoriented(turned)
            volume = Volume(np.asarray(stored.dataobj), Grid(stored.shape, stored.affine))
            slices = Slices.through(volume.grid, volume.data > 0)
            shown = slices.sample(volume)
            if expected is None:
                expected = shown
            for plane in PLANES:
                np.testing.assert_allclose(shown[plane], expected[plane], atol=0.05)


def test_pixels_are_square_and_not_too_many(make_grid):
    for grid in (make_grid(spacing=(1, 1, 5)), make_grid(spacing=(0.5, 0.6, 0.7))):
        for plane in through(grid).grids.values():
            assert plane.spacing[0] == pytest.approx(plane.spacing[1])
            assert max(plane.shape[:2]) <= MOST_PIXELS + 1


def test_slices_are_even_in_the_region_and_have_a_margin():
    grid = Grid((60, 60, 60), np.eye(4))
    region = np.zeros(grid.shape, bool)
    region[20:40, 10:50, 30:47] = True
    slices = Slices.through(grid, region, columns=3)
    at = slices.grids["axial"].to_world([[0, 0, k] for k in range(3)])[:, 2]
    np.testing.assert_allclose(at, [34, 38, 42])
    low = slices.grids["axial"].to_world([0, 0, 0])
    np.testing.assert_allclose(low[:2], [20 - 1.9, 10 - 3.9])


@pytest.mark.parametrize("shape", [(40, 40, 2), (2, 40, 40), (35, 51, 35), (3, 3, 3)])
def test_thin_volumes_have_fewer_slices(shape):
    slices = through(Grid(shape, np.diag([2.0, 2, 3, 1])))
    volume = Volume(np.random.default_rng(0).random(shape), Grid(shape, np.diag([2.0, 2, 3, 1])))
    for plane, image in slices.sample(volume).items():
        step = PLANES[plane][2]
        assert 1 <= slices.grids[plane].shape[2] <= max(1, shape[step])
        assert np.isfinite(image).all()
        assert image.any()


def test_an_empty_region_means_the_whole_grid():
    grid = Grid((20, 20, 20), np.eye(4))
    empty, full = (Slices.through(grid, np.full(grid.shape, f)) for f in (False, True))
    assert empty.grids == full.grids


def test_fine_pixels_fill_the_coarse_one():
    grid = Grid((4, 5, 3), np.diag([2.0, 2, 7, 1]))
    parts = fine(grid, 2).nodes().reshape(4, 2, 5, 2, 3, 3)
    np.testing.assert_allclose(parts.mean(axis=(1, 3)), grid.nodes())
    assert fine(grid, 2).spacing == (1, 1, 7)


def test_side_by_side():
    slices = np.arange(2 * 3 * 2).reshape(2, 3, 2)  # right, up, slice
    picture = side_by_side(slices)
    assert picture.shape == (3, 4)
    assert picture[2, 0] == slices[0, 0, 0]  # lowest row, first column
    assert picture[0, 3] == slices[1, 2, 1]


def test_a_sampled_transform_maps_like_the_transform(make_grid):
    """At the pixels exactly; at finer ones up to the error of interpolation."""
    grid = make_grid()
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, *grid.shape)), (0, 4, 4, 4))
    warp = Warp((60 * smooth).astype(np.float32), grid)
    slices = through(grid)
    sampled = SampledTransform(warp, slices)
    for plane in slices.grids.values():
        expected = warp.map(plane.nodes())
        np.testing.assert_allclose(sampled.map_nodes(plane, 0, plane.shape[0]), expected, atol=1e-4)
        np.testing.assert_allclose(sampled.map_nodes(plane, 2, 4), expected[2:4], atol=1e-4)
        finer = fine(plane, 2)
        got, expected = sampled.map_nodes(finer, 0, finer.shape[0]), warp.map(finer.nodes())
        inner = np.s_[2:-2, 2:-2]
        moved = np.linalg.norm(expected - finer.nodes(), axis=-1)[inner]
        error = np.linalg.norm(got - expected, axis=-1)[inner]
        assert error.mean() < 0.05 * moved.mean()


def test_values_agree_with_nibabel(phantoms, make_grid):
    """An oblique scan, interpolated by SciPy at the positions of the pixels."""
    grid = make_grid(spacing=(4, 5, 6), turn=(15, -10, 20))
    image = phantoms.image(grid)
    volume = Volume(np.asarray(image.dataobj), grid)
    motion = Affine(nib.affines.from_matvec(np.eye(3), [3, -2, 5]))
    slices = Slices.through(grid, volume.data > 0)
    shown = slices.sample(volume, motion)
    for plane, plane_grid in slices.grids.items():
        points = motion.map(plane_grid.nodes())
        at = np.moveaxis(nib.affines.apply_affine(np.linalg.inv(image.affine), points), -1, 0)
        expected = ndimage.map_coordinates(volume.data, at, order=1, mode="nearest")
        last = np.array(grid.shape).reshape(3, 1, 1, 1) - 1
        inside = side_by_side(((at >= 0) & (at <= last)).all(axis=0))
        assert inside.mean() > 0.5
        np.testing.assert_allclose(
            shown[plane][inside], side_by_side(expected)[inside], rtol=1e-4, atol=1e-2
        )
