"""Where a brain is looked for: the blocks of space are where heads and brains are."""

import numpy as np
import pytest
from phantoms import homogeneous, rotation

from voxwarp.preparation.views import (
    block,
    centre_and_extent,
    conformed,
    cube,
    upright_view,
    views_of,
)
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume


def within(grid: Grid, points: np.ndarray, margin: float = 0.0) -> bool:
    """Whether points are in the box of a grid's voxel centres, and ``margin`` mm from its edge."""
    at = grid.to_voxel(points) * grid.spacing
    last = (np.asarray(grid.shape) - 1) * grid.spacing
    return bool((at >= margin - 1e-6).all() and (at <= last - margin + 1e-6).all())


def along(grid: Grid) -> np.ndarray:
    return (np.asarray(grid.shape) - 1) * grid.spacing


@pytest.mark.parametrize(("axes", "spacing"), [("RAS", 4.0), ("ASR", (4.0, 3.0, 5.0))])
def test_a_scan_is_conformed_in_a_cube_around_it(make_grid, axes, spacing):
    grid = make_grid(axes, spacing, turn=(12, -7, 9))
    found = conformed(grid)
    assert (found.shape, found.axes) == ((256, 256, 256), "LIA")
    np.testing.assert_allclose(found.spacing, 1)
    corners = grid.to_world(grid.corners())
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    np.testing.assert_allclose(found.to_world(np.full(3, 127.5)), middle, atol=1e-9)
    assert within(found, corners)


def test_voxels_of_the_cube_are_as_large_as_need_be():
    for extent, spacing in ((100.0, 1.0), (255.0, 1.0), (510.0, 2.0)):
        found = cube(np.array([3.0, -5, 7]), extent)
        np.testing.assert_allclose(found.spacing, spacing)
        np.testing.assert_allclose(found.to_world(np.full(3, 127.5)), [3, -5, 7], atol=1e-9)


def test_a_block_goes_from_corner_to_corner_along_turned_axes():
    turn = rotation(20, -30, 40)
    low, high = np.array([-10.0, 5, 20]), np.array([30.0, 25, 81])
    found = block(low, high, 2.0, turn)
    np.testing.assert_allclose(found.direction, turn, atol=1e-12)
    np.testing.assert_allclose(found.spacing, 2)
    np.testing.assert_allclose(found.to_world([0, 0, 0]), turn @ low)
    assert found.shape == (21, 11, 32)  # 61 mm are 30.5 voxels
    assert within(found, (turn @ np.stack([low, high], axis=1)).T)


def test_a_scan_of_a_head_is_seen_whole(make_grid):
    grid = make_grid("PSR", (4, 4.5, 4), turn=(5, -4, 8))
    (view,) = views_of(Volume(np.ones(grid.shape, np.float32), grid))
    np.testing.assert_array_equal(view.affine[:3, :3], np.eye(3))
    corners = grid.to_world(grid.corners())
    assert within(view, corners)
    assert (along(view) < np.ptp(corners, axis=0) + 1).all()


def test_the_top_of_a_scan_that_shows_the_trunk_is_looked_at_first():
    """A ball of a head on an egg of a trunk, in 640 mm of air: then all of it, in larger voxels."""
    grid = Grid((60, 60, 160), homogeneous(np.eye(3) * 4.0, (-118, -90, -500)))
    at = grid.nodes()
    head = np.array([10.0, 15, 20])
    trunk = (((at - (0, 0, -300)) / (110, 80, 200)) ** 2).sum(axis=-1) < 1
    inside = np.linalg.norm(at - head, axis=-1) < 85
    first, whole = views_of(Volume(np.where(inside, 200.0, trunk * 100.0), grid))
    np.testing.assert_allclose(first.spacing, 1)
    assert within(first, at[inside])
    assert (along(first) <= 255).all()
    corners = grid.to_world(grid.corners())
    assert within(whole, corners)
    np.testing.assert_allclose(whole.spacing, 159 * 4 / 255)
    assert max(whole.shape) == 256


@pytest.mark.parametrize("zoom", [0.8, 1.1])
def test_an_upright_view_is_turned_as_the_brain_lies_and_has_room_for_the_head(
    phantoms, make_grid, zoom
):
    """Of a stretch of the map only the rotation counts."""
    turn = rotation(80, 10, -20)
    motion = Affine(homogeneous(zoom * turn, (30, -60, 10)))
    brain = phantoms.moved(motion)
    view = upright_view(brain, motion)
    np.testing.assert_allclose(view.direction, turn, atol=1e-9)
    np.testing.assert_allclose(view.spacing, 1)
    points = brain.grid.to_world(np.argwhere(brain.data > 0))
    assert within(view, points, margin=40)
    extent = np.ptp(points @ turn, axis=0)
    assert (along(view) < extent + 81).all()


def test_centre_and_extent_are_those_of_the_box_around_a_brain():
    grid = Grid((40, 44, 48), homogeneous(np.eye(3) * 2.0, (-30, -40, 12)))
    data = np.zeros(grid.shape, np.float32)
    data[4:20, 8:38, 10:36] = 7  # whole blocks of 4 mm
    centre, extent = centre_and_extent(Volume(data, grid))
    low, high = np.array([4, 8, 10]), np.array([20, 38, 36])
    edges = (grid.to_world(low - 0.5), grid.to_world(high - 0.5))
    np.testing.assert_allclose(centre, np.mean(edges, axis=0), atol=1e-6)
    assert extent == pytest.approx(2 * 30)
