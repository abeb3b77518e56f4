"""``voxwarp register``, in Python and as a command: what it promises, and what it refuses."""

import csv
import errno
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import extractors
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from bad_files import BAD_SCANS
from nibabel.affines import apply_affine
from scipy import ndimage

import voxwarp
from voxwarp.errors import InputError
from voxwarp.networks.model import Model, Recipe, installed
from voxwarp.networks.refine import STEPS
from voxwarp.preparation.brain import EXTRACTORS
from voxwarp.preparation.prepare import template_path
from voxwarp.registration.registration import Registration, register
from voxwarp.space.grid import Grid

IMAGES = ("1Warp.nii.gz", "1InverseWarp.nii.gz", "Warped.nii.gz", "InverseWarped.nii.gz")
FILES = {"0GenericAffine.mat", *IMAGES, "report.html", "metrics.json"}


@pytest.fixture(scope="module")
def scans(phantoms, poses, unlike_grids, tmp_path_factory) -> types.SimpleNamespace:
    """Paths of two scans of different grids and of their labels."""
    folder = tmp_path_factory.mktemp("scans")
    paths = types.SimpleNamespace(folder=folder)
    for role, grid in unlike_grids.items():
        pose = getattr(poses, role)
        for name, image in (
            (role, phantoms.image(grid, pose, np.int16)),
            (f"{role}_labels", phantoms.labels(grid, pose)),
        ):
            path = folder / f"{name}.nii.gz"
            nib.save(image, path)
            setattr(paths, name, path)
    return paths


@pytest.fixture(scope="module")
def result(scans, register_quickly) -> Registration:
    """The two scans, registered with both label maps."""
    return register_quickly(
        scans.moving, scans.fixed, labels=scans.moving_labels, fixed_labels=scans.fixed_labels
    )


def brain_points(path: Path, number: int = 300) -> np.ndarray:
    """RAS points between the voxels of the brain."""
    image = nib.load(path)
    rng = np.random.default_rng(11)
    voxels = rng.permutation(np.argwhere(np.asarray(image.dataobj) > 200))[:number]
    return apply_affine(image.affine, voxels + rng.uniform(-0.5, 0.5, voxels.shape))


def nodes(image: nib.Nifti1Image) -> np.ndarray:
    """RAS mm of all voxel centres, (X, Y, Z, 3)."""
    return apply_affine(image.affine, np.moveaxis(np.indices(image.shape[:3]), 0, -1))


def taken(image: nib.Nifti1Image, points: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's values of an image at RAS points, and where all eight neighbours are inside."""
    at = np.moveaxis(apply_affine(np.linalg.inv(image.affine), points), -1, 0)
    last = np.array(image.shape).reshape(3, *[1] * (at.ndim - 1)) - 1
    data = np.asarray(image.dataobj)
    data = data if order == 0 else data.astype(np.float64)
    return (
        ndimage.map_coordinates(data, at, order=order, mode="nearest"),
        ((at > 1e-3) & (at < last - 1e-3)).all(axis=0),
    )


# The result


def test_warped_is_the_moving_scan_taken_where_the_transform_says(result, scans):
    """One interpolation of the original intensities, int16 kept: SciPy's values, rounded."""
    moving, fixed = nib.load(scans.moving), nib.load(scans.fixed)
    for ours, image, onto, through in (
        (result.warped.data, moving, fixed, result.transform),
        (result.inverse_warped.data, fixed, moving, result.inverse),
    ):
        expected, inside = taken(image, through.map(nodes(onto)), order=1)
        assert ours.dtype == np.int16
        assert ours.shape == onto.shape
        assert inside.mean() > 0.5
        assert np.abs(ours - expected)[inside].max() < 0.5 + 1e-3 * 1000
        assert np.abs(ours - expected)[inside].mean() < 0.27  # rounded, not cut: 0.25
        assert abs(int(ours.max()) - int(np.asarray(image.dataobj).max())) < 60


def test_warped_labels_are_the_nearest_ones(result, scans, label_values):
    points = result.transform.map(nodes(nib.load(scans.fixed)))
    expected, inside = taken(nib.load(scans.moving_labels), points, order=0)
    ours = result.warped_labels.data
    assert (ours != expected)[inside].mean() < 1e-3  # SciPy's ties go another way
    assert set(np.unique(ours)) == label_values
    assert ours.dtype == np.int32


def test_moved_is_an_image_of_nibabel(result, scans):
    fixed = nib.load(scans.fixed)
    np.testing.assert_array_equal(np.asarray(result.moved.dataobj), result.warped.data)
    np.testing.assert_allclose(result.moved.affine, fixed.affine, atol=1e-5)
    assert result.moved.get_data_dtype() == np.int16


def test_affine_stage_finds_a_known_pose(phantoms, make_grid, poses, register_quickly):
    """Of a moving head that is turned, zoomed and shifted alone, the inverse pose is the answer."""
    pose = type(poses.moving)(turn=(9, -6, 12), zoom=0.93, shift=(12, -9, 15))
    moving = phantoms.image(make_grid("LAS", (4, 3.5, 4.5)), pose)
    fixed = phantoms.image(make_grid(turn=(0, 8, -5)))
    found = register_quickly(moving, fixed).affine
    there = nodes(fixed)[np.asarray(fixed.dataobj) > 50]
    error = np.linalg.norm(pose(found.map(there)) - there, axis=1)
    assert np.linalg.norm(pose(there) - there, axis=1).mean() > 15
    assert error.mean() < 1.0
    assert error.max() < 2.5


def test_affine_alone_is_the_affine_and_no_affine_is_none(scans, register_quickly):
    result = register_quickly(scans.moving, scans.fixed, affine=False)
    np.testing.assert_allclose(result.affine.fixed_to_moving, np.eye(4), atol=1e-9)
    points = brain_points(scans.fixed)
    np.testing.assert_allclose(result.transform.map(points), result.warp.map(points), atol=1e-9)
    assert result.metrics["settings"]["affine"] is False


def test_transform_then_inverse_returns(result, scans):
    for path, there, back in (
        (scans.fixed, result.transform, result.inverse),
        (scans.moving, result.inverse, result.transform),
    ):
        points = brain_points(path)
        moved = there.map(points)
        assert np.linalg.norm(moved - points, axis=1).mean() > 2
        error = np.linalg.norm(back.map(moved) - points, axis=1)
        assert np.median(error) < 0.1
        assert error.max() < 0.5


def test_scan_registered_to_itself_does_not_move(scans, register_quickly):
    result = register_quickly(scans.moving, scans.moving)
    assert np.linalg.norm(result.warp.displacement, axis=0).max() < 0.5
    points = brain_points(scans.moving)
    for through in (result.transform, result.inverse):
        assert np.linalg.norm(through.map(points) - points, axis=1).max() < 0.5
    before, after = (
        result.metrics["similarity"][when]["correlation"] for when in ("before", "after")
    )
    assert min(before, after) > 0.999


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
    monkeypatch.setattr("voxwarp.registration.registration.template_path", lambda: path)
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


def test_fixed_is_the_template_by_default(scans, tiny_model):
    """The only test here with the template of 1 mm itself."""
    result = voxwarp.register(scans.moving, model=tiny_model, labels=scans.moving_labels)
    template = nib.load(template_path())
    assert result.warped.data.shape == template.shape
    np.testing.assert_allclose(result.warped.grid.affine, template.affine, atol=1e-6)
    np.testing.assert_array_equal(result.fixed.data, np.asarray(template.dataobj))
    assert "MNI152" in json.dumps(result.metrics["inputs"]["fixed"])
    brain = np.asarray(template.dataobj) > 60
    assert ((result.warped.data > 100) & brain).sum() > 0.7 * brain.sum()
    assert result.metrics["dice"] is None


TYPES = [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).str)
def test_type_of_the_scan_is_kept(phantoms, make_grid, register_quickly, tmp_path, dtype):
    dtype = np.dtype(dtype)
    data = np.clip(phantoms.values(make_grid(spacing=5)), 0, 255)
    image = nib.Nifti1Image(data.astype(dtype), make_grid(spacing=5).affine)
    image.set_data_dtype(dtype)
    path = tmp_path / "scan.nii"
    nib.save(image, path)
    result = register_quickly(path, path, affine=False)
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
    result = register_quickly(tmp_path / "scaled.nii.gz", tmp_path / "scaled.nii.gz", affine=False)
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
    result = register_quickly(scans.moving, scans.fixed, labels=path, affine=False)
    result.save(tmp_path / "out")
    saved = nib.load(tmp_path / "out" / "WarpedLabels.nii.gz")
    assert saved.get_data_dtype().kind in "iu"
    assert set(np.unique(np.asarray(saved.dataobj)).tolist()) == label_values
    assert saved.header.get_intent()[0] == "label"


def test_mgz_is_read(scans, tmp_path, register_quickly):
    """FreeSurfer's format, of scans and of labels."""
    for name in ("moving", "moving_labels"):
        image = nib.load(getattr(scans, name))
        data = np.asarray(image.dataobj).astype(np.int32)
        nib.save(nib.MGHImage(data, image.affine), tmp_path / f"{name}.mgz")
    mgz = register_quickly(
        tmp_path / "moving.mgz", scans.fixed, labels=tmp_path / "moving_labels.mgz", affine=False
    )
    nii = register_quickly(scans.moving, scans.fixed, labels=scans.moving_labels, affine=False)
    assert np.abs(mgz.warped.data.astype(int) - nii.warped.data).max() <= 1
    assert (mgz.warped_labels.data != nii.warped_labels.data).mean() < 1e-3


def test_images_of_nibabel_do_as_well_as_paths(scans, register_quickly, result):
    images = {
        name: nib.load(getattr(scans, name))
        for name in ("moving", "fixed", "moving_labels", "fixed_labels")
    }
    moving = images["moving"]
    images["moving"] = nib.Nifti1Image(np.asarray(moving.dataobj), moving.affine)  # without a file
    again = register_quickly(
        images["moving"],
        images["fixed"],
        labels=images["moving_labels"],
        fixed_labels=images["fixed_labels"],
    )
    np.testing.assert_array_equal(again.warp.displacement, result.warp.displacement)
    np.testing.assert_array_equal(again.warped.data, result.warped.data)
    assert again.metrics["dice"] == result.metrics["dice"]
    json.dumps(again.metrics, allow_nan=False)


# Sheared scans, which ITK files cannot describe


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

    warnings = [w for w in result.metrics["warnings"] if "shear" in w]
    assert len(warnings) == 1
    assert path.name in warnings[0]
    assert role in warnings[0]
    for name, of in (("Warped", "fixed"), ("1Warp", "fixed"), ("InverseWarped", "moving")):
        affine = nib.load(tmp_path / "out" / f"{name}.nii.gz").affine[:3, :3]
        direction = affine / np.linalg.norm(affine, axis=0)
        np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-5)
        sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
        if of == role:  # all of the scan is on the new grid
            there = nib.load(tmp_path / "out" / f"{name}.nii.gz")
            at = apply_affine(np.linalg.inv(there.affine), sheared.to_world(sheared.corners()))
            assert (at > -1e-2).all()
            assert (at < np.array(there.shape[:3]) - 1 + 1e-2).all()

    # The world is the same as for the scan that was not sheared.
    reference = register_quickly(straight["moving"], straight["fixed"])
    points = nodes(straight["fixed"])[np.asarray(straight["fixed"].dataobj) > 50]
    apart = np.linalg.norm(result.transform.map(points) - reference.transform.map(points), axis=1)
    assert apart.mean() < 1.5

    # The files say what was done: voxwarp's own apply, and ITK, from the original file.
    saved = voxwarp.load_transform(tmp_path / "out")
    again, _ = voxwarp.apply_to_image(straight["moving"] if role == "fixed" else path, saved)
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
        paths[0], paths[0], labels=paths[1], fixed_labels=paths[1], affine=False
    )
    assert set(np.unique(result.warped_labels.data)) == set(np.unique(nib.load(paths[1]).dataobj))
    assert result.metrics["dice"]["mean"] > 0.999


# metrics.json


def own_dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    values = (set(np.unique(a).tolist()) | set(np.unique(b).tolist())) - {0}
    return {v: 2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in values}


def test_dice_is_that_of_the_files(result, scans, tmp_path):
    result.save(tmp_path / "out")
    expected = own_dice(
        np.asarray(nib.load(tmp_path / "out" / "WarpedLabels.nii.gz").dataobj),
        np.asarray(nib.load(scans.fixed_labels).dataobj),
    )
    dice = json.loads((tmp_path / "out" / "metrics.json").read_text())["dice"]
    assert {int(k): v for k, v in dice["per_label"].items()} == pytest.approx(expected, abs=1e-9)
    assert dice["mean"] == pytest.approx(np.mean(list(expected.values())), abs=1e-9)
    assert 0.3 < dice["mean"] < 1


def test_metrics_tell_what_was_done(result, scans, tiny_model, tmp_path):
    result.save(tmp_path / "out")

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads((tmp_path / "out" / "metrics.json").read_text(), parse_constant=refuse)
    for role, path in (
        ("moving", scans.moving),
        ("fixed", scans.fixed),
        ("labels", scans.moving_labels),
        ("fixed_labels", scans.fixed_labels),
    ):
        assert found["inputs"].pop(role) == {
            "path": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    assert found["inputs"] == {"mask": None, "fixed_mask": None}
    assert found["versions"]["voxwarp"] == voxwarp.__version__
    assert found["versions"]["torch"] == torch.__version__
    assert {"python", "numpy", "nibabel", "SimpleITK"} <= set(found["versions"])
    weights = (tiny_model / "weights.safetensors").read_bytes()
    assert found["model"]["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert found["model"]["name"] == "tiny"
    assert found["settings"]["seed"] == 0
    assert found["settings"]["affine"] is True
    assert found["settings"]["device"] in ("cpu", "cuda")
    stages = {"read", "prepare", "network", "compose", "resample", "measure", "write"}
    assert stages == set(found["seconds"])
    assert all(seconds >= 0 for seconds in found["seconds"].values())
    for when in ("before", "after"):
        assert 0 < found["similarity"][when]["local_ncc"] <= 1
        assert -1 <= found["similarity"][when]["correlation"] <= 1
    assert isinstance(found["warnings"], list)
    for role in ("fixed", "moving"):
        image = nib.load(getattr(scans, role))
        assert found["grids"][role]["shape"] == list(image.shape)
        np.testing.assert_allclose(found["grids"][role]["affine"], image.affine)


def test_jacobian_statistics_are_those_of_the_map(result, scans):
    found = result.metrics["jacobian"]
    brain = np.asarray(nib.load(scans.fixed).dataobj) > 0
    determinant = np.asarray(result.jacobian_determinant().dataobj)[brain]
    assert found["voxels"] == brain.sum()
    assert found["minimum"] == pytest.approx(determinant.min(), abs=1e-5)
    assert found["maximum"] == pytest.approx(determinant.max(), abs=1e-5)
    assert found["mean"] == pytest.approx(determinant.mean(), abs=1e-5)
    assert found["std_log"] == pytest.approx(np.log(determinant).std(ddof=1), abs=1e-4)
    assert found["folds"] == (determinant <= 0).sum() == 0
    assert found["folds_percent"] == 0


# Refinement


@pytest.fixture(scope="module")
def refined(scans, register_quickly) -> Registration:
    """The two scans again; the tiny model's random answer is gone on from."""
    return register_quickly(
        *(scans.moving, scans.fixed),
        **{"labels": scans.moving_labels, "fixed_labels": scans.fixed_labels},
        refine=True,
    )


@pytest.fixture(scope="module")
def without_network(tmp_path_factory) -> Path:
    """The model none at 4 mm."""
    recipe = Recipe(Recipe().grid.resized((40, 48, 56)))
    folder = tmp_path_factory.mktemp("models") / "none-at-4-mm"
    Model.build({"name": "descent", "steps": [8, 8]}, recipe).save(folder)
    return folder


def test_refinement_makes_the_scans_more_alike(result, refined):
    before, after = (run.metrics["similarity"] for run in (result, refined))
    assert after["before"] == before["before"]
    assert after["after"]["local_ncc"] > before["after"]["local_ncc"] + 0.03
    assert after["after"]["correlation"] > before["after"]["correlation"]
    assert refined.metrics["dice"]["mean"] > result.metrics["dice"]["mean"]
    assert refined.metrics["jacobian"]["folds"] == 0
    assert refined.metrics["warnings"] == result.metrics["warnings"]


def test_refined_transform_then_inverse_returns(refined, scans):
    for path, there, back in (
        (scans.fixed, refined.transform, refined.inverse),
        (scans.moving, refined.inverse, refined.transform),
    ):
        points = brain_points(path)
        error = np.linalg.norm(back.map(there.map(points)) - points, axis=1)
        assert np.median(error) < 0.1
        assert np.quantile(error, 0.95) < 0.5


def test_refinement_is_on_record(result, refined):
    assert refined.metrics["settings"]["refine"] == {"steps": STEPS, "seconds": None}
    assert refined.metrics["settings"]["smoothness"] is None
    assert refined.metrics["seconds"]["refine"] > 0
    assert result.metrics["settings"]["refine"] is result.metrics["settings"]["smoothness"] is None
    assert "refine" not in result.metrics["seconds"]
    json.dumps(refined.metrics, allow_nan=False)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"refine": False}, None),
        ({"refine": 0}, None),
        ({"refine": True}, {"steps": STEPS, "seconds": None}),
        ({"refine": 7}, {"steps": 7, "seconds": None}),
        ({"refine": True, "refine_seconds": 60}, {"steps": STEPS, "seconds": 60}),
        ({"refine_seconds": 0.5}, {"steps": STEPS, "seconds": 0.5}),
    ],
)
def test_refinement_as_it_is_asked_for(scans, register_quickly, monkeypatch, asked, expected):
    """A time alone asks for it, too."""
    done, stages = [], []

    def noted(_model, _moving, _fixed, answer, refinement, **_):
        done.append(refinement)
        return answer

    monkeypatch.setattr(Model, "refine", noted)
    found = register_quickly(
        scans.moving, scans.fixed, affine=False, progress=stages.append, **asked
    )
    assert found.metrics["settings"]["refine"] == expected
    assert [vars(refinement) for refinement in done] == ([expected] if expected else [])
    assert ("refine" in stages) == ("refine" in found.metrics["seconds"]) == bool(expected)


def test_time_of_the_refinement_is_kept(scans, register_quickly):
    """There is none for a single step; the answer comes back, but for an averaging."""
    plain, hasty = (
        register_quickly(scans.moving, scans.fixed, **more)
        for more in ({}, {"refine": 1000, "refine_seconds": 1e-6})
    )
    points = brain_points(scans.fixed)
    apart = np.linalg.norm(hasty.transform.map(points) - plain.transform.map(points), axis=1)
    assert apart.mean() < 0.5
    assert hasty.metrics["seconds"]["refine"] < 5


def test_refined_scan_registered_to_itself_hardly_moves(scans, register_quickly):
    """Of voxels of 4 mm."""
    found = register_quickly(scans.fixed, scans.fixed, refine=True)
    points = brain_points(scans.fixed)
    assert np.linalg.norm(found.transform.map(points) - points, axis=1).mean() < 1
    assert found.metrics["similarity"]["after"]["local_ncc"] > 0.98


def test_smoother_refinements_are_smoother(scans, register_quickly, refined):
    smooth = register_quickly(scans.moving, scans.fixed, refine=True, smoothness=3)
    assert smooth.metrics["settings"]["smoothness"] == 3
    assert smooth.metrics["jacobian"]["std_log"] < 0.8 * refined.metrics["jacobian"]["std_log"]


def test_smoothness_of_a_model_that_can_be_told_needs_no_refinement(
    scans, phantoms, without_network, monkeypatch
):
    monkeypatch.setattr("voxwarp.preparation.prepare.template", lambda: phantoms.template)
    rough, smooth = (
        register(scans.moving, scans.fixed, without_network, smoothness=factor)
        for factor in (None, 3)
    )
    assert rough.metrics["settings"]["smoothness"] is None
    assert smooth.metrics["settings"]["refine"] is None
    spreads = [run.metrics["jacobian"]["std_log"] for run in (smooth, rough)]
    assert spreads[0] < 0.8 * spreads[1]
    for run in (rough, smooth):
        similarity = run.metrics["similarity"]
        assert similarity["after"]["local_ncc"] > similarity["before"]["local_ncc"] + 0.02
        assert run.metrics["jacobian"]["folds"] == 0


def test_smoothness_of_a_model_that_decides_by_itself_is_refused(scans, tiny_model):
    with pytest.raises(InputError, match=r"smoothness: model tiny .* refine"):
        register(scans.moving, scans.fixed, tiny_model, smoothness=2.0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        *(({"refine": steps}, f"refine {steps}: ") for steps in (-1, 1001)),
        *(
            ({"refine_seconds": seconds}, f"refine_seconds {seconds}: ")
            for seconds in (0, -1.0, np.nan, np.inf)
        ),
        ({"refine": 5, "refine_seconds": 0}, "refine_seconds 0: "),
        *(
            ({"refine": True, "smoothness": factor}, f"smoothness {factor}: ")
            for factor in (0, 0.1, 9, -1, np.nan, np.inf)
        ),
    ],
)
def test_wrong_refinement_is_refused_before_anything_is_read(asked, said):
    with pytest.raises(InputError, match=said):
        register("nowhere.nii", **asked)


# The command


@pytest.fixture
def command(scans, tiny_model, quick_affine) -> list[object]:
    """A request that is in order but for ``-o``."""
    return ["register", scans.moving, scans.fixed, "--model", tiny_model]


def test_command_writes_all_files_and_says_so(cli, command, scans, tmp_path, label_values):
    out = tmp_path / "new" / "out"
    outcome = cli(*command, "-o", out, "--labels", scans.moving_labels)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in out.iterdir()} == FILES | {"WarpedLabels.nii.gz"}
    for path in out.iterdir():
        assert str(path) in outcome.out
    assert all(line.startswith("voxwarp: warning: ") for line in outcome.err.splitlines())
    labels = nib.load(out / "WarpedLabels.nii.gz")
    assert set(np.unique(np.asarray(labels.dataobj))) == label_values
    assert nib.load(out / "Warped.nii.gz").get_data_dtype() == np.int16


def test_same_request_gives_the_same_bytes(cli, command, scans, tmp_path):
    for name in ("one", "two"):
        options = ["--labels", scans.moving_labels, "--seed", 3]
        assert cli(*command, "-o", tmp_path / name, *options).code == 0
    names = (FILES | {"WarpedLabels.nii.gz"}) - {"metrics.json", "report.html"}  # times differ
    for name in sorted(names):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert one == two, name
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two"))
    assert one.pop("seconds") != {}
    del two["seconds"]
    assert one == two
    assert one["settings"]["seed"] == 3


def test_command_does_what_the_function_does(cli, command, result, scans, tmp_path):
    options = ["--labels", scans.moving_labels, "--fixed-labels", scans.fixed_labels]
    outcome = cli(*command, "-o", tmp_path / "out", *options)
    result.save(tmp_path / "again")
    for name in IMAGES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["dice"]["mean"] == pytest.approx(result.metrics["dice"]["mean"])
    assert f"{found['dice']['mean']:.3f}" in outcome.out


def test_no_affine_on_the_command_line(cli, command, tmp_path):
    assert cli(*command, "-o", tmp_path / "out", "--no-affine").code == 0
    transform = sitk.ReadTransform(str(tmp_path / "out" / "0GenericAffine.mat"))
    np.testing.assert_allclose(transform.TransformPoint((10.0, 20.0, 30.0)), (10, 20, 30))


def test_warning_of_the_result_is_a_line_on_stderr(
    cli, phantoms, make_grid, scans, tiny_model, tmp_path
):
    grid = make_grid(spacing=5, shear=0.1)
    image = nib.Nifti1Image(phantoms.values(grid), None)
    image.set_sform(grid.affine, code=1)
    nib.save(image, tmp_path / "sheared.nii.gz")
    outcome = cli(
        *("register", tmp_path / "sheared.nii.gz", scans.fixed, "--model", tiny_model),
        *("--no-affine", "-o", tmp_path / "out"),
    )
    assert outcome.code == 0
    lines = [line for line in outcome.err.splitlines() if "shear" in line]
    assert len(lines) == 1
    assert lines[0].startswith("voxwarp: warning: ")
    assert "sheared.nii.gz" in lines[0]


def test_existing_results_are_refused_or_replaced(cli, refuses, command, scans, tmp_path):
    out = tmp_path / "out"
    command = [*command, "--no-affine", "-o", out]
    assert cli(*command, "--labels", scans.moving_labels).code == 0
    (out / "notes.txt").write_text("mine")
    line = refuses(*command)  # which also makes sure that nothing has changed
    assert str(out) in line
    assert "--overwrite" in line
    (out / "Warped.nii.gz").write_bytes(b"old")
    assert cli(*command, "--overwrite").code == 0
    assert nib.load(out / "Warped.nii.gz").get_fdata().max() > 0
    # Labels of the earlier run do not stand beside results they have nothing to do with.
    assert {path.name for path in out.iterdir()} == FILES | {"notes.txt"}
    assert (out / "notes.txt").read_text() == "mine"


def test_single_file_of_an_earlier_run_is_enough_to_refuse(refuses, command, tmp_path):
    for name in (*sorted(FILES), "WarpedLabels.nii.gz"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("precious")
        assert name in refuses(*command, "-o", folder)


# Bad input


@pytest.mark.parametrize("role", ["moving", "fixed"])
@pytest.mark.parametrize("kind", BAD_SCANS)
def test_bad_scan(refuses, scans, tiny_model, tmp_path, kind: str, role: str):
    write, said = BAD_SCANS[kind]
    path = write(tmp_path, nib.load(scans.moving))
    pair = {"moving": scans.moving, "fixed": scans.fixed, role: path}
    line = refuses(
        *("register", pair["moving"], pair["fixed"], "--no-affine"),
        *("--model", tiny_model, "-o", tmp_path / "out"),
    )
    assert f"{role} image {path}: " in line
    assert re.search(said, line)


@pytest.mark.parametrize("role", ["moving", "fixed"])
def test_missing_scan(refuses, scans, tiny_model, tmp_path, role: str):
    for path, said in ((tmp_path / "nowhere.nii.gz", "no such file"), (scans.folder, "folder")):
        pair = {"moving": scans.moving, "fixed": scans.fixed, role: path}
        line = refuses(
            *("register", pair["moving"], pair["fixed"]),
            *("--model", tiny_model, "-o", tmp_path / "out"),
        )
        assert f"{role} image {path}" in line
        assert said in line


@pytest.mark.parametrize("role", ["moving", "fixed"])
@pytest.mark.parametrize("kind", ["two slices", "metres for millimetres"])
def test_scan_that_cannot_be_aligned(refuses, command, scans, tmp_path, kind, role):
    """Scans of sound headers that the affine stage can do nothing with are no bug of voxwarp."""
    path = tmp_path / "scan.nii"
    image = nib.load(getattr(scans, role))
    if kind == "two slices":
        image = image.slicer[:, :, 20:22]
    else:
        image = nib.Nifti1Image(image.dataobj, np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine)
    nib.save(image, path)
    pair = {"moving": command[1], "fixed": command[2], role: path}
    line = refuses("register", pair["moving"], pair["fixed"], *command[3:], "-o", tmp_path / "out")
    assert str(path) in line


def test_scans_that_do_not_overlap_are_refused_or_warned_of(phantoms, make_grid, register_quickly):
    """Without the affine stage they must lie in one world; the result would be empty."""
    grid = make_grid(spacing=5)
    away = grid.affine.copy()
    away[0, 3] += 1000
    data = phantoms.values(grid)
    try:
        result = register_quickly(
            nib.Nifti1Image(data, away), nib.Nifti1Image(data, grid.affine), affine=False
        )
    except voxwarp.InputError:
        return
    assert result.metrics["warnings"] != []


def bad_labels(labels: nib.Nifti1Image) -> dict[str, tuple[bytes, str]]:
    data, affine = np.asarray(labels.dataobj), labels.affine
    shifted = affine.copy()
    shifted[0, 3] += 10
    fractions = data.astype(np.float32) + 0.5
    return {
        "empty": (nib.Nifti1Image(np.zeros_like(data), affine).to_bytes(), "empty"),
        "other shape": (nib.Nifti1Image(data[:-1], affine).to_bytes(), "grid"),
        "other place": (nib.Nifti1Image(data, shifted).to_bytes(), "grid"),
        "fractions": (nib.Nifti1Image(fractions, affine).to_bytes(), "whole numbers"),
        "NaN": (nib.Nifti1Image(fractions * np.nan, affine).to_bytes(), "whole numbers"),
        "4-D": (nib.Nifti1Image(np.stack([data] * 2, -1), affine).to_bytes(), "3-D"),
        "no image": (b"1, 2, 3", "not an image"),
    }


@pytest.mark.parametrize("role", ["moving", "fixed"])
@pytest.mark.parametrize(
    "kind", ["empty", "other shape", "other place", "fractions", "NaN", "4-D", "no image"]
)
def test_bad_labels(refuses, command, scans, tmp_path, role: str, kind: str):
    payload, said = bad_labels(nib.load(getattr(scans, f"{role}_labels")))[kind]
    path = tmp_path / "labels.nii"
    path.write_bytes(payload)
    option = "--labels" if role == "moving" else "--fixed-labels"
    line = refuses(*command, option, path, "-o", tmp_path / "out")
    assert str(path) in line
    assert said in line


def test_missing_labels(refuses, command, tmp_path):
    path = tmp_path / "nowhere.nii.gz"
    for option in ("--labels", "--fixed-labels"):
        line = refuses(*command, option, path, "-o", tmp_path / "out")
        assert str(path) in line
        assert "no such file" in line


def test_unknown_or_damaged_model(refuses, scans, tiny_model, tmp_path):
    def said(model: object) -> str:
        return refuses("register", scans.moving, scans.fixed, "--model", model, "-o", out)

    out = tmp_path / "out"
    assert "no-such-model" in said("no-such-model")
    weights = (tiny_model / "weights.safetensors").read_bytes()
    description = (tiny_model / "model.json").read_text()
    for name, payload, text in (
        ("without-weights", None, description),
        ("cut-weights", weights[:1000], description),
        ("other-weights", weights[:-4] + b"\0\0\0\0", description),
        ("no-json", weights, description[:200]),
        ("other-format", weights, description.replace("voxwarp-model-1", "something")),
        ("other-network", weights, description.replace('"pyramid"', '"transformer"')),
        ("list", weights, "[1, 2]"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if payload is not None:
            (folder / "weights.safetensors").write_bytes(payload)
        (folder / "model.json").write_text(text)
        assert str(folder) in said(folder)


def test_no_cuda(refuses, command, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert "cuda" in refuses(*command, "--device", "cuda", "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "MOVING"),
        (("m.nii",), "-o"),
        (("m.nii", "f.nii", "third.nii", "-o", "out"), "third.nii"),
        (("m.nii", "-o", "out", "--no-such-option"), "--no-such-option"),
        (("m.nii", "-o", "out", "--device", "tpu"), "tpu"),
        (("m.nii", "-o", "out", "--seed", "first"), "--seed"),
        (("m.nii", "-o", "out", "--seed", "-1"), "--seed"),
        (("m.nii", "-o"), "-o"),
    ],
)
def test_wrong_words(refuses, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in refuses("register", *words)


def test_output_that_cannot_be(refuses, command, tmp_path):
    (tmp_path / "file").write_text("here first")
    for out in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "file" / "a" / "b"):
        assert str(tmp_path / "file") in refuses(*command, "-o", out)
    assert "/proc" in refuses(*command, "-o", "/proc/nope")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(refuses, command, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert str(locked) in refuses(*command, "-o", locked / "out")


@pytest.mark.parametrize("out", ["out", "new/out"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_that_fills_up(refuses, command, monkeypatch, tmp_path, call: str, out: str):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    line = refuses(*command, "--no-affine", "-o", tmp_path / out)
    assert "No space left on device" in line
    assert str(tmp_path) in line


def test_disk_that_fills_up_leaves_earlier_results(cli, refuses, command, monkeypatch, tmp_path):
    """``--overwrite`` replaces the old results by whole new ones or not at all."""
    command = [*command, "--no-affine", "-o", tmp_path / "out", "--overwrite"]
    assert cli(*command).code == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refuses(*command)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_file_size_limit_in_earnest(scans, tiny_model, tmp_path):
    """The operating system stops the writing, in a process of its own."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from voxwarp.cli.main import main; main()"
    )
    command = ("register", scans.moving, scans.fixed, "--model", tiny_model, "--no-affine", "-o")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


# Real scans and the shipped model


@pytest.mark.data
def test_default_model_beats_the_affine_on_real_scans(data: Path):
    """Mean Dice of the 30 structures between the two validation scans."""
    if "default" not in installed():
        pytest.skip("the model 'default' is not installed")
    folder = data / "oasis-malf"
    with open(folder / "subjects.csv", newline="") as stream:
        moving, fixed = [row["id"] for row in csv.DictReader(stream) if row["split"] == "val"][:2]
    with open(folder / "labels.csv", newline="") as stream:
        structure = {int(r["value"]): r["structure"] for r in csv.DictReader(stream)}
    names = sorted(set(structure.values()) - {""})
    assert len(names) == 30

    def mean_dice(a: np.ndarray, b: np.ndarray) -> float:
        scores = []
        for name in names:
            values = [value for value, of in structure.items() if of == name]
            one, two = np.isin(a, values), np.isin(b, values)
            scores.append(2 * (one & two).sum() / (one.sum() + two.sum()))
        return float(np.nanmean(scores))

    result = voxwarp.register(
        folder / "t1" / f"{moving}.nii.gz",
        folder / "t1" / f"{fixed}.nii.gz",
        labels=folder / "labels" / f"{moving}.nii.gz",
    )
    target = nib.load(folder / "labels" / f"{fixed}.nii.gz")
    linear, _ = taken(
        nib.load(folder / "labels" / f"{moving}.nii.gz"), result.affine.map(nodes(target)), order=0
    )
    expected = np.asarray(target.dataobj)
    before, after = mean_dice(linear, expected), mean_dice(result.warped_labels.data, expected)
    assert after > before + 0.05
    assert after > 0.7
    assert result.metrics["jacobian"]["folds_percent"] < 0.5


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
    said = register_quickly(moving, fixed).metrics["warnings"]
    assert any("qform and sform differ" in line and "moving" in line for line in said)


@pytest.fixture(scope="module", params=["centre", "header"])
def model_without_template(request, tiny_model, tmp_path_factory) -> Path:
    """The tiny one, for scans that are not taken to MNI152 space."""
    loaded, shape = Model.load(str(tiny_model)), np.array([40, 48, 56])
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -2.0 * (shape - 1)
    recipe = Recipe(Grid(shape.tolist(), affine), alignment=request.param)
    folder = tmp_path_factory.mktemp("models") / "placed"
    replace(loaded, recipe=recipe).save(folder)
    return folder


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"affine": False}, "--no-affine"),
        ({"bias": True}, "--bias"),
        ({"brain_extract": "yes"}, "--brain-extract yes"),
        ({"affine": False, "bias": True}, "--no-affine, --bias"),
        ({"bias": False, "brain_extract": "no"}, None),
    ],
)
def test_options_that_a_model_has_no_use_for_are_told(
    scans, model_without_template, register_quickly, asked, named
):
    """And nothing comes of them."""
    given = scans.moving, scans.fixed, model_without_template
    plain = register(*given)
    found = register(*given, **asked)
    np.testing.assert_array_equal(found.warped.data, plain.warped.data)
    said = [line for line in found.metrics["warnings"] if "had no effect" in line]
    assert all("had no effect" not in line for line in plain.metrics["warnings"])
    if named is None:
        assert said == []
        return
    alignment = Model.load(str(model_without_template)).recipe.alignment
    assert said == [
        f"{named} had no effect: model placed places scans by their {alignment} and takes them "
        f"as they are"
    ]
    usual = register_quickly(scans.moving, scans.fixed, affine=False)
    assert all("had no effect" not in line for line in usual.metrics["warnings"])


@pytest.mark.parametrize("seed", [-1, 2**31 - 1])
def test_a_seed_that_means_the_clock_or_overflows_is_refused(scans, seed: int):
    with pytest.raises(InputError, match="seed"):
        register(scans.moving, scans.fixed, seed=seed)


def test_overwriting_never_leaves_old_metrics_beside_new_files(
    scans, register_quickly, tmp_path, monkeypatch
):
    result = register_quickly(scans.moving, scans.fixed)
    result.save(tmp_path / "out")
    replace, published = os.replace, []

    def breaks(source: Path, target: Path) -> None:
        if target.parent == tmp_path / "out":
            published.append(target)
        if len(published) == 3:
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", breaks)
    with pytest.raises(InputError, match="Input/output error"):
        result.save(tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "metrics.json").exists()


# Heads


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
        yield {"extractor": "register knows"}


@pytest.fixture(scope="module")
def of_heads(heads, known, register_quickly) -> Registration:
    return register_quickly(heads.moving, heads.fixed, **known)


@pytest.fixture(scope="module")
def saved_heads(of_heads, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("of-heads") / "out"
    of_heads.save(folder)
    return folder


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


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
    assert of_heads.metrics["warnings"] == []


def test_preparation_in_the_metrics_makes_up_the_affine(of_heads, heads):
    found = of_heads.metrics["preparation"]
    fixed, moving = (np.array(found[role]["template_to_scan"]) for role in ("fixed", "moving"))
    np.testing.assert_allclose(
        moving @ np.linalg.inv(fixed), of_heads.affine.fixed_to_moving, atol=1e-9
    )
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
    settings = of_heads.metrics["settings"]
    assert settings["brain_extract"] == "auto"
    assert settings["extractor"] == "register knows"
    assert settings["bias"] is None


def test_head_with_its_true_mask_is_registered_as_its_brain(heads, known, register_quickly):
    given = register_quickly(
        *(heads.moving, heads.fixed),
        **{"mask": heads.moving_mask, "fixed_mask": heads.fixed_mask},
        **{"extractor": "never", "bias": False},
    )
    np.testing.assert_array_equal(given.moving_mask.data, voxels(heads.moving_mask))
    brains = register_quickly(heads.moving_brain, heads.fixed_brain, extractor="never")
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
    fixed = {"fixed_mask": heads.fixed_mask, "affine": False, "bias": False}
    yes = register_quickly(heads.moving_brain, heads.fixed, brain_extract="yes", **fixed, **known)
    assert overlap(yes.moving_mask.data > 0, voxels(heads.moving_mask) > 0) > 0.97
    no = register_quickly(heads.moving, heads.fixed, brain_extract="no", extractor="never", **fixed)
    assert no.moving_mask is None
    auto = register_quickly(heads.moving_brain, heads.fixed, extractor="never", **fixed)
    assert auto.moving_mask is None
    with pytest.raises(InputError, match="brain-extract 'maybe'"):
        register(heads.moving, brain_extract="maybe")


def test_mask_of_a_fixed_scan_wants_a_fixed_scan(refuses, heads, tiny_model, tmp_path):
    words = "register", heads.moving, "--fixed-mask", heads.fixed_mask, "--model", tiny_model
    assert "no fixed scan" in refuses(*words, "-o", tmp_path / "out")


def test_strict_is_exit_code_3_where_there_are_warnings(cli, command, scans, tmp_path):
    image = nib.load(scans.moving)
    shifted = image.affine.copy()
    shifted[0, 3] += 10
    image.set_sform(image.affine, code=4)
    image.set_qform(shifted, code=1)
    nib.save(image, tmp_path / "doubtful.nii.gz")
    _, _, fixed, *rest = command
    doubtful = ["register", tmp_path / "doubtful.nii.gz", fixed, *rest]
    outcomes = {
        name: cli(*words, "-o", tmp_path / name, *strict)
        for name, words, strict in (
            ("lenient", doubtful, []),
            ("strict", doubtful, ["--strict"]),
            ("clean", command, ["--strict"]),
        )
    }
    assert {name: outcome.code for name, outcome in outcomes.items()} == {
        **{"lenient": 0, "strict": 3, "clean": 0}
    }
    assert outcomes["clean"].err == ""
    assert outcomes["strict"].err == outcomes["lenient"].err
    assert "qform and sform differ; the sform was used" in outcomes["strict"].err
    for name in outcomes:
        assert {path.name for path in (tmp_path / name).iterdir()} == FILES


def test_cache_changes_nothing_but_the_time(cli, command, monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("VOXWARP_CACHE", str(folder))
    assert cli(*command, "-o", tmp_path / "none", "--no-cache").code == 0
    assert not folder.exists()
    assert cli(*command, "-o", tmp_path / "first").code == 0
    entries = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(entries) == 2
    assert cli("cache").out.splitlines()[1].startswith("2 scans, ")

    def again(*_: object, **__: object) -> None:
        raise AssertionError("it is in the cache")

    monkeypatch.setattr("voxwarp.preparation.cache.examine", again)
    assert cli(*command, "-o", tmp_path / "second").code == 0
    for name in FILES - {"metrics.json", "report.html"}:
        written = {(tmp_path / run / name).read_bytes() for run in ("none", "first", "second")}
        assert len(written) == 1, name
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == entries
