"""The registration functions g_θ: VoxelMorph-1 and -2, and two that predict a velocity.

A network reads (moving, fixed), two (B, 1, X, Y, Z) tensors of intensities in [0, 1], of any
size, and returns a ``Deformation`` on the same lattice. Balakrishnan et al., CVPR 2018,
Figure 3; Dalca et al., MICCAI 2018, for the velocity.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fields import field
from ..fields.box import Box
from .descent import Features, Plan, Stage, descend


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


class Deformation(NamedTuple):
    """φ = Id + u and its inverse, displacements in voxels, (B, 3, X, Y, Z).

    ``regularity`` is the field whose roughness the training penalises: the velocity where
    there is one, else the displacement.
    """

    displacement: Tensor
    inverse: Tensor | None
    regularity: Tensor


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
        self.flow = _near_zero(width, std=1e-5)

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


class VoxelMorph(nn.Module):
    """VoxelMorph of CVPR 2018: the U-Net's output is the displacement u, in voxels.

    VoxelMorph-1 has the decoder 32-32-32-32-8-8, VoxelMorph-2 has 32-32-32-32-32-16-16.
    """

    def __init__(
        self,
        encoder: Sequence[int] = (16, 32, 32, 32),
        decoder: Sequence[int] = (32, 32, 32, 32, 8, 8),
    ):
        super().__init__()
        self.unet = UNet(encoder, decoder, full_resolution=True)

    def forward(self, moving: Tensor, fixed: Tensor) -> Deformation:
        """The deformation that pulls ``moving`` onto ``fixed``; no inverse is known."""
        pair, crop = field.padded(torch.cat([moving, fixed], dim=1), 2**self.unet.levels)
        displacement = self.unet(pair).float()[crop]
        return Deformation(displacement, None, displacement)


class DiffeomorphicVoxelMorph(nn.Module):
    """A U-Net that predicts a stationary velocity v at half resolution; φ = exp(v).

    The velocity is made antisymmetric, v(m, f) = (g(m, f) − g(f, m)) / 2. Hence exchanging the
    images exchanges φ and its inverse exp(−v), and an image registered to itself does not move.

    Args:
        encoder, decoder: channels, as in ``UNet``.
        steps: squarings of the exponential.
    """

    def __init__(
        self,
        encoder: Sequence[int] = (16, 32, 32, 32),
        decoder: Sequence[int] = (32, 32, 32, 32, 32),
        *,
        steps: int = 7,
    ):
        super().__init__()
        self.unet = UNet(encoder, decoder, full_resolution=False)
        self.steps = steps

    def velocity(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """The velocity v of the padded pair, at half resolution and in voxels of that."""
        pair, _ = field.padded(torch.cat([moving, fixed], dim=1), 2**self.unet.levels)
        there, back = self.unet(torch.cat([pair, pair.flip(1)])).float().chunk(2)
        return (there - back) / 2

    def forward(self, moving: Tensor, fixed: Tensor) -> Deformation:
        """The deformation that pulls ``moving`` onto ``fixed``, its inverse and its velocity."""
        return _integrated(self.velocity(moving, fixed), moving.shape[2:], self.steps)


class VelocityPyramid(nn.Module):
    """A coarse-to-fine network with one stream an image; v at half resolution, φ = exp(v).

    Both images pass one encoder. From the coarsest level up, the features of both are pulled
    to the middle of the deformation so far, a = m∘exp(v/2) and b = f∘exp(−v/2), compared by
    local correlation, and a residual g is added: v ← v + (g(a, b) − g(b, a)) / 2. The velocity
    is antisymmetric as that of ``DiffeomorphicVoxelMorph`` is, with the same consequences.

    Between the levels the velocity is resized from end voxel to end voxel, although averaging and
    strides put their voxels elsewhere, by up to one; the residuals have learnt to make up for it
    on the lattice that they were trained on.

    Warping and correlation at every level after PWC-Net (doi:10.1109/CVPR.2018.00931), residual
    velocities after LapIRN (doi:10.1007/978-3-030-59716-0_21).

    Args:
        channels: of the encoder's levels at 1/2, 1/4, ... of the resolution.
        steps: squarings of the exponential.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 32, 32, 32), *, steps: int = 7):
        super().__init__()
        self.steps = steps
        self.encoder = nn.ModuleList()
        for before, width in zip((1, *channels), channels, strict=False):
            first = _convolution(before, width, stride=1 if before == 1 else 2)
            # One channel a group is instance norm, by the kernel that keeps channels last.
            norm = nn.GroupNorm(width, width)
            self.encoder.append(
                nn.Sequential(first, _act(), _convolution(width, width), norm, _act())
            )
        self.residual = nn.ModuleList()
        for level, width in enumerate(channels):
            seen, hidden = 2 * width + (27 if level else 0), max(16, width)
            both = _convolution(seen, hidden), _act(), _convolution(hidden, hidden), _act()
            self.residual.append(nn.Sequential(*both, _near_zero(hidden, std=1e-4)))

    def velocity(self, moving: Tensor, fixed: Tensor, *, finest: int = 0) -> Tensor:
        """The velocity v of the padded pair, at half resolution and in voxels of that.

        ``finest`` leaves out as many of the finest levels, for a first phase of training.
        """
        images, _ = field.padded(torch.cat([moving, fixed]), 2 ** len(self.encoder))
        x = F.avg_pool3d(images, 2).contiguous(memory_format=torch.channels_last_3d)
        features = [x := block(x) for block in self.encoder]
        velocity = self._residual(len(features) - 1, features[-1])
        for level in reversed(range(finest, len(features) - 1)):
            shape = features[level].shape[2:]
            middle = field.exponentiate(
                torch.cat([velocity, -velocity]) / 2, steps=max(self.steps - 2, 1)
            )
            pulled = field.warp(
                features[level].float(), field.resize(middle, shape), padding="border"
            )
            residual = self._residual(level, pulled.to(features[level].dtype))
            velocity = field.resize(velocity, shape) + residual
        return velocity

    def _residual(self, level: int, features: Tensor) -> Tensor:
        """(g(a, b) − g(b, a)) / 2 for features (a, b) stacked as a batch."""
        features = features.contiguous(memory_format=torch.channels_last_3d)
        other = features.roll(len(features) // 2, dims=0)  # b beside a, a beside b
        seen = [features, other]
        if level:
            seen.append(local_correlation(features, other))
        there, back = self.residual[level](torch.cat(seen, dim=1)).float().chunk(2)
        return (there - back) / 2

    def forward(self, moving: Tensor, fixed: Tensor) -> Deformation:
        """The deformation that pulls ``moving`` onto ``fixed``, its inverse and its velocity."""
        return _integrated(self.velocity(moving, fixed), moving.shape[2:], self.steps)


class PairDescent(nn.Module):
    """Optimisation of one pair, coarse to fine, in a network's place: see ``descent``.

    It has no weights, so it has no opinion of what scans look like.

    Args:
        steps: at most, on the lattices of 1/2^n, ..., 1/4, 1/2 of the resolution.
        full_steps: at most, at the full resolution, then.
    """

    LENGTH, SMOOTHING = 0.3, 0.42  # of the stages but for the last, see ``descent.Stage``

    def __init__(self, *, steps: Sequence[int] = (16, 20, 20), full_steps: int = 0):
        super().__init__()
        if not steps:
            raise ValueError("steps: a number for each lattice is wanted")
        self.steps, self.full_steps = tuple(steps), full_steps
        self.factor = 2

    @property
    def multiple(self) -> int:
        """What the sides of the images are padded to multiples of."""
        return max(2 ** len(self.steps), self.factor)

    def features(self, moving: Tensor, fixed: Tensor, factor: int) -> Features | None:
        """What else than the images is to become alike: nothing."""
        return None

    def forward(self, moving: Tensor, fixed: Tensor, *, smoothness: float = 1.0) -> Deformation:
        """The deformation that pulls ``moving`` onto ``fixed`` and its inverse.

        Args:
            moving, fixed: (B, 1, X, Y, Z), intensities in [0, 1].
            smoothness: factor of the widths of the Gaussians that smooth.
        """
        factors = [2**k for k in range(len(self.steps), 0, -1)]
        coarse = zip(factors, self.steps, strict=True)
        stages = [Stage(f, n, self.SMOOTHING, self.LENGTH) for f, n in coarse]
        stages += [Stage(1, self.full_steps, length=0.5)] if self.full_steps else []
        plan = Plan(stages).smoother(smoothness)
        return self.descended(moving, fixed, plan, factor=self.factor)

    def descended(
        self,
        moving: Tensor,
        fixed: Tensor,
        plan: Plan,
        *,
        start: tuple[Tensor, Tensor] | None = None,
        until: float | None = None,
        factor: int = 2,
    ) -> Deformation:
        """The same by another plan, from another start: see ``descent.descend``.

        ``factor`` is that of the lattice on which what is recognised is compared.
        """
        box = Box.around(moving, fixed, multiple=self.multiple)
        pair = box.take(moving), box.take(fixed)
        if start is not None:
            start = box.take(start[0], border=True), box.take(start[1], border=True)
        ways = descend(*pair, plan, start=start, features=self.features(*pair, factor), until=until)
        displacement, inverse = (box.put_back(way) for way in ways)
        return Deformation(displacement, inverse, displacement)


class AnatomyDescent(PairDescent):
    """Descent on the images and on what a U-Net recognises in them.

    The network tells of every voxel at half resolution which structures it may be part of. It has
    learnt that from label maps, scan by scan. The descent makes both alike: the images by their
    local correlation, the probabilities of the structures by their squared difference.

    Args:
        structures: how many the network tells apart, beside the background.
        channels: of the U-Net's levels at 1/2, 1/4, ... of the resolution.
        steps, full_steps: as in ``PairDescent``.
        maps: numbers that stand for the probabilities in the descent: a random projection of
            them, which keeps their distances (Johnson & Lindenstrauss).
        weight: of half the squared difference of the maps, where the squared local correlation
            of the images weighs 1.
        factor: of the lattice on which the maps are compared: 1/factor of the resolution.
    """

    LENGTH, SMOOTHING = 0.4, 0.35  # what is recognised lets steps be longer, and fewer

    projection: Tensor

    def __init__(
        self,
        structures: int = 30,
        channels: Sequence[int] = (16, 32, 48, 48, 48),
        *,
        steps: Sequence[int] = (10, 12, 8),
        full_steps: int = 2,
        maps: int = 6,
        weight: int = 3,
        factor: int = 2,
    ):
        super().__init__(steps=steps, full_steps=full_steps)
        self.factor = factor
        self.recogniser = Recogniser(channels, structures + 1)
        self.weight = weight
        generator = torch.Generator().manual_seed(0)
        projection = torch.randn(structures + 1, maps, generator=generator) / maps**0.5
        self.register_buffer("projection", projection)

    def features(self, moving: Tensor, fixed: Tensor, factor: int) -> Features:
        """The maps of both images, (B, maps, X / factor, ...); the factor is 2 or larger.

        On a coarser lattice than its own the network tells what there is from the mean of what it
        saw: that is nearly as good, for an eighth of the time.
        """
        images = torch.cat([moving, fixed])
        embedded = field.averaged(self.recogniser(images), factor // 2)
        inside = F.max_pool3d(images, factor) > 0
        maps = [self._maps(*of_one) for of_one in zip(embedded, inside[:, 0], strict=True)]
        of_moving, of_fixed = torch.stack(maps).chunk(2)
        return Features(of_moving, of_fixed, float(self.weight))

    def _maps(self, embedded: Tensor, inside: Tensor) -> Tensor:
        """(C, X, Y, Z) to (maps, X, Y, Z); where there is no image, there is the background."""
        with torch.autocast(embedded.device.type, enabled=False):
            maps = self.projection[0].expand(*inside.shape, -1).clone()
            voxels = embedded[:, inside].T
            odds = (self.recogniser.classify(part) for part in voxels.split(2**15))
            maps[inside] = torch.cat([o.softmax(dim=1) @ self.projection for o in odds])
            return maps.movedim(-1, 0).contiguous()


class Recogniser(nn.Module):
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
            first = _convolution(before, width, stride=2 if self.down else 1)
            last = [_convolution(width, width), *_norm(width, bool(self.down)), _act()]
            self.down.append(nn.Sequential(first, _act(), *last))
        for level, (width, below) in enumerate(itertools.pairwise(channels)):
            layers = [_convolution(width + below, width), *_norm(width, level > 0), _act()]
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


def local_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Mean over channels of a(x) b(x + s) for the 27 shifts |s| ≤ 1, b zero outside; (B, 27, …)."""
    around = F.pad(b, (1,) * 6)
    x, y, z = b.shape[2:]
    shifts = itertools.product(range(3), repeat=3)
    products = [
        (a * around[:, :, i : i + x, j : j + y, k : k + z]).mean(dim=1) for i, j, k in shifts
    ]
    return torch.stack(products, dim=1)


def _convolution(before: int, width: int, *, stride: int = 1) -> Convolution:
    convolution = Convolution(before, width, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(convolution.weight, a=0.1)
    nn.init.constant_(convolution.bias, 0.0)  # type: ignore[arg-type]
    return convolution


def _near_zero(before: int, *, std: float) -> Convolution:
    """The last convolution, drawn so small that training starts from the identity."""
    convolution = Convolution(before, 3, 3, padding=1)
    nn.init.normal_(convolution.weight, std=std)
    nn.init.constant_(convolution.bias, 0.0)  # type: ignore[arg-type]
    return convolution


def _act() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.1, inplace=True)


def _integrated(velocity: Tensor, shape: Sequence[int], steps: int) -> Deformation:
    """exp(±v) on the lattice of ``shape`` that the velocity, at half resolution, is around."""
    both = field.exponentiate(torch.cat([velocity, -velocity]), steps=steps)
    full = field.upsample(both)
    displacement, inverse = full[field.crop(shape, full.shape[2:])].chunk(2)
    return Deformation(displacement, inverse, velocity)


NETWORKS: dict[str, type[nn.Module]] = {
    "voxelmorph": VoxelMorph,
    "diffeomorphic": DiffeomorphicVoxelMorph,
    "pyramid": VelocityPyramid,
    "descent": PairDescent,
    "anatomy": AnatomyDescent,
}
