"""Grids: where voxels are, against nibabel's affine arithmetic."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine
from odd_headers import affine_by_itk, nifti_file
from phantoms import homogeneous, indices, oblique_affine, oblique_grid, rotation

from voxwarp.space.grid import Grid

SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
def test_world_and_voxel_coordinates_agree_with_nibabel(seed: int) -> None:
    grid = oblique_grid(seed)
    voxels = np.random.default_rng(seed).uniform(-20, 40, (3, 5, 3))
    world = grid.to_world(voxels)
    np.testing.assert_allclose(world, apply_affine(grid.affine, voxels), atol=1e-10)
    np.testing.assert_allclose(grid.to_voxel(world), voxels, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_are_the_voxel_centres_of_any_slab(seed: int) -> None:
    grid = oblique_grid(seed, (5, 6, 7))
    expected = apply_affine(grid.affine, indices(grid.shape))
    np.testing.assert_allclose(grid.nodes(), expected, atol=1e-10)
    np.testing.assert_allclose(grid.nodes(2, 4), expected[2:4], atol=1e-10)
    np.testing.assert_allclose(grid.nodes(3), expected[3:], atol=1e-10)


def test_spacing_and_direction_are_the_factors_of_the_affine() -> None:
    turn, spacing, origin = rotation(10, -25, 40), (0.7, 1.3, 2.9), (-3.0, 8.0, 15.0)
    grid = Grid((4, 5, 6), homogeneous(turn @ np.diag(spacing), origin))
    np.testing.assert_allclose(grid.spacing, spacing)
    np.testing.assert_allclose(grid.direction, turn)


def test_corners_are_the_eight_extreme_voxels() -> None:
    corners = Grid((4, 5, 6), np.eye(4)).corners()
    expected = set(itertools.product((0, 3), (0, 4), (0, 5)))
    assert {tuple(corner) for corner in corners.tolist()} == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_crop_keeps_world_positions(seed: int) -> None:
    grid, start, shape = oblique_grid(seed), np.array([2, -3, 4]), (3, 4, 5)
    cropped = grid.crop(start, shape)
    assert cropped.shape == shape
    np.testing.assert_allclose(cropped.nodes(), grid.to_world(indices(shape) + start), atol=1e-10)


@pytest.mark.parametrize("shape", [(5, 19, 11), (18, 20, 22), (2, 2, 2)])
def test_resized_keeps_the_corners_and_divides_the_rest_evenly(shape: tuple[int, ...]) -> None:
    grid = oblique_grid(3, (9, 10, 11))
    resized = grid.resized(shape)
    assert resized.shape == shape
    fraction = indices(shape) / (np.asarray(shape) - 1)
    expected = grid.to_world(fraction * (np.asarray(grid.shape) - 1))
    np.testing.assert_allclose(resized.nodes(), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(24))
def test_axes_are_those_of_nibabel_also_when_oblique(seed: int) -> None:
    affine = oblique_affine(seed, tilt=25)
    assert Grid((4, 5, 6), affine).axes == "".join(nib.aff2axcodes(affine))


def test_axes_name_each_world_axis_once_at_45_degrees() -> None:
    """The second axis runs between A and S a little nearer to S, and so does the third."""
    matrix = np.array([[1, 0, 0], [0, 0.70, 0.60], [0, 0.71, 0.80]])
    assert Grid((4, 4, 4), homogeneous(matrix)).axes == "RAS"


@pytest.mark.parametrize(
    ("shear", "sheared"), [(0.0, False), (5e-5, False), (5e-4, True), (0.01, True)]
)
def test_a_grid_is_sheared_if_its_axes_are_not_at_right_angles(shear: float, sheared: bool) -> None:
    matrix = np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])
    turned = rotation(10, 20, 30) @ matrix @ np.diag([0.5, 1.0, 3.0])
    assert Grid((4, 4, 4), homogeneous(turned)).is_sheared() is sheared


@pytest.mark.parametrize("seed", SEEDS)
def test_unsheared_is_orthonormal_and_covers_every_voxel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shear = np.eye(4)
    shear[0, 1], shear[0, 2], shear[1, 2] = rng.uniform(-0.3, 0.3, 3)
    affine = oblique_affine(seed)
    grid = Grid((8, 9, 10), shear @ affine)
    straight = grid.unsheared()
    assert grid.is_sheared()
    assert not straight.is_sheared(1e-9)
    np.testing.assert_allclose(straight.spacing, grid.spacing, rtol=1e-9)
    reach = straight.to_voxel(grid.nodes()).reshape(-1, 3)
    last = np.asarray(straight.shape) - 1
    assert reach.min() >= -1e-6
    assert (reach <= last + 1e-6).all()
    # As small as possible: one voxel less on a side would not be enough.
    assert (reach.max(axis=0) > last - 1).all()


def test_unsheared_leaves_a_straight_grid_where_it_is() -> None:
    grid = oblique_grid(2)
    straight = grid.unsheared()
    assert straight.shape == grid.shape
    np.testing.assert_allclose(straight.affine, grid.affine, atol=1e-9)


def test_grids_match_within_a_twentieth_of_a_voxel_at_every_corner() -> None:
    spacing = np.diag([1.0, 2.0, 3.0])
    grid = Grid((30, 30, 30), homogeneous(spacing))
    assert grid.matches(Grid(grid.shape, homogeneous(spacing, (0.04, 0, 0))))
    assert not grid.matches(Grid(grid.shape, homogeneous(spacing, (0.06, 0, 0))))
    assert not grid.matches(Grid((30, 30, 29), grid.affine))
    # The origins agree; the far corners, some 100 mm away, do not.
    assert not grid.matches(Grid(grid.shape, homogeneous(rotation(0, 0, 0.1) @ spacing)))
    assert grid.matches(Grid(grid.shape, homogeneous(rotation(0, 0, 0.01) @ spacing)))
    # Same place, other way round: the voxels are not the same ones.
    flipped = homogeneous(np.diag([-1.0, 2.0, 3.0]), (29, 0, 0))
    assert not grid.matches(Grid(grid.shape, flipped))


def test_equality_and_hash_go_by_value() -> None:
    affine = oblique_affine(1)
    one, same = Grid((4, 5, 6), affine), Grid((4, 5, 6), affine.copy())
    moved = affine.copy()
    moved[0, 3] += 1e-9
    assert one == same
    assert hash(one) == hash(same)
    assert one != Grid((4, 5, 6), moved)
    assert one != Grid((4, 5, 7), affine)
    assert one != "grid"


def test_a_grid_does_not_change_with_the_array_it_was_made_from() -> None:
    affine = np.eye(4)
    grid = Grid((4, 5, 6), affine)
    affine[0, 3] = 99
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 99


THREE, FINITE = "shape must be three positive integers", r"affine must be a finite \(4, 4\) matrix"


@pytest.mark.parametrize(
    ("shape", "affine", "said"),
    [
        pytest.param((4, 5), np.eye(4), THREE, id="two axes"),
        pytest.param((4, 5, 6, 7), np.eye(4), THREE, id="four axes"),
        pytest.param((4, 0, 6), np.eye(4), THREE, id="no voxel"),
        pytest.param((4, -5, 6), np.eye(4), THREE, id="negative"),
        pytest.param((4.7, 5, 6), np.eye(4), THREE, id="fraction"),
        pytest.param((4, 5, 6), np.eye(3), FINITE, id="3x3"),
        pytest.param((4, 5, 6), np.full((4, 4), np.nan), FINITE, id="nan"),
        pytest.param((4, 5, 6), np.diag([1, 1, np.inf, 1]), FINITE, id="inf"),
        pytest.param((4, 5, 6), np.diag([1.0, 1, 0, 1]), "be invertible", id="zero column"),
        pytest.param(
            (4, 5, 6), homogeneous(np.arange(9).reshape(3, 3)), "be invertible", id="singular"
        ),
        pytest.param((4, 5, 6), np.diag([1.0, 1, 1, 2]), "the row 0 0 0 1", id="last row"),
    ],
)
def test_invalid_grids_are_refused(shape: tuple[int, ...], affine: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Grid(shape, affine)


def test_micrometre_voxels_are_a_grid() -> None:
    """Invertibility is judged by the angles, not by the determinant, of 1e-12 here."""
    grid = Grid((4, 5, 6), np.diag([1e-4, 1e-4, 1e-4, 1]))
    np.testing.assert_allclose(grid.to_voxel(grid.nodes()), indices(grid.shape), atol=1e-9)


# The world space


def test_grids_made_of_a_grid_are_in_its_space() -> None:
    grid = Grid((8, 10, 12), oblique_affine(3), space_code=4)
    made = {
        "crop": grid.crop((1, 2, 3), (4, 5, 6)),
        "resized": grid.resized((5, 6, 7)),
        "averaged": grid.averaged(2),
        "unsheared": grid.unsheared(),
        "described": Grid(**grid.described()),
    }
    assert {name: other.space_code for name, other in made.items()} == dict.fromkeys(made, 4)
    assert made["described"] == grid
    assert grid.in_space(2).space_code == 2


def test_where_voxels_are_does_not_depend_on_the_code() -> None:
    grid = Grid((4, 5, 6), oblique_affine(3))
    assert grid.space_code == 1
    assert grid == grid.in_space(4)
    assert hash(grid) == hash(grid.in_space(4))
    assert grid.described().keys() == {"shape", "affine"}  # as in earlier records


@pytest.mark.parametrize("code", [0, 6, -1, "MNI"])
def test_codes_that_place_nothing_are_refused(code: object) -> None:
    with pytest.raises(ValueError, match="space_code must be an xform code, 1 to 5"):
        Grid((4, 5, 6), np.eye(4), code)


@pytest.mark.parametrize("seed", range(40))
def test_a_grid_that_is_not_sheared_can_be_read_by_itk(tmp_path: Path, seed: int) -> None:
    """From its sform alone, which ITK reads only if the axes are at right angles."""
    rng = np.random.default_rng(seed)
    bent = np.eye(3) + rng.uniform(-1, 1, (3, 3)) * rng.uniform(0, 1.5e-4)
    affine = homogeneous(rotation(*rng.uniform(-180, 180, 3)) @ bent @ np.diag([1.0, 1.5, 2]))
    grid = Grid((4, 5, 6), affine)
    path = nifti_file(tmp_path / "scan.nii", np.zeros(grid.shape, np.float32), affine, qform_code=0)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    if not grid.is_sheared(0.99e-4):  # at the limit itself, the rounding of the header decides
        np.testing.assert_allclose(affine_by_itk(path), affine, atol=1e-5)
    elif grid.is_sheared(2e-4):
        with pytest.raises(RuntimeError, match="orthonormal"):
            affine_by_itk(path)
