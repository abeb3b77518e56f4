"""Changes within a person: antisymmetric, found where they were planted, and nothing elsewhere."""

import numpy as np
import pytest
from bids_data import grid, head
from scipy import ndimage

from voxwarp.dbm.midpoint import change
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe(grid(), alignment="header")


def scan(data: np.ndarray, affine: np.ndarray | None = None) -> Scan:
    return Scan(Volume(data.astype(np.float32), Grid(data.shape, affine or grid().affine)))


def grown(data: np.ndarray, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """The image with a ball in its middle enlarged, and where the ball is."""
    centre = (np.array(data.shape) - 1) / 2
    points = np.indices(data.shape, float) - centre[:, None, None, None]
    r = np.sqrt((points**2).sum(axis=0))
    s = 1 / (1 + amount * np.exp(-((r / 4) ** 2)))  # where each point comes from
    moved = ndimage.map_coordinates(
        data.astype(float), points * s + centre[:, None, None, None], order=1
    )
    return moved, r < 2.5


def test_the_same_scan_twice_has_not_changed(recipe) -> None:
    found = change(scan(head(1)), scan(head(1)), recipe)
    assert np.abs(found.log_jacobian.data).max() < 1e-4
    np.testing.assert_allclose(found.first_to_second.matrix, np.eye(4), atol=1e-6)


def test_growth_is_found_and_turns_its_sign_with_the_order(recipe) -> None:
    first = head(1)
    second, ball = grown(first, 0.12)
    forth = change(scan(first), scan(second), recipe, smoothness=1.0)
    back = change(scan(second), scan(first), recipe, smoothness=1.0)
    np.testing.assert_allclose(forth.log_jacobian.data, -back.log_jacobian.data, atol=1e-3)
    inside = forth.log_jacobian.data[ball].mean()
    assert inside > 0.05
    far = np.abs(forth.log_jacobian.data)[first > 0]
    assert np.median(far) < 0.3 * inside


def test_both_scans_reach_the_midpoint_by_half_of_the_way(recipe) -> None:
    """A point of the first scan and the same point of the second have one place there."""
    moved = np.eye(4)
    moved[:3, 3] = 6, -4, 2  # the second scan lies elsewhere in the scanner
    shifted = Grid(grid().shape, moved @ grid().affine)
    first = Scan(Volume(head(1).astype(np.float32), grid()))
    second = Scan(Volume(head(1).astype(np.float32), shifted))
    found = change(first, second, recipe)
    np.testing.assert_allclose(found.first_to_second.matrix, moved, atol=0.05)
    points = np.array([[0.0, 0, 0], [20, -30, 10], [-40, 10, 0]])
    there = found.to_midpoint[0].map(points)
    other = found.to_midpoint[1].map(Affine(moved).map(points))
    np.testing.assert_allclose(there, other, atol=2)  # a quarter of a voxel
    np.testing.assert_allclose(there, points + np.array([3, -2, 1]), atol=2)
