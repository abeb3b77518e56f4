"""ANTs goes on from our transforms, and makes one field of them that we read."""

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture(scope="module")
def ants():
    return pytest.importorskip("ants")


def test_one_field_of_several_transforms_is_read(pair, ants, cli, tmp_path) -> None:
    """As ``antsApplyTransforms -o [FIELD,1]`` writes it."""
    fixed, moving = ants.image_read("fixed.nii.gz"), ants.image_read("moving.nii.gz")
    forward = ["pair/1Warp.nii.gz", "pair/0GenericAffine.mat"]
    field = ants.apply_transforms(fixed, moving, forward, compose=f"{tmp_path}/total_")
    assert field.endswith("total_comptx.nii.gz")
    out = tmp_path / "o.nii.gz"
    assert cli("apply", "moving.nii.gz", "-t", field, "-o", out).code == 0
    theirs, ours = pair.values("pair/Warped"), np.asarray(nib.load(out).dataobj)
    assert np.abs(theirs - ours).max() < 1e-2


def test_a_registration_of_ants_starts_from_ours(pair, ants, tmp_path) -> None:
    """Without a step of its own, its result is ours."""
    fixed, moving = ants.image_read("fixed.nii.gz"), ants.image_read("moving.nii.gz")
    found = ants.registration(
        *(fixed, moving, "SyNOnly"),
        initial_transform=["pair/1Warp.nii.gz", "pair/0GenericAffine.mat"],
        reg_iterations=(0, 0),
        outprefix=f"{tmp_path}/from_ours_",
    )
    theirs, ours = found["warpedmovout"].numpy(), pair.values("pair/Warped")
    inner = tuple(slice(n // 4, -n // 4) for n in ours.shape)
    assert np.abs(theirs - ours)[inner].max() < 1e-2 * ours.max()
