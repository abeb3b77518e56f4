"""FSL's matrices and warps, both ways, against FSL's documented conventions written anew here."""

import nibabel as nib
import numpy as np
import pytest
from other_tools import fsl_from_voxels, shifted

from voxwarp.registration.saved_transform import load_transform


def voxels_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape[:3]), indexing="ij"), axis=-1)


def flirt_voxels(matrix: np.ndarray, moving, fixed) -> np.ndarray:
    """Where ``flirt -applyxfm`` samples the moving image: voxels, for each of the fixed image.

    The matrix leads from the millimetres of the moving image to those of the fixed one.
    """
    back = np.linalg.inv(fsl_from_voxels(moving)) @ np.linalg.inv(matrix) @ fsl_from_voxels(fixed)
    return nib.affines.apply_affine(back, voxels_of(fixed.shape))


def applywarp_voxels(warp: np.ndarray, moving, fixed) -> np.ndarray:
    """Where ``applywarp --rel`` samples it: the vector is added to the place in millimetres."""
    places = nib.affines.apply_affine(fsl_from_voxels(fixed), voxels_of(fixed.shape)) + warp
    return nib.affines.apply_affine(np.linalg.inv(fsl_from_voxels(moving)), places)


def test_flirt_applies_our_matrix(pair, run, pulled, assert_alike) -> None:
    run("fsl.md", 'np.savetxt("flirt.mat"')
    moving, fixed = pair.image("moving"), pair.image("fixed")
    at = flirt_voxels(np.loadtxt("flirt.mat"), moving, fixed)
    theirs = pulled(pair.values("moving"), at)
    assert_alike(theirs, pair.values("rigid/Warped"), at, moving.shape)


def test_applywarp_applies_our_warp(pair, run, pulled, assert_alike) -> None:
    run("fsl.md", 'np.savetxt("flirt.mat"')
    moving, fixed = pair.image("moving"), pair.image("fixed")
    warp = pair.image("fsl_warp")
    assert warp.header["intent_code"] == 2006
    assert warp.shape == (*fixed.shape, 3)
    at = applywarp_voxels(np.asarray(warp.dataobj), moving, fixed)
    theirs = pulled(pair.values("moving"), at)
    assert_alike(theirs, pair.values("pair/Warped"), at, moving.shape)
    np.testing.assert_array_equal(
        pulled(pair.values("moving_labels"), np.rint(at), order=0)[at.min(-1) > 1][::7],
        pair.values("pair/WarpedLabels")[at.min(-1) > 1][::7],
    )


@pytest.fixture
def of_fsl(pair) -> np.ndarray:
    """A matrix and a warp of FSL's in the working directory, and the images that they are of."""
    moving, fixed = pair.image("moving"), pair.image("fixed")
    for name, image in (("func", moving), ("T1", fixed)):
        nib.save(image, f"{name}.nii.gz")
    turn = np.array([[0.99, -0.1, 0.05, 3], [0.1, 0.98, 0.02, -2], [-0.05, 0, 1.02, 4]])
    np.savetxt("func2T1.mat", np.vstack([turn, [0, 0, 0, 1]]))
    here = nib.affines.apply_affine(fixed.affine, voxels_of(fixed.shape))
    there = nib.affines.apply_affine(np.linalg.inv(moving.affine), shifted(here))
    warp = nib.affines.apply_affine(fsl_from_voxels(moving), there)
    warp -= nib.affines.apply_affine(fsl_from_voxels(fixed), voxels_of(fixed.shape))
    nib.save(nib.Nifti1Image(warp.astype(np.float32), fixed.affine), "fnirt_warp.nii.gz")
    return warp


def test_we_apply_matrices_of_flirt(pair, of_fsl, run, cli, pulled, assert_alike, tmp_path) -> None:
    run("fsl.md", "fnirt_itk.nii.gz")
    moving, fixed, out = pair.image("moving"), pair.image("fixed"), tmp_path / "o.nii.gz"
    assert (
        cli("apply", "func.nii.gz", "-t", "func_to_T1.txt", "-r", "T1.nii.gz", "-o", out).code == 0
    )
    at = flirt_voxels(np.loadtxt("func2T1.mat"), moving, fixed)
    assert_alike(
        pulled(pair.values("moving"), at), np.asarray(nib.load(out).dataobj), at, moving.shape
    )


def test_we_apply_warps_of_fnirt(pair, of_fsl, run, cli, pulled, assert_alike, tmp_path) -> None:
    run("fsl.md", "fnirt_itk.nii.gz")
    moving, fixed, out = pair.image("moving"), pair.image("fixed"), tmp_path / "o.nii.gz"
    assert cli("apply", "moving.nii.gz", "-t", "fnirt_itk.nii.gz", "-o", out).code == 0
    at = applywarp_voxels(of_fsl, moving, fixed)
    assert_alike(
        pulled(pair.values("moving"), at), np.asarray(nib.load(out).dataobj), at, moving.shape
    )
    points = pair.result.fixed.grid.to_world(np.array([[9.0, 10, 11], [14, 15, 12]]))
    loaded = load_transform("fnirt_itk.nii.gz").transform
    np.testing.assert_allclose(loaded.map(points), shifted(points), atol=1e-3)


def test_nitransforms_has_the_same_matrix(pair, run) -> None:
    linear = pytest.importorskip("nitransforms.linear")
    run("fsl.md", 'np.savetxt("flirt.mat"')
    loaded = linear.load("flirt.mat", fmt="fsl", reference="fixed.nii.gz", moving="moving.nii.gz")
    np.testing.assert_allclose(loaded.matrix, pair.rigid.affine.matrix, atol=1e-4)
