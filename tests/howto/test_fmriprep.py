"""Transforms with the names of fMRIPrep, written and applied by SimpleITK."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from other_tools import itk_field, shifted, unshifted

ANAT = "sub-01_from-{}_to-{}_mode-image_xfm.h5"
COREG = "sub-01_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt"


@pytest.fixture
def names(pair, tmp_path) -> dict[str, str]:
    """Files: both directions T1w (moving) and MNI (fixed), and boldref to T1w, which is a shift."""
    files = {}
    for a, b, through, role in (
        ("T1w", "MNI", shifted, "fixed"),
        ("MNI", "T1w", unshifted, "moving"),
    ):
        field = itk_field(getattr(pair.result, role).grid, through)
        composite = sitk.CompositeTransform(
            [sitk.AffineTransform(3), sitk.DisplacementFieldTransform(field)]
        )
        files[a] = str(tmp_path / ANAT.format(a, b))
        sitk.WriteTransform(composite, files[a])
    linear = sitk.Euler3DTransform((3.0, -20, 5), 0.05, -0.03, 0.08, (4.0, -3.0, 6.0))
    files["coreg"] = str(tmp_path / COREG)
    sitk.WriteTransform(linear, files["coreg"])
    return files


def test_from_a_to_b_carries_images_from_a_to_b(pair, names, cli, tmp_path) -> None:
    """The file of the other direction is found where it is needed, also for points."""
    out, table = tmp_path / "o.nii.gz", tmp_path / "p.csv"
    assert cli("apply", "moving.nii.gz", "-t", names["T1w"], "-o", out).code == 0
    transform = sitk.ReadTransform(names["T1w"])
    theirs = resampled("moving.nii.gz", "fixed.nii.gz", transform)
    check(theirs, np.asarray(nib.load(out).dataobj))
    points = np.array([[0.0, -18, 4], [20, -30, 10]])  # of the T1w scan
    rows = "".join(f"{x},{y},{z}\n" for x, y, z in points)
    table.write_text("x,y,z\n" + rows)
    assert cli("points", table, "-t", names["T1w"], "-o", tmp_path / "q.csv").code == 0
    moved = np.loadtxt(tmp_path / "q.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(shifted(moved), points, atol=0.1)


def test_a_chain_of_theirs_and_ours(pair, names, cli, tmp_path) -> None:
    """boldref → T1w by a text file, T1w → fixed by our folder: against SimpleITK."""
    out = tmp_path / "o.nii.gz"
    words = "-t", names["coreg"], "-t", "pair", "-r", "fixed.nii.gz"
    assert cli("apply", "moving.nii.gz", *words, "-o", out).code == 0
    field = sitk.DisplacementFieldTransform(
        sitk.ReadImage("pair/1Warp.nii.gz", sitk.sitkVectorFloat64)
    )
    affine = sitk.ReadTransform("pair/0GenericAffine.mat")
    chain = sitk.CompositeTransform([sitk.ReadTransform(names["coreg"]), affine, field])
    check(resampled("moving.nii.gz", "fixed.nii.gz", chain), np.asarray(nib.load(out).dataobj))
    chain = sitk.CompositeTransform(
        [sitk.ReadTransform(names["coreg"]), sitk.ReadTransform(names["T1w"])]
    )
    words = "-t", names["coreg"], "-t", names["T1w"], "--overwrite"
    assert cli("apply", "moving.nii.gz", *words, "-o", out).code == 0
    check(resampled("moving.nii.gz", "fixed.nii.gz", chain), np.asarray(nib.load(out).dataobj))


def resampled(image: str, reference: str, transform: sitk.Transform) -> np.ndarray:
    image, reference = sitk.ReadImage(image), sitk.ReadImage(reference)
    return sitk.GetArrayFromImage(sitk.Resample(image, reference, transform)).T


def check(theirs: np.ndarray, ours: np.ndarray) -> None:
    """But for the half voxel beyond the image, where ITK extends and voxwarp fades."""
    difference = np.abs(theirs - ours)
    assert theirs.max() > 100
    assert np.quantile(difference, 0.98) < 1e-3 * theirs.max()
    inner = tuple(slice(n // 4, -n // 4) for n in ours.shape)
    assert difference[inner].max() < 1e-3 * theirs.max()
