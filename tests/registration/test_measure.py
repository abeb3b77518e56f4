"""Measures: those of the files, computed otherwise; and what in them is worth a warning."""

import json
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from voxwarp.registration.measure import Measures


def own_dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    values = (set(np.unique(a).tolist()) | set(np.unique(b).tolist())) - {0}
    return {v: 2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in values}


def test_dice_is_that_of_the_files(saved):
    expected = own_dice(
        np.asarray(nib.load(saved.out / "WarpedLabels.nii.gz").dataobj),
        np.asarray(nib.load(saved.fixed_labels).dataobj),
    )
    dice = json.loads((saved.out / "metrics.json").read_text())["dice"]
    assert {int(k): v for k, v in dice["per_label"].items()} == pytest.approx(expected, abs=1e-9)
    assert dice["mean"] == pytest.approx(np.mean(list(expected.values())), abs=1e-9)
    assert dice["labels"] == "nearest neighbour"
    assert 0.3 < dice["mean"] < 1


def test_labels_of_the_fixed_scan_alone_give_no_dice(scans, register_quickly):
    found = register_quickly(scans.moving, scans.fixed, fixed_labels=scans.fixed_labels)
    assert found.metrics["dice"] is None
    assert found.warnings == ["Dice was not measured: give `labels`, too, not only `fixed_labels`"]


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


# ---------------------------------------------------------------------------------- warnings

GOOD = Measures(
    before={"local_ncc": 0.3, "correlation": 0.6},
    after={"local_ncc": 0.6, "correlation": 0.9},
    dice={2: 0.5, 7: 1.0},
    jacobian={"folds": 0, "folds_any_difference": 3},
)


def similar(before: float, after: float, correlation: float = 0.9) -> dict[str, Any]:
    return {
        "before": {"local_ncc": before, "correlation": 0.6},
        "after": {"local_ncc": after, "correlation": correlation},
    }


APART = "the scans do not overlap in world space; check the origins in their headers"
LESS = (
    "the scans are less similar after the registration than before (local NCC 0.500 → 0.494); "
    "check the result by eye"
)
DISSIMILAR = (
    "the scans are not very similar after the registration (local NCC 0.149); check the result by "
    "eye"
)
CONTRAST = (
    "the intensities of the scans do not match after the registration (correlation 0.49); do both "
    "scans have the same contrast?"
)
UNSURE = (
    "the model is unsure of the structures in {} brain, as in contrasts that it has not learned; "
    "so {}"
)
LITTLE = "structures count for less in this registration"
NOT = "this registration aligns the intensities alone"
FOLDS = "the deformation folds in 5 voxels of the fixed brain (det J ≤ 0)"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({}, []),
        (similar(0.0, 0.0, 0.0), [APART]),
        (similar(0.5, 0.496), []),
        (similar(0.5, 0.494), [LESS]),
        (similar(0.1, 0.149), [DISSIMILAR]),
        (similar(0.1, 0.149, 0.49), [DISSIMILAR]),  # once is enough
        (similar(0.1, 0.151), []),
        (similar(0.3, 0.6, 0.51), []),
        (similar(0.3, 0.6, 0.49), [CONTRAST]),
        (similar(0.5, 0.494, 0.49), [LESS, CONTRAST]),
        ({"unsure": {"moving": 0.03, "fixed": 0.06}}, []),
        (
            {"unsure": {"moving": 0.074, "fixed": 0.06}},
            [UNSURE.format("7 % of the moving", LITTLE)],
        ),
        ({"unsure": {"moving": 0.03, "fixed": 0.12}}, [UNSURE.format("12 % of the fixed", NOT)]),
        (
            {"unsure": {"moving": 0.061, "fixed": 0.09}},
            [UNSURE.format("6 % of the moving brain and 9 % of the fixed", NOT)],
        ),
        ({"jacobian": {"folds": 5}}, [FOLDS]),
        ({**similar(0.3, 0.6, 0.49), "jacobian": {"folds": 5}}, [CONTRAST, FOLDS]),
    ],
)
def test_warnings(measured: dict[str, Any], expected: list[str]):
    assert replace(GOOD, **measured).warnings() == expected


def test_measures_in_a_record():
    assert GOOD.described() == {
        "similarity": {"before": GOOD.before, "after": GOOD.after},
        "dice": {"mean": 0.75, "per_label": {2: 0.5, 7: 1.0}, "labels": "nearest neighbour"},
        "jacobian": GOOD.jacobian,
        "unsure_share": None,
    }
    unsure = {"moving": 0.1, "fixed": 0.02}
    assert replace(GOOD, unsure=unsure).described()["unsure_share"] == unsure
    assert replace(GOOD, dice=None).described()["dice"] is None
