"""Layers: convolutions in bf16 where that is correct, and the correlation at 27 shifts."""

import numpy as np
import pytest
import torch
from small_networks import SMALL
from torch import Tensor, nn
from unwritten_memory import poison

from voxwarp.networks.layers import Convolution, convolve_upsampled, local_correlation


def test_local_correlation_is_the_mean_product_at_27_shifts() -> None:
    a, b = torch.rand(2, 2, 3, 4, 5, 6, dtype=torch.float64)
    around = np.pad(b.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    got = local_correlation(a, b).numpy()
    for channel, (i, j, k) in enumerate(np.ndindex(3, 3, 3)):
        shifted = around[:, :, i : i + 4, j : j + 5, k : k + 6]  # b(x + s), s = (i, j, k) − 1
        np.testing.assert_allclose(got[:, channel], (a.numpy() * shifted).mean(1), atol=1e-12)
    assert got.shape[1] == 27


def gradients(layer: nn.Module, x: Tensor, *, bf16: bool) -> list[Tensor]:
    """Gradients of a weighted sum of the output, for the input and all weights."""
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
    """bf16 kernels would read uninitialised memory, which is filled with NaN here."""
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


def test_small_bf16_inputs_are_accepted() -> None:
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
def test_bf16_convolutions_are_correct(side, stride, padding) -> None:
    """To eight bits, and without reading uninitialised memory."""
    torch.manual_seed(0)
    layer = Convolution(32, 32, 3, stride=stride, padding=padding)
    x = torch.randn(2, 32, side, side, side).contiguous(memory_format=torch.channels_last_3d)
    expected = gradients(layer, x, bf16=False)
    for _ in range(3):
        poison(x.numel(), layer.weight.numel())
        for one, other in zip(gradients(layer, x, bf16=True), expected, strict=True):
            assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("name", SMALL)
def test_the_names_of_the_weights_are_those_of_plain_convolutions(name: str) -> None:
    """So that files of weights do not depend on the class of a layer."""
    network = SMALL[name]()
    layers = {key: m for key, m in network.named_modules() if isinstance(m, nn.Conv3d)}
    assert layers
    assert all(type(layer) is Convolution for layer in layers.values())
    named = {f"{key}.{kind}" for key in layers for kind in ("weight", "bias")}
    norms = {f"{key}.{kind}" for key, m in network.named_modules()
             if isinstance(m, nn.GroupNorm) for kind in ("weight", "bias")}  # fmt: skip
    assert set(network.state_dict()) == named | norms


class Upsampled(nn.Module):
    """A convolution of repeated voxels and a skip, by the definition or as the networks do."""

    def __init__(self, layer: Convolution, *, plain: bool):
        super().__init__()
        self.layer, self.plain = layer, plain

    def forward(self, x: Tensor) -> Tensor:
        coarse, skip = x[..., : x.shape[-1] // 9], x[..., x.shape[-1] // 9 :]
        skip = skip.reshape(*x.shape[:2], *(2 * n for n in coarse.shape[2:]))[:, :5]
        if not self.plain:
            return convolve_upsampled(self.layer, coarse, skip)
        for axis in (2, 3, 4):
            coarse = coarse.repeat_interleave(2, dim=axis)
        return self.layer(torch.cat([coarse, skip], dim=1))


@pytest.mark.parametrize("shape", [(1, 2, 1), (3, 4, 5), (4, 3, 6)])
def test_repeated_voxels_are_convolved_as_if_they_were_made(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    layer = Convolution(12 + 5, 8, 3, padding=1).double()
    x = torch.randn(2, 12, *shape[:2], 9 * shape[2], dtype=torch.float64)
    found, expected = (gradients(Upsampled(layer, plain=p), x, bf16=False) for p in (False, True))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", range(1, 7))
def test_repeated_voxels_are_convolved_in_bf16_to_eight_bits(side: int) -> None:
    """And without reading uninitialised memory."""
    torch.manual_seed(0)
    layer = Convolution(12 + 5, 8, 3, padding=1)
    x = torch.randn(2, 12, side, side, 9 * side)
    expected = gradients(Upsampled(layer, plain=True), x, bf16=False)
    for _ in range(3):
        poison(x.numel(), layer.weight.numel())
        for one, other in zip(
            gradients(Upsampled(layer, plain=False), x, bf16=True), expected, strict=True
        ):
            assert (one - other).norm() < 0.02 * other.norm()
