"""The U-Net computes what Figure 3 of the paper shows, with the layers of the authors' code."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxwarp.networks.unet import UNet

VM1 = [32, 32, 32, 32, 8, 8]
VM2 = [32, 32, 32, 32, 32, 16, 16]


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

    If layers are left, they run at full resolution, with the input as a skip.
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
def test_the_unet_computes_what_the_paper_shows(decoder: list[int], full: bool) -> None:
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


@pytest.mark.parametrize(("decoder", "full"), [(VM1, True), ([32] * 5, False)])
def test_the_last_layer_is_drawn_from_the_papers_normal(decoder: list[int], full: bool) -> None:
    """N(0, 10⁻⁵); in the authors' code this is the standard deviation."""
    torch.manual_seed(0)
    last = UNet([16, 32, 32, 32], decoder, full_resolution=full).flow
    assert float(last.weight.detach().std()) == pytest.approx(1e-5, rel=0.15)
    assert abs(float(last.weight.detach().mean())) < 2e-6
    assert not last.bias.detach().any()
