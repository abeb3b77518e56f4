"""The agreement of two brains, and its thresholds."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
from phantoms import homogeneous
from scipy import ndimage

from voxwarp.preparation.agreement import Agreement, FitThresholds, agreement
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume

FIT = FitThresholds()
GOOD = Agreement(0.97, 0.6, 0.0, 1.1, 0.9)


def test_a_brain_agrees_with_itself(phantoms):
    found = agreement(Affine(np.eye(4)), moving=phantoms.template, fixed=phantoms.template)
    assert found.overlap > 0.97  # the faintest voxels do not count as brain after a motion
    assert found.local_ncc > 0.98
    assert found.outside == 0
    assert found.largest_scale == found.smallest_scale == 1
    assert FIT.is_certain(found)
    assert FIT.is_good(found)
    assert not FIT.is_hopeless(found)


def test_overlap_is_the_dice_of_two_brains(phantoms, make_grid):
    """Blocks, whose borders are sharp, and which are shifted by whole voxels."""
    grid = make_grid()
    one, other = np.zeros((2, *grid.shape), np.float32)
    one[5:25, 10:40, 8:30] = 100
    other[8:25, 12:44, 8:33] = 70
    shifted = Affine(homogeneous(np.eye(3), (4 * 2, -4 * 3, 4)))
    moved = ndimage.shift(other, (-2, 3, -1), order=0) > 0
    for transform, b in ((Affine(np.eye(4)), other > 0), (shifted, moved)):
        found = agreement(transform, moving=Volume(other, grid), fixed=Volume(one, grid))
        a = one > 0
        assert found.overlap == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-6)


def test_outside_is_the_part_of_the_brain_beyond_the_field_of_view(phantoms):
    """The overlap is that of the rest."""
    whole = phantoms.template
    for kept in (20, 30):
        cut = Volume(
            whole.data[:, :, :kept], whole.grid.crop((0, 0, 0), (*whole.data.shape[:2], kept))
        )
        found = agreement(Affine(np.eye(4)), moving=cut, fixed=whole)
        brain = whole.data > 0
        assert found.outside == pytest.approx(brain[:, :, kept:].sum() / brain.sum(), abs=1e-6)
        assert found.outside > 0.05
        assert found.overlap > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_scales_are_the_singular_values(phantoms, seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3))
    found = agreement(
        Affine(homogeneous(matrix)), moving=phantoms.template, fixed=phantoms.template
    )
    # Of Mᵀ M the eigenvalues are their squares.
    eigenvalues = np.sqrt(np.linalg.eigvalsh(matrix.T @ matrix))
    assert found.smallest_scale == pytest.approx(eigenvalues[0])
    assert found.largest_scale == pytest.approx(eigenvalues[-1])


def test_brains_that_do_not_meet_agree_in_nothing(phantoms):
    far = Affine(homogeneous(np.eye(3), (1000, 0, 0)))
    found = agreement(far, moving=phantoms.template, fixed=phantoms.template)
    assert (found.overlap, found.local_ncc, found.outside) == (0, 0, 1)
    assert FIT.is_hopeless(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": 0.85},
        {"local_ncc": 0.25},
        {"smallest_scale": 0.4, "largest_scale": 0.45},
        {"smallest_scale": 2.0, "largest_scale": 2.2},
    ],
)
def test_one_bad_number_is_enough_for_a_bad_fit(wrong):
    """No head is half or twice the size of another."""
    found = replace(GOOD, **wrong)
    assert (FIT.is_certain(GOOD), FIT.is_good(GOOD), FIT.is_hopeless(GOOD)) == (True, True, False)
    assert (FIT.is_certain(found), FIT.is_good(found)) == (False, False)


@pytest.mark.parametrize("wrong", [{"overlap": 0.7}, {"local_ncc": 0.1}, {"smallest_scale": 0.25}])
def test_a_very_bad_fit_is_hopeless(wrong):
    assert FIT.is_hopeless(replace(GOOD, **wrong))


def former(fit: Agreement) -> dict[str, object]:
    """The verdicts as they were before thresholds could be chosen."""
    stretch = fit.largest_scale / fit.smallest_scale
    sane = fit.smallest_scale > 0.42 and fit.largest_scale < 2 and stretch < 1.4
    return {
        "is_good": fit.overlap > 0.9 and fit.local_ncc > 0.32 and sane,
        "is_certain": fit.overlap > 0.93 and fit.local_ncc > 0.35 and sane,
        "is_hopeless": fit.overlap < 0.8 or fit.local_ncc < 0.25 or fit.smallest_scale < 0.3,
        "is_plausible": sane,
        "score": fit.local_ncc * fit.overlap * (1.0 if sane else 0.5),
    }


def verdicts(thresholds: FitThresholds, fit: Agreement) -> dict[str, object]:
    return {name: getattr(thresholds, name)(fit) for name in former(fit)}


def test_the_usual_thresholds_are_the_former_ones():
    """On each, and on both sides of it."""
    overlaps = (0.79, 0.8, 0.81, 0.9, 0.91, 0.93, 0.94)
    correlations = (0.24, 0.25, 0.26, 0.32, 0.33, 0.35, 0.36)
    scales = (
        *((0.29, 0.35), (0.3, 0.35), (0.42, 0.5), (0.43, 0.5), (0.9, 1.1)),
        *((1.0, 1.4), (1.0, 1.39), (1.5, 2.0), (1.5, 1.99)),
    )
    answers = set()
    for overlap, local_ncc, (least, largest) in itertools.product(overlaps, correlations, scales):
        fit = Agreement(overlap, local_ncc, 0.0, largest, least)
        assert verdicts(FIT, fit) == former(fit), fit
        answers |= {item for item in former(fit).items() if item[0] != "score"}
    assert len(answers) == 8, "each verdict is given both ways"


SIZE = {"is_good", "is_certain", "is_plausible", "score"}
STRICTER = {
    "good_overlap": (0.98, {"is_good"}),
    "good_ncc": (0.7, {"is_good"}),
    "certain_overlap": (0.98, {"is_certain"}),
    "certain_ncc": (0.7, {"is_certain"}),
    "hopeless_overlap": (0.98, {"is_hopeless"}),
    "hopeless_ncc": (0.7, {"is_hopeless"}),
    "hopeless_scale": (0.95, {"is_hopeless"}),
    "least_scale": (0.95, SIZE),
    "largest_scale": (1.05, SIZE),
    "largest_stretch": (1.2, SIZE),
}


@pytest.mark.parametrize("name", STRICTER)
def test_a_template_may_have_stricter_ones(name):
    """Each decides what it is named for, and nothing else."""
    value, decides = STRICTER[name]
    strict = verdicts(replace(FIT, **{name: value}), GOOD)
    assert {what for what, verdict in verdicts(FIT, GOOD).items() if strict[what] != verdict} == (
        decides
    )


def test_all_thresholds_are_among_the_stricter_ones():
    assert set(STRICTER) == {field.name for field in fields(FitThresholds)}
