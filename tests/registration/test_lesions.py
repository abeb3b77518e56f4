"""Lesions: what lies in them pulls nothing, in any stage, and their volumes are on record."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import voxwarp
from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import Preparation
from voxwarp.registration.lesions import LesionVolumes, lesion_volumes, warnings

Image = nib.Nifti1Image
BRAIN = Preparation(brain_extract="no")
CENTRE, RADIUS = (28.0, -10.0, 25.0), 16.0  # mm


def ball(image: Image, centre: tuple[float, ...] = CENTRE, radius: float = RADIUS) -> Image:
    """A mask on the grid of an image."""
    voxels = np.indices(image.shape).reshape(3, -1)
    points = image.affine[:3, :3] @ voxels + image.affine[:3, 3:]
    inside = np.linalg.norm(points.T - centre, axis=1) < radius
    return Image(inside.reshape(image.shape).astype(np.uint8), image.affine)


def hurt(image: Image, lesion: Image, content: str) -> Image:
    data = np.asarray(image.dataobj).astype(np.float32)
    inside = np.asarray(lesion.dataobj) > 0
    noise = np.random.default_rng(1).uniform(0, data.max(), data.shape)
    values = {"bright": data.max(), "missing": 0, "noise": noise[inside]}
    data[inside] = values[content]
    return Image(data, image.affine)


@pytest.fixture(scope="module")
def pair(phantoms, make_grid, poses) -> dict[str, Image]:
    """Two brains without a skull, on one grid."""
    grid = make_grid(spacing=(3, 3, 3))
    brains = {}
    for role in ("moving", "fixed"):
        image = phantoms.image(grid, getattr(poses, role))
        inside = np.asarray(phantoms.labels(grid, getattr(poses, role)).dataobj) > 0
        data = np.where(inside, np.asarray(image.dataobj), 0).astype(np.float32)
        brains[role] = Image(data, image.affine)
    return brains


@pytest.fixture(scope="module")
def run(phantoms) -> Callable[..., voxwarp.Registration]:
    """A registration by descent, with phantoms' template."""

    def register(moving: Image, fixed: Image, **more: object) -> voxwarp.Registration:
        with pytest.MonkeyPatch.context() as patch:
            phantoms.stand_in_for_mni152(patch)
            return voxwarp.register(moving, fixed, Model.load("none"), preparation=BRAIN, **more)

    return register


@pytest.mark.parametrize(
    ("how", "role", "content"),
    [
        ({"transform": "rigid"}, "moving", "missing"),
        ({"transform": "affine"}, "fixed", "noise"),
        ({}, "moving", "noise"),
        ({}, "fixed", "missing"),
        ({"refine": True}, "moving", "missing"),
    ],
)
def test_the_content_of_a_lesion_changes_nothing(pair, run, how, role, content):
    """To the last bit: preparation, affine stage, descent and refinement ignore it."""
    lesion = ball(pair[role])
    mask = {"moving": "lesion_mask", "fixed": "fixed_lesion_mask"}[role]
    one, other = (
        run(**{**pair, role: hurt(pair[role], lesion, what)}, **{mask: lesion}, **how)
        for what in ("bright", content)
    )
    assert np.array_equal(one.affine.matrix, other.affine.matrix)
    assert np.array_equal(one.warp.displacement, other.warp.displacement)
    without = run(**{**pair, role: hurt(pair[role], lesion, content)}, **how)
    assert not np.array_equal(one.affine.matrix, without.affine.matrix)


def test_with_the_mask_a_lesion_does_less_harm(pair, run):
    """Against the registration of the untouched pair, around and outside of the lesion."""
    lesion = ball(pair["moving"])
    broken = {**pair, "moving": hurt(pair["moving"], lesion, "bright")}
    truth, with_mask, without = run(**pair), run(**broken, lesion_mask=lesion), run(**broken)
    fixed = pair["fixed"]
    voxels = np.argwhere(np.asarray(fixed.dataobj) > 0)
    points = voxels @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    distance = np.linalg.norm(truth.transform.map(points) - CENTRE, axis=1)
    ring = points[(distance > RADIUS) & (distance < RADIUS + 12)]

    def error(found: voxwarp.Registration) -> float:
        away = found.transform.map(ring) - truth.transform.map(ring)
        return float(np.linalg.norm(away, axis=1).mean())

    assert error(with_mask) < 0.65 * error(without)
    assert with_mask.metrics["jacobian"]["folds_any_difference"] == 0


def test_several_masks_are_their_union(pair, run):
    parts = [ball(pair["moving"], (x, 0, 20), 9) for x in (-20, 20)]
    union = Image(sum(np.asarray(p.dataobj) for p in parts).clip(0, 1), pair["moving"].affine)
    one, other = (run(**pair, lesion_mask=masks) for masks in (parts, union))
    assert np.array_equal(one.warp.displacement, other.warp.displacement)
    assert len(one.metrics["inputs"]["lesion_masks"]) == 2


def test_a_mask_on_another_grid_in_the_same_space(pair):
    scan = pair["moving"]
    lesion = ball(scan)
    flipped = Image(
        np.asarray(lesion.dataobj)[::-1],
        scan.affine @ [[-1, 0, 0, scan.shape[0] - 1], *np.eye(4)[1:]],
    )
    one, other = (Scan.read(scan, lesion_mask=mask).lesion for mask in (lesion, flipped))
    assert np.array_equal(one.data, other.data)
    away = scan.affine.copy()
    away[:3, 3] += 900
    elsewhere = Image(np.asarray(lesion.dataobj), away)
    with pytest.raises(InputError, match="does not overlap with"):
        Scan.read(scan, lesion_mask=elsewhere)


def test_an_empty_mask_is_no_lesion_and_said(pair, run):
    empty = Image(np.zeros(pair["moving"].shape, np.uint8), pair["moving"].affine)
    plain, found = run(**pair), run(**pair, lesion_mask=empty)
    np.testing.assert_allclose(found.warp.displacement, plain.warp.displacement, atol=1e-3)
    assert any("so there is no lesion" in text for text in found.warnings)


def test_a_model_that_looks_at_whole_images_refuses(pair, tiny_model, phantoms, monkeypatch):
    phantoms.stand_in_for_mni152(monkeypatch)
    with pytest.raises(InputError, match=r"^lesion_mask has no effect on model .*refine"):
        voxwarp.register(**pair, model=tiny_model, lesion_mask=ball(pair["moving"]))


# ------------------------------------------------------------------------------------- Volumes


def test_volumes_by_affine_and_warp(pair, run):
    """Of a linear registration, the affine map scales the volume by its determinant."""
    lesion = ball(pair["moving"])
    found = run(**pair, lesion_mask=lesion, transform="affine")
    volumes = lesion_volumes(found)["moving"]
    voxel = abs(np.linalg.det(lesion.affine[:3, :3])) / 1000
    assert volumes.scan == pytest.approx(np.asarray(lesion.dataobj).sum() * voxel)
    scale = abs(np.linalg.det(found.affine.matrix[:3, :3]))
    assert volumes.affine == pytest.approx(volumes.scan / scale, rel=0.02)
    assert volumes.change == 0
    assert found.metrics["lesions"]["moving"]["scan_ml"] == round(volumes.scan, 3)


def test_a_change_beyond_a_fifth_is_a_warning():
    grown, same = LesionVolumes(10, 8, 10), LesionVolumes(10, 8, 9)
    assert grown.change == pytest.approx(0.25)
    (text,) = warnings({"moving": grown, "fixed": same})
    assert text.startswith("the deformation enlarges the lesion of the moving scan by 25 %")
    (text,) = warnings({"fixed": LesionVolumes(10, 8, 4)})
    assert text.startswith("the deformation shrinks the lesion of the fixed scan by 50 %")
    assert LesionVolumes(0, 0, 0).change == 0


def test_files_report_and_loading(pair, run, tmp_path: Path):
    paths = {}
    lesions = {role: ball(pair[role]) for role in pair}
    for name, image in (
        *pair.items(),
        *((f"{role}_lesion", lesion) for role, lesion in lesions.items()),
    ):
        paths[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(image, paths[name])
    result = run(
        paths["moving"],
        paths["fixed"],
        lesion_mask=paths["moving_lesion"],
        fixed_lesion_mask=[paths["fixed_lesion"]],
    )
    files = result.save(tmp_path / "out")
    warped = nib.load(tmp_path / "out" / "WarpedLesionMask.nii.gz")
    assert np.array_equal(np.asarray(warped.dataobj), result.warped_lesion.data)
    assert set(np.unique(warped.dataobj)) == {0, 1}
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Outlines of the lesions" in report
    record = json.loads(files[-1].read_text())
    assert record["inputs"]["fixed_lesion_masks"][0]["path"] == paths["fixed_lesion"]
    assert set(record["lesions"]) == {"moving", "fixed"}
    loaded = voxwarp.load(tmp_path / "out")
    assert np.array_equal(loaded.moving.lesion.data, result.moving.lesion.data)
    assert np.array_equal(loaded.fixed.lesion.data, result.fixed.lesion.data)
