"""Layers that several networks use."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Conv3d):
    """A 3-D convolution that runs in float32 on the CPU if its input is very small.

    For sides of 1 and 2 voxels, the bf16 kernel for the gradient of the weights (oneDNN in PyTorch
    2.13) reads uninitialised memory, and the gradient can be anything, even NaN.
    """

    SMALLEST = 3  # voxels: the shortest side that is right in bf16

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, see ``nn.Conv3d``."""
        if x.device.type != "cpu" or min(x.shape[2:]) >= self.SMALLEST:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


def convolve_upsampled(layer: Convolution, coarse: Tensor, skip: Tensor) -> Tensor:
    """Convolve a volume upsampled to the sides of a skip, by nearest neighbour, and the skip.

    Repeating each voxel twice along all axes and a 3³ convolution are together a transposed 4³
    convolution with stride 2, which neither makes the large volume nor multiplies the same voxel
    several times. It takes half the time, with its gradients a third.

    Args:
        layer: a 3³ convolution, padded by 1, of the channels of both.
        coarse: (B, C, X, Y, Z).
        skip: (B, C', X', Y', Z'), mostly with twice the sides.
    """
    sides = zip(coarse.shape[2:], skip.shape[2:], strict=True)
    is_small = coarse.device.type == "cpu" and min(coarse.shape[2:]) < Convolution.SMALLEST
    if is_small or any(2 * n != m for n, m in sides):
        return layer(torch.cat([F.interpolate(coarse, size=skip.shape[2:]), skip], dim=1))
    channels = coarse.shape[1]
    weight = _of_repeated_voxels(layer.weight[:, :channels])
    # The bias is on the other convolution, whose gradient sums up in passing what it is for.
    out = F.conv3d(skip, layer.weight[:, channels:], layer.bias, padding=1)
    return out.add_(F.conv_transpose3d(coarse, weight, stride=2, padding=1))


def _of_repeated_voxels(weight: Tensor) -> Tensor:
    """(O, C, 3, 3, 3) to the (C, O, 4, 4, 4) of the transposed convolution."""
    weight = weight.flip(2, 3, 4).transpose(0, 1)
    for axis in range(3):  # along each axis, a voxel is met twice: by w(s) and by w(s − 1)
        pad = [0] * 6
        pad[2 * axis : 2 * axis + 2] = (1, 0)
        later = F.pad(weight, pad)
        pad[2 * axis : 2 * axis + 2] = (0, 1)
        weight = F.pad(weight, pad) + later
    return weight


def as_convolved(x: Tensor) -> Tensor:
    """The volume channels-last and, under autocast, in the type that convolutions take.

    Each convolution converts what it gets. A volume that several layers use is so only once, and
    concatenated with theirs stays small.
    """
    return in_convolved_type(x).contiguous(memory_format=torch.channels_last_3d)


def in_convolved_type(x: Tensor) -> Tensor:
    """The volume, under autocast in the type that convolutions take."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def local_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Mean over channels of a(x) b(x + s) for the 27 shifts |s| ≤ 1, (B, 27, ...).

    Outside the volume b is zero.
    """
    around = F.pad(b, (1,) * 6)
    x, y, z = b.shape[2:]
    shifts = itertools.product(range(3), repeat=3)
    products = [
        (a * around[:, :, i : i + x, j : j + y, k : k + z]).mean(dim=1) for i, j, k in shifts
    ]
    return torch.stack(products, dim=1)


def convolution(before: int, width: int, *, stride: int = 1) -> Convolution:
    """A 3³ convolution with initial weights after He; with stride 2 it halves the resolution."""
    layer = Convolution(before, width, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(layer.weight, a=0.1)
    nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    return layer


def near_zero(before: int, *, std: float) -> Convolution:
    """A last convolution with tiny initial weights, so that training starts at the identity."""
    layer = Convolution(before, 3, 3, padding=1)
    nn.init.normal_(layer.weight, std=std)
    nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    return layer


def activation() -> nn.LeakyReLU:
    """A LeakyReLU with slope 0.1."""
    return nn.LeakyReLU(0.1, inplace=True)
