"""A descent as a model: shifts are found, each pair stops on its own, maps are cached."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from phantoms import smooth_field, texture, texture_core
from torch import Tensor

from voxwarp.fields import field
from voxwarp.fields.box import Box
from voxwarp.networks import descent
from voxwarp.networks.catalogue import anatomy
from voxwarp.networks.descent import DescentSettings, Stage, Weights
from voxwarp.networks.model import Model
from voxwarp.networks.pair_descent import PairDescent, StepSettings, Trust
from voxwarp.networks.refine import Refinement
from voxwarp.networks.segmentation import Segmentation, StructureMaps

SHIFT = (2.0, -1.5, 1.0)
SIZE = (31, 36, 41)  # no multiples of the coarsest factor


def picture(seed: int, shape: tuple[int, ...] = SIZE, *, grain: float = 2.5) -> Tensor:
    return torch.from_numpy(texture(seed, shape, grain=grain))[None, None]


def shifted() -> tuple[Tensor, Tensor]:
    """moving and fixed(x) = moving(x + shift)."""
    moving = picture(1)
    shift = torch.tensor(SHIFT).view(1, 3, 1, 1, 1).expand(1, 3, *SIZE)
    return moving, field.warp(moving, shift)


# ------------------------------------------------------------------------------ the model "none"


def test_the_model_none_finds_a_shift() -> None:
    moving, fixed = shifted()
    found, core = Model.load("none").deform(moving=moving, fixed=fixed), texture_core(SIZE)
    mean = found.displacement[0, :, core].mean(dim=1)
    torch.testing.assert_close(mean, torch.tensor(SHIFT), atol=0.15, rtol=0)


def test_the_model_none_is_as_precise_where_convolutions_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no convolutions, and differences of bf16 numbers would be too coarse."""
    model, (moving, fixed) = Model.load("none"), shifted()
    found, asked = [], []

    def has(device: torch.device, answer: bool) -> bool:
        asked.append(device)
        return answer

    for answer in (True, False):
        monkeypatch.setattr("voxwarp._device.has_bfloat16", lambda d, answer=answer: has(d, answer))
        deformed = model.deform(moving=moving, fixed=fixed)
        refined = model.refine(deformed, Refinement(6), moving=moving, fixed=fixed)
        found.append((deformed.displacement, refined.displacement))
    assert len(asked) == 4
    for got, expected in zip(*found, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_the_smoothness_of_the_model_none_can_be_chosen() -> None:
    model, (moving, fixed) = Model.load("none"), shifted()
    factors = None, 0.5, 1.0, 2.0, 4.0
    ways = [
        model.deform(moving=moving, fixed=fixed, smoothness=factor).displacement
        for factor in factors
    ]
    assert torch.equal(ways[0], ways[2])
    rough = [float(field.jacobian_determinant(way).log().std()) for way in ways[1:]]
    assert rough == sorted(rough, reverse=True)
    assert rough[0] > 1.5 * rough[-1]


def test_the_model_none_does_not_move_empty_images() -> None:
    nothing = torch.zeros(1, 1, *SIZE)
    still = Model.load("none").deform(moving=nothing, fixed=nothing).displacement
    assert torch.equal(still, torch.zeros(1, 3, *SIZE))


# ------------------------------------------------------------------------------------ settings


def test_the_stages_go_from_coarse_to_fine() -> None:
    steps = StepSettings(step_length=0.4, smoothing=0.35)
    coarse = PairDescent(steps=(5, 6, 7), step_settings=steps).settings
    stages = [Stage(f, n, 0.35, 0.4) for f, n in ((8, 5), (4, 6), (2, 7))]
    assert coarse == DescentSettings(stages)
    full = PairDescent(steps=(5, 6), full_steps=3).settings
    assert full == DescentSettings([Stage(4, 5), Stage(2, 6), Stage(1, 3, step_length=0.5)])


def test_momentum_is_of_all_stages_and_each_has_its_smoothing_of_the_force() -> None:
    def widths(*force_smoothing: float) -> list[float]:
        steps = StepSettings(momentum=0.5, force_smoothing=force_smoothing)
        stages = PairDescent(steps=(5, 6), full_steps=3, step_settings=steps).settings.stages
        assert [stage.momentum for stage in stages] == [0.5] * 3
        assert [stage.smoothing for stage in stages] == [0.42] * 3
        return [stage.force_smoothing for stage in stages]

    assert widths(2.0, 1.6, 1.0) == [2.0, 1.6, 1.0]
    assert widths(2.0, 1.3) == [2.0, 1.3, 1.3]


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 2.0, float("nan")])
def test_momentum_under_which_steps_would_grow_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match="momentum must be at least 0 and below 1"):
        PairDescent(step_settings=StepSettings(momentum=momentum))


def test_no_smoothing_of_the_force_is_refused() -> None:
    with pytest.raises(ValueError, match="force_smoothing must hold at least one number"):
        PairDescent(step_settings=StepSettings(force_smoothing=()))


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must hold a number"):
        PairDescent(steps=())


# ------------------------------------------------------------------------------------- batches


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pairs in each step: 1, because each pair is registered on its own."""
    taken: list[int] = []
    original = descent.take_step

    def noted(displacement: Tensor, *more: Any) -> Tensor:
        taken.append(len(displacement))
        return original(displacement, *more)

    monkeypatch.setattr(descent, "take_step", noted)
    return taken


def two_pairs() -> Iterator[tuple[Tensor, Tensor]]:
    """One that is nearly aligned at the start, and one that is not; the brains differ in size."""
    for seed, amplitude, grain in ((4, 0.3, 3.0), (5, 3.0, 2.0)):
        moving = picture(seed, grain=grain)
        moving[..., : 12 * (seed - 4)] = 0
        yield moving, field.warp(moving, smooth_field(seed, SIZE, amplitude=amplitude).float())


def segmenting() -> PairDescent:
    torch.manual_seed(3)
    return anatomy(4, (6, 8), steps=(16, 20), full_steps=2)


NETWORKS = {
    "images alone": lambda: PairDescent(steps=(16, 20, 20), full_steps=4),
    "with a segmentation": segmenting,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_gives_what_its_pairs_give_alone(name: str, steps: list[int]) -> None:
    """To the byte, although one pair stops long before the other."""
    network, pairs = NETWORKS[name](), list(two_pairs())
    boxes = {Box.around(*pair, multiple=network.multiple) for pair in pairs}
    assert len(boxes) == 2
    alone, taken = [], []
    with torch.inference_mode():
        for moving, fixed in pairs:
            steps.clear()
            alone.append(network(moving=moving, fixed=fixed))
            taken.append(len(steps))
        steps.clear()
        moving, fixed = (torch.cat(images) for images in zip(*pairs, strict=True))
        together = network(moving=moving, fixed=fixed)
    assert taken[0] < 0.8 * taken[1] < taken[1] < sum(s.steps for s in network.settings.stages)
    assert steps == [1] * sum(taken)
    assert torch.equal(together.displacement, torch.cat([one.displacement for one in alone]))
    assert alone[1].displacement.abs().max() > 1


def test_the_starts_of_a_batch_are_those_of_its_pairs() -> None:
    network, pairs = PairDescent(steps=(4, 4)), list(two_pairs())
    known = [smooth_field(seed, SIZE, amplitude=2.0).float() for seed in (7, 8)]
    alone = [
        network.descend(network.settings, moving=moving, fixed=fixed, start=start).displacement
        for (moving, fixed), start in zip(pairs, known, strict=True)
    ]
    moving, fixed = (torch.cat(images) for images in zip(*pairs, strict=True))
    start = torch.cat(known)
    together = network.descend(network.settings, moving=moving, fixed=fixed, start=start)
    assert torch.equal(together.displacement, torch.cat(alone))


# --------------------------------------------------------------------------- the cache of maps


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The images that are segmented."""
    segmented_images: list[Tensor] = []
    forward = StructureMaps.forward

    def noted(maps: StructureMaps, images: Tensor, factor: int) -> Segmentation:
        segmented_images.extend(images.clone())
        return forward(maps, images, factor)

    monkeypatch.setattr(StructureMaps, "forward", noted)
    return segmented_images


def test_cached_maps_are_not_computed_again(segmented: list[Tensor]) -> None:
    network, (moving, fixed), cache = segmenting(), shifted(), {}
    with torch.inference_mode():
        first = network(moving=moving, fixed=fixed, map_cache=cache)
        box = Box.around(moving, fixed, multiple=network.multiple)
        for image, of in zip(segmented, (moving, fixed), strict=True):
            assert torch.equal(image, box.crop(of)[0])
        again = network(moving=moving, fixed=fixed, smoothness=1.0, map_cache=cache)
        assert len(segmented) == 2
        without = network(moving=moving, fixed=fixed)
        assert len(segmented) == 4
    for name in ("displacement", "unsure"):
        one, two, three = (getattr(found, name) for found in (first, again, without))
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_maps_are_cached_for_their_factor_and_their_box(
    segmented: list[Tensor],
) -> None:
    network, (moving, fixed), cache = segmenting(), shifted(), {}
    with torch.inference_mode():
        network(moving=moving, fixed=fixed, map_cache=cache)
        network.descend(network.settings, moving=moving, fixed=fixed, factor=4, map_cache=cache)
        assert len(segmented) == 4
        moving[:, :, :8] = fixed[:, :, :8] = 0
        network(moving=moving, fixed=fixed, map_cache=cache)
        assert len(segmented) == 6
    assert len(cache) == 3
    shapes = {found.maps.shape[2] for found in cache.values()}
    assert len(shapes) == 3


def test_maps_of_more_than_one_pair_are_not_cached() -> None:
    """The second pair would be guided by the maps of the first."""
    moving, fixed = (torch.cat([image, image]) for image in shifted())
    with pytest.raises(ValueError, match=r"single pair, got 2"):
        segmenting()(moving=moving, fixed=fixed, map_cache={})


def test_cached_maps_guide_the_descent() -> None:
    """With maps of a shift in the cache, flat images follow them."""
    network = segmenting()
    flat = torch.full((1, 1, *SIZE), 0.5)
    maps = [field.averaged(Box.around(flat, multiple=4).crop(x), 2) for x in shifted()]
    cache = {(Box.around(flat, multiple=4), 2): Segmentation(torch.cat(maps), torch.zeros(2))}
    settings = replace(network.settings, tolerance=-1.0)  # all steps are taken
    found = network.descend(settings, moving=flat, fixed=flat, map_cache=cache).displacement
    found = found[0, :, texture_core(SIZE)].mean(dim=1)
    torch.testing.assert_close(found, torch.tensor(SHIFT), atol=0.4, rtol=0)


def test_a_refinement_takes_cached_maps(segmented: list[Tensor]) -> None:
    """Each image is segmented once, and the result is the same as without the cache."""
    model = Model(segmenting(), {"name": "anatomy"}, Model.load("none").recipe)
    (moving, fixed), cache = shifted(), {}
    answer = model.deform(moving=moving, fixed=fixed, map_cache=cache)
    better = model.refine(answer, Refinement(6), moving=moving, fixed=fixed, map_cache=cache)
    assert len(segmented) == 2
    without = model.refine(answer, Refinement(6), moving=moving, fixed=fixed)
    assert len(segmented) == 4
    assert torch.equal(better.displacement, without.displacement)
    assert torch.equal(better.unsure, without.unsure)
    assert not torch.equal(better.displacement, answer.displacement)


def test_trust_falls_in_a_straight_line() -> None:
    trust = Trust(0.1, 0.3)
    found = [trust.of(share) for share in (0, 0.1, 0.15, 0.2, 0.3, 1)]
    assert found == pytest.approx([1, 1, 0.75, 0.5, 0, 0])


def test_a_model_has_its_own_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network, unsure in a tenth of the voxels: the maps count, or they do not."""
    seen: list[float] = []
    forward = StructureMaps.forward

    def unsure(maps: StructureMaps, images: Tensor, factor: int) -> Segmentation:
        return forward(maps, images, factor)._replace(unsure=torch.tensor([0.1, 0.02]))

    def noted(*words: Any, features: Any, **more: Any) -> Any:
        seen.append(features.weight if features else 0.0)
        return descent.descend(*words, features=features, **more)

    monkeypatch.setattr(StructureMaps, "forward", unsure)
    monkeypatch.setattr("voxwarp.networks.pair_descent.descend", noted)
    moving, fixed = shifted()
    for trust in ((0.06, 0.09), (0.05, 0.15), (0.2, 0.3)):
        model = anatomy(3, [4, 4], steps=[1, 1], full_steps=0, weight=5, trust=trust)
        model(moving=moving, fixed=fixed)
    assert seen == pytest.approx([0.0, 2.5, 5.0])


# -------------------------------------------------------------------------- weight of the forces


def test_a_weight_of_one_changes_nothing_and_of_zero_moves_nothing() -> None:
    model, (moving, fixed) = Model.load("none"), shifted()
    ones, zeros = torch.ones(1, 1, *SIZE), torch.zeros(1, 1, *SIZE)
    plain = model.deform(moving=moving, fixed=fixed)
    weighed = model.deform(moving=moving, fixed=fixed, weights=Weights(ones))
    assert torch.equal(plain.displacement, weighed.displacement)
    still = model.deform(moving=moving, fixed=fixed, weights=Weights(zeros))
    assert not still.displacement.any()
    refined = model.refine(still, Refinement(4), moving=moving, fixed=fixed, weights=Weights(zeros))
    assert not refined.displacement.any()


def test_no_force_acts_where_the_weight_is_zero() -> None:
    """A lesion in the moving scan: with the mask, the shift is found across it."""
    moving, fixed = shifted()
    lesion = (slice(None), slice(None), slice(12, 20), slice(14, 22), slice(16, 24))
    hurt, weight = moving.clone(), torch.ones(1, 1, *SIZE)
    hurt[lesion] = 1.0
    # The forces are on the fixed grid, where the lesion is shifted: the mask leaves room for that.
    weight[:, :, 7:23, 10:26, 12:28] = 0
    model, true = Model.load("none"), torch.tensor(SHIFT).view(3, 1, 1, 1)

    def error(found: Tensor) -> float:
        return float((found[0] - true).norm(dim=0)[10:20, 13:23, 15:25].mean())

    without = model.deform(moving=hurt, fixed=fixed)
    masked = model.deform(moving=hurt, fixed=fixed, weights=Weights(weight))
    assert error(masked.displacement) < 0.6 * error(without.displacement)
    assert error(masked.displacement) < 0.85  # of 2.7
