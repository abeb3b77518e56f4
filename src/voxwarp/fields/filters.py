"""Separable filters of volumes: each axis is multiplied by a small matrix.

A matrix product runs at the speed of the processor's multiplications, whatever the filter's
width, where a sum of shifted volumes is as slow as the memory, once for each tap.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def gaussian(volume: Tensor, sigma: float) -> Tensor:
    """The volume, (B, C, X, Y, Z), smoothed by a Gaussian of ``sigma`` voxels.

    It ends at four sigma, as SciPy's does; outside the lattice is the border's value. Zero
    changes nothing.
    """
    return volume if sigma <= 0 else _separable(volume, lambda n: _gaussian(n, sigma))


def window_mean(volume: Tensor, window: int) -> Tensor:
    """The mean over the ``window``³ voxels around each voxel of (B, C, X, Y, Z).

    Near the border the voxels of the window that are inside.
    """
    return _separable(volume, lambda n: _window(n, window))


def _separable(volume: Tensor, matrix: Callable[[int], Tensor]) -> Tensor:
    """Each axis of (B, C, X, Y, Z) multiplied by the matrix of its length."""
    x, y, z = volume.shape[2:]
    along_x, along_y, along_z = (matrix(n).to(volume) for n in (x, y, z))
    with torch.autocast(volume.device.type, enabled=False):
        out = torch.matmul(along_x, volume.reshape(-1, x, y * z))
        out = torch.matmul(along_y, out.view(-1, y, z))
        return torch.matmul(out.view(-1, z), along_z.T).view(volume.shape)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept may meet a gradient later
def _gaussian(n: int, sigma: float) -> Tensor:
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    columns = (torch.arange(n)[:, None] + torch.arange(-reach, reach + 1)).clamp(0, n - 1)
    rows = (weights / weights.sum()).expand(n, -1)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add(1, columns, rows)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept may meet a gradient later
def _window(n: int, window: int) -> Tensor:
    i = torch.arange(n)
    inside = ((i[:, None] - i).abs() <= window // 2).double()
    return inside / inside.sum(dim=1, keepdim=True)
