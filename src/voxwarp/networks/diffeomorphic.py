"""A U-Net that predicts a stationary velocity (Dalca et al., MICCAI 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..fields import field
from .deformation import Deformation, integrate
from .layers import Convolution
from .unet import UNet


class DiffeomorphicVoxelMorph(nn.Module):
    """A U-Net that predicts a stationary velocity v at half resolution; φ = exp(v).

    The velocity is antisymmetric, v(m, f) = (g(m, f) − g(f, m)) / 2. If the images are exchanged,
    φ becomes its inverse exp(−v); and an image that is registered to itself does not move.

    Args:
        encoder, decoder: numbers of channels, see ``UNet``.
        steps: squarings of the exponential.
    """

    def __init__(
        self,
        encoder: Sequence[int] = (16, 32, 32, 32),
        decoder: Sequence[int] = (32, 32, 32, 32, 32),
        *,
        steps: int = 7,
    ):
        super().__init__()
        self.unet = UNet(encoder, decoder, full_resolution=False)
        self.steps = steps

    @property
    def last_layers(self) -> list[Convolution]:
        """The layers whose output is in voxels."""
        return [self.unet.flow]

    def velocity(self, *, moving: Tensor, fixed: Tensor) -> Tensor:
        """The velocity of the padded pair, at half resolution and in voxels of that grid."""
        pair, _ = field.padded(torch.cat([moving, fixed], dim=1), 2**self.unet.levels)
        forward, backward = self.unet(torch.cat([pair, pair.flip(1)])).float().chunk(2)
        return (forward - backward) / 2

    def forward(self, *, moving: Tensor, fixed: Tensor) -> Deformation:
        """The deformation that aligns ``moving`` with ``fixed``, and its velocity."""
        velocity = self.velocity(moving=moving, fixed=fixed)
        return Deformation(integrate(velocity, moving.shape[2:], self.steps), velocity)
