"""Separable filters of volumes: each axis is multiplied by a small matrix.

A matrix product is limited by the speed of multiplications, whatever the width of the filter. A sum
of shifted volumes is limited by the speed of memory, and reads all of it once per weight.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from . import compiled


def gaussian(volume: Tensor, sigma: float) -> Tensor:
    """Smooth a volume (B, C, X, Y, Z) with a Gaussian of ``sigma`` voxels.

    The Gaussian is truncated at four sigma, as in SciPy. Outside the volume its border value
    continues. A sigma of zero changes nothing.
    """
    if sigma > 0 and compiled.can_take(volume):
        return compiled.gaussian(volume, sigma)
    return volume if sigma <= 0 else _separable(volume, lambda n: _gaussian(n, sigma))


def window_mean(volume: Tensor, window: int) -> Tensor:
    """The mean over the ``window``³ voxels around each voxel of (B, C, X, Y, Z).

    Near the border, it is the mean of those that are inside the volume.
    """
    return _separable(volume, lambda n: _window(n, window))


def _separable(volume: Tensor, matrix: Callable[[int], Tensor]) -> Tensor:
    """Multiply each axis of (B, C, X, Y, Z) by the (n, n) matrix for its length n."""
    x, y, z = volume.shape[2:]
    along_x, along_y, along_z = (matrix(n).to(volume) for n in (x, y, z))
    with torch.autocast(volume.device.type, enabled=False):
        out = torch.matmul(along_x, volume.reshape(-1, x, y * z))
        out = torch.matmul(along_y, out.view(-1, y, z))
        return torch.matmul(out.view(-1, z), along_z.T).view(volume.shape)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached inference tensor could not be used with gradients later
def _gaussian(n: int, sigma: float) -> Tensor:
    weights = torch.from_numpy(compiled.gaussian_weights(sigma))
    reach = len(weights) // 2
    columns = (torch.arange(n)[:, None] + torch.arange(-reach, reach + 1)).clamp(0, n - 1)
    rows = weights.expand(n, -1)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add(1, columns, rows)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a cached inference tensor could not be used with gradients later
def _window(n: int, window: int) -> Tensor:
    i = torch.arange(n)
    inside = ((i[:, None] - i).abs() <= window // 2).double()
    return inside / inside.sum(dim=1, keepdim=True)
