"""Heads: they are aligned by their brains and resampled whole."""

import hashlib
import types
from dataclasses import replace
from pathlib import Path

import extractors
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from image_files import brain_points, overlap, voxels
from scipy import ndimage

from voxwarp.preparation.brain import EXTRACTORS
from voxwarp.preparation.settings import Preparation
from voxwarp.registration.result import Registration


@pytest.fixture(scope="module")
def heads(phantoms, poses, make_grid, tmp_path_factory) -> types.SimpleNamespace:
    """Paths of two heads, of their true brains' masks and of the brains alone, voxel by voxel."""
    folder = tmp_path_factory.mktemp("heads")
    paths = types.SimpleNamespace()
    for role, grid in (
        ("moving", make_grid("ASR", (4.5, 4, 5), turn=(12, -7, 9), room=25)),
        ("fixed", make_grid("LPI", (4, 5, 4.5), room=25)),
    ):
        pose = getattr(poses, role)
        head, brain = (f(grid, pose, np.int16) for f in (phantoms.head, phantoms.image))
        mask = (np.asarray(brain.dataobj) > 0).astype(np.uint8)
        for name, image in (
            (role, head),
            (f"{role}_brain", brain),
            (f"{role}_mask", nib.Nifti1Image(mask, brain.affine)),
        ):
            setattr(paths, name, folder / f"{name}.nii.gz")
            nib.save(image, getattr(paths, name))
    return paths


@pytest.fixture(scope="module")
def known(phantoms, poses):
    """Extractors by name: one that knows the phantoms' brains, and one that must not be called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            EXTRACTORS,
            "register knows",
            extractors.knowing(phantoms, moving=poses.moving, fixed=poses.fixed),
        )
        patch.setitem(EXTRACTORS, "never", extractors.never)
        yield {"preparation": Preparation(extractor="register knows")}


@pytest.fixture(scope="module")
def of_heads(heads, known, register_quickly) -> Registration:
    return register_quickly(heads.moving, heads.fixed, **known)


@pytest.fixture(scope="module")
def saved_heads(of_heads, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("of-heads") / "out"
    of_heads.save(folder)
    return folder


MASKS = ("MovingBrainMask.nii.gz", "FixedBrainMask.nii.gz", "WarpedBrainMask.nii.gz")


def test_masks_of_heads_are_their_brains(heads, saved_heads):
    for name, role in zip(MASKS[:2], ("moving", "fixed"), strict=True):
        mask, true = nib.load(saved_heads / name), nib.load(getattr(heads, f"{role}_mask"))
        np.testing.assert_allclose(mask.affine, true.affine, atol=1e-5)
        assert set(np.unique(mask.dataobj)) == {0, 1}
        assert overlap(np.asarray(mask.dataobj) > 0, np.asarray(true.dataobj) > 0) > 0.97
    warped = nib.load(saved_heads / "WarpedBrainMask.nii.gz")
    np.testing.assert_allclose(warped.affine, nib.load(heads.fixed).affine, atol=1e-5)
    assert overlap(np.asarray(warped.dataobj) > 0, voxels(heads.fixed_mask) > 0) > 0.9


def test_masks_are_written_for_heads_alone(heads, known, saved_heads, register_quickly, tmp_path):
    assert set(MASKS) < {path.name for path in saved_heads.iterdir()}
    for moving, fixed, expected in (
        (heads.moving, heads.fixed_brain, {MASKS[0], MASKS[2]}),
        (heads.moving_brain, heads.fixed, {MASKS[1]}),
        (heads.moving_brain, heads.fixed_brain, set()),
    ):
        result = register_quickly(moving, fixed, **known)
        result.save(tmp_path / moving.name / fixed.name)
        names = {path.name for path in (tmp_path / moving.name / fixed.name).iterdir()}
        assert names & set(MASKS) == expected
        brain = voxels(heads.fixed_mask) > 0
        if result.warped_mask is not None:
            assert overlap(result.warped_mask.data > 0, brain) > 0.9
        else:
            assert overlap(result.warped.data > 100, brain) > 0.85
        seen = [result.metrics["preparation"][role]["seen_as"] for role in ("moving", "fixed")]
        assert seen == ["brain" if "brain" in path.name else "head" for path in (moving, fixed)]


@pytest.mark.parametrize("backward", [False, True])
def test_whole_head_is_resampled_once_as_simpleitk_does_it(heads, saved_heads, backward: bool):
    affine = sitk.AffineTransform(sitk.ReadTransform(str(saved_heads / "0GenericAffine.mat")))
    name = "1InverseWarp.nii.gz" if backward else "1Warp.nii.gz"
    warp = sitk.DisplacementFieldTransform(
        sitk.ReadImage(str(saved_heads / name), sitk.sitkVectorFloat64)
    )
    # A composite applies the transform that was added last first.
    chain = [warp, affine.GetInverse()] if backward else [affine, warp]
    image, grid = (str(getattr(heads, role)) for role in ("moving", "fixed"))
    image, grid = (grid, image) if backward else (image, grid)
    source, onto = sitk.ReadImage(image, sitk.sitkFloat32), sitk.ReadImage(grid)
    expected, inside = (
        sitk.GetArrayFromImage(sitk.Resample(x, onto, sitk.CompositeTransform(chain))).T
        for x in (source, source * 0 + 1)
    )
    found = voxels(saved_heads / ("InverseWarped.nii.gz" if backward else "Warped.nii.gz"))
    inside = ndimage.binary_erosion(inside > 0.999)  # ITK ends at the outer voxels' centres
    assert inside.mean() > 0.5
    assert np.abs(found - expected)[inside].max() < 1.5  # int16 is rounded
    brain = voxels(heads.moving_mask if backward else heads.fixed_mask) > 0
    away = ndimage.distance_transform_edt(~brain, nib.load(grid).header.get_zooms())
    scalp = (away > 9) & (away < 14) & (expected > 0)
    assert scalp.sum() > 1000
    assert np.median(found[scalp]) > 600  # 4 × 230 in the phantom


def test_numbers_are_taken_over_the_brain_of_a_fixed_head(of_heads):
    assert of_heads.metrics["jacobian"]["voxels"] == of_heads.fixed_mask.data.sum()
    assert of_heads.metrics["similarity"]["before"]["local_ncc"] > 0.3
    assert of_heads.warnings == []


def test_preparation_in_the_metrics_makes_up_the_affine(of_heads, heads):
    found = of_heads.metrics["preparation"]
    fixed, moving = (np.array(found[role]["template_to_scan"]) for role in ("fixed", "moving"))
    np.testing.assert_allclose(moving @ np.linalg.inv(fixed), of_heads.affine.matrix, atol=1e-9)
    for role in ("fixed", "moving"):
        mask = nib.load(getattr(heads, f"{role}_mask"))
        true = np.asarray(mask.dataobj).sum() * np.prod(mask.header.get_zooms()) / 1000
        assert found[role]["brain_mask_ml"] == pytest.approx(true, rel=0.05)
        assert found[role]["seen_as"] == "head"
        assert found[role]["bias_corrected"] is True
        assert set(found[role]["seconds"]) == {"conform", "bias", "extract", "affine"}
        assert found[role]["agreement_with_template"]["overlap"] > 0.9


def test_settings_of_the_preparation_are_on_record(of_heads):
    """Without them the command could not be repeated."""
    expected = {"brain_extract": "auto", "extractor": "register knows", "bias": None}
    assert of_heads.metrics["settings"].items() >= expected.items()


def test_head_with_its_true_mask_is_registered_as_its_brain(heads, known, register_quickly):
    given = register_quickly(
        *(heads.moving, heads.fixed),
        **{"mask": heads.moving_mask, "fixed_mask": heads.fixed_mask},
        preparation=Preparation(extractor="never", bias=False),
    )
    np.testing.assert_array_equal(given.moving_mask.data, voxels(heads.moving_mask))
    never = Preparation(extractor="never")
    brains = register_quickly(heads.moving_brain, heads.fixed_brain, preparation=never)
    points = brain_points(heads.fixed_brain)
    moved = np.linalg.norm(brains.transform.map(points) - points, axis=1)
    apart = np.linalg.norm(given.transform.map(points) - brains.transform.map(points), axis=1)
    assert moved.mean() > 5
    assert apart.mean() < 1
    for role in ("mask", "fixed_mask"):
        path = heads.moving_mask if role == "mask" else heads.fixed_mask
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        assert given.metrics["inputs"][role] == {"path": str(path), "sha256": sha256}


def test_brain_extract_overrules_the_look(heads, known, register_quickly):
    """``yes`` extracts from a brain too, ``no`` leaves a head as it is."""
    fixed = {"fixed_mask": heads.fixed_mask}
    given = replace(known["preparation"], affine=False, bias=False)
    never = replace(given, extractor="never")
    yes = register_quickly(
        *(heads.moving_brain, heads.fixed), preparation=replace(given, brain_extract="yes"), **fixed
    )
    assert overlap(yes.moving_mask.data > 0, voxels(heads.moving_mask) > 0) > 0.97
    no = register_quickly(
        *(heads.moving, heads.fixed), preparation=replace(never, brain_extract="no"), **fixed
    )
    assert no.moving_mask is None
    auto = register_quickly(heads.moving_brain, heads.fixed, preparation=never, **fixed)
    assert auto.moving_mask is None
