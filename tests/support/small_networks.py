"""Networks small enough for tests, whose answers are nevertheless of a voxel or so."""

from collections.abc import Callable

import torch
from phantoms import blobs
from torch import Tensor, nn

from voxwarp.networks.catalogue import ARCHITECTURES
from voxwarp.networks.diffeomorphic import DiffeomorphicVoxelMorph
from voxwarp.networks.pyramid import VelocityPyramid
from voxwarp.networks.voxelmorph import VoxelMorph

#: By the names of the catalogue: all that learn from images.
SMALL: dict[str, Callable[[], nn.Module]] = {
    "voxelmorph": lambda: VoxelMorph((4, 8), (8, 8, 8, 6)),
    "diffeomorphic": lambda: DiffeomorphicVoxelMorph((4, 8), (8, 8, 8)),
    "pyramid": lambda: VelocityPyramid((4, 8, 8)),
}
WITH_VELOCITY = [name for name in SMALL if ARCHITECTURES[name].capabilities.has_velocity]


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A moving and a fixed image, (1, 1, X, Y, Z)."""
    moving, fixed = (torch.from_numpy(blobs(s, shape))[None, None] for s in (seed, seed + 1))
    return moving, fixed


def lively(network: nn.Module, moving: Tensor, fixed: Tensor, size: float = 1.0) -> nn.Module:
    """``network`` with last layers large enough to move voxels by about ``size``.

    Each of their kernels is flat, which smooths what random features give, and the last one's
    scale is set by the answer to the pair.
    """
    lasts = [m for m in network.modules() if isinstance(m, nn.Conv3d) and m.out_channels == 3]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for last in lasts:
            weight = torch.randn(*last.weight.shape[:2], 1, 1, 1, generator=generator)
            last.weight.copy_(weight.expand_as(last.weight) * 1e-3)
            last.bias.copy_(torch.randn(3, generator=generator) * 1e-3)
        for _ in range(6):  # a pyramid's answer is not quite linear in the scale
            scale = size / network(moving=moving, fixed=fixed).regularity.abs().max()
            for last in lasts:
                last.weight *= scale
                last.bias *= scale
    return network


def built(name: str, *shape: int, size: float = 1.0) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of ``SMALL`` that moves voxels by about ``size``, and a pair of images."""
    torch.manual_seed(0)
    pair = images(*shape)
    return lively(SMALL[name](), *pair, size), *pair
