"""Refinement: what a network answered becomes better for the pair, and stays whole."""

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
from voxwarp.networks.descent import Stage, least_determinant
from voxwarp.networks.pair_descent import PairDescent
from voxwarp.networks.refine import STEPS, Refinement, refined

SHAPE = (31, 36, 41)
KNOWN = smooth_field(3, SHAPE, amplitude=3.0).float()
MOVING = torch.from_numpy(texture(3, SHAPE))[None, None]
FIXED = field.warp(MOVING, KNOWN)


ALONE = {"descent": PairDescent()}  # on the images, as for networks that have no descent


def answer(share: float = 0.5) -> Deformation:
    """A network's that goes only a share of the way."""
    return Deformation(share * KNOWN, field.invert(share * KNOWN, iterations=40), share * KNOWN)


def likeness(displacement: Tensor) -> float:
    moved = field.warp(MOVING, displacement)
    return float(local_ncc_map(moved=moved, fixed=FIXED)[0, 0, texture_core(SHAPE)].mean())


def length(displacement: Tensor) -> float:
    return float(displacement.norm(dim=1)[0, texture_core(SHAPE)].mean())


def assert_whole(deformation: Deformation) -> None:
    """Each way undoes the other, and nothing folds."""
    assert deformation.inverse is not None
    there, back = deformation.displacement, deformation.inverse
    assert there.shape == back.shape == KNOWN.shape
    for one, other in ((there, back), (back, there)):
        assert length(field.compose(one, other)) < 0.05
    assert least_determinant(there).min() > 0


@pytest.mark.parametrize("steps", [3, STEPS])
def test_the_images_become_more_alike_than_the_network_made_them(steps: int) -> None:
    start = answer()
    before = [way.clone() for way in start]
    better = refined(start, Refinement(steps), moving=MOVING, fixed=FIXED, **ALONE)
    assert likeness(better.displacement) > likeness(start.displacement) + 0.01 * steps**0.5
    assert length(better.displacement - KNOWN) < 0.9 * length(start.displacement - KNOWN)
    assert_whole(better)
    assert all(torch.equal(way, was) for way, was in zip(start, before, strict=True))


def test_many_steps_lead_to_the_truth() -> None:
    better = refined(answer(), Refinement(STEPS), moving=MOVING, fixed=FIXED, **ALONE)
    assert length(better.displacement - KNOWN) < 0.25 * length(KNOWN)


def test_a_missing_inverse_is_found() -> None:
    without = answer()._replace(inverse=None)
    better = refined(without, Refinement(6), moving=MOVING, fixed=FIXED, **ALONE)
    expected = refined(answer(), Refinement(6), moving=MOVING, fixed=FIXED, **ALONE)
    assert_whole(better)
    torch.testing.assert_close(better.displacement, expected.displacement)
    assert without.inverse is None


def test_an_answer_of_inference_is_taken() -> None:
    """As ``Model.deform`` gives it; autograd allows less with its tensors than with others."""
    with torch.inference_mode():
        start = answer()
    better = refined(start, Refinement(3), moving=MOVING, fixed=FIXED, **ALONE)
    expected = refined(answer(), Refinement(3), moving=MOVING, fixed=FIXED, **ALONE)
    torch.testing.assert_close(better.displacement, expected.displacement)


def test_without_time_the_answer_comes_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the averaging to half the resolution: no step is taken."""
    monkeypatch.setattr(descent, "levelled", lambda *_: pytest.fail("a step was begun"))
    start = answer()
    same = refined(start, Refinement(1000, seconds=1e-9), moving=MOVING, fixed=FIXED, **ALONE)
    assert length(same.displacement - start.displacement) < 0.05 * length(start.displacement)
    assert_whole(same)


def test_an_answer_goes_on_beyond_the_lattice() -> None:
    """Where the brains fill it, and its sides are no multiples: a shift is one up to the border."""
    full = torch.rand(1, 1, *SHAPE) + 0.1
    shift = torch.tensor([1.5, -1.0, 0.5]).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    same = refined(
        Deformation(shift, -shift, shift),
        Refinement(3, seconds=1e-9),
        moving=full,
        fixed=full,
        **ALONE,
    )
    torch.testing.assert_close(same.displacement, shift.clone())
    torch.testing.assert_close(same.inverse, -shift)


def test_smoother_refinements_are_smoother() -> None:
    rough, plain, smooth = (
        field.jacobian_determinant(
            refined(
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
    [(1, {1: 1}), (2, {2: 1, 1: 1}), (3, {2: 2, 1: 1}), (30, {2: 20, 1: 10}), (31, {2: 21, 1: 10})],
)
def test_two_steps_of_three_are_at_half_resolution(steps: int, expected: dict[int, int]) -> None:
    plan = Refinement(steps).plan(from_full=False)
    assert {stage.factor: stage.steps for stage in plan.stages} == expected
    assert all(isinstance(stage, Stage) for stage in plan.stages)


@pytest.mark.parametrize(("full_steps", "expected"), [(0, {2: 4, 1: 2}), (1, {1: 6})])
def test_answers_of_the_full_resolution_are_refined_there(
    full_steps: int, expected: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, plans = PairDescent(steps=(2, 2), full_steps=full_steps), []
    monkeypatch.setattr(
        "voxwarp.networks.pair_descent.descend",
        lambda plan, *, start, **_: plans.append(plan) or start,
    )
    refined(answer(), Refinement(6), moving=MOVING, fixed=FIXED, descent=network)
    assert {stage.factor: stage.steps for stage in plans[0].stages} == expected


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        *(({"steps": steps}, f"refine {steps}: 1 to 1000 steps") for steps in (-1, 0, 1001)),
        *(
            ({"seconds": seconds}, f"refine_seconds {seconds}: a time above 0")
            for seconds in (0, -1.0, math.nan, math.inf)
        ),
        ({"steps": 5, "seconds": 0}, "refine_seconds 0: "),
    ],
)
def test_values_that_make_no_refinement_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Refinement(**asked)


def test_yes_is_a_refinement_and_no_is_none() -> None:
    own = Refinement(7, 0.5)
    assert Refinement.of(own) is own
    assert Refinement.of(True) == Refinement() == Refinement(STEPS, None)
    assert Refinement.of(False) is Refinement.of(None) is None
    for other in (7, 0, 1, 0.5, "yes"):  # 7 steps, perhaps, but that is what Refinement(7) is for
        with pytest.raises(InputError, match=f"refine {other!r}: True, False or a Refinement"):
            Refinement.of(other)
    assert Refinement(1, 1e-6) == Refinement(steps=1, seconds=1e-6)
    assert Refinement(1000).steps == 1000
