"""Affine registration: known maps are found again, and what is measured of them is right."""

import nibabel as nib
import numpy as np
import pytest
import torch
from phantoms import homogeneous
from scipy.spatial.transform import Rotation

from voxwarp.errors import InputError
from voxwarp.fields.field import identity_grid
from voxwarp.preparation import affine as stage
from voxwarp.preparation import pose
from voxwarp.preparation.affine import Level, register_affine
from voxwarp.preparation.agreement import FitThresholds, agreement
from voxwarp.preparation.coarse import Coarse
from voxwarp.space.grid import Grid
from voxwarp.space.region import bounding_box
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume, read_volume, to_canonical

FIT = FitThresholds()
UPSIDE_DOWN = Rotation.from_rotvec([np.pi, 0, 0]).as_matrix()


def about(centre: np.ndarray, matrix: np.ndarray, shift: tuple[float, float, float]) -> Affine:
    """A linear map about a point, which is then shifted."""
    return Affine(homogeneous(matrix, centre + np.array(shift) - matrix @ centre))


def errors(found: Affine, known: Affine, points: np.ndarray) -> np.ndarray:
    """Distances between where two maps lead, mm."""
    return np.linalg.norm(found.map(points) - known.map(points), axis=-1)


@pytest.fixture(scope="module")
def brain(phantoms) -> np.ndarray:
    """Points in the template's brain, RAS mm."""
    return phantoms.template.grid.nodes()[phantoms.template.data > 60]


@pytest.fixture(scope="module")
def motions(phantoms) -> dict[str, Affine]:
    centre = phantoms.corners.mean(axis=0)
    small = Rotation.from_euler("xyz", (11, -8, 14), degrees=True).as_matrix()
    shear = np.eye(3) + np.array([[0, 0.1, 0], [0, 0, -0.08], [0, 0, 0]])
    far = Rotation.random(random_state=21).as_matrix()
    return {
        "turned": about(centre, small, (8, -14, 21)),
        "stretched": about(centre, np.diag([1.12, 0.9, 1.04]), (-15, 0, 9)),
        "sheared": about(centre, shear @ small, (0, 30, -12)),
        "any way": about(centre, far @ np.diag([0.95, 1.06, 1.0]), (100, -100, 60)),
        "upside down": about(centre, UPSIDE_DOWN, (0, 0, 100)),
    }


# ------------------------------------------------------------------------------ Known answers


@pytest.mark.parametrize(
    ("name", "inverted"),
    [
        ("turned", False),
        ("stretched", False),
        ("sheared", False),
        ("any way", False),
        ("upside down", True),
    ],
)
def test_a_known_map_is_found(phantoms, motions, brain, name, inverted):
    """To a fraction of the voxels of 4 mm, also where bright is dark."""
    found = register_affine(
        moving=phantoms.moved(motions[name], inverted=inverted), fixed=phantoms.template
    )
    wrong = errors(found, motions[name], brain)
    assert errors(Affine(np.eye(4)), motions[name], brain).mean() > 10
    assert wrong.mean() < (2.0 if inverted else 0.5)
    assert wrong.max() < (4.0 if inverted else 1.5)
    assert FIT.is_good(
        agreement(found, moving=phantoms.moved(motions[name]), fixed=phantoms.template)
    )


def test_a_brain_on_itself_stays(phantoms, brain):
    found = register_affine(moving=phantoms.template, fixed=phantoms.template)
    assert errors(found, Affine(np.eye(4)), brain).max() < 0.05


def test_forward_and_backward_maps_are_nearly_inverse(phantoms, poses, make_grid, brain):
    """For two heads of which one is bent, so that neither direction has a perfect answer."""
    one = Volume(
        phantoms.values(make_grid(spacing=(4, 4.5, 3.5))), make_grid(spacing=(4, 4.5, 3.5))
    )
    other = Volume(phantoms.values(make_grid(), poses.moving), make_grid())
    forward = register_affine(moving=other, fixed=one)
    backward = register_affine(moving=one, fixed=other)
    wrong = errors(backward.after(forward), Affine(np.eye(4)), brain)
    assert errors(forward, Affine(np.eye(4)), brain).mean() > 5
    assert wrong.mean() < 1.0
    assert wrong.max() < 3.0


def test_results_are_the_same_to_the_last_bit_whatever_the_seed(phantoms, motions):
    moving = phantoms.moved(motions["turned"])
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(register_affine(moving=moving, fixed=phantoms.template).matrix.tobytes())
    assert results[0] == results[1]


def test_the_order_in_which_the_axes_are_stored_does_not_matter(phantoms, motions, make_grid):
    grid = make_grid(spacing=(4, 4.5, 5), turn=(7, -4, 9))
    scan = nib.Nifti1Image(phantoms.values(grid, motions["turned"].inverse().map), grid.affine)
    expected = register_affine(moving=to_canonical(read_volume(scan)), fixed=phantoms.template)
    for axes in ("LPI", "SAR", "PIR"):
        codes = nib.orientations.axcodes2ornt(tuple(axes))
        turn = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), codes)
        stored = read_volume(scan.as_reoriented(turn))
        assert stored.grid.axes == axes
        found = register_affine(moving=to_canonical(stored), fixed=phantoms.template)
        assert errors(found, expected, phantoms.corners).max() < 1e-3, axes


def test_the_brightness_of_the_scans_does_not_matter(phantoms, motions, brain):
    moving = phantoms.moved(motions["sheared"])
    expected = register_affine(moving=moving, fixed=phantoms.template)
    bright = Volume(1000 * moving.data, moving.grid)
    assert (
        errors(register_affine(moving=bright, fixed=phantoms.template), expected, brain).max()
        < 0.05
    )


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_a_scan_with_too_little_brain_is_refused(phantoms, which):
    data = np.zeros_like(phantoms.template.data)
    data[4:7, 4:7, 4:11] = 9  # 63 voxels
    empty = Volume(data, phantoms.template.grid, "dark.nii")
    pair = {"moving": phantoms.template, "fixed": phantoms.template} | {which: empty}
    with pytest.raises(InputError, match=r"^dark\.nii: the affine alignment needs .*, found 63"):
        register_affine(**pair)


# ---------------------------------------------------------------------------------- Agreement


def test_an_upside_down_brain_does_not_fit_until_other_poses_are_tried(phantoms, motions, brain):
    """The local stage alone ends in a map that is not good; the whole registration does not."""
    moving = phantoms.moved(motions["upside down"])
    start = pose.upright(moving=moving, fixed=phantoms.template)
    local = stage._from(start, stage._Pair(moving, phantoms.template))
    wrong = agreement(local, moving=moving, fixed=phantoms.template)
    assert errors(local, motions["upside down"], brain).mean() > 20
    assert not FIT.is_good(wrong)
    right = agreement(motions["upside down"], moving=moving, fixed=phantoms.template)
    assert FIT.is_certain(right)
    assert FIT.score(right) > FIT.score(wrong)


def test_the_search_is_left_out_where_it_is_not_needed(phantoms, motions, monkeypatch):
    monkeypatch.setattr(pose, "search", lambda **_: pytest.fail("searched"))
    register_affine(moving=phantoms.moved(motions["turned"]), fixed=phantoms.template)


# --------------------------------------------------------------------------- Parametrization


@pytest.fixture(scope="module")
def motion(phantoms) -> stage._Motion:
    image = torch.from_numpy(phantoms.template.data)[None, None] / 255
    return stage._Motion(image, image > 0, window=3)


def test_no_motion_is_the_identity(motion):
    torch.testing.assert_close(motion.matrix(torch.zeros(12)), torch.eye(4), atol=1e-6, rtol=0)


def test_points_are_mapped_by_motion_and_matrix(phantoms, motion):
    generator = torch.Generator().manual_seed(3)
    parameters = 0.1 * torch.randn(12, generator=generator)
    matrix = torch.eye(4) + 0.1 * torch.randn(4, 4, generator=generator)
    matrix[3] = torch.tensor([0.0, 0, 0, 1])
    points = identity_grid(phantoms.template.data.shape, matrix)[0].flatten(1)
    product = matrix.double() @ motion.matrix(parameters).double()
    expected = product @ torch.cat([points, torch.ones_like(points[:1])]).double()
    got = motion.points(matrix, parameters)[0].flatten(1).double()
    torch.testing.assert_close(got, expected[:3], atol=1e-3, rtol=0)


def test_the_motions_are_all_affine_ones(motion):
    """Twelve parameters span the twelve entries of a matrix: none is idle, none repeats another."""
    entries = torch.stack(
        [(motion.matrix(one) - torch.eye(4))[:3].flatten() for one in torch.eye(12)]
    )
    assert torch.linalg.matrix_rank(entries / entries.norm(dim=1, keepdim=True)) == 12


def test_whitened_parameters_change_the_image_by_equal_amounts(phantoms, motion):
    """What each one adds to the locally normalized image, to first order: squares of mean one."""
    image = torch.from_numpy(phantoms.template.data)[None, None] / 255
    slopes = torch.stack(torch.gradient(stage._locally_normal(image, 3)[0, 0]))
    inside = (image > 0)[0, 0]
    points = identity_grid(image.shape[2:], image)
    changes = []
    for one in 1e-2 * torch.eye(12):
        moved = motion.points(torch.eye(4), one) - points
        changes.append((slopes * moved[0]).sum(dim=0)[inside] / 1e-2)
    gram = torch.stack(changes) @ torch.stack(changes).T / inside.sum()
    torch.testing.assert_close(gram, torch.eye(12), atol=0.05, rtol=0)


def test_a_level_starts_at_its_start(phantoms, motions, brain):
    """With no iteration left the map comes back as it was, through all changes of coordinates."""
    moving = phantoms.moved(motions["sheared"])
    pair = stage._Pair(moving, phantoms.template)
    found = stage._optimised(motions["sheared"], Level(8.0, 3, 0), pair)
    assert errors(found, motions["sheared"], brain).max() < 1e-3


def test_a_crop_shows_the_same_brain_in_the_same_place():
    image = torch.zeros(1, 1, 20, 18, 16)
    image[0, 0, 6:9, 1:5, 10:16] = torch.rand(3, 4, 6) + 0.1
    grid = Grid((20, 18, 16), homogeneous(np.diag([2.0, 3, 4]), (1, 2, 3)))
    cropped = Coarse(image, grid).cropped(bounding_box((image > 0)[0, 0].numpy(), margin=2))
    assert cropped.image.shape[2:] == (7, 7, 8)
    voxels = np.argwhere(cropped.image[0, 0].numpy() > 0)
    original = grid.to_voxel(cropped.grid.to_world(voxels)).round().astype(int)
    np.testing.assert_array_equal(
        image[0, 0].numpy()[tuple(original.T)], cropped.image[0, 0].numpy()[tuple(voxels.T)]
    )
    assert (image > 0).sum() == len(voxels)


@pytest.mark.parametrize(
    ("thresholds", "tried"),
    [
        (FitThresholds(certain_overlap=1.01), ["search", "shifted"]),
        (FitThresholds(certain_overlap=0.0, certain_ncc=0.0, largest_stretch=9.0), []),
    ],
)
def test_the_thresholds_say_whether_other_poses_are_tried(
    phantoms, motions, monkeypatch, thresholds, tried
):
    """By default, other poses are tried for this brain, because it is upside down."""
    calls = []
    for name in ("search", "shifted"):
        monkeypatch.setattr(pose, name, lambda name=name, **_: calls.append(name) or [])
    moving = phantoms.moved(motions["upside down"])
    register_affine(moving=moving, fixed=phantoms.template, thresholds=thresholds)
    assert calls == tried
