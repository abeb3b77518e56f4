"""Transforms: what they do to points, against matrix algebra and SciPy."""

import numpy as np
import pytest
import torch
from phantoms import (
    apply_affine,
    homogeneous,
    indices,
    near_identity,
    oblique_affine,
    oblique_grid,
    rotation,
    smooth_field,
)
from scipy.ndimage import map_coordinates

from voxwarp.space import transform
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Chain, Warp, conjugate

SHAPE = (9, 10, 11)


def random_warp(seed: int = 0, shape: tuple[int, int, int] = SHAPE, size: float = 2.0) -> Warp:
    """A smooth field in mm on an oblique anisotropic grid; not zero at its border."""
    field = smooth_field(seed, shape, amplitude=size, pinned=False)[0].float().numpy()
    return Warp(field, oblique_grid(seed, shape))


def interpolated(warp: Warp, voxels: np.ndarray) -> np.ndarray:
    """The warp's displacement (..., 3) at voxel coordinates (..., 3), held at the border."""
    at = np.moveaxis(voxels, -1, 0)
    fields = warp.displacement.astype(np.float64)
    return np.stack([map_coordinates(w, at, order=1, mode="nearest") for w in fields], axis=-1)


def points_around(grid: Grid, count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Voxel coordinates in and around the grid, none at its edge, and which are inside for ITK."""
    last = np.asarray(grid.shape) - 1
    voxels = np.random.default_rng(seed).uniform(-3, last + 3, (count, 3))
    edge = np.minimum(np.abs(voxels + 0.5), np.abs(voxels - last - 0.5)).min(axis=1)
    voxels = voxels[edge > 0.01]
    return voxels, ((voxels >= -0.5) & (voxels < last + 0.5)).all(axis=1)


# ------------------------------------------------------------------------------------- Affine


@pytest.mark.parametrize("seed", range(4))
def test_an_affine_maps_as_its_matrix_says(seed: int) -> None:
    matrix = oblique_affine(seed)
    points = np.random.default_rng(seed).uniform(-80, 80, (4, 5, 3))
    np.testing.assert_allclose(Affine(matrix).map(points), apply_affine(matrix, points))


@pytest.mark.parametrize("seed", range(4))
def test_an_affine_and_its_inverse_cancel(seed: int) -> None:
    affine = Affine(oblique_affine(seed))
    points = np.random.default_rng(seed).uniform(-80, 80, (20, 3))
    np.testing.assert_allclose(affine.inverse().map(affine.map(points)), points, atol=1e-9)
    np.testing.assert_allclose(affine.map(affine.inverse().map(points)), points, atol=1e-9)


def test_after_applies_the_argument_first() -> None:
    first, second = Affine(oblique_affine(1)), Affine(oblique_affine(2))
    points = np.random.default_rng(0).uniform(-80, 80, (20, 3))
    np.testing.assert_allclose(
        second.after(first).map(points), second.map(first.map(points)), atol=1e-9
    )


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        pytest.param(np.eye(3), r"a finite \(4, 4\) matrix", id="3x3"),
        pytest.param(np.diag([1.0, 1, 0, 1]), "invertible", id="singular"),
        pytest.param(np.full((4, 4), np.nan), r"a finite \(4, 4\) matrix", id="nan"),
        pytest.param(np.diag([1e200, 1e200, 1, 1]), "a finite .* of numbers below", id="huge"),
        pytest.param(np.diag([1e5, 1e5, 1, 1]), "invertible", id="scaled by too much"),
        pytest.param(np.diag([1.0, 1, 1, 2]), "invertible", id="last row"),
    ],
)
def test_invalid_affines_are_refused(matrix: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=f"matrix must be {said}.*, got"):
        Affine(matrix)


# --------------------------------------------------------------------------------------- Warp


@pytest.mark.parametrize("seed", range(4))
def test_a_warp_is_interpolated_linearly_inside_and_the_identity_outside(seed: int) -> None:
    warp = random_warp(seed)
    voxels, inside = points_around(warp.grid)
    points = apply_affine(warp.grid.affine, voxels)
    expected = points + inside[:, None] * interpolated(warp, voxels)
    assert 50 < inside.sum() < len(inside) - 50
    np.testing.assert_allclose(warp.map(points), expected, atol=1e-4)
    np.testing.assert_array_equal(warp.map(points)[~inside], points[~inside])


def test_a_warp_reaches_its_outermost_nodes() -> None:
    warp = random_warp(1)
    nodes = apply_affine(warp.grid.affine, indices(SHAPE))
    expected = nodes + np.moveaxis(warp.displacement, 0, -1)
    np.testing.assert_allclose(warp.map(nodes), expected, atol=1e-4)


def test_a_warp_keeps_the_shape_of_the_points() -> None:
    warp = random_warp(2)
    points = warp.grid.nodes()[2:4, 3:6, 1:2]  # (2, 3, 1, 3)
    together = warp.map(points)
    assert together.shape == points.shape
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(together[i, j, 0], warp.map(points[i, j, 0]), atol=1e-6)


def test_a_displacement_in_voxels_leads_from_voxel_to_voxel() -> None:
    grid = oblique_grid(5, SHAPE)
    u = smooth_field(5, SHAPE, pinned=False)[0].float()
    warp = Warp.from_voxels(u, grid)
    target = indices(SHAPE) + np.moveaxis(u.numpy(), 0, -1)
    expected = apply_affine(grid.affine, target)
    np.testing.assert_allclose(warp.map_nodes(grid, 0, SHAPE[0]), expected, atol=1e-4)


def test_in_voxels_undoes_from_voxels() -> None:
    u = smooth_field(6, SHAPE, pinned=False)[0].float()
    back = Warp.from_voxels(u, oblique_grid(6, SHAPE)).in_voxels()
    torch.testing.assert_close(back, u, atol=1e-5, rtol=0)


def test_in_voxels_of_one_millimetre_to_the_right() -> None:
    """On a grid whose second axis runs to the left in steps of 2 mm: −½ voxel along it."""
    matrix = np.array([[0, -2.0, 0], [0, 0, 3.0], [1.5, 0, 0]])
    displacement = np.zeros((3, *SHAPE), np.float32)
    displacement[0] = 1
    got = Warp(displacement, Grid(SHAPE, homogeneous(matrix))).in_voxels()[:, 4, 4, 4]
    assert got.tolist() == pytest.approx([0, -0.5, 0])


def test_a_warp_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="displacement must be"):
        Warp(np.zeros((3, 4, 5, 6), np.float32), oblique_grid(0, (4, 5, 7)))
    with pytest.raises(ValueError, match="displacement must be"):
        Warp(np.zeros((4, 5, 6, 3), np.float32), oblique_grid(0, (4, 5, 6)))


# ------------------------------------------------------------------------------ Chain, conjugate


def test_a_chain_maps_step_by_step_from_the_first() -> None:
    warp, other = random_warp(1), random_warp(2)
    first, last = Affine(near_identity(3)), Affine(oblique_affine(4))
    points = warp.grid.nodes()
    expected = last.map(other.map(warp.map(first.map(points))))
    got = Chain([first, warp, other, last]).map(points)
    np.testing.assert_array_equal(got, expected)
    backwards = Chain([last, other, warp, first]).map(points)
    assert np.abs(backwards - expected).max() > 1


def test_an_empty_chain_leaves_points_where_they_are() -> None:
    grid = oblique_grid(3)
    np.testing.assert_array_equal(Chain([]).map(grid.nodes()), grid.nodes())
    np.testing.assert_array_equal(Chain([]).map_nodes(grid, 2, 5), grid.nodes(2, 5))


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("kind", ["affine", "warp", "chain", "chain from a warp"])
@pytest.mark.parametrize(("first", "last"), [(0, 9), (2, 5), (8, 9)])
def test_mapping_nodes_is_mapping_their_points(own: bool, kind: str, first: int, last: int) -> None:
    warp, affine = random_warp(1), Affine(near_identity(2))
    through = {
        "affine": affine,
        "warp": warp,
        "chain": Chain([affine, warp]),
        "chain from a warp": Chain([warp, affine, random_warp(3)]),
    }[kind]
    grid = warp.grid if own else warp.grid.resized((9, 7, 13))
    got = through.map_nodes(grid, first, last)
    assert got.shape == (last - first, *grid.shape[1:], 3)
    np.testing.assert_allclose(got, through.map(grid.nodes(first, last)), atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_conjugate_is_the_same_motion_in_another_space(seed: int) -> None:
    """A⁻¹ ∘ φ ∘ A at every node, with w held at its border beyond its grid."""
    warp = random_warp(seed, size=3.0)
    turn = homogeneous(rotation(8, -12, 15) @ np.diag([1.1, 0.9, 1.05]), (3, -2, 1))
    # onto sits around A⁻¹ of the middle of the warp's grid and reaches further than it.
    middle = apply_affine(warp.grid.affine, (np.asarray(SHAPE) - 1) / 2)
    frame = oblique_affine(seed + 20)
    shape = (12, 11, 10)
    frame[:3, 3] += apply_affine(np.linalg.inv(turn), middle) - apply_affine(
        frame, (np.asarray(shape) - 1) / 2
    )
    onto = Grid(shape, frame)
    there = apply_affine(turn, onto.nodes())
    voxels = apply_affine(np.linalg.inv(warp.grid.affine), there)
    expected = apply_affine(np.linalg.inv(turn), there + interpolated(warp, voxels))
    outside = ((voxels < 0) | (voxels > np.asarray(SHAPE) - 1)).any(axis=-1)
    assert 0.1 < outside.mean() < 0.9
    conjugated = conjugate(warp, Affine(turn), onto)
    assert conjugated.grid == onto
    np.testing.assert_allclose(conjugated.map_nodes(onto, 0, 12), expected, atol=2e-4)


def test_conjugate_with_the_identity_on_the_same_grid_changes_nothing() -> None:
    warp = random_warp(3)
    conjugated = conjugate(warp, Affine(np.eye(4)), warp.grid)
    np.testing.assert_allclose(conjugated.displacement, warp.displacement, atol=1e-4)


def test_conjugate_does_not_depend_on_its_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    warp, space = random_warp(3), Affine(near_identity(1))
    onto = oblique_grid(3, (11, 8, 9))
    whole = conjugate(warp, space, onto).displacement
    for voxels in (1, 8 * 9 * 2, 8 * 9 * 3 + 5):
        monkeypatch.setattr(transform, "SLAB_VOXELS", voxels)
        np.testing.assert_allclose(conjugate(warp, space, onto).displacement, whole, atol=1e-5)
