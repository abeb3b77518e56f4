"""Networks: the paper's layers, the symmetries they promise, and that they learn."""

from collections.abc import Callable
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from phantoms import ball, blobs
from torch import Tensor, nn

from voxwarp.fields import field, losses
from voxwarp.networks.network import (
    NETWORKS,
    Convolution,
    Deformation,
    DiffeomorphicVoxelMorph,
    UNet,
    VelocityPyramid,
    VoxelMorph,
    local_correlation,
)

VM1 = [32, 32, 32, 32, 8, 8]
VM2 = [32, 32, 32, 32, 32, 16, 16]

SMALL: dict[str, Callable[[], nn.Module]] = {
    "VoxelMorph": lambda: VoxelMorph((4, 8), (8, 8, 8, 6)),
    "DiffeomorphicVoxelMorph": lambda: DiffeomorphicVoxelMorph((4, 8), (8, 8, 8)),
    "VelocityPyramid": lambda: VelocityPyramid((4, 8, 8)),
}
FULL: dict[str, Callable[[], nn.Module]] = {
    "VoxelMorph-1": lambda: VoxelMorph(decoder=VM1),
    "VoxelMorph-2": lambda: VoxelMorph(decoder=VM2),
    "DiffeomorphicVoxelMorph": DiffeomorphicVoxelMorph,
    "VelocityPyramid": VelocityPyramid,
}
DIFFEOMORPHIC = ["DiffeomorphicVoxelMorph", "VelocityPyramid"]


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A moving and a fixed image, (1, 1, X, Y, Z)."""
    return tuple(torch.from_numpy(blobs(s, shape))[None, None] for s in (seed, seed + 1))


def lively(network: nn.Module, moving: Tensor, fixed: Tensor, size: float = 1.0) -> nn.Module:
    """``network`` with last layers large enough to move voxels by about ``size``.

    Each of their kernels is flat, which smooths what random features give, and the last one's
    scale is set by the answer to the pair.
    """
    lasts = [m for m in network.modules() if isinstance(m, nn.Conv3d) and m.out_channels == 3]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for last in lasts:
            weight = torch.randn(*last.weight.shape[:2], 1, 1, 1, generator=generator)
            last.weight.copy_(weight.expand_as(last.weight) * 1e-3)
            last.bias.copy_(torch.randn(3, generator=generator) * 1e-3)
        for _ in range(6):  # a pyramid's answer is not quite linear in the scale
            scale = size / network(moving, fixed).regularity.abs().max()
            for last in lasts:
                last.weight *= scale
                last.bias *= scale
    return network


def built(name: str, *shape: int, size: float = 1.0) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    pair = images(*shape)
    return lively(SMALL[name](), *pair, size), *pair


# ------------------------------------------------------------------- the layers of the paper

# Kernels in the authors' Keras files vm1_cc.h5 and vm2_cc.h5, (input, output) channels, in the
# order the layers run, the flow last. Every kernel is 3 × 3 × 3.
PUBLISHED = {
    "VoxelMorph-1": [
        (2, 16), (16, 32), (32, 32), (32, 32), (32, 32),
        (64, 32), (64, 32), (48, 32), (32, 8), (10, 8), (8, 3),
    ],
    "VoxelMorph-2": [
        (2, 16), (16, 32), (32, 32), (32, 32), (32, 32),
        (64, 32), (64, 32), (48, 32), (32, 32), (34, 16), (16, 16), (16, 3),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_layers_are_those_of_the_authors_weights(name: str) -> None:
    parameters = [tuple(p.shape) for p in FULL[name]().parameters()]
    expected = [shape for i, o in PUBLISHED[name] for shape in ((o, i, 3, 3, 3), (o,))]
    assert parameters == expected


def test_voxelmorph_one_is_what_its_name_builds() -> None:
    shapes = [p.shape for p in NETWORKS["voxelmorph"]().parameters()]
    assert shapes == [p.shape for p in VoxelMorph(decoder=VM1).parameters()]


def convolved(x: Tensor, weight: Tensor, bias: Tensor, *, stride: int = 1) -> Tensor:
    """Keras 'same' 3³ convolution of even sides: with stride 2 its windows sit on odd voxels."""
    return F.conv3d(x, weight, bias, padding=1)[(..., *(slice(stride - 1, None, stride),) * 3)]


def activated(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def doubled(x: Tensor) -> Tensor:
    for axis in (2, 3, 4):
        x = x.repeat_interleave(2, dim=axis)
    return x


def papers_unet(pair: Tensor, layers: list[tuple[Tensor, Tensor]], after: int) -> Tensor:
    """Figure 3 of the paper: four down, four up with skips, ``after`` more at half resolution.

    Then, where layers are left for it, up to the full resolution and the input's skip.
    """
    *layers, flow = layers
    layer = iter(layers)
    half = activated(convolved(pair, *next(layer), stride=2))
    quarter = activated(convolved(half, *next(layer), stride=2))
    eighth = activated(convolved(quarter, *next(layer), stride=2))
    x = activated(convolved(eighth, *next(layer), stride=2))
    x = activated(convolved(x, *next(layer)))
    for skip in (eighth, quarter, half):
        x = activated(convolved(torch.cat([doubled(x), skip], dim=1), *next(layer)))
    for _ in range(after):
        x = activated(convolved(x, *next(layer)))
    remaining = list(layer)
    if remaining:
        x = torch.cat([doubled(x), pair], dim=1)
    for parameters in remaining:
        x = activated(convolved(x, *parameters))
    return convolved(x, *flow)


@pytest.mark.parametrize(
    ("decoder", "full"),
    [
        pytest.param(VM1, True, id="VoxelMorph-1"),
        pytest.param(VM2, True, id="VoxelMorph-2"),
        pytest.param([32] * 5, False, id="half resolution"),
    ],
)
def test_the_unet_computes_what_the_paper_draws(decoder: list[int], full: bool) -> None:
    torch.manual_seed(0)
    unet = UNet([16, 32, 32, 32], decoder, full_resolution=full).double()
    nn.init.normal_(unet.flow.weight)
    nn.init.normal_(unet.flow.bias)
    pair = torch.rand(1, 2, 16, 32, 32, dtype=torch.float64)
    parameters = list(unet.parameters())
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    with torch.inference_mode():
        expected = papers_unet(pair, layers, after=1)
        got = unet(pair)
    size = (16, 32, 32) if full else (8, 16, 16)
    assert expected.shape == (1, 3, *size)
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


def test_voxelmorphs_displacement_is_the_unets_of_moving_and_fixed() -> None:
    """In this order: exchanged, the authors' weights would register the other way."""
    network, moving, fixed = built("VoxelMorph", 16, 20, 24)
    with torch.inference_mode():
        expected = network.unet(torch.cat([moving, fixed], dim=1))
        deformation = network(moving, fixed)
    torch.testing.assert_close(deformation.displacement, expected, atol=1e-6, rtol=1e-5)
    assert deformation.inverse is None
    assert torch.equal(deformation.regularity, deformation.displacement)


def test_local_correlation_is_the_mean_product_at_27_shifts() -> None:
    a, b = torch.rand(2, 2, 3, 4, 5, 6, dtype=torch.float64)
    around = np.pad(b.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    got = local_correlation(a, b).numpy()
    for channel, (i, j, k) in enumerate(np.ndindex(3, 3, 3)):
        shifted = around[:, :, i : i + 4, j : j + 5, k : k + 6]  # b(x + s), s = (i, j, k) − 1
        np.testing.assert_allclose(got[:, channel], (a.numpy() * shifted).mean(1), atol=1e-12)
    assert got.shape[1] == 27


# ---------------------------------------------------------------------------------- any size


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
    shape, multiple = (37, 41, 50), 32 if name == "VelocityPyramid" else 16
    network = FULL[name]()
    moving, fixed = images(*shape)
    (wide_moving, box), (wide_fixed, _) = padded(moving, multiple), padded(fixed, multiple)
    with torch.inference_mode():
        got = network(moving, fixed)
        expected = network(wide_moving, wide_fixed)
    assert got.displacement.shape == (1, 3, *shape)
    for one, other in zip(got[:2], expected[:2], strict=True):
        if one is not None:
            scale = float(other.abs().max())
            assert scale > 0
            assert (one - other[(..., *box)]).abs().max() < 1e-3 * scale


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(16, 17, 19), (24, 8, 11)])
def test_small_networks_take_any_size(name: str, shape: tuple[int, ...]) -> None:
    network, moving, fixed = built(name, *shape)
    multiple = 8 if name == "VelocityPyramid" else 4
    (wide_moving, box), (wide_fixed, _) = (padded(x, multiple) for x in (moving, fixed))
    with torch.inference_mode():
        got = network(moving, fixed).displacement
        expected = network(wide_moving, wide_fixed).displacement[(..., *box)]
    assert got.shape == (1, 3, *shape)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_pairs_in_a_batch_do_not_see_each_other(name: str) -> None:
    network, moving, fixed = built(name, 16, 16, 24)
    other_moving, other_fixed = images(16, 16, 24, seed=7)
    with torch.inference_mode():
        alone = network(moving, fixed).displacement, network(other_moving, other_fixed).displacement
        both = network(torch.cat([moving, other_moving]), torch.cat([fixed, other_fixed]))
    torch.testing.assert_close(both.displacement, torch.cat(alone), atol=1e-5, rtol=0)
    assert (alone[0] - alone[1]).abs().max() > 0.1


# ---------------------------------------------------------------------------------- symmetry


@pytest.mark.parametrize("name", DIFFEOMORPHIC)
@pytest.mark.parametrize("shape", [(24, 16, 32), (19, 23, 17)])
def test_exchanging_the_images_turns_the_velocity_round(name: str, shape: tuple[int, ...]) -> None:
    network, moving, fixed = built(name, *shape)
    with torch.inference_mode():
        there, back = network(moving, fixed), network(fixed, moving)
    assert there.regularity.abs().max() > 0.5
    torch.testing.assert_close(there.regularity, -back.regularity, atol=1e-5, rtol=0)
    torch.testing.assert_close(there.displacement, back.inverse, atol=1e-5, rtol=0)
    torch.testing.assert_close(there.inverse, back.displacement, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", DIFFEOMORPHIC)
def test_an_image_registered_to_itself_does_not_move(name: str) -> None:
    network, moving, fixed = built(name, 24, 16, 32)
    with torch.inference_mode():
        still = network(moving, moving.clone())
        assert network(moving, fixed).displacement.abs().max() > 0.5
    assert still.displacement.abs().max() < 1e-5
    assert still.inverse.abs().max() < 1e-5


@pytest.mark.parametrize("name", DIFFEOMORPHIC)
def test_displacement_and_inverse_undo_each_other(name: str) -> None:
    network, moving, fixed = built(name, 24, 32, 32, size=0.8)
    with torch.inference_mode():
        deformation = network(moving, fixed)
    there, back = deformation[:2]

    def left(outer: Tensor, inner: Tensor) -> Tensor:
        """What the one leaves of the other, three voxels from the border."""
        return field.compose(outer, inner)[(..., *(slice(3, -3),) * 3)]

    assert there.abs().max() > 1
    for outer, inner in ((there, back), (back, there)):
        remainder, size = left(outer, inner), inner.square().mean().sqrt()
        assert remainder.abs().max() < 0.15 * inner.abs().max()
        assert remainder.square().mean().sqrt() < 0.06 * size
        # The displacement with its sign turned would not do.
        negated = left(-inner, inner).square().mean().sqrt()
        assert remainder.square().mean().sqrt() < 0.35 * negated
    assert field.jacobian_determinant(deformation.displacement).min() > 0


@pytest.mark.parametrize("name", DIFFEOMORPHIC)
def test_the_displacement_is_the_flow_of_the_velocity_at_half_resolution(name: str) -> None:
    network, moving, fixed = built(name, 24, 16, 32)
    with torch.inference_mode():
        deformation = network(moving, fixed)
    velocity = deformation.regularity
    assert velocity.shape == (1, 3, 12, 8, 16)
    for got, sign in ((deformation.displacement, 1), (deformation.inverse, -1)):
        flow = field.exponentiate(sign * velocity, steps=7)
        torch.testing.assert_close(got, field.upsample(flow), atol=1e-5, rtol=0)


@pytest.mark.parametrize("finest", [1, 2])
def test_a_pyramid_cut_short_stops_at_the_coarser_velocity(finest: int) -> None:
    """What a level leaves out is the residual: zero finest residuals only resize the velocity."""
    network, moving, fixed = built("VelocityPyramid", 24, 16, 32)
    with torch.inference_mode():
        coarse = network.velocity(moving, fixed, finest=finest)
        assert coarse.shape[2:] == tuple(n // 2 ** (1 + finest) for n in (24, 16, 32))
        for level in range(finest):
            network.residual[level][-1].weight.zero_()
            network.residual[level][-1].bias.zero_()
        whole = network.velocity(moving, fixed)
    resized = coarse
    for level in reversed(range(finest)):
        resized = field.resize(resized, [n // 2 ** (1 + level) for n in (24, 16, 32)])
    assert coarse.abs().max() > 0.02
    torch.testing.assert_close(whole, resized, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SMALL)
def test_the_deformation_is_float32_under_autocast(name: str) -> None:
    """Coordinates of 100 voxels in bfloat16 would be right to half a voxel."""
    network, moving, fixed = built(name, 16, 16, 24)
    with torch.inference_mode():
        plain = network(moving, fixed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = network(moving, fixed)
    assert cast.displacement.dtype == torch.float32
    assert (cast.displacement - plain.displacement).abs().max() < 0.1
    # Values of more than bfloat16's eight bits are there: it was integrated in float32.
    if name in DIFFEOMORPHIC:
        assert (cast.displacement.bfloat16().float() != cast.displacement).float().mean() > 0.9


# ------------------------------------------------------------------------------- beginning


@pytest.mark.parametrize("name", FULL)
def test_a_fresh_network_moves_next_to_nothing(name: str) -> None:
    torch.manual_seed(0)
    moving, fixed = images(32, 32, 32)
    with torch.inference_mode():
        displacement = FULL[name]()(moving, fixed).displacement
    assert 0 < displacement.abs().max() < 0.02


@pytest.mark.parametrize(
    "last", [VoxelMorph().unet.flow, DiffeomorphicVoxelMorph().unet.flow], ids=["vm", "diff"]
)
def test_the_last_layer_is_drawn_from_the_papers_normal(last: nn.Conv3d) -> None:
    """N(0, 10⁻⁵) as its standard deviation, in the authors' code."""
    assert float(last.weight.detach().std()) == pytest.approx(1e-5, rel=0.15)
    assert abs(float(last.weight.detach().mean())) < 2e-6
    assert not last.bias.detach().any()


# Biases that no output depends on: antisymmetry takes out the last layer's, and a
# normalisation that of the convolution before it.
CANCELLED = {
    "VoxelMorph": (),
    "DiffeomorphicVoxelMorph": ("unet.flow.bias",),
    "VelocityPyramid": ("residual.*.4.bias", "encoder.*.2.bias"),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    network, moving, fixed = built(name, 24, 24, 32)
    network.zero_grad()
    deformation = network(moving, fixed)
    moved = field.warp(moving, deformation.displacement)
    loss = losses.local_ncc(fixed, moved) + 0.1 * losses.diffusion(deformation.regularity)
    loss.backward()
    for parameter, value in network.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        if not any(fnmatch(parameter, pattern) for pattern in CANCELLED[name]):
            assert value.grad.abs().max() > 1e-7, parameter


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_those_of_differences(name: str) -> None:
    """Along a random direction in the space of weights: nothing on the way is cut off."""
    network, moving, fixed = built(name, 16, 16, 16)
    network, moving, fixed = network.double(), moving.double(), fixed.double()
    parameters = list(network.parameters())
    generator = torch.Generator().manual_seed(2)
    direction = [
        torch.randn(p.shape, generator=generator, dtype=torch.float64) * p.detach().abs().mean()
        for p in parameters
    ]

    def loss() -> Tensor:
        return losses.diffusion(network(moving, fixed).regularity)

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


# ----------------------------------------------------------------------- convolutions in bf16


def poison(*sizes: int) -> None:
    """Leave NaN in memory that is free again, in pieces like those that layers will ask for."""
    wanted = {*sizes, *(2**k for k in range(4, 19)), *(27 * 2**k for k in range(2, 14))}
    held = [torch.full((size,), torch.nan, dtype=kind) for size in sorted(wanted)
            for kind in (torch.float32, torch.bfloat16) for _ in range(3)]  # fmt: skip
    del held


def gradients(layer: nn.Module, x: Tensor, *, bf16: bool) -> list[Tensor]:
    """Of a sum that weighs each voxel of the output, for the input and all weights."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = layer(x)
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return list(torch.autograd.grad((out.float() * weight).sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize(
    ("before", "after", "stride", "padding"),
    [(32, 32, 1, 1), (91, 32, 1, 1), (32, 3, 1, 1), (16, 32, 2, 1), (2, 16, 1, 1)],
)
def test_small_inputs_are_convolved_in_float32(before, after, stride, padding, side) -> None:
    """bf16 kernels read memory there that nobody wrote, so it is made to hold NaN."""
    torch.manual_seed(0)
    ours = Convolution(before, after, 3, stride=stride, padding=padding)
    plain = nn.Conv3d(before, after, 3, stride=stride, padding=padding)
    plain.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(plain.state_dict()) == ["weight", "bias"]
    for shape in ((side, side, side), (side, 5, 4)):
        x = torch.randn(2, before, *shape)
        expected = gradients(plain, x, bf16=False)
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            for _ in range(3):
                poison(x.numel(), *(p.numel() for p in ours.parameters()))
                found = gradients(ours, x.contiguous(memory_format=layout), bf16=True)
                for one, other in zip(found, expected, strict=True):
                    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_small_inputs_that_come_in_bf16_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    layer, x = Convolution(8, 8, 3, padding=1), torch.randn(1, 8, 2, 2, 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = layer(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, layer(x.float()))


def test_larger_inputs_are_convolved_in_bf16() -> None:
    layer = Convolution(8, 8, 3, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(1, 8, 3, 3, 3)).dtype == torch.bfloat16
        assert layer(torch.randn(1, 8, 2, 3, 3)).dtype == torch.float32
    assert layer(torch.randn(1, 8, 3, 3, 3)).dtype == torch.float32


@pytest.mark.parametrize("side", range(3, 9))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_what_is_left_to_bf16_is_right_there(side, stride, padding) -> None:
    """As far as eight bits are; no memory is read that nobody wrote."""
    torch.manual_seed(0)
    layer = Convolution(32, 32, 3, stride=stride, padding=padding)
    x = torch.randn(2, 32, side, side, side).contiguous(memory_format=torch.channels_last_3d)
    expected = gradients(layer, x, bf16=False)
    for _ in range(3):
        poison(x.numel(), layer.weight.numel())
        for one, other in zip(gradients(layer, x, bf16=True), expected, strict=True):
            assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("shape", [(32, 32, 32), (48, 64, 48)])
def test_a_pyramid_deeper_than_its_images_has_the_same_gradients_each_time(shape) -> None:
    """Its last level has sides of one or two voxels."""
    torch.manual_seed(0)
    network = lively(VelocityPyramid((4, 8, 8, 16, 16)), *images(*shape))
    moving, fixed = images(*shape)

    def gradient(bf16: bool) -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            velocity = network.velocity(moving, fixed)
        slope = torch.linspace(-1, 1, velocity.numel()).view(velocity.shape)
        return list(torch.autograd.grad((velocity * slope).sum(), list(network.parameters())))

    largest, found = max(float(g.norm()) for g in gradient(False)), []
    for _ in range(2):
        poison()
        found.append(gradient(True))
    for first, second in zip(*found, strict=True):
        assert first.isfinite().all()
        assert torch.equal(first, second)
        assert first.norm() < 2 * largest  # as large as in float32, about


@pytest.mark.parametrize("name", SMALL)
def test_the_names_of_the_weights_are_those_of_plain_convolutions(name: str) -> None:
    """Files of weights do not know which class a layer is of."""
    network = SMALL[name]()
    layers = {key: m for key, m in network.named_modules() if isinstance(m, nn.Conv3d)}
    assert layers
    assert all(type(layer) is Convolution for layer in layers.values())
    named = {f"{key}.{kind}" for key in layers for kind in ("weight", "bias")}
    norms = {f"{key}.{kind}" for key, m in network.named_modules()
             if isinstance(m, nn.GroupNorm) for kind in ("weight", "bias")}  # fmt: skip
    assert set(network.state_dict()) == named | norms


# --------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("name", "rate"),
    [("VoxelMorph", 3e-3), ("DiffeomorphicVoxelMorph", 3e-3), ("VelocityPyramid", 3e-3)],
)
def test_a_network_learns_one_pair(name: str, rate: float) -> None:
    """A ball is pulled onto an ellipsoid beside it, in fifty steps."""
    torch.manual_seed(0)
    shape = (24, 24, 24)
    moving = torch.from_numpy(ball(shape, (11, 12, 11.5), 6))[None, None]
    fixed = torch.from_numpy(ball(shape, (12.5, 11, 11.5), (5, 8, 6)))[None, None]
    network = SMALL[name]().train()
    before = float(losses.mse(fixed, moving))
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(50):
        deformation: Deformation = network(moving, fixed)
        loss = losses.mse(fixed, field.warp(moving, deformation.displacement))
        loss = loss + 1e-3 * losses.diffusion(deformation.regularity)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        deformation = network.eval()(moving, fixed)
        moved = field.warp(moving, deformation.displacement)
        assert float(losses.mse(fixed, moved)) < 0.25 * before
        if deformation.inverse is not None:  # the way back was not trained: it comes for free
            returned = field.warp(fixed, deformation.inverse)
            assert float(losses.mse(moving, returned)) < 0.3 * before
