"""Refinement: the result of a network improves for the pair, and stays invertible."""

import math
from typing import Any

import pytest
import torch
from phantoms import smooth_field, texture, texture_core
from torch import Tensor

from voxwarp.errors import InputError
from voxwarp.fields import field
from voxwarp.fields.losses import local_ncc_map
from voxwarp.networks import descent
from voxwarp.networks.deformation import Deformation
from voxwarp.networks.descent import Stage
from voxwarp.networks.pair_descent import PairDescent
from voxwarp.networks.refine import STEPS, Refinement, refine

SHAPE = (31, 36, 41)
KNOWN = smooth_field(3, SHAPE, amplitude=3.0).float()
MOVING = torch.from_numpy(texture(3, SHAPE))[None, None]
FIXED = field.warp(MOVING, KNOWN)


ALONE = {"descent": PairDescent()}  # on the images alone, as for networks without a descent


def smallest(displacement: Tensor) -> Tensor:
    """The smallest determinant of each voxel."""
    return field.jacobian_determinants(displacement)[1]


def answer(share: float = 0.5) -> Deformation:
    """A result that is only a share of the known displacement."""
    return Deformation(share * KNOWN, share * KNOWN)


def similarity(displacement: Tensor) -> float:
    moved = field.warp(MOVING, displacement)
    return float(local_ncc_map(moved=moved, fixed=FIXED)[0, 0, texture_core(SHAPE)].mean())


def length(displacement: Tensor) -> float:
    return float(displacement.norm(dim=1)[0, texture_core(SHAPE)].mean())


def assert_invertible(deformation: Deformation) -> None:
    """The inverse undoes the displacement on both sides, and nothing folds."""
    displacement, inverse = deformation.displacement, field.invert(deformation.displacement)
    assert displacement.shape == KNOWN.shape
    for one, other in ((displacement, inverse), (inverse, displacement)):
        assert length(field.compose(one, other)) < 0.05
    assert smallest(displacement).min() > 0


@pytest.mark.parametrize("steps", [3, STEPS])
def test_the_images_become_more_similar_than_the_network_made_them(steps: int) -> None:
    start = answer()
    before = start.displacement.clone()
    better = refine(start, Refinement(steps), moving=MOVING, fixed=FIXED, **ALONE)
    assert similarity(better.displacement) > similarity(start.displacement) + 0.01 * steps**0.5
    assert length(better.displacement - KNOWN) < 0.9 * length(start.displacement - KNOWN)
    assert_invertible(better)
    assert torch.equal(start.displacement, before)


def test_many_steps_lead_to_the_truth() -> None:
    better = refine(answer(), Refinement(STEPS), moving=MOVING, fixed=FIXED, **ALONE)
    assert length(better.displacement - KNOWN) < 0.25 * length(KNOWN)


def test_results_of_inference_mode_are_accepted() -> None:
    """``Model.deform`` returns such tensors; autograd allows less with them."""
    with torch.inference_mode():
        start = answer()
    better = refine(start, Refinement(3), moving=MOVING, fixed=FIXED, **ALONE)
    expected = refine(answer(), Refinement(3), moving=MOVING, fixed=FIXED, **ALONE)
    torch.testing.assert_close(better.displacement, expected.displacement)


def test_without_time_the_result_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is taken; only the averaging to half resolution changes it."""
    monkeypatch.setattr(descent, "take_step", lambda *_: pytest.fail("a step was taken"))
    start = answer()
    same = refine(start, Refinement(1000, seconds=1e-9), moving=MOVING, fixed=FIXED, **ALONE)
    assert length(same.displacement - start.displacement) < 0.05 * length(start.displacement)
    assert_invertible(same)


def test_a_shift_stays_a_shift_up_to_the_border() -> None:
    """The images fill the grid, and its sides are no multiples of what the stages need."""
    full = torch.rand(1, 1, *SHAPE) + 0.1
    shift = torch.tensor([1.5, -1.0, 0.5]).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    same = refine(
        Deformation(shift, shift),
        Refinement(3, seconds=1e-9),
        moving=full,
        fixed=full,
        **ALONE,
    )
    torch.testing.assert_close(same.displacement, shift.clone())


def test_smoother_refinements_are_smoother() -> None:
    rough, plain, smooth = (
        field.jacobian_determinant(
            refine(
                answer(0.0), Refinement(), moving=MOVING, fixed=FIXED, **ALONE, smoothness=s
            ).displacement
        )
        .log()
        .std()
        for s in (1.0, 5.0, 8.0)
    )
    assert smooth < plain < rough


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1, {1: 1}), (2, {2: 1, 1: 1}), (3, {2: 2, 1: 1}), (30, {2: 15, 1: 15}), (31, {2: 16, 1: 15})],
)
def test_half_of_the_steps_are_at_half_resolution(steps: int, expected: dict[int, int]) -> None:
    stages = Refinement(steps).settings(from_full=False).stages
    assert {stage.factor: stage.steps for stage in stages} == expected
    assert all(isinstance(stage, Stage) for stage in stages)


@pytest.mark.parametrize(("full_steps", "expected"), [(0, {2: 3, 1: 3}), (1, {1: 6})])
def test_results_at_full_resolution_are_refined_there(
    full_steps: int, expected: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, used = PairDescent(steps=(2, 2), full_steps=full_steps), []
    monkeypatch.setattr(
        "voxwarp.networks.pair_descent.descend",
        lambda settings, *, start, **_: used.append(settings) or start,
    )
    refine(answer(), Refinement(6), moving=MOVING, fixed=FIXED, descent=network)
    assert {stage.factor: stage.steps for stage in used[0].stages} == expected


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        *(
            ({"steps": steps}, f"refine_steps must be between 1 and 1000, got {steps}")
            for steps in (-1, 0, 1001)
        ),
        *(
            ({"seconds": seconds}, f"refine_seconds must be above 0 and finite, got {seconds}")
            for seconds in (0, -1.0, math.nan, math.inf)
        ),
        ({"steps": 5, "seconds": 0}, "refine_seconds must be above 0 and finite, got 0"),
    ],
)
def test_limits_out_of_range_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Refinement(**asked)


def test_true_is_a_refinement_and_false_is_none() -> None:
    own = Refinement(7, 0.5)
    assert Refinement.from_value(own) is own
    assert Refinement.from_value(True) == Refinement() == Refinement(STEPS, None)
    assert Refinement.from_value(False) is Refinement.from_value(None) is None
    for other in (7, 0, 1, 0.5, "yes"):  # for 7 steps there is Refinement(7)
        with pytest.raises(InputError, match=f"True, False or a Refinement, got {other!r}"):
            Refinement.from_value(other)
    assert Refinement(1, 1e-6) == Refinement(steps=1, seconds=1e-6)
    assert Refinement(1000).steps == 1000
