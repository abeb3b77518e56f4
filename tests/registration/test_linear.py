"""Rigid and affine registrations: known motions come back, files fit ANTs, nothing deforms."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from brains import UPRIGHT
from scipy.spatial.transform import Rotation

import voxwarp
from voxwarp.errors import InputError
from voxwarp.registration.saved_transform import load_transform
from voxwarp.space.formats import write_affine
from voxwarp.space.transform import Affine

FLIP = np.array([-1.0, -1.0, 1.0])
POINTS = np.random.default_rng(5).uniform((-50, -80, -30), (50, 50, 60), (100, 3))


def motion(turn=(6.0, -8.0, 11.0), shift=(5.0, -7.0, 4.0), zoom=1.0) -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3] = zoom * Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return Affine(matrix)


@pytest.fixture(scope="module")
def pair(phantoms, make_grid, tmp_path_factory):
    """One brain twice, the second with another header: the map between them is exact."""
    folder = tmp_path_factory.mktemp("pair")
    fixed = phantoms.image(make_grid(), UPRIGHT)
    nib.save(fixed, folder / "fixed.nii.gz")

    def moved(true: Affine) -> str:
        image = nib.Nifti1Image(np.asarray(fixed.dataobj), true.matrix @ fixed.affine)
        nib.save(image, folder / "moving.nii.gz")
        return str(folder / "moving.nii.gz")

    return str(folder / "fixed.nii.gz"), moved


def error(found, true: Affine) -> float:
    return np.linalg.norm(found.transform.map(POINTS) - true.map(POINTS), axis=1).max()


def test_a_rigid_motion_comes_back_and_is_rigid(pair, register_quickly):
    fixed, moved = pair
    result = register_quickly(moved(motion()), fixed, transform="rigid")
    assert error(result, motion()) < 0.05
    turn = result.affine.matrix[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-12)
    assert not result.warp.displacement.any()
    assert result.metrics["similarity"]["after"]["local_ncc"] > 0.99
    assert result.metrics["similarity"]["before"]["local_ncc"] < 0.7


def test_an_affine_motion_comes_back(pair, register_quickly):
    fixed, moved = pair
    true = motion(zoom=1.06)
    assert error(register_quickly(moved(true), fixed, transform="affine"), true) < 0.25
    rigid = register_quickly(moved(true), fixed, transform="rigid")
    assert error(rigid, true) > 2, "a rigid map cannot scale"


def test_another_contrast_does_no_harm_to_a_rigid_map(phantoms, make_grid, register_quickly):
    grid = make_grid()
    values = phantoms.values(grid, UPRIGHT)
    inverted = np.where(values > 0, 260 - values, 0).astype(np.float32)
    moving = nib.Nifti1Image(inverted, motion().matrix @ grid.affine)
    result = register_quickly(moving, phantoms.image(grid, UPRIGHT), transform="rigid")
    assert error(result, motion()) < 0.3


def test_an_initial_transform_is_where_it_starts(pair, register_quickly, tmp_path):
    """80 degrees from upright no other start would do; from near the answer one is enough."""
    fixed, moved = pair
    far = motion(turn=(80, 0, 0), shift=(150, 0, 0))
    near = motion(turn=(77, 2, -2), shift=(147, 3, -2))
    write_affine(near, tmp_path / "near.mat")
    result = register_quickly(moved(far), fixed, transform="rigid", initial=tmp_path / "near.mat")
    assert error(result, far) < 0.05
    assert result.metrics["settings"]["initial"] == pytest.approx(near.matrix)
    deformed = register_quickly(moved(far), fixed, initial=near)
    np.testing.assert_allclose(deformed.affine.matrix, near.matrix, atol=1e-9)


def test_the_files_are_ants_own_and_are_read_back(cli, pair, quick_affine, tiny_model, tmp_path):
    fixed, moved = pair
    out = tmp_path / "out"
    words = moved(motion()), fixed, "-o", out, "--transform", "rigid"
    assert cli("register", *words).code == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("0GenericAffine.mat", "Warped.nii.gz", "InverseWarped.nii.gz"),
        *("metrics.json", "report.html"),
    }
    itk = sitk.ReadTransform(str(out / "0GenericAffine.mat"))
    theirs = [FLIP * itk.TransformPoint((FLIP * point).tolist()) for point in POINTS]
    saved, back = load_transform(out), voxwarp.load(out)
    for ours in (saved.transform, back.transform):
        np.testing.assert_allclose(ours.map(POINTS), theirs, atol=1e-6)
    np.testing.assert_allclose(saved.inverse.map(saved.transform.map(POINTS)), POINTS, atol=1e-9)
    resampled = voxwarp.apply_to_image(moved(motion()), saved)
    np.testing.assert_array_equal(
        resampled.data, np.asarray(nib.load(out / "Warped.nii.gz").dataobj)
    )
    # What a deformable registration left before goes.
    words = moved(motion()), fixed, "-o", out, "--overwrite", "--model", tiny_model
    assert cli("register", *words).code == 0
    assert (out / "1Warp.nii.gz").is_file()
    assert cli("register", *words, "--transform", "affine").code == 0
    assert not (out / "1Warp.nii.gz").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"transform": "similarity"}, "transform must be rigid, .*, got 'similarity'"),
        ({"transform": "rigid", "refine": True}, "refine needs a deformable .* 'rigid'"),
        ({"transform": "affine", "smoothness": 2.0}, "smoothness needs a deformable .* 'affine'"),
        ({"initial": "gone.mat"}, "gone.mat: no such file"),
    ],
)
def test_what_cannot_be_is_refused(pair, register_quickly, more, words):
    fixed, moved = pair
    with pytest.raises(InputError, match=words):
        register_quickly(moved(motion()), fixed, **more)
