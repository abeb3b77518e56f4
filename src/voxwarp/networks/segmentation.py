"""Segmentation: which structure each voxel belongs to, and maps of that for the descent."""

import itertools
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fields import compiled, field
from .layers import (
    Convolution,
    activation,
    as_convolved,
    convolution,
    convolve_upsampled,
    in_convolved_type,
)

# Every fourth voxel along each axis tells how sure a segmentation is.
STRIDE = 4


class Segmentation(NamedTuple):
    """What a segmentation tells a descent about images.

    Args:
        maps: (B, maps, X, Y, Z), to be compared.
        unsure: (B,) share of the voxels of the brain whose likeliest structure has a probability
            below one half.
    """

    maps: Tensor
    unsure: Tensor


class Mirror(NamedTuple):
    """What a mirrored image shows, for networks that were trained with mirrored images, too.

    Args:
        axis: of the image from left to right, 0 to 2.
        classes: the class on the other side, for each class; that of a structure in the middle is
            its own.
    """

    axis: int
    classes: Sequence[int]


class SegmentationNetwork(nn.Module):
    """A U-Net that computes an embedding of each voxel at half resolution, and classifies it.

    Embeddings have length one. The log-odds of a class are the scaled cosine between the embedding
    and a learned vector of the class. The eight image voxels in each voxel at half resolution are
    eight input channels.

    Args:
        channels: numbers of channels at 1/2, 1/4, ... of the resolution; the embedding has the
            first number.
        classes: number of classes with the background, which is class 0.
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
        """Embed (B, 1, X, Y, Z) with even sides, to (B, C, X / 2, Y / 2, Z / 2) in float32."""
        return F.normalize(self.features(images).float(), dim=1)

    def features(self, images: Tensor) -> Tensor:
        """The embeddings before they get length one, in the type of the convolutions."""
        x = as_convolved(field.blocks(in_convolved_type(images[:, 0]), 2).movedim(-1, 1))
        features = [x := block(x) for block in self.down]
        for level in reversed(range(len(self.up))):
            first, *others = cast(nn.Sequential, self.up[level])
            x = convolve_upsampled(cast(Convolution, first), x, features[level])
            for layer in others:
                x = layer(x)
        return cast(Tensor, self.embed(x))

    def classify(self, embedded: Tensor) -> Tensor:
        """Log-odds (N, classes) of embeddings (N, C)."""
        with torch.autocast(embedded.device.type, enabled=False):
            return self.log_scale.exp() * (embedded @ self.directions.T) + self.classes.bias

    @property
    def directions(self) -> Tensor:
        """The vectors of the classes, (classes, C), of length one."""
        return F.normalize(self.classes.weight.float(), dim=1)


def _holds_brain(images: Tensor, factor: int) -> Tensor:
    """Whether any voxel is positive in each block of (B, 1, X, Y, Z); (B, X / factor, ...)."""
    x = images[:, 0]
    for axis in (1, 2, 3):  # faster than F.max_pool3d
        x = reduce(torch.maximum, x.unflatten(axis, (-1, factor)).unbind(axis + 1))
    return x > 0


def _norm(width: int, has_norm: bool) -> list[nn.Module]:
    """Instance norm; the finest level has none, because it would take as long as a convolution."""
    return [nn.GroupNorm(width, width)] if has_norm else []


class StructureMaps(nn.Module):
    """Maps that are similar where two images show the same structures, for a descent to compare.

    The network estimates, for every voxel at half resolution, the probabilities of the structures;
    it learns this from single scans with label maps. A random projection reduces the probabilities
    to a few maps and approximately preserves their distances (Johnson & Lindenstrauss, 1984).

    Args:
        structures: number of structures without the background.
        channels: numbers of channels of the U-Net at 1/2, 1/4, ... of the resolution.
        maps: number of maps.
        weight: of half the squared difference of the maps; the squared local correlation of the
            images has weight 1.
        mirror: what mirrored images show; None: the network is not used on them.
    """

    projection: Tensor

    def __init__(
        self,
        structures: int,
        channels: Sequence[int],
        *,
        maps: int,
        weight: int,
        mirror: Mirror | None = None,
    ):
        super().__init__()
        if mirror is not None and sorted(mirror.classes) != list(range(structures + 1)):
            raise ValueError("mirror.classes must hold each class once, the background among them")
        self.network = SegmentationNetwork(channels, structures + 1)
        self.weight, self.mirror = float(weight), mirror
        generator = torch.Generator().manual_seed(0)
        projection = torch.randn(structures + 1, maps, generator=generator) / maps**0.5
        self.register_buffer("projection", projection)

    def forward(self, images: Tensor, factor: int) -> Segmentation:
        """Maps (B, maps, X / factor, ...) of images (B, 1, X, Y, Z), and how sure they are.

        If the factor is above 2, the embeddings are averaged before they are classified: that is
        nearly as good as averaging the maps, in an eighth of the time.
        """
        return self._segmentation(images, factor, self.projection)

    def with_mirrored(self, found: Segmentation, images: Tensor, factor: int) -> Segmentation:
        """The mean of a segmentation of images and of that of the same images mirrored.

        The second look finds what the first missed: on val subjects, the mean Dice of the
        structures was 0.701 instead of 0.692 (benchmarks/tries.csv has the registrations).
        Without ``mirror``, ``found`` is returned.

        Args:
            found: what ``forward`` returned.
            images, factor: see ``forward``.
        """
        if self.mirror is None:
            return found
        axis = 2 + self.mirror.axis
        projection = self.projection[list(self.mirror.classes)]
        other = self._segmentation(images.flip(axis), factor, projection)
        maps = (found.maps + other.maps.flip(axis)) / 2
        return Segmentation(maps, (found.unsure + other.unsure) / 2)

    def _segmentation(self, images: Tensor, factor: int, projection: Tensor) -> Segmentation:
        features = self.network.features(images)
        inside = _holds_brain(images, 2)
        unsure = [self._unsure(*sample) for sample in zip(features, inside, strict=True)]
        normalise = factor == 2  # else before the average
        if not normalise:
            features = field.averaged(F.normalize(features.float(), dim=1), factor // 2)
            inside = _holds_brain(images, factor)
        is_compiled = not torch.is_grad_enabled() and compiled.can_take(images)
        project = self._compiled if is_compiled else self._project
        samples = zip(features, inside, strict=True)
        maps = torch.stack([project(*one, projection, normalise=normalise) for one in samples])
        return Segmentation(maps, torch.stack(unsure))

    def _unsure(self, features: Tensor, inside: Tensor) -> Tensor:
        """The share of unsure voxels of one image, from features (C, X, Y, Z); 1 without brain."""
        some = (..., *(slice(STRIDE // 2, None, STRIDE),) * 3)
        voxels = features[some][:, inside[some]].T
        if not len(voxels):
            return features.new_ones((), dtype=torch.float32)
        odds = self.network.classify(F.normalize(voxels.float(), dim=1))
        return (odds.softmax(dim=1).amax(dim=1) < 0.5).float().mean()

    def _compiled(
        self, features: Tensor, inside: Tensor, projection: Tensor, *, normalise: bool
    ) -> Tensor:
        """As ``_project``, by compiled kernels."""
        with torch.autocast("cpu", enabled=False):
            return compiled.class_maps(
                features,
                inside,
                normalise=normalise,
                directions=self.network.log_scale.exp() * self.network.directions,
                bias=self.network.classes.bias,
                projection=projection,
            )

    def _project(
        self, features: Tensor, inside: Tensor, projection: Tensor, *, normalise: bool
    ) -> Tensor:
        """Maps (maps, X, Y, Z) of features (C, X, Y, Z); outside the brain, the background's."""
        with torch.autocast(features.device.type, enabled=False):
            maps = projection[0].expand(*inside.shape, -1).clone()
            voxels = features[:, inside].T.float()
            voxels = F.normalize(voxels, dim=1) if normalise else voxels
            odds = (self.network.classify(part) for part in voxels.split(2**15))
            maps[inside] = torch.cat([o.softmax(dim=1) @ projection for o in odds])
            return maps.movedim(-1, 0).contiguous()
