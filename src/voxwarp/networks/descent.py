"""Registration of one pair by descent: small diffeomorphic steps, from coarse to fine.

Each step composes the deformation with a small one, φ ← φ ∘ (Id + δ), where δ follows the force
by which the moved image becomes more like the fixed one, smoothed; then the displacement is
smoothed a little. So do greedy (Yushkevich et al., doi:10.1016/j.neuroimage.2007.12.045, its
later releases), SyN (Avants et al., doi:10.1016/j.media.2007.06.004) and the diffeomorphic demons
(Vercauteren et al., doi:10.1016/j.neuroimage.2008.10.040). Unlike theirs, the length of a step is
levelled out over the image: where the force is weaker than its mean, δ is proportional to it;
where it is stronger, δ tends to a bound. Few steps are needed then.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fields import field
from ..fields.filters import gaussian, window_mean


class Features(NamedTuple):
    """What is alike in two images, beside their intensities.

    Args:
        moving, fixed: (B, C, X / f, Y / f, Z / f), the images' sides divided by a whole number.
        weight: of half their squared difference, where the squared local correlation weighs 1.
    """

    moving: Tensor
    fixed: Tensor
    weight: float

    def of(self, samples: slice) -> "Features":
        """Those of some pairs of the batch."""
        return Features(self.moving[samples], self.fixed[samples], self.weight)


@dataclass(frozen=True)
class Stage:
    """Steps on one lattice.

    Args:
        factor: voxels a side of the images that are averaged to one of the lattice; 2^k.
        steps: at most.
        smoothing: sigma of the Gaussian that smooths the displacement after each step, in
            voxels of the lattice.
        length: bound of a step, voxels of the lattice.
    """

    factor: int
    steps: int
    smoothing: float = 0.42
    length: float = 0.3


@dataclass(frozen=True)
class Plan:
    """How to descend.

    Args:
        stages: from coarse to fine.
        window: edge of the windows of the local correlation, odd, voxels of each lattice.
        force_smoothing: sigma of the Gaussian that smooths the force, voxels of each lattice.
        tolerance: a stage ends when what is to be large, the mean squared correlation less the
            weighted difference of the features, grows by less than this in a step: what is left
            to gain between two scans of one subject is mostly noise.
        least_volume: the determinant that no voxel shall fall below.
    """

    stages: Sequence[Stage]
    window: int = 3
    force_smoothing: float = 1.3
    tolerance: float = 1e-4
    least_volume: float = 0.02

    def smoother(self, factor: float) -> "Plan":
        """The same with Gaussians ``factor`` times as wide."""
        stages = [replace(s, smoothing=s.smoothing * factor) for s in self.stages]
        return replace(self, stages=stages, force_smoothing=self.force_smoothing * factor)


def descend(
    how: Plan,
    *,
    moving: Tensor,
    fixed: Tensor,
    start: tuple[Tensor, Tensor] | None = None,
    features: Features | None = None,
    weight: Tensor | None = None,
    until: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The displacement that pulls ``moving`` onto ``fixed``, and that of its inverse.

    Args:
        moving, fixed: (B, 1, X, Y, Z), intensities in about [0, 1]; sides are multiples of the
            coarsest factor.
        how: stages and lengths.
        start: the displacement to start from and its inverse, (B, 3, X, Y, Z), voxels; the
            identity without.
        features: further maps that are to become alike.
        weight: of the forces, (B, 1, X, Y, Z): where it is 0, nothing pulls, and the deformation
            goes on as its surroundings have it; 1 everywhere without.
        until: the reading of ``time.monotonic`` after which no step shall end.

    Returns:
        (B, 3, X, Y, Z) each, voxels; for each pair of a batch what it is alone. The displacement
        has no determinant below ``how.least_volume``; its inverse is right to some hundredths of
        a voxel.
    """
    coarsest = max(stage.factor for stage in how.stages)
    if any(n % coarsest for n in fixed.shape[2:]):
        raise ValueError(f"sides must be multiples of {coarsest}, got {tuple(fixed.shape)}")
    with torch.no_grad():
        pairs = []
        for i in range(len(fixed)):  # each stops by itself
            one = slice(i, i + 1)
            begin = None if start is None else (start[0][one], start[1][one])
            pairs.append(
                _descended_pair(
                    how,
                    moving=moving[one].float(),
                    fixed=fixed[one].float(),
                    start=begin,
                    features=features and features.of(one),
                    weight=None if weight is None else weight[one],
                    until=until,
                )
            )
    displacement, inverse = (torch.cat(ways) for ways in zip(*pairs, strict=True))
    return displacement, inverse


def _descended_pair(
    how: Plan,
    *,
    moving: Tensor,
    fixed: Tensor,
    start: tuple[Tensor, Tensor] | None,
    features: Features | None,
    weight: Tensor | None,
    until: float | None,
) -> tuple[Tensor, Tensor]:
    """``descend`` for a single pair."""
    factor = how.stages[0].factor
    if start is None:
        sides = [n // factor for n in fixed.shape[2:]]
        displacement, inverse = (fixed.new_zeros(len(fixed), 3, *sides) for _ in range(2))
    else:
        displacement, inverse = (field.averaged(way, factor) / factor for way in start)
    took = 0.0
    for stage in how.stages:
        displacement, inverse = on_lattice(displacement, inverse, factor, stage.factor)
        took *= (factor / stage.factor) ** 3  # as many more voxels
        factor = stage.factor
        forces = _forces(moving, fixed, features, factor, how)
        here = None if weight is None else field.averaged(weight, factor)
        displacement, inverse, took = _descended(
            displacement, inverse, forces, here, stage, how, until, took
        )
    displacement = unfolded(displacement, least=how.least_volume)
    displacement, inverse = on_lattice(displacement, inverse, factor, 1)
    for _ in range(LAST_CORRECTIONS):
        inverse = field.corrected_inverse(displacement, inverse)
    return displacement, inverse


LAST_CORRECTIONS = 1  # of the inverse, on the lattice of the images: 0.02 voxels are left


def _descended(
    displacement: Tensor,
    inverse: Tensor,
    forces: "Sequence[_Correlation | _Difference]",
    weight: Tensor | None,
    stage: Stage,
    how: Plan,
    until: float | None,
    took: float,
) -> tuple[Tensor, Tensor, float]:
    """The displacement and its inverse after the steps of a stage, and the seconds of a step.

    ``took`` are those that the first one is expected to take.
    """
    before, likeness_before = (displacement, inverse), -math.inf
    for number in range(1, stage.steps + 1):
        began = time.monotonic()
        if until is not None and began + took > until:
            break
        found = [force(displacement) for force in forces]
        likeness = sum(of_one for _, of_one in found)
        if likeness - likeness_before < how.tolerance:
            if likeness < likeness_before:
                displacement, inverse = before
            break
        before, likeness_before = (displacement, inverse), likeness
        pull: Tensor = sum(f for f, _ in found)  # type: ignore[assignment]
        force = gaussian(pull if weight is None else pull * weight, how.force_smoothing)
        step = levelled(force, stage.length)
        displacement = gaussian(field.compose(displacement, step), stage.smoothing)
        if number % STEPS_A_CORRECTION == 0:
            inverse = field.corrected_inverse(displacement, inverse)
        took = time.monotonic() - began
    return displacement, field.corrected_inverse(displacement, inverse), took


STEPS_A_CORRECTION = 4  # of the inverse, which so stays within a voxel of the right one


def levelled(force: Tensor, length: float) -> Tensor:
    """The step δ that follows a force F, (B, 3, X, Y, Z): |δ| < ``length`` voxels.

    δ = length · F / (|F| + 3 mean |F|).
    """
    size = force.square().sum(dim=1, keepdim=True).sqrt_()
    mean = size.mean(dim=(2, 3, 4), keepdim=True)
    return force * (length / (size + 3 * mean).clamp_(min=torch.finfo(size.dtype).tiny))


def _forces(
    moving: Tensor, fixed: Tensor, features: Features | None, factor: int, how: Plan
) -> "list[_Correlation | _Difference]":
    """What pulls on the lattice of a stage."""
    images = field.averaged(moving, factor), field.averaged(fixed, factor)
    forces: list[_Correlation | _Difference] = [_Correlation(*images, how.window)]
    if features is not None:
        coarse = fixed.shape[2] // features.fixed.shape[2]
        times = max(factor // coarse, 1)
        maps = field.averaged(features.moving, times), field.averaged(features.fixed, times)
        forces.append(_Difference(*maps, features.weight, max(coarse // factor, 1)))
    return forces


class _Correlation:
    """Force towards a larger squared local correlation of fixed and moved, and its mean.

    cc = A² / (F M) with A, F, M the covariance and the variances in windows. The force takes what
    the voxel in the middle of a window does to cc for all that it does, as Avants et al. do:
    2 A / (F M) · ((f − f̄) − A / M (m − m̄)) ∇m. The full gradient leads to less overlap of labels.
    """

    GUARD = 1e-5  # of F M: noise of 6 % of the brightest tissue in flat windows
    ROUNDING = 1e-7  # of M

    def __init__(self, moving: Tensor, fixed: Tensor, window: int):
        self.moving, self.fixed, self.window = moving, fixed, window
        self.mean, square = window_mean(torch.cat([fixed, fixed * fixed], dim=1), window).split(
            1, 1
        )
        self.variance = (square - self.mean.square()).clamp_(min=0)
        self.central = fixed - self.mean

    def __call__(self, displacement: Tensor) -> tuple[Tensor, float]:
        """(B, 3, X, Y, Z), and the mean of cc over all voxels."""
        moved = field.warp(self.moving, displacement, padding="border")
        moments = torch.cat([moved, moved * moved, moved * self.fixed], dim=1)
        mean, square, product = window_mean(moments, self.window).split(1, 1)
        variance = square.addcmul(mean, mean, value=-1).clamp_(min=0)
        across = product.addcmul(mean, self.mean, value=-1)
        share = across / variance.clamp(min=self.ROUNDING)  # A / M
        slope = across / (self.variance * variance).add_(self.GUARD)
        cc = across.mul_(slope)
        slope.masked_fill_(cc > 1, 0)  # by rounding
        pull = slope.mul_(self.central.addcmul(share, moved - mean, value=-1)).mul_(2)
        return _along_gradient(pull, moved), float(cc.clamp_(max=1).mean())


class _Difference:
    """Force towards a smaller squared difference of maps, w (f − m) ∇m, and minus w/2 of that.

    Args:
        coarse: voxels a side of the stage's lattice to one of the maps.
    """

    def __init__(self, moving: Tensor, fixed: Tensor, weight: float, coarse: int):
        self.moving, self.fixed, self.weight, self.coarse = moving, fixed, weight, coarse

    def __call__(self, displacement: Tensor) -> tuple[Tensor, float]:
        """(B, 3, X, Y, Z), a voxel of the stage's lattice, and −w/2 mean |f − m|²."""
        shape = displacement.shape[2:]
        if self.coarse > 1:
            displacement = field.averaged(displacement, self.coarse) / self.coarse
        moved = field.warp(self.moving, displacement, padding="border")
        left = self.fixed - moved
        force = _along_gradient(left, moved).mul_(self.weight)
        if self.coarse > 1:
            force = F.interpolate(force, size=shape, mode="trilinear") / self.coarse
        likeness = -self.weight / 2 * float(left.square_().sum(dim=1).mean())
        return force, likeness


def _along_gradient(weights: Tensor, image: Tensor) -> Tensor:
    """Σ over channels of weight · ∇image, (B, 3, X, Y, Z)."""
    steps = (field.difference(image, axis) for axis in (2, 3, 4))
    return torch.stack([(weights * step).sum(dim=1) for step in steps], dim=1)


def on_lattice(
    displacement: Tensor, inverse: Tensor, factor: int, wanted: int
) -> tuple[Tensor, Tensor]:
    """Fields of the lattice averaged by ``factor`` on a finer one, averaged by ``wanted``."""
    while factor > wanted:
        displacement, inverse = field.upsample(displacement), field.upsample(inverse)
        factor //= 2
    return displacement, inverse


BLOCK, REACH = 16, 6  # voxels: folds are looked for in blocks, and smoothed with their surroundings


def unfolded(displacement: Tensor, *, least: float, rounds: int = 40) -> Tensor:
    """The displacement smoothed where its determinant is below ``least``, by any differences.

    Around such voxels, and nowhere else, the displacement is blended into a smoother one, again
    and again as long as there are any.
    """
    displacement = displacement.clone()
    folded = least_determinant(displacement) < least
    for _ in range(rounds):
        if not folded.any():
            break
        for sample, (x, y, z) in _regions(folded):
            part = displacement[sample : sample + 1, :, x, y, z]  # a view
            hit = folded[sample : sample + 1, None, x, y, z].float()
            around = gaussian(F.max_pool3d(hit, 5, 1, 2), 1.0)
            # What changes, and what is judged, has all its neighbours in the part.
            changed, judged = (_within((x, y, z), folded.shape[1:], by) for by in (2, 1))
            part[changed] += (around * (gaussian(part, 1.0) - part))[changed]
            folded[sample, x, y, z][judged] = least_determinant(part)[0][judged] < least
    return displacement


def _regions(folded: Tensor) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Parts of the samples of (B, X, Y, Z) that hold all voxels that are true, with some around."""
    at = folded.nonzero()
    blocks = torch.unique(torch.cat([at[:, :1], at[:, 1:] // BLOCK], dim=1), dim=0)
    for sample, *corner in blocks.tolist():
        region = tuple(
            slice(max(BLOCK * i - REACH, 0), min(BLOCK * (i + 1) + REACH, n))
            for i, n in zip(corner, folded.shape[1:], strict=True)
        )
        yield sample, region


def _within(region: Sequence[slice], shape: Sequence[int], by: int) -> field.Crop:
    """The slices of a part without ``by`` voxels at its ends, save where the lattice ends too."""
    slices = (
        slice(by if s.start > 0 else 0, s.stop - s.start - (by if s.stop < n else 0))
        for s, n in zip(region, shape, strict=True)
    )
    return (..., *slices)


def least_determinant(displacement: Tensor) -> Tensor:
    """The smallest det(I + ∇u) by forward, backward and central differences, (B, X, Y, Z)."""
    least = field.jacobian_determinant(displacement, differences="forward")
    for differences in ("backward", "central"):
        other = field.jacobian_determinant(displacement, differences=differences)
        least = torch.minimum(least, other)
    return least
