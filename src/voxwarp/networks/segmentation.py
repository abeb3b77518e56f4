"""Segmentation: which structure each voxel is part of, and maps of that for the descent."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fields import field
from .layers import activation, convolution


class SegmentationNetwork(nn.Module):
    """A U-Net that embeds each voxel at half resolution, and classes in that space.

    Embeddings have length one; the log-odds of a class are their scaled cosine to a vector of the
    class. The eight voxels of the image behind one at half resolution are eight channels.

    Args:
        channels: of the levels at 1/2, 1/4, ... of the resolution; the embedding has the first.
        classes: the background is number 0.
    """

    def __init__(self, channels: Sequence[int], classes: int):
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for before, width in zip((8, *channels), channels, strict=False):
            first = convolution(before, width, stride=2 if self.down else 1)
            last = [convolution(width, width), *_norm(width, bool(self.down)), activation()]
            self.down.append(nn.Sequential(first, activation(), *last))
        for level, (width, below) in enumerate(itertools.pairwise(channels)):
            layers = [convolution(width + below, width), *_norm(width, level > 0), activation()]
            self.up.append(nn.Sequential(*layers))
        self.embed = nn.Conv3d(channels[0], channels[0], 1)
        self.classes = nn.Linear(channels[0], classes)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, X, Y, Z), even sides, to (B, C, X / 2, Y / 2, Z / 2) in float32."""
        x = field.blocks(images[:, 0], 2).movedim(-1, 1)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        seen = [x := block(x) for block in self.down]
        for level in reversed(range(len(self.up))):
            x = F.interpolate(x, size=seen[level].shape[2:], mode="nearest")
            x = self.up[level](torch.cat([x, seen[level]], dim=1))
        return F.normalize(self.embed(x).float(), dim=1)

    def classify(self, embedded: Tensor) -> Tensor:
        """(N, C) embeddings to (N, classes) log-odds."""
        with torch.autocast(embedded.device.type, enabled=False):
            directions = F.normalize(self.classes.weight.float(), dim=1)
            return self.log_scale.exp() * (embedded @ directions.T) + self.classes.bias


def _norm(width: int, wanted: bool) -> list[nn.Module]:
    """Instance norm, or none: at the finest level it costs as much as the convolutions."""
    return [nn.GroupNorm(width, width)] if wanted else []


class StructureMaps(nn.Module):
    """Maps that are alike where two images show the same structures: what a descent compares.

    The network tells of every voxel at half resolution which structures it may be part of. It has
    learnt that from label maps, scan by scan. A random projection of the probabilities, which
    keeps their distances (Johnson & Lindenstrauss), stands for them.

    Args:
        structures: how many the network tells apart, beside the background.
        channels: of the U-Net's levels at 1/2, 1/4, ... of the resolution.
        maps: numbers that stand for the probabilities.
        weight: of half the squared difference of the maps, where the squared local correlation
            of the images weighs 1.
    """

    projection: Tensor

    def __init__(self, structures: int, channels: Sequence[int], *, maps: int, weight: int):
        super().__init__()
        self.network = SegmentationNetwork(channels, structures + 1)
        self.weight = float(weight)
        generator = torch.Generator().manual_seed(0)
        projection = torch.randn(structures + 1, maps, generator=generator) / maps**0.5
        self.register_buffer("projection", projection)

    def forward(self, images: Tensor, factor: int) -> Tensor:
        """(B, 1, X, Y, Z) to (B, maps, X / factor, ...); the factor is 2 or larger.

        On a coarser lattice than its own the network tells what there is from the mean of what it
        saw: that is nearly as good, for an eighth of the time.
        """
        embedded = field.averaged(self.network(images), factor // 2)
        inside = F.max_pool3d(images, factor) > 0
        return torch.stack([self._of(*one) for one in zip(embedded, inside[:, 0], strict=True)])

    def _of(self, embedded: Tensor, inside: Tensor) -> Tensor:
        """(C, X, Y, Z) to (maps, X, Y, Z); where there is no image, there is the background."""
        with torch.autocast(embedded.device.type, enabled=False):
            maps = self.projection[0].expand(*inside.shape, -1).clone()
            voxels = embedded[:, inside].T
            odds = (self.network.classify(part) for part in voxels.split(2**15))
            maps[inside] = torch.cat([o.softmax(dim=1) @ self.projection for o in odds])
            return maps.movedim(-1, 0).contiguous()
