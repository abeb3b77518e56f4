"""SPM's deformations, both ways, against SPM's way of resampling, written anew here."""

import nibabel as nib
import numpy as np
from other_tools import shifted


def spm_voxels(deformation: nib.Nifti1Image, image) -> np.ndarray:
    """Where SPM samples an image: at the place in mm that the deformation holds."""
    places = np.asarray(deformation.dataobj, np.float64)
    assert places.shape[3:] == (1, 3)
    return nib.affines.apply_affine(np.linalg.inv(image.affine), places[:, :, :, 0, :])


def test_spm_applies_our_deformations(pair, run, pulled, assert_alike) -> None:
    run("spm.md", "y_ours.nii")
    for name, image, ours in (
        ("y_ours.nii", "moving", "Warped"),
        ("iy_ours.nii", "fixed", "InverseWarped"),
    ):
        deformation = pair.image(name)
        assert deformation.header.get_intent()[::2] == ("vector", "Mapping")
        np.testing.assert_allclose(deformation.affine, pair.image(f"out/{ours}").affine, atol=1e-4)
        at = spm_voxels(deformation, pair.image(image))
        theirs = pulled(pair.values(image), at)
        assert_alike(theirs, pair.values(f"out/{ours}"), at, pair.image(image).shape)


def test_we_apply_deformations_of_spm(pair, run, cli, pulled, assert_alike, tmp_path) -> None:
    moving, fixed, out = pair.image("moving"), pair.image("fixed"), tmp_path / "o.nii"
    places = shifted(pair.result.fixed.grid.nodes()).astype(np.float32)
    places[0, 0] = np.nan  # where SPM knows none
    deformation = nib.Nifti1Image(places[:, :, :, None, :], fixed.affine)
    deformation.header.set_intent("vector", name="Mapping")
    nib.save(deformation, "y_T1.nii")
    run("spm.md", "spm_y.nii.gz")
    assert cli("apply", "moving.nii.gz", "-t", "spm_y.nii.gz", "-o", out).code == 0
    at = spm_voxels(deformation, moving)
    at[0, 0] = -9  # not compared
    assert_alike(
        pulled(pair.values("moving"), at), np.asarray(nib.load(out).dataobj), at, moving.shape
    )


def test_what_is_said_of_points(pair, run, cli, tmp_path) -> None:
    """``y_`` takes points of the template to the scan, with --inverse."""
    places = shifted(pair.result.fixed.grid.nodes()).astype(np.float32)[:, :, :, None, :]
    image = nib.Nifti1Image(places, pair.image("fixed").affine)
    image.header.set_intent("vector", name="Mapping")
    nib.save(image, "y_T1.nii")
    run("spm.md", "spm_y.nii.gz")
    (tmp_path / "p.csv").write_text("x,y,z\n0,-18,4\n20,-30,10\n")
    words = tmp_path / "p.csv", "-t", "spm_y.nii.gz", "--inverse", "-o", tmp_path / "q.csv"
    assert cli("points", *words).code == 0
    moved = np.loadtxt(tmp_path / "q.csv", delimiter=",", skiprows=1)
    expected = shifted(np.array([[0.0, -18, 4], [20, -30, 10]]))
    np.testing.assert_allclose(moved, expected, atol=0.1)  # the field is linear between voxels


def test_tissue_maps_make_a_mask(tmp_path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    shares = np.random.default_rng(0).dirichlet(np.ones(4), (5, 6, 7)).astype(np.float32)
    for number in (1, 2, 3):
        nib.save(nib.Nifti1Image(shares[..., number - 1], np.eye(4)), f"c{number}T1.nii")
    run("spm.md", "spm_brain_mask.nii.gz")
    mask = np.asarray(nib.load("spm_brain_mask.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, shares[..., 3] < 0.5)
