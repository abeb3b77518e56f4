"""Refined registrations: more similar scans, the smoothness, the record."""

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import brain_points

from voxwarp.errors import InputError
from voxwarp.networks import descent
from voxwarp.networks.model import Model
from voxwarp.networks.refine import STEPS, Refinement
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.settings import Preparation
from voxwarp.registration.register import register
from voxwarp.registration.result import Registration
from voxwarp.runtime import Runtime


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
    assert refined.warnings == result.warnings


def test_refined_transform_then_inverse_returns(refined, scans):
    for path, forward, back in (
        (scans.fixed, refined.transform, refined.inverse),
        (scans.moving, refined.inverse, refined.transform),
    ):
        points = brain_points(path)
        error = np.linalg.norm(back.map(forward.map(points)) - points, axis=1)
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
        (False, None),
        (True, {"steps": STEPS, "seconds": None}),
        (Refinement(7), {"steps": 7, "seconds": None}),
        (Refinement(seconds=0.5), {"steps": STEPS, "seconds": 0.5}),
    ],
)
def test_refinement_as_it_is_asked_for(scans, register_quickly, monkeypatch, asked, expected):
    done, stages = [], []

    def noted(_model, answer, refinement, **_):
        done.append(refinement)
        return answer

    monkeypatch.setattr(Model, "refine", noted)
    found = register_quickly(
        *(scans.moving, scans.fixed),
        preparation=Preparation(affine=False),
        refine=asked,
        runtime=Runtime(progress=stages.append),
    )
    assert found.metrics["settings"]["refine"] == expected
    assert [vars(refinement) for refinement in done] == ([expected] if expected else [])
    assert ("refine" in stages) == ("refine" in found.metrics["seconds"]) == bool(expected)


def test_yes_is_the_usual_refinement(scans, register_quickly, refined):
    labels = {"labels": scans.moving_labels, "fixed_labels": scans.fixed_labels}
    asked = register_quickly(scans.moving, scans.fixed, **labels, refine=Refinement())
    for name in ("warp", "inverse_warp"):
        ours, expected = (getattr(run, name).displacement for run in (asked, refined))
        np.testing.assert_array_equal(ours, expected)
    assert asked.metrics["settings"] == refined.metrics["settings"]


def test_time_of_the_refinement_is_kept(scans, register_quickly, monkeypatch):
    """There is none for a single step; the answer comes back, but for an averaging."""
    plain = register_quickly(scans.moving, scans.fixed)
    monkeypatch.setattr(descent, "bounded_step", lambda *_: pytest.fail("a step was taken"))
    hasty = register_quickly(scans.moving, scans.fixed, refine=Refinement(1000, seconds=1e-9))
    points = brain_points(scans.fixed)
    apart = np.linalg.norm(hasty.transform.map(points) - plain.transform.map(points), axis=1)
    assert apart.mean() < 0.5
    assert hasty.metrics["settings"]["refine"] == {"steps": 1000, "seconds": 1e-9}


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
    scans, quick_affine, without_network
):
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
    with pytest.raises(InputError, match=r"smoothness has no effect on model tiny.* `refine`"):
        register(scans.moving, scans.fixed, tiny_model, smoothness=2.0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        *(({"refine": steps}, f"refine .*{steps}") for steps in (-1, 0, 16)),
        *(
            ({"refine": True, "smoothness": factor}, f"smoothness must be .*, got {factor}")
            for factor in (0, 0.1, 9, -1, np.nan, np.inf)
        ),
    ],
)
def test_what_is_no_refinement_is_refused_before_anything_is_read(asked, said):
    with pytest.raises(InputError, match=said):
        register("nowhere.nii", **asked)
