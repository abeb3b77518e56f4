"""What all networks have in common, and what they declare that they can do."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from phantoms import ball
from small_networks import SMALL, WITH_VELOCITY, built, images
from torch import Tensor, nn

from voxwarp.fields import field, losses
from voxwarp.networks.catalogue import ARCHITECTURES, build, with_current_names
from voxwarp.networks.deformation import Deformation, integrate
from voxwarp.networks.diffeomorphic import DiffeomorphicVoxelMorph
from voxwarp.networks.pair_descent import PairDescent
from voxwarp.networks.pyramid import VelocityPyramid
from voxwarp.networks.voxelmorph import VoxelMorph

FULL: dict[str, Callable[[], nn.Module]] = {
    "VoxelMorph-1": lambda: VoxelMorph(decoder=(32, 32, 32, 32, 8, 8)),
    "VoxelMorph-2": lambda: VoxelMorph(decoder=(32, 32, 32, 32, 32, 16, 16)),
    "diffeomorphic": DiffeomorphicVoxelMorph,
    "pyramid": VelocityPyramid,
}


def padded(image: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, ...]]:
    """Zeros on both sides up to a multiple of ``multiple``, and where the image then is."""
    shape = image.shape[2:]
    target = [-(-n // multiple) * multiple for n in shape]
    box = tuple(slice((t - n) // 2, (t - n) // 2 + n) for n, t in zip(shape, target, strict=True))
    out = torch.zeros(1, 1, *target)
    out[(..., *box)] = image
    return out, box


@pytest.mark.parametrize("name", FULL)
def test_a_prime_size_gives_the_field_of_the_padded_pair(name: str) -> None:
    torch.manual_seed(0)
    shape, multiple = (37, 41, 50), 32 if name == "pyramid" else 16
    network = FULL[name]()
    moving, fixed = images(*shape)
    (wide_moving, box), (wide_fixed, _) = padded(moving, multiple), padded(fixed, multiple)
    with torch.inference_mode():
        got = network(moving=moving, fixed=fixed)
        expected = network(moving=wide_moving, fixed=wide_fixed)
    assert got.displacement.shape == (1, 3, *shape)
    scale = float(expected.displacement.abs().max())
    assert scale > 0
    difference = got.displacement - expected.displacement[(..., *box)]
    assert difference.abs().max() < 1e-3 * scale


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(16, 17, 19), (24, 8, 11)])
def test_small_networks_take_any_size(name: str, shape: tuple[int, ...]) -> None:
    network, moving, fixed = built(name, *shape)
    multiple = 8 if name == "pyramid" else 4
    (wide_moving, box), (wide_fixed, _) = (padded(x, multiple) for x in (moving, fixed))
    with torch.inference_mode():
        got = network(moving=moving, fixed=fixed).displacement
        expected = network(moving=wide_moving, fixed=wide_fixed).displacement[(..., *box)]
    assert got.shape == (1, 3, *shape)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_pairs_in_a_batch_do_not_see_each_other(name: str) -> None:
    network, moving, fixed = built(name, 16, 16, 24)
    other_moving, other_fixed = images(16, 16, 24, seed=7)
    with torch.inference_mode():
        alone = (
            network(moving=moving, fixed=fixed).displacement,
            network(moving=other_moving, fixed=other_fixed).displacement,
        )
        both = network(
            moving=torch.cat([moving, other_moving]), fixed=torch.cat([fixed, other_fixed])
        )
    torch.testing.assert_close(both.displacement, torch.cat(alone), atol=1e-5, rtol=0)
    assert (alone[0] - alone[1]).abs().max() > 0.1


@pytest.mark.parametrize("name", SMALL)
def test_the_deformation_is_float32_under_autocast(name: str) -> None:
    """Coordinates of 100 voxels in bfloat16 would be right to half a voxel."""
    network, moving, fixed = built(name, 16, 16, 24)
    with torch.inference_mode():
        plain = network(moving=moving, fixed=fixed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = network(moving=moving, fixed=fixed)
    assert cast.displacement.dtype == torch.float32
    assert (cast.displacement - plain.displacement).abs().max() < 0.1
    # The values have more than the eight bits of bfloat16: it was integrated in float32.
    if name in WITH_VELOCITY:
        assert (cast.displacement.bfloat16().float() != cast.displacement).float().mean() > 0.9


@pytest.mark.parametrize("name", FULL)
def test_a_network_with_random_weights_moves_almost_nothing(name: str) -> None:
    torch.manual_seed(0)
    moving, fixed = images(32, 32, 32)
    with torch.inference_mode():
        displacement = FULL[name]()(moving=moving, fixed=fixed).displacement
    assert 0 < displacement.abs().max() < 0.02


# Biases on which no output depends: antisymmetry cancels that of the last layer, and a
# normalisation cancels that of the convolution before it.
CANCELLED = {
    "voxelmorph": (),
    "diffeomorphic": ("unet.flow.bias",),
    "pyramid": ("residual.*.4.bias", "encoder.*.2.bias"),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    network, moving, fixed = built(name, 24, 24, 32)
    network.zero_grad()
    deformation = network(moving=moving, fixed=fixed)
    moved = field.warp(moving, deformation.displacement)
    loss = losses.local_ncc(moved=moved, fixed=fixed) + 0.1 * losses.diffusion(
        deformation.regularity
    )
    loss.backward()
    for parameter, value in network.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        if not any(fnmatch(parameter, pattern) for pattern in CANCELLED[name]):
            assert value.grad.abs().max() > 1e-7, parameter


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_those_of_differences(name: str) -> None:
    """Along a random direction in the space of weights."""
    network, moving, fixed = built(name, 16, 16, 16)
    network, moving, fixed = network.double(), moving.double(), fixed.double()
    parameters = list(network.parameters())
    generator = torch.Generator().manual_seed(2)
    direction = [
        torch.randn(p.shape, generator=generator, dtype=torch.float64) * p.detach().abs().mean()
        for p in parameters
    ]

    def loss() -> Tensor:
        return losses.diffusion(network(moving=moving, fixed=fixed).regularity)

    gradient = torch.autograd.grad(loss(), parameters)
    slope = float(sum((g * d).sum() for g, d in zip(gradient, direction, strict=True)))
    values = []
    step = 1e-3
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * step * d
            values.append(float(loss()))
            for p, d in zip(parameters, direction, strict=True):
                p -= sign * step * d
    assert abs(slope) > 1e-8
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("voxelmorph", 3e-3), ("diffeomorphic", 3e-3), ("pyramid", 3e-3)],
)
def test_a_network_learns_one_pair(name: str, rate: float) -> None:
    """A ball is registered to an ellipsoid beside it, in fifty training steps."""
    torch.manual_seed(0)
    shape = (24, 24, 24)
    moving = torch.from_numpy(ball(shape, (11, 12, 11.5), 6))[None, None]
    fixed = torch.from_numpy(ball(shape, (12.5, 11, 11.5), (5, 8, 6)))[None, None]
    network = SMALL[name]().train()
    before = float(losses.mse(moved=moving, fixed=fixed))
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(50):
        deformation: Deformation = network(moving=moving, fixed=fixed)
        loss = losses.mse(moved=field.warp(moving, deformation.displacement), fixed=fixed)
        loss = loss + 1e-3 * losses.diffusion(deformation.regularity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        deformation = network.eval()(moving=moving, fixed=fixed)
        moved = field.warp(moving, deformation.displacement)
        assert float(losses.mse(moved=moved, fixed=fixed)) < 0.25 * before
        if ARCHITECTURES[name].capabilities.has_velocity:  # then it knows the inverse, untrained
            inverse = integrate(-deformation.regularity, shape, network.steps)
            returned = field.warp(fixed, inverse)
            assert float(losses.mse(moved=returned, fixed=moving)) < 0.3 * before


# ------------------------------------------------------------------------ what is declared

TINY: dict[str, dict[str, Any]] = {
    "voxelmorph": {"encoder": [4, 8], "decoder": [8, 8, 8, 6]},
    "diffeomorphic": {"encoder": [4, 8], "decoder": [8, 8, 8]},
    "pyramid": {"channels": [4, 8, 8]},
    "descent": {"steps": [2, 2]},
    "anatomy": {"structures": 4, "channels": [6, 8], "steps": [2, 2]},
}


@pytest.fixture(params=ARCHITECTURES)
def one(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """A name, and what it builds."""
    return request.param, build({"name": request.param, **TINY[request.param]})


def test_a_network_does_what_its_architecture_declares(one: tuple[str, nn.Module]) -> None:
    name, network = one
    declared, (moving, fixed) = ARCHITECTURES[name].capabilities, images(16, 16, 16)
    takes = inspect.signature(network.forward).parameters
    with torch.inference_mode():
        answer = network(moving=moving, fixed=fixed)
    assert answer.displacement.shape == (1, 3, 16, 16, 16)
    assert declared.has_velocity == hasattr(network, "velocity")
    assert declared.has_velocity == (answer.regularity.shape == (1, 3, 8, 8, 8))
    assert declared.has_levels == (
        declared.has_velocity and "skip_finest" in inspect.signature(network.velocity).parameters
    )
    assert declared.is_descent == isinstance(network, PairDescent)
    assert declared.is_descent == ("map_cache" in takes)
    assert declared.has_smoothness == ("smoothness" in takes)
    assert declared.further_inputs == ()
    learns_from = "images" if list(network.parameters()) else "nothing"
    if getattr(network, "segmentation", None) is not None:
        learns_from = "labels"
    assert declared.learns_from == learns_from


def test_unknown_arguments_are_refused(one: tuple[str, nn.Module]) -> None:
    known = ARCHITECTURES[one[0]].parameters
    assert TINY[one[0]].keys() <= known.keys()
    assert all(value.default is not inspect.Parameter.empty for value in known.values())
    with pytest.raises(TypeError, match="depth"):
        build({"name": one[0], "depth": 3})


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="resnet"):
        build({"name": "resnet"})


# ------------------------------------------------------------------------- names of weights


def with_former_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as earlier versions wrote them."""
    former = {}
    for name, value in weights.items():
        if name.startswith("segmentation."):
            name = name.removeprefix("segmentation.").replace("network.", "recogniser.", 1)
        former[name] = value
    return former


def test_weights_get_their_current_names(one: tuple[str, nn.Module]) -> None:
    current = one[1].state_dict()
    former = with_former_names(current)
    assert (former.keys() != current.keys()) == (one[0] == "anatomy")
    for weights in (former, current):
        renamed = with_current_names(weights)
        assert renamed.keys() == current.keys()
        assert all(renamed[key] is current[key] for key in current)
