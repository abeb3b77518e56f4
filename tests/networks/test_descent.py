"""Descent: known deformations are found, forces are derivatives, and nothing folds."""

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from phantoms import smooth_field, texture, texture_core
from torch import Tensor

from voxwarp.fields import field
from voxwarp.fields.filters import gaussian
from voxwarp.fields.losses import local_ncc_map
from voxwarp.networks import descent
from voxwarp.networks.descent import (
    DescentSettings,
    Features,
    Stage,
    bounded_step,
    descend,
    upsampled,
)
from voxwarp.networks.forces import CorrelationForce, DifferenceForce

SHAPE = (32, 36, 40)
SETTINGS = DescentSettings([Stage(4, 16), Stage(2, 20), Stage(1, 10)])
ENDLESS = replace(SETTINGS, tolerance=-1.0)  # a stage takes all of its steps
INNER = (..., *(slice(4, -4),) * 3)  # what the deformation does not move out of the grid


def smallest(displacement: Tensor) -> Tensor:
    """The smallest determinant of each voxel."""
    return field.jacobian_determinants(displacement)[1]


def picture(seed: int = 0, shape: tuple[int, ...] = SHAPE, *, grain: float = 2.0) -> Tensor:
    return torch.from_numpy(texture(seed, shape, grain=grain))[None, None]


def pair(seed: int = 3, *, grain: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """A moving image, the fixed image that a smooth displacement makes of it, and that."""
    known = smooth_field(seed, SHAPE, amplitude=3.0).float()
    moving = picture(seed, grain=grain)
    return moving, field.warp(moving, known), known


def length(displacement: Tensor) -> float:
    """Mean length in the textured part, voxels."""
    return float(displacement.norm(dim=1)[:, texture_core(SHAPE)].mean())


def similarity(fixed: Tensor, moved: Tensor) -> float:
    """Mean squared local correlation in the textured part."""
    cc = local_ncc_map(moved=moved, fixed=fixed, window=3)
    return float(cc[0, 0, texture_core(fixed.shape[2:])].mean())


def roughness(displacement: Tensor) -> float:
    """The standard deviation of log J."""
    return float(field.jacobian_determinant(displacement).log().std())


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The steps that a descent takes."""
    taken: list[Tensor] = []

    original = descent.take_step

    def noted(displacement: Tensor, force: Tensor, stage: Stage, *more: Any) -> Tensor:
        taken.append(bounded_step(gaussian(force, stage.force_smoothing), stage.step_length))
        return original(displacement, force, stage, *more)

    monkeypatch.setattr(descent, "take_step", noted)
    return taken


# ------------------------------------------------------------------------------------- descend


@pytest.mark.parametrize("seed", range(3))
def test_a_known_deformation_is_found(seed: int) -> None:
    moving, fixed, known = pair(seed)
    found = descend(SETTINGS, moving=moving, fixed=fixed)
    assert length(known) > 1.5
    assert length(found - known) < 0.2 * length(known)
    assert similarity(fixed, moving) < 0.7
    assert similarity(fixed, field.warp(moving, found)) > 0.95


def test_the_deformation_has_an_inverse() -> None:
    moving, fixed, _ = pair()
    there = descend(SETTINGS, moving=moving, fixed=fixed)
    back = field.invert(there)
    assert length(there) > 1.5
    for one, other in ((there, back), (back, there)):
        left = field.compose(one, other)[INNER].norm(dim=1)
        assert left.mean() < 0.05
        assert left.max() < 0.5
    # The displacement with its sign turned is far from doing as well.
    assert field.compose(there, -there)[INNER].norm(dim=1).mean() > 0.2


@pytest.mark.parametrize("seed", range(3))
def test_momentum_saves_half_of_the_steps(seed: int) -> None:
    """Three steps at each resolution get as far as six without momentum; three without do not."""
    moving, fixed, known = pair(seed)
    left = []
    for steps, momentum in ((6, 0.0), (3, 0.5), (3, 0.0)):
        stages = [Stage(factor, steps, momentum=momentum) for factor in (4, 2, 1)]
        settings = DescentSettings(stages, tolerance=-1.0)
        left.append(length(descend(settings, moving=moving, fixed=fixed) - known))
    six, three_with_momentum, three = left
    assert three_with_momentum < 1.05 * six
    assert six < 0.9 * three


def test_equal_images_move_little_and_soon_stop(steps: list[Tensor]) -> None:
    image = picture()
    there = descend(SETTINGS, moving=image, fixed=image)
    assert len(steps) <= 18 < sum(stage.steps for stage in SETTINGS.stages)
    assert length(there) < 0.15
    assert similarity(image, field.warp(image, there)) > 0.99


def test_empty_images_do_not_move(steps: list[Tensor]) -> None:
    nothing = torch.zeros(1, 1, *SHAPE)
    still = descend(SETTINGS, moving=nothing, fixed=nothing)
    assert torch.equal(still, torch.zeros(1, 3, *SHAPE))
    assert len(steps) < 15


def test_a_stage_ends_when_the_similarity_stops_growing(steps: list[Tensor]) -> None:
    moving, fixed, _ = pair()
    eager = replace(SETTINGS, tolerance=0.01)
    taken = []
    for settings in (eager, SETTINGS, ENDLESS):
        steps.clear()
        descend(settings, moving=moving, fixed=fixed)
        taken.append(len(steps))
    assert taken[0] < taken[1] < taken[2] == 46


def test_where_little_is_left_to_do_the_steps_become_shorter() -> None:
    """As between two scans of one subject: the full length would lead away from the truth."""
    moving, known = picture(1), smooth_field(1, SHAPE, amplitude=0.6).float()
    fixed = field.warp(moving, known)
    settings = DescentSettings([Stage(1, 8, step_length=0.6, momentum=0.5)])
    assert length(descend(replace(settings, halvings=0), moving=moving, fixed=fixed)) == 0
    found = descend(settings, moving=moving, fixed=fixed)
    assert length(found - known) < 0.85 * length(known)
    before, after = (1 - similarity(fixed, field.warp(moving, u)) for u in (0 * found, found))
    assert after < 0.6 * before


def test_a_descent_continues_from_its_start() -> None:
    """A single step from the truth stays near it; from the identity it does not get there."""
    moving, fixed, known = pair()
    once = DescentSettings([Stage(2, 1)])
    near = descend(once, moving=moving, fixed=fixed, start=known)
    assert length(near - known) < 0.3 * length(known)
    assert length(descend(once, moving=moving, fixed=fixed) - known) > 0.7 * length(known)


@pytest.mark.parametrize("factors", [(1,), (2, 1), (4, 2)])
def test_without_time_the_start_is_only_averaged(factors: tuple[int, ...]) -> None:
    moving, fixed, known = pair()
    settings = DescentSettings([Stage(f, 10) for f in factors])
    past = time.monotonic() - 1
    found = descend(settings, moving=moving, fixed=fixed, start=known, deadline=past)
    expected = F.avg_pool3d(known, factors[0]) / factors[0]
    expected = upsampled(expected, factors[0], 1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(
        descend(settings, moving=moving, fixed=fixed, deadline=past), torch.zeros_like(found)
    )


def test_no_step_begins_that_would_not_be_done_in_time(
    steps: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock advances half a second each time it is read: in a step, and before the next."""
    seconds = iter(np.arange(0, 100, 0.5).tolist())
    monkeypatch.setattr(descent, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    moving, fixed, _ = pair()
    settings = DescentSettings([Stage(2, 10)], tolerance=-1.0)
    descend(settings, moving=moving, fixed=fixed, deadline=2.2)
    assert len(steps) == 2  # begun at 0 and at 1; the next would go from 2 to 2.5


def test_smoother_settings_give_smoother_deformations() -> None:
    moving, fixed, _ = pair()
    rough, plain, smooth = (
        roughness(descend(ENDLESS.smoother(factor), moving=moving, fixed=fixed))
        for factor in (0.5, 1, 4)
    )
    assert smooth < 0.8 * plain < 0.8 * rough
    for factor in (0.5, 2.0):
        other = SETTINGS.smoother(factor)
        for stage, smoother in zip(SETTINGS.stages, other.stages, strict=True):
            widths = {
                name: factor * getattr(stage, name) for name in ("smoothing", "force_smoothing")
            }
            assert smoother == replace(stage, **widths)


def test_a_batch_is_registered_as_each_of_its_pairs_is(steps: list[Tensor]) -> None:
    """To the byte, also with features; the first pair stops long before the second."""
    moving = picture(1)
    fixed = field.warp(moving, smooth_field(1, SHAPE, amplitude=0.3).float())
    pairs = [(moving, fixed), pair(2)[:2]]
    starts = [smooth_field(seed, SHAPE, amplitude=0.2).float() for seed in (7, 8)]
    features = [Features(*(F.avg_pool3d(x, 2) for x in images), weight=0.5) for images in pairs]
    for more in ({}, {"start": starts}, {"features": features}):
        alone, taken = [], []
        for number, (moving, fixed) in enumerate(pairs):
            steps.clear()
            options = {name: each[number] for name, each in more.items()}
            alone.append(descend(SETTINGS, moving=moving, fixed=fixed, **options))
            taken.append(len(steps))
        both = {
            "start": torch.cat(starts),
            "features": Features(*(torch.cat([f[i] for f in features]) for i in (0, 1)), 0.5),
        }
        moving, fixed = (torch.cat(images) for images in zip(*pairs, strict=True))
        options = {name: both[name] for name in more}
        together = descend(SETTINGS, moving=moving, fixed=fixed, **options)
        assert taken[0] < 0.8 * taken[1] < taken[1] < 46
        assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(
    "stages",
    [
        [Stage(f, 20, smoothing=0, step_length=2, force_smoothing=0) for f in (4, 2)],
        [Stage(f, 10 * f, smoothing=0, step_length=1, force_smoothing=0) for f in (2, 1)],
        [Stage(1, 20, smoothing=0.2, step_length=1)],
        [Stage(1, 20, smoothing=0.2, step_length=0.5, momentum=0.9)],
    ],
)
def test_nothing_folds_however_absurd_the_settings(
    stages: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two unrelated images, and no smoothing."""
    shape = (24, 28, 32)
    moving, fixed = picture(1, shape), picture(11, shape)
    settings = DescentSettings(stages, tolerance=-1.0)
    assert smallest(descend(settings, moving=moving, fixed=fixed)).min() > 0
    monkeypatch.setattr(descent, "remove_folds", lambda displacement, **_: displacement)
    assert smallest(descend(settings, moving=moving, fixed=fixed)).min() < 0


@pytest.mark.parametrize("shape", [(32, 36, 42), (33, 36, 40)])
def test_sides_that_are_no_multiples_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        descend(SETTINGS, moving=torch.zeros(1, 1, *shape), fixed=torch.zeros(1, 1, *shape))


# ------------------------------------------------------------------------------------ features


@pytest.mark.parametrize(("coarse", "grain"), [(1, 2.0), (2, 3.0)])
def test_features_guide_where_intensities_are_flat(coarse: int, grain: float) -> None:
    """On coarser and finer grids than that of the maps; one map is the square of the other."""
    moving, fixed, known = pair(grain=grain)
    flat = torch.full_like(moving, 0.5)
    maps = [F.avg_pool3d(torch.cat([x, x.square()], dim=1), coarse) for x in (moving, fixed)]
    alone = descend(ENDLESS, moving=flat, fixed=flat)
    assert alone.abs().max() == 0
    led = descend(ENDLESS, moving=flat, fixed=flat, features=Features(*maps, weight=1.0))
    assert length(led - known) < 0.25 * length(known)


def test_features_of_no_weight_change_nothing() -> None:
    moving, fixed, _ = pair()
    maps = Features(moving.flip(2), fixed.flip(3), weight=0.0)
    plain = descend(SETTINGS, moving=moving, fixed=fixed)
    led = descend(SETTINGS, moving=moving, fixed=fixed, features=maps)
    torch.testing.assert_close(led, plain, atol=1e-5, rtol=0)


# -------------------------------------------------------------------------------------- forces


@pytest.mark.parametrize("window", [3, 5])
def test_the_similarity_is_that_of_the_loss(window: int) -> None:
    moving, fixed, known = pair()
    generator = torch.Generator().manual_seed(0)
    moving, fixed = (x + 0.02 * torch.randn(x.shape, generator=generator) for x in (moving, fixed))
    force = CorrelationForce(moving=moving, fixed=fixed, window=window)
    for displacement in (torch.zeros_like(known), known):
        moved = field.warp(moving, displacement, padding="border")
        guard = CorrelationForce.GUARD * window**6  # the loss has sums where the force has means
        expected = local_ncc_map(
            moved=moved.double(), fixed=fixed.double(), window=window, eps=guard
        ).mean()
        assert force(displacement)[1] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_small_step_along_the_force_increases_the_similarity(share: float) -> None:
    moving, fixed, known = pair()
    force, at = CorrelationForce(moving=moving, fixed=fixed, window=3), share * known
    pull, before = force(at)
    size = 0.05 / pull.norm(dim=1).max()
    along, against = (force(field.compose(at, way * size * pull))[1] for way in (1, -1))
    assert against < before - 1e-4
    assert along > before + 1e-4


def test_the_correlation_pulls_towards_the_shifted_image() -> None:
    """fixed(x) = moving(x + ½ e): the force points along +e, and does not depend on contrast."""
    moving = picture()
    for axis in range(3):
        shift = torch.zeros(1, 3, *SHAPE)
        shift[:, axis] = 0.5
        fixed = 0.3 + 0.4 * field.warp(moving, shift, padding="border")
        force = CorrelationForce(moving=moving, fixed=fixed, window=3)
        pull = force(torch.zeros_like(shift))[0][0, :, texture_core(SHAPE)]
        mean = pull.mean(dim=1)
        assert mean[axis] > 3 * mean.abs().sum() / 4


def energy(moved: Tensor, fixed: Tensor, weight: float) -> float:
    return 0.5 * weight * float((fixed - moved).double().square().sum())


def slope(of: Callable[[float], float], by: float = 1e-4) -> float:
    """The numerical derivative at zero."""
    return (of(by) - of(-by)) / (2 * by)


def two_maps(seed: int, shape: tuple[int, ...]) -> Tensor:
    return smooth_field(seed, shape, amplitude=1.0, pinned=False)[:, :2]


def test_the_force_of_maps_is_minus_the_slope_of_their_squared_difference() -> None:
    """The slope is that of steps composed with the deformation so far."""
    shape, weight = (12, 14, 16), 0.7
    moving, fixed, known = two_maps(1, shape), two_maps(2, shape), smooth_field(3, shape)
    force = DifferenceForce(moving=moving, fixed=fixed, weight=weight, ratio=1)
    pull, value = force(known)
    moved = field.warp(moving, known, padding="border")
    squared = float((moved - fixed).square().sum(dim=1).mean())
    assert value == pytest.approx(-weight / 2 * squared)
    for seed in (4, 5):
        way = smooth_field(seed, shape, amplitude=1.0)  # pinned: nothing moves at the border

        def stepped(by: float, way: Tensor = way) -> float:
            return energy(field.warp(moved, by * way, padding="border"), fixed, weight)

        assert float((pull * way).sum()) == pytest.approx(-slope(stepped), rel=1e-5)


def test_the_force_of_coarser_maps_is_that_of_the_finer_grid() -> None:
    """A voxel of the maps stands for 2³ of the stage; displacements are of half as many voxels."""
    shape, fine, weight = (24, 28, 32), (48, 56, 64), 0.7
    moving, fixed = two_maps(1, shape), two_maps(2, shape)
    for known in (torch.zeros(1, 3, *fine).double(), smooth_field(3, fine, amplitude=2.0)):
        pull, _ = DifferenceForce(moving=moving, fixed=fixed, weight=weight, ratio=2)(known)
        moved = field.warp(moving, F.avg_pool3d(known, 2) / 2, padding="border")
        for seed in (5, 6):
            way = smooth_field(seed, fine, amplitude=1.0)
            step = F.avg_pool3d(way, 2) / 2

            def stepped(by: float, moved: Tensor = moved, step: Tensor = step) -> float:
                return 8 * energy(field.warp(moved, by * step, padding="border"), fixed, weight)

            # Interpolation approximates the adjoint of averaging.
            assert float((pull * way).sum()) == pytest.approx(-slope(stepped), rel=0.01)


# ------------------------------------------------------------------------------------ bounded_step


def test_steps_are_bounded_and_follow_the_force() -> None:
    force = smooth_field(1, (8, 9, 10), pinned=False)
    force = force * torch.logspace(-3, 3, 10, dtype=torch.float64)  # from weak to strong
    step = bounded_step(force, 0.3)
    sizes, lengths = force.norm(dim=1), step.norm(dim=1)
    assert lengths.max() < 0.3
    torch.testing.assert_close(F.cosine_similarity(step, force), torch.ones_like(sizes))
    order = sizes.flatten().argsort()
    assert (lengths.flatten()[order].diff() >= 0).all()


def test_a_force_of_mean_size_makes_a_quarter_of_the_longest_step_and_a_lone_one_nearly_all() -> (
    None
):
    force = F.normalize(smooth_field(1, (8, 9, 10), pinned=False), dim=1) * 1e-5
    lengths = bounded_step(force, 0.4).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.1))
    lone = torch.zeros_like(force)
    lone[0, :, 3, 4, 5] = force[0, :, 3, 4, 5]
    assert float(bounded_step(lone, 0.4).norm()) == pytest.approx(0.4 / (1 + 3 / 720))


def test_each_sample_has_its_own_mean_force() -> None:
    force = smooth_field(1, (8, 9, 10), pinned=False)
    one, tenth, none = bounded_step(torch.cat([force, force / 10, 0 * force]), 0.3)
    torch.testing.assert_close(tenth, one)
    assert (none == 0).all()


# ---------------------------------------------------------------------------------- upsampled


def test_fields_on_finer_grids_are_the_same_motion() -> None:
    """On voxels a quarter as wide, a linear displacement is four times as long, and linear."""
    matrix = torch.from_numpy(np.random.default_rng(0).uniform(-0.2, 0.2, (3, 3)))
    x = field.identity_grid((24, 28, 32), torch.zeros(1, dtype=torch.float64))
    fine = torch.einsum("ij,bjxyz->bixyz", matrix, x)
    coarse = field.averaged(fine, 4) / 4
    inner = (..., *(slice(4, -4),) * 3)
    torch.testing.assert_close(upsampled(coarse, 4, 1)[inner], fine[inner])
    half = upsampled(coarse, 4, 2)
    torch.testing.assert_close(half[inner], (field.averaged(fine, 2) / 2)[inner])
