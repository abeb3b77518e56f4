"""VoxelMorph-1 and -2 (Balakrishnan et al., CVPR 2018, Figure 3): a U-Net predicts u."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..fields import field
from .deformation import Deformation
from .layers import Convolution
from .unet import UNet


class VoxelMorph(nn.Module):
    """VoxelMorph of CVPR 2018: the output of the U-Net is the displacement u, in voxels.

    VoxelMorph-1 has the decoder 32-32-32-32-8-8, VoxelMorph-2 has 32-32-32-32-32-16-16.

    Args:
        encoder, decoder: numbers of channels, see ``UNet``.
    """

    def __init__(
        self,
        encoder: Sequence[int] = (16, 32, 32, 32),
        decoder: Sequence[int] = (32, 32, 32, 32, 8, 8),
    ):
        super().__init__()
        self.unet = UNet(encoder, decoder, full_resolution=True)

    @property
    def last_layers(self) -> list[Convolution]:
        """The layers whose output is in voxels."""
        return [self.unet.flow]

    def forward(self, *, moving: Tensor, fixed: Tensor) -> Deformation:
        """The deformation that aligns ``moving`` with ``fixed``."""
        pair, crop = field.padded(torch.cat([moving, fixed], dim=1), 2**self.unet.levels)
        displacement = self.unet(pair).float()[crop]
        return Deformation(displacement, displacement)
