"""A dual-stream pyramid that predicts a stationary velocity, from coarse to fine."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fields import field
from .deformation import Deformation, integrated
from .layers import activation, convolution, local_correlation, near_zero


class VelocityPyramid(nn.Module):
    """A coarse-to-fine network with one stream an image; v at half resolution, φ = exp(v).

    Both images pass one encoder. From the coarsest level up, the features of both are pulled
    to the middle of the deformation so far, a = m∘exp(v/2) and b = f∘exp(−v/2), compared by
    local correlation, and a residual g is added: v ← v + (g(a, b) − g(b, a)) / 2. The velocity
    is antisymmetric as that of ``DiffeomorphicVoxelMorph`` is, with the same consequences.

    Between the levels the velocity is resized from end voxel to end voxel, although averaging and
    strides put their voxels elsewhere, by up to one; the residuals have learnt to make up for it
    on the lattice that they were trained on.

    Warping and correlation at every level after PWC-Net (doi:10.1109/CVPR.2018.00931), residual
    velocities after LapIRN (doi:10.1007/978-3-030-59716-0_21).

    Args:
        channels: of the encoder's levels at 1/2, 1/4, ... of the resolution.
        steps: squarings of the exponential.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 32, 32, 32), *, steps: int = 7):
        super().__init__()
        self.steps = steps
        self.encoder = nn.ModuleList()
        for before, width in zip((1, *channels), channels, strict=False):
            first = convolution(before, width, stride=1 if before == 1 else 2)
            # One channel a group is instance norm, by the kernel that keeps channels last.
            norm = nn.GroupNorm(width, width)
            self.encoder.append(
                nn.Sequential(first, activation(), convolution(width, width), norm, activation())
            )
        self.residual = nn.ModuleList()
        for level, width in enumerate(channels):
            seen, hidden = 2 * width + (27 if level else 0), max(16, width)
            both = (
                convolution(seen, hidden),
                activation(),
                convolution(hidden, hidden),
                activation(),
            )
            self.residual.append(nn.Sequential(*both, near_zero(hidden, std=1e-4)))

    def velocity(self, *, moving: Tensor, fixed: Tensor, finest: int = 0) -> Tensor:
        """The velocity v of the padded pair, at half resolution and in voxels of that.

        ``finest`` leaves out as many of the finest levels, for a first phase of training.
        """
        images, _ = field.padded(torch.cat([moving, fixed]), 2 ** len(self.encoder))
        x = F.avg_pool3d(images, 2).contiguous(memory_format=torch.channels_last_3d)
        features = [x := block(x) for block in self.encoder]
        velocity = self._residual(len(features) - 1, features[-1])
        for level in reversed(range(finest, len(features) - 1)):
            shape = features[level].shape[2:]
            middle = field.exponentiate(
                torch.cat([velocity, -velocity]) / 2, steps=max(self.steps - 2, 1)
            )
            pulled = field.warp(
                features[level].float(), field.resize(middle, shape), padding="border"
            )
            residual = self._residual(level, pulled.to(features[level].dtype))
            velocity = field.resize(velocity, shape) + residual
        return velocity

    def _residual(self, level: int, features: Tensor) -> Tensor:
        """(g(a, b) − g(b, a)) / 2 for features (a, b) stacked as a batch."""
        features = features.contiguous(memory_format=torch.channels_last_3d)
        other = features.roll(len(features) // 2, dims=0)  # b beside a, a beside b
        seen = [features, other]
        if level:
            seen.append(local_correlation(features, other))
        there, back = self.residual[level](torch.cat(seen, dim=1)).float().chunk(2)
        return (there - back) / 2

    def forward(self, *, moving: Tensor, fixed: Tensor) -> Deformation:
        """The deformation that pulls ``moving`` onto ``fixed``, its inverse and its velocity."""
        return integrated(self.velocity(moving=moving, fixed=fixed), moving.shape[2:], self.steps)
