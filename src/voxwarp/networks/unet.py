"""The paper's U-Net, as the authors' Keras code has it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Convolution, near_zero


class UNet(nn.Module):
    """The paper's U-Net: stride-2 encoder, decoder with skips, LeakyReLU 0.2, near-zero last layer.

    Args:
        encoder: channels of the stride-2 convolutions, one a level.
        decoder: channels of the decoder's convolutions. The first len(encoder) run at 1/2^L,
            ..., 1/2 of the resolution, further ones at 1/2; with ``full_resolution`` those from
            number len(encoder) + 1 on run at the input's.
        full_resolution: go up once more, next to the input pair.

    The layers lie as in the authors' Keras code, so that their weights fit: up-sampling is by
    nearest neighbour, the skip is appended to it, and stride-2 convolutions see (0, 1) padding.
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
        """Channels of the skip that joins before decoder convolution ``number``."""
        level = self._skip_level(number)
        return 0 if level is None else channels[level]

    def _skip_level(self, number: int) -> int | None:
        if 0 < number < self.levels:
            return self.levels - number
        return 0 if self.full_resolution and number == self.levels + 1 else None

    def forward(self, pair: Tensor) -> Tensor:
        """(B, 2, X, Y, Z), sides multiples of 2^levels, to (B, 3, X, Y, Z) or half of that."""
        pair = pair.contiguous(memory_format=torch.channels_last_3d)
        seen = [pair]
        for convolution in self.down:
            seen.append(F.leaky_relu(convolution(F.pad(seen[-1], (0, 1) * 3)), 0.2))
        x = seen[-1]
        for number, convolution in enumerate(self.up):
            level = self._skip_level(number)
            if level is not None:
                x = torch.cat(
                    [F.interpolate(x, scale_factor=2, mode="nearest"), seen[level]], dim=1
                )
            x = F.leaky_relu(convolution(x), 0.2)
        return self.flow(x)
