"""The U-Net of VoxelMorph (CVPR 2018), as in the authors' Keras code."""

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Convolution, as_convolved, convolve_upsampled, near_zero


class UNet(nn.Module):
    """A U-Net: stride-2 encoder, decoder with skips, LeakyReLU 0.2, near-zero last layer.

    The layers are those of the authors' Keras code, so that their weights fit: upsampling is by
    nearest neighbour, the skip is appended after it, and stride-2 convolutions are padded by
    (0, 1).

    Args:
        encoder: numbers of channels of the stride-2 convolutions, one for each level.
        decoder: numbers of channels of the decoder's convolutions. The first L = len(encoder) run
            at 1/2^L, ..., 1/2 of the resolution. Further ones run at 1/2, or, with
            ``full_resolution``, from number L + 1 on at the resolution of the input.
        full_resolution: upsample once more at the end, with the input as a skip.
    """

    def __init__(self, encoder: Sequence[int], decoder: Sequence[int], *, full_resolution: bool):
        super().__init__()
        self.levels, self.full_resolution = len(encoder), full_resolution
        channels = [2, *encoder]
        self.down = nn.ModuleList(
            Convolution(a, b, 3, stride=2) for a, b in zip(channels, channels[1:], strict=False)
        )
        self.up = nn.ModuleList()
        width = encoder[-1]
        for number, out in enumerate(decoder):
            self.up.append(
                Convolution(width + self._skip_width(number, channels), out, 3, padding=1)
            )
            width = out
        self.flow = near_zero(width, std=1e-5)

    def _skip_width(self, number: int, channels: Sequence[int]) -> int:
        """Number of channels of the skip before decoder convolution ``number``."""
        level = self._skip_level(number)
        return 0 if level is None else channels[level]

    def _skip_level(self, number: int) -> int | None:
        """The encoder's level whose features are the skip before decoder convolution ``number``."""
        if 0 < number < self.levels:
            return self.levels - number
        return 0 if self.full_resolution and number == self.levels + 1 else None

    def forward(self, pair: Tensor) -> Tensor:
        """Map (B, 2, X, Y, Z), with sides that are multiples of 2^L, to (B, 3, X, Y, Z) or half."""
        features = [as_convolved(pair)]
        for convolution in self.down:
            # Of the two voxels of padding only the first counts, but gradients of weights take a
            # third of the time where sides are even.
            x = convolution(F.pad(features[-1], (0, 2) * 3))
            features.append(F.leaky_relu(x, 0.2, inplace=True))
        x = features[-1]
        for number, convolution in enumerate(self.up):
            level = self._skip_level(number)
            if level is None:
                x = convolution(x)
            else:
                x = convolve_upsampled(cast(Convolution, convolution), x, features[level])
            x = F.leaky_relu(x, 0.2, inplace=True)
        return self.flow(x).contiguous()
