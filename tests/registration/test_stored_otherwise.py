"""However a scan is stored, its registration is the same: axes, shear, formats, types, scales."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from image_files import nodes
from nibabel.affines import apply_affine

import voxwarp
from voxwarp.preparation.settings import Preparation

AS_PLACED = Preparation(affine=False)


def stored_otherwise(image: nib.Nifti1Image, order, flips) -> nib.Nifti1Image:
    """The same scan with its axes in another order, some of them backwards."""
    data = np.asarray(image.dataobj).transpose(order)
    affine = image.affine[:, [*order, 3]]
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
        affine[:3, axis] *= -1
        data = np.flip(data, axis)
    return nib.Nifti1Image(np.ascontiguousarray(data), affine)


WAYS = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((0, 1), repeat=3))
)


def test_all_48_ways_to_store_the_moving_scan_give_the_same(
    phantoms, poses, make_grid, register_quickly, monkeypatch, tmp_path
):
    """A small template stands in for MNI152, so that this is 48 quick registrations."""
    path = tmp_path / "template.nii.gz"
    nib.save(phantoms.image(make_grid(spacing=5)), path)
    scan = phantoms.image(make_grid(spacing=(4.5, 5, 6), turn=(13, -8, 21)), poses.moving)
    monkeypatch.setattr(phantoms, "template", voxwarp.read_volume(path))
    first = register_quickly(scan, None)
    span = np.ptp(first.warped.data)
    assert span > 100
    assert len(WAYS) == 48
    for order, flips in WAYS:
        moving = stored_otherwise(scan, order, flips)
        again = register_quickly(moving, None)
        where = f"axes {order}, backwards {flips}"
        assert np.abs(again.warped.data - first.warped.data).max() < 1e-4 * span, where
        expected = stored_otherwise(
            nib.Nifti1Image(first.inverse_warped.data, scan.affine), order, flips
        )
        assert again.inverse_warped.data.shape == moving.shape, where
        assert (
            np.abs(again.inverse_warped.data - np.asarray(expected.dataobj)).max() < 1e-4 * span
        ), where


@pytest.mark.parametrize(("order", "flips"), WAYS[7::17])
def test_ways_to_store_the_fixed_scan_give_the_same(
    phantoms, poses, make_grid, register_quickly, order, flips
):
    moving = phantoms.image(make_grid(spacing=5), poses.moving)
    fixed = phantoms.image(make_grid(spacing=(4.5, 5, 6), turn=(13, -8, 21)), poses.fixed)
    first = register_quickly(moving, fixed)
    again = register_quickly(moving, stored_otherwise(fixed, order, flips))
    expected = stored_otherwise(nib.Nifti1Image(first.warped.data, fixed.affine), order, flips)
    span = np.ptp(first.warped.data)
    assert np.abs(again.warped.data - np.asarray(expected.dataobj)).max() < 1e-4 * span
    assert np.abs(again.inverse_warped.data - first.inverse_warped.data).max() < 1e-4 * span


def test_mgz_is_read(scans, tmp_path, register_quickly):
    """FreeSurfer's format, of scans and of labels."""
    for name in ("moving", "moving_labels"):
        image = nib.load(getattr(scans, name))
        data = np.asarray(image.dataobj).astype(np.int32)
        nib.save(nib.MGHImage(data, image.affine), tmp_path / f"{name}.mgz")
    mgz, nii = (
        register_quickly(moving, scans.fixed, labels=labels, preparation=AS_PLACED)
        for moving, labels in (
            (tmp_path / "moving.mgz", tmp_path / "moving_labels.mgz"),
            (scans.moving, scans.moving_labels),
        )
    )
    assert np.abs(mgz.warped.data.astype(int) - nii.warped.data).max() <= 1
    assert (mgz.warped_labels.data != nii.warped_labels.data).mean() < 1e-3


@pytest.mark.parametrize("role", ["moving", "fixed"])
def test_sheared_scan_is_put_on_an_orthogonal_grid_with_a_warning(
    phantoms, poses, make_grid, register_quickly, tmp_path, role
):
    grids = {"moving": make_grid("LAS", (4, 4.5, 4)), "fixed": make_grid(spacing=4.5)}
    straight = {name: phantoms.image(grid, getattr(poses, name)) for name, grid in grids.items()}
    sheared = make_grid(grids[role].axes, grids[role].spacing, turn=(5, 4, -6), shear=0.12)
    assert sheared.is_sheared()
    path = tmp_path / f"sheared-{role}.nii.gz"
    image = nib.Nifti1Image(phantoms.values(sheared, getattr(poses, role)), None)
    image.set_sform(sheared.affine, code=1)
    nib.save(image, path)
    result = register_quickly(*(({**straight, role: path})[name] for name in ("moving", "fixed")))
    result.save(tmp_path / "out")

    warnings = [w for w in result.warnings if "shear" in w]
    assert len(warnings) == 1
    assert path.name in warnings[0]
    assert role in warnings[0]
    for name, of in (("Warped", "fixed"), ("1Warp", "fixed"), ("InverseWarped", "moving")):
        affine = nib.load(tmp_path / "out" / f"{name}.nii.gz").affine[:3, :3]
        direction = affine / np.linalg.norm(affine, axis=0)
        np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-5)
        sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
        if of == role:  # all of the scan is on the new grid
            image = nib.load(tmp_path / "out" / f"{name}.nii.gz")
            at = apply_affine(np.linalg.inv(image.affine), sheared.to_world(sheared.corners()))
            assert (at > -1e-2).all()
            assert (at < np.array(image.shape[:3]) - 1 + 1e-2).all()

    # The world is the same as for the scan that was not sheared.
    reference = register_quickly(straight["moving"], straight["fixed"])
    points = nodes(straight["fixed"])[np.asarray(straight["fixed"].dataobj) > 50]
    apart = np.linalg.norm(result.transform.map(points) - reference.transform.map(points), axis=1)
    assert apart.mean() < 1.5

    # The files say what was done: voxwarp's own apply, and ITK, from the original file.
    saved = voxwarp.load_transform(tmp_path / "out")
    again = voxwarp.apply_to_image(straight["moving"] if role == "fixed" else path, saved)
    warped = nib.load(tmp_path / "out" / "Warped.nii.gz")
    assert again.data.shape == warped.shape
    difference = np.abs(again.data - np.asarray(warped.dataobj))
    if role == "fixed":  # the moving scan as it is, resampled once, both times
        assert difference.max() < 0.01
    else:
        assert difference.mean() < 2
        assert np.corrcoef(again.data.ravel(), np.asarray(warped.dataobj).ravel())[0, 1] > 0.99


def test_sheared_labels_keep_their_values(phantoms, poses, make_grid, register_quickly, tmp_path):
    grid = make_grid(spacing=4.5, shear=0.12)
    paths = tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz"
    for path, data in zip(
        paths,
        (phantoms.values(grid), np.asarray(phantoms.labels(grid).dataobj)),
        strict=True,
    ):
        image = nib.Nifti1Image(data, None)
        image.set_sform(grid.affine, code=1)
        nib.save(image, path)
    result = register_quickly(
        paths[0], paths[0], labels=paths[1], fixed_labels=paths[1], preparation=AS_PLACED
    )
    assert set(np.unique(result.warped_labels.data)) == set(np.unique(nib.load(paths[1]).dataobj))
    assert result.metrics["dice"]["mean"] > 0.999


def test_z_scores_are_aligned_as_the_scan_itself(phantoms, poses, make_grid, register_quickly):
    """A brain of mean zero has no centre of mass until it is shifted."""
    grid = make_grid("ASR", (4.5, 4, 5), turn=(12, -7, 9))
    scan = phantoms.image(grid, poses.moving)
    data = np.asarray(scan.dataobj)
    brain = data > 0
    scores = np.where(brain, (data - data[brain].mean()) / data[brain].std(), 0)
    scored = nib.Nifti1Image(scores.astype(np.float32), scan.affine)
    fixed = phantoms.image(make_grid("LPI", (4, 5, 4.5)), poses.fixed)
    one, other = (register_quickly(moving, fixed) for moving in (scan, scored))
    points = make_grid().nodes()[10:30, 10:30, 10:30]
    gap = np.linalg.norm(one.affine.map(points) - other.affine.map(points), axis=-1)
    assert gap.max() < 4.0  # a voxel: both see the same brain with other greys at its rim


def test_a_header_of_two_minds_is_a_warning(phantoms, poses, make_grid, register_quickly):
    moving = phantoms.image(make_grid(), poses.moving)
    shifted = moving.affine.copy()
    shifted[0, 3] += 10
    moving.set_sform(moving.affine, code=4)
    moving.set_qform(shifted, code=1)
    fixed = phantoms.image(make_grid(), poses.fixed)
    said = register_quickly(moving, fixed).warnings
    assert any("qform and sform differ" in line and "moving" in line for line in said)


TYPES = [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).str)
def test_type_of_the_scan_is_kept(phantoms, make_grid, register_quickly, tmp_path, dtype):
    dtype = np.dtype(dtype)
    data = np.clip(phantoms.values(make_grid(spacing=5)), 0, 255)
    image = nib.Nifti1Image(data.astype(dtype), make_grid(spacing=5).affine)
    image.set_data_dtype(dtype)
    path = tmp_path / "scan.nii"
    nib.save(image, path)
    result = register_quickly(path, path, preparation=AS_PLACED)
    result.save(tmp_path / "out")
    for name in ("Warped.nii.gz", "InverseWarped.nii.gz"):
        saved = nib.load(tmp_path / "out" / name)
        assert saved.get_data_dtype().newbyteorder("=") == dtype.newbyteorder("=")
        assert saved.dataobj.slope in (1, None)
        assert saved.dataobj.inter in (0, None)
        # A scan registered to itself does not move: the intensities are all as they were.
        interior = (slice(1, -1),) * 3
        np.testing.assert_allclose(
            np.asarray(saved.dataobj)[interior],
            data.astype(dtype)[interior],
            atol=0 if dtype.kind in "iu" else 1e-2,
        )


def test_scaled_integers_become_the_floats_they_stand_for(
    phantoms, make_grid, register_quickly, tmp_path
):
    grid = make_grid(spacing=5)
    values = phantoms.values(grid) / 100 + 3 * (phantoms.values(grid) > 0)
    image = nib.Nifti1Image(values, grid.affine)
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scaled.nii.gz")
    assert nib.load(tmp_path / "scaled.nii.gz").dataobj.slope != 1
    result = register_quickly(
        tmp_path / "scaled.nii.gz", tmp_path / "scaled.nii.gz", preparation=AS_PLACED
    )
    assert result.warped.data.dtype == np.float32
    interior = (slice(1, -1),) * 3
    np.testing.assert_allclose(result.warped.data[interior], values[interior], atol=1e-3)


@pytest.mark.parametrize(
    "dtype", [np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64, ">u2"]
)
def test_label_values_are_kept_in_every_type(
    scans, phantoms, poses, make_grid, register_quickly, label_values, tmp_path, dtype
):
    labels = nib.load(scans.moving_labels)
    path = tmp_path / "labels.nii.gz"
    image = nib.Nifti1Image(np.asarray(labels.dataobj).astype(dtype), labels.affine, dtype=dtype)
    nib.save(image, path)
    result = register_quickly(scans.moving, scans.fixed, labels=path, preparation=AS_PLACED)
    result.save(tmp_path / "out")
    saved = nib.load(tmp_path / "out" / "WarpedLabels.nii.gz")
    assert saved.get_data_dtype().kind in "iu"
    assert set(np.unique(np.asarray(saved.dataobj)).tolist()) == label_values
    assert saved.header.get_intent()[0] == "label"
