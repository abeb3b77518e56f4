"""A dual-stream pyramid that predicts a stationary velocity, from coarse to fine."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fields import field
from .deformation import Deformation, integrate
from .layers import Convolution, activation, convolution, local_correlation, near_zero


class VelocityPyramid(nn.Module):
    """A coarse-to-fine network with one encoder for both images; φ = exp(v), v at half resolution.

    From the coarsest level to the finest, the features of both images are warped to the middle of
    the deformation so far, a = m∘exp(v/2) and b = f∘exp(−v/2), and compared by local correlation.
    A residual g is added to the velocity: v ← v + (g(a, b) − g(b, a)) / 2. So the velocity is
    antisymmetric like that of ``DiffeomorphicVoxelMorph``, with the same consequences.

    Between the levels the velocity is resized so that the end voxels keep their centres, although
    averaging and strides shift them by up to a voxel. The residuals learn to compensate for this
    on the working grid of the training.

    Warping and correlation at every level follow PWC-Net (doi:10.1109/CVPR.2018.00931), residual
    velocities follow LapIRN (doi:10.1007/978-3-030-59716-0_21).

    Args:
        channels: numbers of channels of the encoder at 1/2, 1/4, ... of the resolution.
        steps: squarings of the exponential.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 32, 32, 32), *, steps: int = 7):
        super().__init__()
        self.steps = steps
        self.encoder = nn.ModuleList()
        for before, width in zip((1, *channels), channels, strict=False):
            first = convolution(before, width, stride=1 if before == 1 else 2)
            # Groups of one channel are an instance norm, with a kernel for channels-last memory.
            norm = nn.GroupNorm(width, width)
            self.encoder.append(
                nn.Sequential(first, activation(), convolution(width, width), norm, activation())
            )
        self.residual = nn.ModuleList()
        for level, width in enumerate(channels):
            inputs, hidden = 2 * width + (27 if level else 0), max(16, width)
            layers = (
                convolution(inputs, hidden),
                activation(),
                convolution(hidden, hidden),
                activation(),
            )
            self.residual.append(nn.Sequential(*layers, near_zero(hidden, std=1e-4)))

    @property
    def last_layers(self) -> list[Convolution]:
        """The layers whose output is in voxels, of their levels."""
        return [cast(Convolution, cast(nn.Sequential, block)[-1]) for block in self.residual]

    def velocity(self, *, moving: Tensor, fixed: Tensor, skip_finest: int = 0) -> Tensor:
        """The velocity of the padded pair, at half resolution and in voxels of that grid.

        ``skip_finest`` is the number of finest levels that are left out, in the first phase of a
        training; the velocity then has the resolution of the finest level that is left.
        """
        images, _ = field.padded(torch.cat([moving, fixed]), 2 ** len(self.encoder))
        x = F.avg_pool3d(images, 2).contiguous(memory_format=torch.channels_last_3d)
        features = [x := block(x) for block in self.encoder]
        velocity = self._residual(len(features) - 1, features[-1])
        for level in reversed(range(skip_finest, len(features) - 1)):
            shape = features[level].shape[2:]
            middle = field.exponentiate(
                torch.cat([velocity, -velocity]) / 2, steps=max(self.steps - 2, 1)
            )
            warped = field.warp(
                features[level].float(), field.resize(middle, shape), padding="border"
            )
            residual = self._residual(level, warped.to(features[level].dtype))
            velocity = field.resize(velocity, shape) + residual
        return velocity

    def _residual(self, level: int, features: Tensor) -> Tensor:
        """(g(a, b) − g(b, a)) / 2 for features (a, b) stacked as a batch."""
        features = features.contiguous(memory_format=torch.channels_last_3d)
        other = features.roll(len(features) // 2, dims=0)  # (b, a)
        inputs = [features, other]
        if level:
            inputs.append(local_correlation(features, other))
        forward, backward = self.residual[level](torch.cat(inputs, dim=1)).float().chunk(2)
        return (forward - backward) / 2

    def forward(self, *, moving: Tensor, fixed: Tensor) -> Deformation:
        """The deformation that aligns ``moving`` with ``fixed``, and its velocity."""
        velocity = self.velocity(moving=moving, fixed=fixed)
        return Deformation(integrate(velocity, moving.shape[2:], self.steps), velocity)
