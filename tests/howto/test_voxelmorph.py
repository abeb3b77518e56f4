"""Warps of VoxelMorph, in voxels, against SciPy."""

import nibabel as nib
import numpy as np


def test_a_warp_in_voxels_becomes_a_field_of_itk(
    pair, run, cli, pulled, assert_alike, tmp_path
) -> None:
    """Moving and fixed image are on one grid: moved(x) = moving(x + u(x)), in voxels."""
    fixed, out = pair.image("fixed"), tmp_path / "o.nii.gz"
    voxels = np.moveaxis(np.indices(fixed.shape), 0, -1)
    shift = 2 * np.sin(np.roll(voxels, 1, axis=-1) / 6 + [0, 1, 2]).astype(np.float32)
    nib.save(nib.Nifti1Image(shift, fixed.affine), "vxm_warp.nii.gz")
    run("coming-from-voxelmorph.md", "vxm_itk.nii.gz")
    assert cli("apply", "fixed.nii.gz", "-t", "vxm_itk.nii.gz", "-o", out).code == 0
    at = voxels + shift
    theirs = pulled(pair.values("fixed"), at)
    assert_alike(theirs, np.asarray(nib.load(out).dataobj), at, fixed.shape)
