"""Layers that the networks share."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Conv3d):
    """A 3-D convolution, in float32 where its input is hardly larger than a voxel.

    There the processor's bf16 kernel for the gradient of the weights (oneDNN's, as of PyTorch
    2.13) reads memory that nobody wrote: for sides of 1 and 2 it gives anything, NaN included.
    """

    SMALLEST = 3  # voxels of a side

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv3d``."""
        if x.device.type != "cpu" or min(x.shape[2:]) >= self.SMALLEST:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


def local_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Mean over channels of a(x) b(x + s) for the 27 shifts |s| ≤ 1, b zero outside; (B, 27, …)."""
    around = F.pad(b, (1,) * 6)
    x, y, z = b.shape[2:]
    shifts = itertools.product(range(3), repeat=3)
    products = [
        (a * around[:, :, i : i + x, j : j + y, k : k + z]).mean(dim=1) for i, j, k in shifts
    ]
    return torch.stack(products, dim=1)


def convolution(before: int, width: int, *, stride: int = 1) -> Convolution:
    """A 3³ convolution that halves the lattice with stride 2; drawn after He."""
    layer = Convolution(before, width, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(layer.weight, a=0.1)
    nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    return layer


def near_zero(before: int, *, std: float) -> Convolution:
    """The last convolution, drawn so small that training starts from the identity."""
    layer = Convolution(before, 3, 3, padding=1)
    nn.init.normal_(layer.weight, std=std)
    nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    return layer


def activation() -> nn.LeakyReLU:
    """LeakyReLU of slope 0.1."""
    return nn.LeakyReLU(0.1, inplace=True)
