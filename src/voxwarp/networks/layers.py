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
