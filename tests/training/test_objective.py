"""What a training minimises, against the same computed by hand from the networks' answers."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from phantoms import blobs
from torch import Tensor, nn

from voxwarp.fields import field
from voxwarp.fields import losses as field_losses
from voxwarp.fields.field import averaged, blocks
from voxwarp.networks.catalogue import build
from voxwarp.networks.pair_descent import PairDescent
from voxwarp.training.batch import Batch, Sample, collate
from voxwarp.training.config import Config, Phase, build_config
from voxwarp.training.objective import Objective, draw_structures, structures

SHAPE = (16, 16, 16)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "voxelmorph": {"name": "voxelmorph", "encoder": [3, 4], "decoder": [4, 4, 4, 3]},
    "diffeomorphic": {"name": "diffeomorphic", "encoder": [3, 4], "decoder": [4, 4], "steps": 4},
    "pyramid": {"name": "pyramid", "channels": [3, 4], "steps": 4},
}
FULL = Phase(steps=1)
#: Of the last layers, so that images move by a voxel or so.
DEVIATION = {"voxelmorph": 1.0, "diffeomorphic": 4.0, "pyramid": 0.05}


def config_of(name: str, **more: Any) -> Config:
    tree = {
        "data": {"sources": [{"folder": "/x"}]},
        "network": ARCHITECTURES[name],
        "precision": "float32",
        **more,
    }
    return build_config(tree)


def network_of(name: str, seed: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(ARCHITECTURES[name])
        last = (
            [level[-1] for level in network.residual] if name == "pyramid" else [network.unet.flow]
        )
        for layer in last:
            nn.init.normal_(layer.weight, std=DEVIATION[name])
    return network


def image(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.from_numpy(blobs(seed, shape)).float()[None]


def labels(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Numbers 0 to 3, in smooth regions."""
    return (image(seed, shape)[0] * 4).clamp(max=3).to(torch.uint8)


def pair(seed: int, *, labelled: bool = False, shape: tuple[int, ...] = SHAPE) -> Sample:
    moving, fixed = image(seed, shape), image(seed + 50, shape)
    both = (labels(seed, shape), labels(seed + 50, shape)) if labelled else (None, None)
    return Sample(moving, fixed, moving, fixed, *both, (seed, seed + 50), [])


def swapped(batch: Batch) -> Batch:
    return Batch(
        batch.fixed, batch.moving, batch.fixed_input, batch.moving_input, batch.labelled,
        batch.fixed_labels, batch.moving_labels, batch.numbers, batch.skipped,
    )  # fmt: skip


def evaluated(
    config: Config, network: nn.Module, batch: Batch, phase: Phase = FULL, count: int = 3
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Objective(config, count)(network, batch, phase)


def close(a: Tensor, b: Tensor | float, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(a.detach(), torch.as_tensor(b).detach(), atol=tolerance, rtol=1e-5)


def one_hot(numbers: Tensor, count: int = 3) -> Tensor:
    """(X, Y, Z) to (1, K, X, Y, Z), without the background."""
    return F.one_hot(numbers.long(), count + 1).movedim(-1, 0)[None, 1:].float()


# --------------------------------------------------------------------------------- One direction


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_is_the_weighted_sum_of_the_losses(name: str) -> None:
    losses = {"ncc": {"weight": 2, "window": 5}, "diffusion": {"weight": 0.3}, "mse": {"weight": 0}}
    network, batch = network_of(name), collate([pair(1)])
    out = network(moving=batch.moving, fixed=batch.fixed)
    moved = field.warp(batch.moving, out.displacement)
    assert out.displacement.abs().max() > 0.3  # else nothing is tested
    values = evaluated(config_of(name, losses=losses), network, batch)
    assert list(values) == ["loss", "ncc", "diffusion"]
    close(values["ncc"], field_losses.local_ncc(moved=moved, fixed=batch.fixed, window=5))
    close(values["diffusion"], field_losses.diffusion(out.regularity))
    close(values["loss"], 2 * values["ncc"] + 0.3 * values["diffusion"])


def test_the_network_sees_other_intensities_than_the_losses() -> None:
    sample = pair(1)
    sample.moving_input, sample.fixed_input = sample.moving**2, sample.fixed**0.5
    network, batch = network_of("voxelmorph"), collate([sample])
    u = network(moving=batch.moving**2, fixed=batch.fixed**0.5).displacement
    values = evaluated(config_of("voxelmorph", losses={"mse": {}}), network, batch)
    close(values["mse"], field_losses.mse(moved=field.warp(batch.moving, u), fixed=batch.fixed))


@pytest.mark.parametrize("factor", [2, 4])
def test_a_phase_averages_the_images_down(factor: int) -> None:
    network, batch = network_of("voxelmorph"), collate([pair(1)])
    moving, fixed = (
        x.view(1, 1, *[n for _ in range(3) for n in (16 // factor, factor)]).mean(dim=(3, 5, 7))
        for x in (batch.moving, batch.fixed)
    )
    u = network(moving=moving, fixed=fixed).displacement
    losses = {"mse": {}, "diffusion": {}}
    phase = Phase(steps=1, downsample=factor)
    values = evaluated(config_of("voxelmorph", losses=losses), network, batch, phase)
    close(values["mse"], field_losses.mse(moved=field.warp(moving, u), fixed=fixed))
    close(values["diffusion"], field_losses.diffusion(u))


# ------------------------------------------------------------------------------ Both directions

BOTH = {"ncc": {"window": 5}, "mse": {}, "dice": {}}


@pytest.mark.parametrize("compare_at", ["full", "velocity"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_directions_count_as_the_mean_of_one_and_the_other(name: str, compare_at: str) -> None:
    """Networks with a velocity are antisymmetric; VoxelMorph is run both ways."""
    if name == "voxelmorph" and compare_at == "velocity":
        with pytest.raises(ValueError, match="voxelmorph has no velocity"):
            config_of(name, compare_at=compare_at)
        return
    network = network_of(name)
    batch = collate([pair(1, labelled=True), pair(2, labelled=True)])
    single, both = (
        config_of(name, losses=BOTH, compare_at=compare_at, both_directions=which)
        for which in (False, True)
    )
    there, back = (evaluated(single, network, b) for b in (batch, swapped(batch)))
    values = evaluated(both, network, batch)
    for loss in BOTH:
        assert abs(there[loss].item() - back[loss].item()) > 1e-4
        close(values[loss], (there[loss] + back[loss]) / 2)
    for loss, value in evaluated(both, network, swapped(batch)).items():
        close(value, values[loss])


def test_the_regularity_of_voxelmorph_both_ways_is_the_mean() -> None:
    network, batch = network_of("voxelmorph"), collate([pair(1)])
    values = evaluated(
        config_of("voxelmorph", losses={"mse": {}, "diffusion": {}}, both_directions=True),
        network,
        batch,
    )
    ways = (
        network(moving=batch.moving, fixed=batch.fixed),
        network(moving=batch.fixed, fixed=batch.moving),
    )
    close(values["diffusion"], sum(field_losses.diffusion(w.displacement) for w in ways) / 2)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_inverse_consistency_needs_no_both_directions(name: str, both: bool) -> None:
    network, batch = network_of(name), collate([pair(1)])
    out = network(moving=batch.moving, fixed=batch.fixed)
    inverse = network(moving=batch.fixed, fixed=batch.moving).displacement
    config = config_of(name, losses={"inverse_consistency": {}, "mse": {}}, both_directions=both)
    values = evaluated(config, network, batch)
    close(
        values["inverse_consistency"], field_losses.inverse_consistency(out.displacement, inverse)
    )
    if not both:  # the images are compared in one direction alone
        close(
            values["mse"],
            field_losses.mse(moved=field.warp(batch.moving, out.displacement), fixed=batch.fixed),
        )


# ------------------------------------------------------------------------------ At the velocity


@pytest.mark.parametrize("shape", [(16, 16, 16), (18, 16, 13)])
@pytest.mark.parametrize(("name", "rest"), [("diffeomorphic", 0), ("pyramid", 0), ("pyramid", 1)])
def test_losses_on_the_grid_of_the_velocity(name: str, rest: int, shape) -> None:
    """Images are padded in the middle of the multiple of 4 that the network wants, and averaged."""
    network, batch = network_of(name), collate([pair(1, labelled=True, shape=shape)])
    phases = [{"steps": 1, "leave_out": rest}, {"steps": 1}]
    losses = {"mse": {}, "diffusion": {}, "dice": {}, "inverse_consistency": {}}
    config = config_of(name, losses=losses, compare_at="velocity", phases=phases)
    values = evaluated(config, network, batch, config.phases[0])

    more = {"skip_finest": rest} if rest else {}
    velocity = network.velocity(moving=batch.moving, fixed=batch.fixed, **more)
    target, factor = [-(-n // 4) * 4 for n in shape], 2 ** (1 + rest)
    assert list(velocity.shape[2:]) == [t // factor for t in target]

    def averaged(x: Tensor) -> Tensor:
        padded = x.new_zeros(1, x.shape[1], *target)
        inner = tuple(slice((t - n) // 2, (t - n) // 2 + n) for t, n in zip(target, shape))  # noqa: B905
        padded[(..., *inner)] = x
        blocks = [n for t in target for n in (t // factor, factor)]
        return padded.view(1, x.shape[1], *blocks).mean(dim=(3, 5, 7))

    moving, fixed = averaged(batch.moving), averaged(batch.fixed)
    there, back = (field.exponentiate(v, steps=network.steps) for v in (velocity, -velocity))
    close(values["mse"], field_losses.mse(moved=field.warp(moving, there), fixed=fixed))
    close(values["diffusion"], field_losses.diffusion(velocity))
    close(values["inverse_consistency"], field_losses.inverse_consistency(there, back))
    assert batch.moving_labels is not None
    assert batch.fixed_labels is not None
    parts = [averaged(one_hot(x[0])) for x in (batch.moving_labels, batch.fixed_labels)]
    close(values["dice"], field_losses.soft_dice(moved=field.warp(parts[0], there), fixed=parts[1]))


# --------------------------------------------------------------------------------------- Labels


def test_dice_is_of_each_structure_after_the_deformation() -> None:
    network, batch = network_of("voxelmorph"), collate([pair(1, labelled=True)])
    u = network(moving=batch.moving, fixed=batch.fixed).displacement
    assert batch.moving_labels is not None
    assert batch.fixed_labels is not None
    moving, fixed = one_hot(batch.moving_labels[0]), one_hot(batch.fixed_labels[0])
    values = evaluated(config_of("voxelmorph", losses={"dice": {}}), network, batch)
    close(values["dice"], field_losses.soft_dice(moved=field.warp(moving, u), fixed=fixed))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pairs_without_labels_count_as_nothing(name: str, both: bool) -> None:
    network, config = network_of(name), config_of(name, losses={"dice": {}}, both_directions=both)
    plain, labelled = pair(1), pair(2, labelled=True)
    alone = evaluated(config, network, collate([labelled]))["loss"]
    assert alone > 0.05
    for samples in ([plain, labelled], [labelled, plain]):
        close(evaluated(config, network, collate(samples))["loss"], alone / 2)
    none = evaluated(config, network, collate([plain, plain]))
    assert none["loss"].item() == 0


def test_a_batch_without_labels_can_still_be_learnt_from() -> None:
    config = config_of("voxelmorph", losses={"dice": {}, "mse": {}})
    network, batch = network_of("voxelmorph"), collate([pair(1)])
    values = evaluated(config, network, batch)
    values["loss"].backward()
    assert values["dice"].item() == 0
    assert any(float(p.grad.abs().max()) > 0 for p in network.parameters())


def test_a_step_compares_the_structures_it_draws() -> None:
    network, batch = network_of("voxelmorph"), collate([pair(1, labelled=True)])
    u = network(moving=batch.moving, fixed=batch.fixed).displacement
    assert batch.moving_labels is not None
    assert batch.fixed_labels is not None
    moved = field.warp(one_hot(batch.moving_labels[0]), u)
    each = losses_of_each(one_hot(batch.fixed_labels[0]), moved)
    losses, sampling = {"dice": {}}, {"structures": 1}
    objective = Objective(config_of("voxelmorph", losses=losses, sampling=sampling), 3)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        value = objective(network, batch, FULL)["dice"].item()
        (number,) = [i for i, x in enumerate(each) if abs(x - value) < 1e-5]
        seen.add(number)
    assert seen == {0, 1, 2}


def losses_of_each(fixed: Tensor, moved: Tensor) -> list[float]:
    return [
        field_losses.soft_dice(moved=moved[:, i : i + 1], fixed=fixed[:, i : i + 1]).item()
        for i in range(fixed.shape[1])
    ]


def test_drawn_structures_are_different_ones_from_one_on() -> None:
    assert draw_structures(4, 0).tolist() == draw_structures(4, 9).tolist() == [1, 2, 3, 4]
    torch.manual_seed(0)
    draws = [draw_structures(5, 2).tolist() for _ in range(200)]
    assert all(len(set(draw)) == 2 for draw in draws)
    assert {n for draw in draws for n in draw} == {1, 2, 3, 4, 5}


def test_structures_are_shares_of_blocks() -> None:
    numbers = torch.zeros(1, 2, 2, 4, dtype=torch.uint8)
    numbers[0, 0, 0, 0], numbers[0, :, :, 2:] = 7, 200
    shares = structures(numbers, torch.tensor([7, 200, 3]), 2)
    assert shares[0, :, 0, 0].tolist() == [[1 / 8, 0], [0, 1], [0, 0]]


# ---------------------------------------------------------------------------- A user's own losses


def reach(displacement: Tensor, fixed_labels: Tensor) -> Tensor:
    """How far the structures of the fixed image have come."""
    inside = fixed_labels.sum(dim=1, keepdim=True)
    return (displacement.square() * inside).mean()


def brightness(fixed: Tensor) -> Tensor:
    return fixed.mean()


@pytest.fixture
def own(monkeypatch) -> None:
    module = ModuleType("own_losses")
    module.reach, module.brightness = reach, brightness  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_losses", module)


def test_a_loss_is_given_the_same_pairs_as_labels_and_as_displacements(own) -> None:
    config = config_of("voxelmorph", losses={"own_losses:reach": {}})
    network, samples = network_of("voxelmorph"), [pair(1), pair(2, labelled=True)]
    second = collate(samples[1:])
    u = network(moving=second.moving, fixed=second.fixed).displacement
    assert second.fixed_labels is not None
    expected = reach(u, one_hot(second.fixed_labels[0])) / 2
    assert expected.item() > 1e-3
    close(evaluated(config, network, collate(samples))["own_losses:reach"], expected)


def test_a_loss_may_look_at_the_fixed_image_alone(own) -> None:
    config = config_of("voxelmorph", losses={"own_losses:brightness": {}})
    batch = collate([pair(1)])
    close(evaluated(config, network_of("voxelmorph"), batch)["loss"], batch.fixed.mean())


# ------------------------------------------------------------------------------- Batch, gradient

ALL = {
    "ncc": {"window": 5}, "mutual_information": {"weight": 0.2, "bins": 8}, "dice": {},
    "diffusion": {"weight": 0.1}, "bending": {"weight": 0.1}, "inverse_consistency": {},
}  # fmt: skip


def gradients(values: dict[str, Tensor], network: nn.Module) -> Tensor:
    parts = torch.autograd.grad(values["loss"], list(network.parameters()), allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten()
         for g, p in zip(parts, network.parameters(), strict=True)]
    )  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_is_the_mean_of_its_pairs_in_value_and_gradient(name: str) -> None:
    network = network_of(name)
    config = config_of(name, losses=ALL, both_directions=True)
    samples = [pair(1, labelled=True), pair(2)]
    single = [evaluated(config, network, collate([sample])) for sample in samples]
    both = evaluated(config, network, collate(samples))
    for loss, value in both.items():
        close(value, (single[0][loss] + single[1][loss]) / 2, 2e-6)
    expected = sum(gradients(values, network) for values in single) / 2
    found = gradients(both, network)
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("compare_at", ["full", "velocity"])
@pytest.mark.parametrize("name", ["diffeomorphic", "pyramid", "voxelmorph"])
def test_the_gradient_is_that_of_differences(name: str, compare_at: str) -> None:
    """Along the gradient, and along random directions in each of the parameters."""
    if name == "voxelmorph":
        compare_at = "full"
    network, batch = network_of(name), collate([pair(1, labelled=True)])
    config = config_of(name, losses=ALL, both_directions=True, compare_at=compare_at)
    gradient = gradients(evaluated(config, network, batch), network)
    start = nn.utils.parameters_to_vector(network.parameters()).detach()
    generator = torch.Generator().manual_seed(3)
    directions = [gradient / gradient.norm()]
    directions += [gradient * torch.rand(len(gradient), generator=generator) for _ in range(2)]
    for direction in directions:
        step = 3e-4 * start.norm() * direction / direction.norm() / len(start) ** 0.5
        ends = []
        for sign in (1, -1):
            nn.utils.vector_to_parameters(start + sign * step, network.parameters())
            with torch.no_grad():
                ends.append(float(evaluated(config, network, batch)["loss"]))
        expected = float(gradient @ step)
        assert (ends[0] - ends[1]) / 2 == pytest.approx(expected, rel=0.05)


# -------------------------------------------------------------------------------- Segmentation

UNEVEN = (16, 24, 32)
ANATOMY = {"name": "anatomy", "structures": 4, "channels": [6, 8, 8]}


def test_blocks_are_the_voxels_behind_those_of_the_averaged_grid() -> None:
    labels = torch.arange(2 * 4 * 6 * 8).view(2, 4, 6, 8)
    got = blocks(labels, 2).flatten(0, 3)
    means = averaged(labels[:, None].double(), 2).flatten()
    torch.testing.assert_close(got.double().mean(dim=1), means)
    assert got.flatten().sort().values.equal(labels.flatten())


def segmented(seed: int) -> Sample:
    pair = [torch.from_numpy(blobs(s, UNEVEN)).float()[None] for s in (seed, seed + 50)]
    labels = [(4 * image[0]).clamp(max=4).to(torch.uint8) for image in pair]
    return Sample(*pair, *pair, *labels, (seed, seed + 50), [])


def to_segment(**sampling: object) -> object:
    return build_config(
        {
            "data": {"sources": [{"folder": "/x"}]},
            "network": ANATOMY,
            "losses": {"segmentation": {"weight": 2.0}},
            "sampling": {"labelled": 1.0, **sampling},
            "precision": "float32",
        }
    )


def segmenting(seed: int = 1) -> PairDescent:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build({**ANATOMY, "steps": [4, 4]})


def test_the_objective_looks_at_both_scans_of_every_pair() -> None:
    batch, learner = collate([segmented(1), segmented(2)]), segmenting()
    values = Objective(to_segment(), 4)(learner, batch, Phase(steps=1))
    parts = []
    for images, labels in ((batch.moving, batch.moving_labels), (batch.fixed, batch.fixed_labels)):
        for image, of_image in zip(images, labels, strict=True):
            segmentation = learner.segmentation.network
            embedded = segmentation(image[None])[0].flatten(1).T
            truth = blocks(of_image[None], 2).flatten(0, 3)
            parts.append((segmentation.classify(embedded), truth))
    odds, truth = (torch.cat(x) for x in zip(*parts, strict=True))
    torch.testing.assert_close(values["segmentation"], field_losses.segmentation(odds, truth))
    torch.testing.assert_close(values["loss"], 2 * values["segmentation"])


def test_drawn_voxels_have_the_mean_loss_of_all() -> None:
    batch, learner = collate([segmented(1)]), segmenting()
    everything = Objective(to_segment(), 4)(learner, batch, Phase(steps=1))["segmentation"]
    torch.manual_seed(0)
    few = Objective(to_segment(voxels=500), 4)
    with torch.no_grad():
        values = [float(few(learner, batch, Phase(steps=1))["segmentation"]) for _ in range(10)]
    assert np.mean(values) == pytest.approx(float(everything.detach()), rel=0.03)
    assert np.std(values) > 0
