"""The pyramid: levels that are left out, and levels of one or two voxels."""

import pytest
import torch
from small_networks import built, images, lively
from torch import Tensor
from unwritten_memory import poison

from voxwarp.fields import field
from voxwarp.networks.pyramid import VelocityPyramid


@pytest.mark.parametrize("skipped", [1, 2])
def test_without_its_finest_levels_a_pyramid_gives_the_coarser_velocity(skipped: int) -> None:
    """If the residuals of these levels are zero, they only resize the velocity."""
    network, moving, fixed = built("pyramid", 24, 16, 32)
    with torch.inference_mode():
        coarse = network.velocity(moving=moving, fixed=fixed, skip_finest=skipped)
        assert coarse.shape[2:] == tuple(n // 2 ** (1 + skipped) for n in (24, 16, 32))
        for level in range(skipped):
            network.residual[level][-1].weight.zero_()
            network.residual[level][-1].bias.zero_()
        whole = network.velocity(moving=moving, fixed=fixed)
    resized = coarse
    for level in reversed(range(skipped)):
        resized = field.resize(resized, [n // 2 ** (1 + level) for n in (24, 16, 32)])
    assert coarse.abs().max() > 0.02
    torch.testing.assert_close(whole, resized, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(32, 32, 32), (48, 64, 48)])
def test_a_pyramid_deeper_than_its_images_has_the_same_gradients_each_time(shape) -> None:
    """Its coarsest level has sides of one or two voxels."""
    torch.manual_seed(0)
    network = lively(VelocityPyramid((4, 8, 8, 16, 16)), *images(*shape))
    moving, fixed = images(*shape)

    def gradient(bf16: bool) -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            velocity = network.velocity(moving=moving, fixed=fixed)
        slope = torch.linspace(-1, 1, velocity.numel()).view(velocity.shape)
        return list(torch.autograd.grad((velocity * slope).sum(), list(network.parameters())))

    largest, found = max(float(g.norm()) for g in gradient(False)), []
    for _ in range(2):
        poison()
        found.append(gradient(True))
    for first, second in zip(*found, strict=True):
        assert first.isfinite().all()
        assert torch.equal(first, second)
        assert first.norm() < 2 * largest  # about as large as in float32
