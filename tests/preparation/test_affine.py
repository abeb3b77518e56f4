"""Affine registration: known maps are found again, and what is measured of them is right."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from phantoms import homogeneous
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxwarp.errors import InputError
from voxwarp.fields.field import lattice
from voxwarp.preparation import affine as stage
from voxwarp.preparation import pose
from voxwarp.preparation.affine import Level, register_affine
from voxwarp.preparation.agreement import Agreement, FitThresholds, agreement
from voxwarp.preparation.coarse import Coarse
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume, read_volume, to_canonical

FIT = FitThresholds()
GOOD = Agreement(0.97, 0.6, 0.0, 1.1, 0.9)
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
    found = register_affine(phantoms.template, phantoms.moved(motions[name], inverted=inverted))
    wrong = errors(found, motions[name], brain)
    assert errors(Affine(np.eye(4)), motions[name], brain).mean() > 10
    assert wrong.mean() < (2.0 if inverted else 0.5)
    assert wrong.max() < (4.0 if inverted else 1.5)
    assert FIT.is_good(agreement(phantoms.template, phantoms.moved(motions[name]), found))


def test_a_brain_on_itself_stays(phantoms, brain):
    found = register_affine(phantoms.template, phantoms.template)
    assert errors(found, Affine(np.eye(4)), brain).max() < 0.05


def test_there_and_back_is_the_identity_almost(phantoms, poses, make_grid, brain):
    """For two heads of which one is bent, so that neither direction has a perfect answer."""
    one = Volume(
        phantoms.values(make_grid(spacing=(4, 4.5, 3.5))), make_grid(spacing=(4, 4.5, 3.5))
    )
    other = Volume(phantoms.values(make_grid(), poses.moving), make_grid())
    there, back = register_affine(one, other), register_affine(other, one)
    wrong = errors(back.after(there), Affine(np.eye(4)), brain)
    assert errors(there, Affine(np.eye(4)), brain).mean() > 5
    assert wrong.mean() < 1.0
    assert wrong.max() < 3.0


def test_the_same_twice_to_the_last_bit_and_without_a_look_at_any_seed(phantoms, motions):
    moving = phantoms.moved(motions["turned"])
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(register_affine(phantoms.template, moving).fixed_to_moving.tobytes())
    assert results[0] == results[1]


def test_the_order_in_which_the_axes_are_stored_does_not_matter(phantoms, motions, make_grid):
    grid = make_grid(spacing=(4, 4.5, 5), turn=(7, -4, 9))
    scan = nib.Nifti1Image(phantoms.values(grid, motions["turned"].inverse().map), grid.affine)
    expected = register_affine(phantoms.template, to_canonical(read_volume(scan)))
    for axes in ("LPI", "SAR", "PIR"):
        codes = nib.orientations.axcodes2ornt(tuple(axes))
        turn = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), codes)
        stored = read_volume(scan.as_reoriented(turn))
        assert stored.grid.axes == axes
        found = register_affine(phantoms.template, to_canonical(stored))
        assert errors(found, expected, phantoms.corners).max() < 1e-3, axes


def test_the_brightness_of_the_scans_does_not_matter(phantoms, motions, brain):
    moving = phantoms.moved(motions["sheared"])
    expected = register_affine(phantoms.template, moving)
    bright = Volume(1000 * moving.data, moving.grid)
    assert errors(register_affine(phantoms.template, bright), expected, brain).max() < 0.05


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_a_scan_with_hardly_any_brain_is_refused(phantoms, which):
    data = np.zeros_like(phantoms.template.data)
    data[4:7, 4:7, 4:11] = 9  # 63 voxels
    empty = Volume(data, phantoms.template.grid, "dark.nii")
    pair = (empty, phantoms.template) if which == "fixed" else (phantoms.template, empty)
    with pytest.raises(InputError, match=r"^dark\.nii: no affine alignment"):
        register_affine(*pair)


# ---------------------------------------------------------------------------------- Agreement


def test_a_brain_agrees_with_itself(phantoms):
    found = agreement(phantoms.template, phantoms.template, Affine(np.eye(4)))
    assert found.overlap > 0.97  # the faintest voxels do not count as brain after a motion
    assert found.local_ncc > 0.98
    assert found.outside == 0
    assert found.largest_scale == found.smallest_scale == 1
    assert FIT.is_certain(found)
    assert FIT.is_good(found)
    assert not FIT.is_hopeless(found)


def test_overlap_is_the_dice_of_two_brains(phantoms, make_grid):
    """Blocks, whose borders are sharp, and which are shifted by whole voxels."""
    grid = make_grid()
    one, other = np.zeros((2, *grid.shape), np.float32)
    one[5:25, 10:40, 8:30] = 100
    other[8:25, 12:44, 8:33] = 70
    shifted = Affine(homogeneous(np.eye(3), (4 * 2, -4 * 3, 4)))
    there = ndimage.shift(other, (-2, 3, -1), order=0) > 0
    for through, b in ((Affine(np.eye(4)), other > 0), (shifted, there)):
        found = agreement(Volume(one, grid), Volume(other, grid), through)
        a = one > 0
        assert found.overlap == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-6)


def test_outside_is_what_the_field_of_view_cuts_away(phantoms):
    """And the overlap is that of what it leaves."""
    whole = phantoms.template
    for kept in (20, 30):
        cut = Volume(
            whole.data[:, :, :kept], whole.grid.crop((0, 0, 0), (*whole.data.shape[:2], kept))
        )
        found = agreement(whole, cut, Affine(np.eye(4)))
        brain = whole.data > 0
        assert found.outside == pytest.approx(brain[:, :, kept:].sum() / brain.sum(), abs=1e-6)
        assert found.outside > 0.05
        assert found.overlap > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_scales_are_the_singular_values(phantoms, seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3))
    found = agreement(phantoms.template, phantoms.template, Affine(homogeneous(matrix)))
    # Of Mᵀ M the eigenvalues are their squares.
    eigenvalues = np.sqrt(np.linalg.eigvalsh(matrix.T @ matrix))
    assert found.smallest_scale == pytest.approx(eigenvalues[0])
    assert found.largest_scale == pytest.approx(eigenvalues[-1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": 0.85},
        {"local_ncc": 0.25},
        {"smallest_scale": 0.4, "largest_scale": 0.45},
        {"smallest_scale": 2.0, "largest_scale": 2.2},
    ],
)
def test_one_number_that_is_wrong_makes_it_doubtful(wrong):
    """No head is half or twice the size of another; brains that hardly meet are none."""
    found = replace(GOOD, **wrong)
    assert (FIT.is_certain(GOOD), FIT.is_good(GOOD), FIT.is_hopeless(GOOD)) == (True, True, False)
    assert (FIT.is_certain(found), FIT.is_good(found)) == (False, False)


@pytest.mark.parametrize("wrong", [{"overlap": 0.7}, {"local_ncc": 0.1}, {"smallest_scale": 0.25}])
def test_what_cannot_be_a_brain_is_hopeless(wrong):
    assert FIT.is_hopeless(replace(GOOD, **wrong))


def test_brains_that_do_not_meet_agree_in_nothing(phantoms):
    far = Affine(homogeneous(np.eye(3), (1000, 0, 0)))
    found = agreement(phantoms.template, phantoms.template, far)
    assert (found.overlap, found.local_ncc, found.outside) == (0, 0, 1)
    assert FIT.is_hopeless(found)


def test_the_wrong_way_up_is_told_and_set_right(phantoms, motions, brain):
    """The local stage alone ends in a map that is not good; the whole registration does not."""
    moving = phantoms.moved(motions["upside down"])
    local = stage._from(pose.upright(phantoms.template, moving), phantoms.template, moving)
    wrong = agreement(phantoms.template, moving, local)
    assert errors(local, motions["upside down"], brain).mean() > 20
    assert not FIT.is_good(wrong)
    right = agreement(phantoms.template, moving, motions["upside down"])
    assert FIT.is_certain(right)
    assert FIT.score(right) > FIT.score(wrong)


def test_the_search_is_left_out_where_it_is_not_needed(phantoms, motions, monkeypatch):
    monkeypatch.setattr(pose, "search", lambda *_: pytest.fail("searched"))
    register_affine(phantoms.template, phantoms.moved(motions["turned"]))


# --------------------------------------------------------------------------- Parametrization


@pytest.fixture(scope="module")
def motion(phantoms) -> stage._Motion:
    image = torch.from_numpy(phantoms.template.data)[None, None] / 255
    return stage._Motion(image, image > 0, window=3)


def test_no_motion_is_the_identity(motion):
    torch.testing.assert_close(motion.matrix(torch.zeros(12)), torch.eye(4), atol=1e-6, rtol=0)


def test_the_lattice_goes_where_the_matrices_say(phantoms, motion):
    generator = torch.Generator().manual_seed(3)
    parameters = 0.1 * torch.randn(12, generator=generator)
    matrix = torch.eye(4) + 0.1 * torch.randn(4, 4, generator=generator)
    matrix[3] = torch.tensor([0.0, 0, 0, 1])
    points = lattice(phantoms.template.data.shape, matrix)[0].flatten(1)
    both = matrix.double() @ motion.matrix(parameters).double()
    expected = both @ torch.cat([points, torch.ones_like(points[:1])]).double()
    got = motion.lattice(matrix, parameters)[0].flatten(1).double()
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
    points = lattice(image.shape[2:], image)
    changes = []
    for one in 1e-2 * torch.eye(12):
        moved = motion.lattice(torch.eye(4), one) - points
        changes.append((slopes * moved[0]).sum(dim=0)[inside] / 1e-2)
    gram = torch.stack(changes) @ torch.stack(changes).T / inside.sum()
    torch.testing.assert_close(gram, torch.eye(12), atol=0.05, rtol=0)


def test_a_level_starts_at_its_start(phantoms, motions, brain):
    """With no iteration left the map comes back as it was, through all changes of coordinates."""
    moving = phantoms.moved(motions["sheared"])
    found = stage._by_local_ncc(motions["sheared"], phantoms.template, moving, Level(8.0, 3, 0))
    assert errors(found, motions["sheared"], brain).max() < 1e-3


def test_a_crop_shows_the_same_brain_in_the_same_place():
    image = torch.zeros(1, 1, 20, 18, 16)
    image[0, 0, 6:9, 1:5, 10:16] = torch.rand(3, 4, 6) + 0.1
    grid = Grid((20, 18, 16), homogeneous(np.diag([2.0, 3, 4]), (1, 2, 3)))
    cropped = stage._cropped(Coarse(image, grid))
    assert cropped.image.shape[2:] == (7, 7, 8)
    voxels = np.argwhere(cropped.image[0, 0].numpy() > 0)
    there = grid.to_voxel(cropped.grid.to_world(voxels)).round().astype(int)
    np.testing.assert_array_equal(
        image[0, 0].numpy()[tuple(there.T)], cropped.image[0, 0].numpy()[tuple(voxels.T)]
    )
    assert (image > 0).sum() == len(voxels)
