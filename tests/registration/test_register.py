"""``voxwarp.register``: what it promises, however scans, models and settings are handed over."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from image_files import brain_points, nodes

import voxwarp
from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.preparation import scan as scan_module
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import Preparation
from voxwarp.preparation.template import Template, mni152
from voxwarp.registration.register import register
from voxwarp.registration.result import Registration, write_registration
from voxwarp.runtime import Runtime
from voxwarp.space.grid import Grid
from voxwarp.space.resample import resample
from voxwarp.space.volume import Volume

AS_PLACED = Preparation(affine=False)


def test_affine_stage_finds_a_known_pose(phantoms, make_grid, poses, register_quickly):
    """Of a moving head that is turned, zoomed and shifted alone, the inverse pose is the answer."""
    pose = type(poses.moving)(turn=(9, -6, 12), zoom=0.93, shift=(12, -9, 15))
    moving = phantoms.image(make_grid("LAS", (4, 3.5, 4.5)), pose)
    fixed = phantoms.image(make_grid(turn=(0, 8, -5)))
    found = register_quickly(moving, fixed).affine
    points = nodes(fixed)[np.asarray(fixed.dataobj) > 50]
    error = np.linalg.norm(pose(found.map(points)) - points, axis=1)
    assert np.linalg.norm(pose(points) - points, axis=1).mean() > 15
    assert error.mean() < 1.0
    assert error.max() < 2.5


def test_affine_alone_is_the_affine_and_no_affine_is_none(scans, register_quickly):
    result = register_quickly(scans.moving, scans.fixed, preparation=AS_PLACED)
    np.testing.assert_allclose(result.affine.matrix, np.eye(4), atol=1e-9)
    points = brain_points(scans.fixed)
    np.testing.assert_allclose(result.transform.map(points), result.warp.map(points), atol=1e-9)
    assert result.metrics["settings"]["affine"] is False


def test_transform_then_inverse_returns(result, scans):
    for path, forward, back in (
        (scans.fixed, result.transform, result.inverse),
        (scans.moving, result.inverse, result.transform),
    ):
        points = brain_points(path)
        moved = forward.map(points)
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


def test_fixed_is_the_template_by_default(scans, tiny_model):
    """The only test here with the template of 1 mm itself."""
    result = voxwarp.register(scans.moving, model=tiny_model, labels=scans.moving_labels)
    template = nib.load(mni152().path)
    assert result.warped.data.shape == template.shape
    np.testing.assert_allclose(result.warped.grid.affine, template.affine, atol=1e-6)
    np.testing.assert_array_equal(result.fixed.image.data, np.asarray(template.dataobj))
    assert result.metrics["inputs"]["fixed"] == {"template": "MNI152, ICBM 2009a symmetric"}
    brain = np.asarray(template.dataobj) > 60
    assert ((result.warped.data > 100) & brain).sum() > 0.7 * brain.sum()
    assert result.metrics["dice"] is None


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


def test_scans_that_do_not_overlap_are_warned_of(phantoms, make_grid, register_quickly):
    """Without the affine stage they must lie in one world; the result is empty."""
    grid = make_grid(spacing=5)
    away = grid.affine.copy()
    away[0, 3] += 1000
    data = phantoms.values(grid)
    scans = (nib.Nifti1Image(data, affine) for affine in (away, grid.affine))
    result = register_quickly(*scans, preparation=AS_PLACED)
    assert not result.warped.data.any()
    assert any("the scans do not overlap in world space" in line for line in result.warnings)
    assert any("100 % of the" in line and "outside" in line for line in result.warnings)


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
        ({"affine": False}, "`affine=False`"),
        ({"bias": True}, "`bias=True`"),
        ({"brain_extract": "yes"}, "`brain_extract=yes`"),
        ({"affine": False, "bias": True}, "`affine=False` and `bias=True`"),
        ({"bias": False, "brain_extract": "no"}, None),
    ],
)
def test_settings_without_effect_are_warned_of(
    scans, model_without_template, register_quickly, asked, named
):
    """And nothing comes of them."""
    given = scans.moving, scans.fixed, model_without_template
    plain = register(*given)
    found = register(*given, preparation=Preparation(**asked))
    np.testing.assert_array_equal(found.warped.data, plain.warped.data)
    said = [line for line in found.warnings if "had no effect" in line]
    assert all("had no effect" not in line for line in plain.warnings)
    if named is None:
        assert said == []
        return
    alignment = Model.load(str(model_without_template)).recipe.alignment_name
    assert said == [
        f"{named} had no effect, because model placed aligns scans by their {alignment} and does "
        f"not prepare them"
    ]
    usual = register_quickly(scans.moving, scans.fixed, preparation=AS_PLACED)
    assert all("had no effect" not in line for line in usual.warnings)


# Scans that were read, models that were loaded


def record_of(result: Registration) -> dict[str, Any]:
    """The record without times."""
    record = deepcopy(dict(result.metrics))
    del record["seconds"]
    for found in record["preparation"].values():
        del found["seconds"]
    return record


def assert_same(one: Registration, other: Registration) -> None:
    """To the byte."""
    np.testing.assert_array_equal(one.affine.matrix, other.affine.matrix)
    for name in ("warp", "inverse_warp"):
        ours, theirs = (getattr(result, name).displacement for result in (one, other))
        np.testing.assert_array_equal(ours, theirs)
    for name in ("warped", "inverse_warped", "brain"):
        ours, theirs = (getattr(result, name).data for result in (one, other))
        np.testing.assert_array_equal(ours, theirs)
    assert record_of(one) == record_of(other)


def test_a_loaded_model_does_as_well_as_its_folder(scans, quick_affine, tiny_model, result):
    """Again and again: nothing of one pair is left in it for the next."""
    model = Model.load(tiny_model)
    labels = {"labels": scans.moving_labels, "fixed_labels": scans.fixed_labels}
    for _ in range(2):
        assert_same(register(scans.moving, scans.fixed, model, **labels), result)
        back = register(scans.fixed, scans.moving, model)
    assert_same(back, register(scans.fixed, scans.moving, tiny_model))
    assert back.metrics["model"]["weights_sha256"] == model.sha256


def test_scans_that_were_read_do_as_well_as_their_paths(scans, register_quickly, result):
    moving = Scan.read(scans.moving, labels=scans.moving_labels)
    fixed = Scan.read(scans.fixed, labels=scans.fixed_labels)
    again = register_quickly(moving, fixed)
    assert_same(again, result)
    assert again.moving is moving
    assert again.fixed is fixed


def test_masks_of_scans_that_were_read_are_theirs(scans, register_quickly, tmp_path):
    image = nib.load(scans.moving)
    brain = (np.asarray(image.dataobj) > 300).astype(np.uint8)
    nib.save(nib.Nifti1Image(brain, image.affine), tmp_path / "mask.nii.gz")
    read = Scan.read(scans.moving, mask=tmp_path / "mask.nii.gz")
    one = register_quickly(read, scans.fixed)
    other = register_quickly(scans.moving, scans.fixed, mask=tmp_path / "mask.nii.gz")
    assert_same(one, other)
    assert one.metrics["inputs"]["mask"]["path"] == str(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(one.moving_mask.data, brain)


@pytest.mark.parametrize("beside", ["labels", "mask", "fixed_labels", "fixed_mask"])
def test_labels_and_masks_beside_a_scan_that_was_read_are_refused(scans, tiny_model, beside):
    role = "fixed" if beside.startswith("fixed") else "moving"
    pair = {"moving": scans.moving, "fixed": scans.fixed}
    pair[role] = Scan.read(pair[role])
    with pytest.raises(InputError, match=rf"{role} scan .*{role}\.nii\.gz: .* Scan\.read"):
        register(**pair, model=tiny_model, **{beside: getattr(scans, f"{role}_labels")})


@pytest.fixture
def prepared(monkeypatch) -> list[tuple[str, str]]:
    """What is done to each scan, by the name of its file."""
    done: list[tuple[str, str]] = []

    def noted(name: str) -> None:
        run = getattr(scan_module, name)

        def doing(scan: Volume, *arguments: object, **more: object) -> object:
            done.append((name, Path(scan.name).name))
            return run(scan, *arguments, **more)

        monkeypatch.setattr(scan_module, name, doing)

    noted("examined")
    noted("prepare")
    return done


def test_a_scan_that_others_are_registered_to_is_prepared_once(
    scans, phantoms, poses, make_grid, register_quickly, prepared, tmp_path
):
    other = tmp_path / "other.nii.gz"
    nib.save(phantoms.image(make_grid(spacing=5), replace(poses.moving, turn=(-9, 3, 2))), other)
    fixed, uncached = Scan.read(scans.fixed), Runtime(cache=False)
    results = [register_quickly(x, fixed, runtime=uncached) for x in (scans.moving, other)]
    for name in ("moving.nii.gz", "other.nii.gz", "fixed.nii.gz"):
        assert prepared.count(("examined", name)) == 1
        assert prepared.count(("prepare", name)) == 1
    assert_same(results[1], register_quickly(other, scans.fixed, runtime=uncached))
    assert prepared.count(("prepare", "fixed.nii.gz")) == 2


def test_a_scan_is_prepared_anew_for_other_settings(scans, register_quickly, prepared):
    """And for them it is as it would be if it came alone."""
    moving, fixed = Scan.read(scans.moving), Scan.read(scans.fixed)
    first = register_quickly(moving, fixed)
    given = {"preparation": Preparation(bias=True)}
    second = register_quickly(moving, fixed, **given)
    assert prepared.count(("examined", "moving.nii.gz")) == 2
    assert second.metrics["preparation"]["moving"]["bias_corrected"] is True
    assert first.metrics["preparation"]["moving"]["bias_corrected"] is False
    assert_same(second, register_quickly(scans.moving, scans.fixed, **given))


# How it runs


def test_threads_are_those_asked_for_while_it_runs(scans, register_quickly, result):
    """And as many as before when it is done, or could not be."""
    before, within = torch.get_num_threads(), []

    def look(stage: str) -> None:
        within.append(torch.get_num_threads())

    assert before == 1  # of the tests
    found = register_quickly(
        scans.moving, scans.fixed, runtime=Runtime(threads=2, progress=look, cache=False)
    )
    assert found.metrics["settings"]["threads"] == 2
    assert result.metrics["settings"]["threads"] == 1
    assert set(within) == {2}
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="no such file"):
        register_quickly("nowhere.nii", scans.fixed, runtime=Runtime(threads=2))
    assert torch.get_num_threads() == before


def test_one_thread_is_one_thread(scans, register_quickly, result):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = register_quickly(
            *(scans.moving, scans.fixed),
            **{"labels": scans.moving_labels, "fixed_labels": scans.fixed_labels},
            runtime=Runtime(threads=1, cache=False),
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert_same(found, result)


def test_stages_are_announced_in_their_order(scans, register_quickly):
    stages: list[str] = []
    found = register_quickly(scans.moving, scans.fixed, runtime=Runtime(progress=stages.append))
    assert stages == ["read", "prepare", "network", "compose", "resample", "measure"]
    assert list(found.metrics["seconds"]) == stages


def test_each_image_is_resampled_once(scans, register_quickly, monkeypatch, tmp_path):
    """To be written, too."""
    resampled: list[str] = []

    def counting(image: Volume, *words: object, **options: object) -> Volume:
        resampled.append(Path(image.name).name)
        return resample(image, *words, **options)

    monkeypatch.setattr("voxwarp.registration.result.resample", counting)
    register_quickly(scans.moving, scans.fixed, labels=scans.moving_labels).save(tmp_path / "out")
    names = [path.name for path in (scans.moving, scans.fixed, scans.moving_labels)]
    assert sorted(resampled) == sorted(names)


def test_every_second_belongs_to_a_stage(scans, register_quickly, monkeypatch, tmp_path):
    """Also those of the record, of the hashes, of the model and of the check of the folder."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    spent = {
        "voxwarp.preparation.scan.origin": 1,
        "voxwarp.networks.model.load": 10,
        "voxwarp.registration.register.versions": 100,
        "voxwarp.registration.result.check_output": 1000,
    }
    for name, seconds in spent.items():
        monkeypatch.setattr(name, taking(seconds, resolve_name(name), clock))
    result = register_quickly(scans.moving, scans.fixed)
    written = write_registration(result, tmp_path / "out")
    expected = {"read": 6 + 10, "measure": 100, "write": 1000}  # of a scan: image, labels, mask
    others = dict.fromkeys(("prepare", "network", "compose", "resample"), 0)
    assert written.metrics["seconds"] == expected | others


def taking(seconds: float, function: Callable, clock: SimpleNamespace) -> Callable:
    def run(*words: object, **options: object) -> object:
        clock.now += seconds
        return function(*words, **options)

    return run


# Templates


@pytest.fixture
def of_ours(phantoms, tiny_model) -> Model:
    """A model whose scans are aligned with a template of the user's own."""
    template = Template("Ours", phantoms.template, title="Our 30 children")
    model = Model.load(tiny_model)
    return replace(model, recipe=replace(model.recipe, alignment=template))


def test_a_model_of_another_template_registers_to_that(scans, of_ours, result):
    template = of_ours.recipe.template
    found = register(scans.moving, model=of_ours)
    assert found.fixed.image is template.image
    assert found.metrics["inputs"]["fixed"] == {
        "template": "Our 30 children",
        "name": "Ours",
        "sha256": template.sha256,
    }
    # Here it is the same brain as that of the usual template: so is the map to it.
    usual = result.metrics["preparation"]["moving"]["template_to_scan"]
    np.testing.assert_array_equal(found.affine.matrix, usual)
    with pytest.raises(InputError, match="exists only in memory"):
        _ = template.path


def test_the_template_as_a_scan_is_the_template(scans, quick_affine, tiny_model, prepared):
    """It needs no alignment, and is prepared once."""
    template, model = Scan.of_template(mni152()), Model.load(tiny_model)
    found = register(scans.moving, template, model)
    assert [scan for done, scan in prepared if done == "examined"] == ["moving.nii.gz"]
    assert prepared.count(("prepare", Path(template.name).name)) == 1
    register(scans.moving, template, model)
    assert prepared.count(("prepare", Path(template.name).name)) == 1
    assert_same(found, register(scans.moving, model=model))
    assert found.metrics["preparation"]["fixed"]["template_to_scan"] == np.eye(4).tolist()


def test_a_model_without_a_template_needs_a_fixed_scan(scans, model_without_template):
    with pytest.raises(InputError, match=r"model placed has no template .* give a fixed scan"):
        register(scans.moving, model=model_without_template)
