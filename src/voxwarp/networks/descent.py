"""Registration of one pair by descent: small diffeomorphic steps, from coarse to fine.

Each step composes the deformation with a small one, φ ← φ ∘ (Id + δ), where δ follows a smoothed
force that makes the moved image more similar to the fixed one; the displacement is then smoothed a
little. This is the scheme of greedy (Yushkevich et al., doi:10.1016/j.neuroimage.2007.12.045, in
its later releases), SyN (Avants et al., doi:10.1016/j.media.2007.06.004) and the diffeomorphic
demons (Vercauteren et al., doi:10.1016/j.neuroimage.2008.10.040). Unlike theirs, the length of the
steps is evened out over the image: where the force is weak, δ is proportional to it; where it is
strong, δ approaches an upper bound. So few steps are enough.

Where a comment says that a setting was compared, the scores are in ``benchmarks/tries.csv``.
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
    """Maps of both images that the descent aligns together with the intensities.

    Args:
        moving, fixed: (B, C, X / f, Y / f, Z / f), where f is a whole number.
        weight: of half the squared difference of the maps; the squared local correlation of the
            images has weight 1.
    """

    moving: Tensor
    fixed: Tensor
    weight: float

    def select(self, samples: slice) -> "Features":
        """The maps of some pairs of the batch."""
        return Features(self.moving[samples], self.fixed[samples], self.weight)


@dataclass(frozen=True)
class Stage:
    """Steps at one resolution.

    Args:
        factor: the grid of the stage has voxels ``factor`` times as wide as the images'; 2^k.
        steps: at most this many.
        smoothing: sigma of the Gaussian that smooths the displacement after each step, in voxels
            of the stage's grid.
        step_length: upper bound of the length of a step, in voxels of the stage's grid.
    """

    factor: int
    steps: int
    # Compared at 2 mm: 0.35, 0.42, 0.5, 0.6 and 0.7. 0.42 is the smallest without folds.
    smoothing: float = 0.42
    # Set by hand; at 2 mm no other length was compared without a segmentation.
    step_length: float = 0.3


@dataclass(frozen=True)
class DescentSettings:
    """Settings of a descent.

    Args:
        stages: from coarse to fine.
        window: edge of the windows of the local correlation, odd, in voxels of each stage's grid.
        force_smoothing: sigma of the Gaussian that smooths the force, in voxels of each stage's
            grid.
        tolerance: a stage ends when a step increases the similarity (the mean squared correlation
            minus the weighted squared difference of the features) by less than this.
        min_determinant: lower bound of the Jacobian determinant in the result.
    """

    stages: Sequence[Stage]
    window: int = 3  # compared: the best of 3, 5 and 7
    force_smoothing: float = 1.3  # compared: better than 1.73, 2 and 2.4
    # Between two scans of one subject, what remains to gain is soon only noise. The value was set
    # by hand; 1e-3 was used for a while, and no row compares the two.
    tolerance: float = 1e-4
    # Set by hand: above zero, so that resampling the displacement rarely brings folds.
    min_determinant: float = 0.02

    def smoother(self, factor: float) -> "DescentSettings":
        """The same settings with all Gaussians ``factor`` times as wide."""
        stages = [replace(s, smoothing=s.smoothing * factor) for s in self.stages]
        return replace(self, stages=stages, force_smoothing=self.force_smoothing * factor)


def descend(
    settings: DescentSettings,
    *,
    moving: Tensor,
    fixed: Tensor,
    start: tuple[Tensor, Tensor] | None = None,
    features: Features | None = None,
    weight: Tensor | None = None,
    deadline: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the displacement that aligns ``moving`` with ``fixed``, and its inverse.

    Each pair of a batch gets exactly what it would get alone.

    Args:
        settings: stages, smoothing and lengths.
        moving, fixed: (B, 1, X, Y, Z), intensities in about [0, 1]; the sides are multiples of
            the coarsest factor.
        start: the initial displacement and its inverse, (B, 3, X, Y, Z), in voxels; by default
            the identity.
        features: further maps to be aligned.
        weight: weights of the forces, (B, 1, X, Y, Z): where they are 0, no force acts, and the
            deformation continues smoothly from the surroundings. By default 1 everywhere.
        deadline: reading of ``time.monotonic`` by which the last step must end.

    Returns:
        The displacement and its inverse, (B, 3, X, Y, Z) each, in voxels. The displacement has
        no determinant below ``settings.min_determinant``; the inverse is accurate to a few
        hundredths of a voxel.
    """
    coarsest = max(stage.factor for stage in settings.stages)
    if any(n % coarsest for n in fixed.shape[2:]):
        raise ValueError(
            f"the sides of the images must be multiples of {coarsest} voxels, got the shape "
            f"{tuple(fixed.shape)}"
        )
    results = []
    with torch.no_grad():
        for i in range(len(fixed)):  # pairs need different numbers of steps
            pair = slice(i, i + 1)
            results.append(
                _descend_pair(
                    settings,
                    moving=moving[pair].float(),
                    fixed=fixed[pair].float(),
                    start=None if start is None else (start[0][pair], start[1][pair]),
                    features=features and features.select(pair),
                    weight=None if weight is None else weight[pair],
                    deadline=deadline,
                )
            )
    displacement, inverse = (torch.cat(fields) for fields in zip(*results, strict=True))
    return displacement, inverse


def _descend_pair(
    settings: DescentSettings,
    *,
    moving: Tensor,
    fixed: Tensor,
    start: tuple[Tensor, Tensor] | None,
    features: Features | None,
    weight: Tensor | None,
    deadline: float | None,
) -> tuple[Tensor, Tensor]:
    """``descend`` for a single pair."""
    factor = settings.stages[0].factor
    if start is None:
        sides = [n // factor for n in fixed.shape[2:]]
        displacement, inverse = (fixed.new_zeros(len(fixed), 3, *sides) for _ in range(2))
    else:
        displacement, inverse = (field.averaged(u, factor) / factor for u in start)
    step_seconds = 0.0
    for stage in settings.stages:
        displacement, inverse = upsampled(displacement, inverse, factor, stage.factor)
        step_seconds *= (factor / stage.factor) ** 3  # proportional to the number of voxels
        factor = stage.factor
        forces = _forces(features, factor, settings, moving=moving, fixed=fixed)
        stage_weight = None if weight is None else field.averaged(weight, factor)
        displacement, inverse, step_seconds = _run_stage(
            displacement, inverse, forces, stage_weight, stage, settings, deadline, step_seconds
        )
    displacement = remove_folds(displacement, min_determinant=settings.min_determinant)
    displacement, inverse = upsampled(displacement, inverse, factor, 1)
    for _ in range(FINAL_CORRECTIONS):
        inverse = field.corrected_inverse(displacement, inverse)
    return displacement, inverse


# Newton steps of the inverse on the images' grid. Set by hand: the error is then about 0.02 voxels.
FINAL_CORRECTIONS = 1


def _run_stage(
    displacement: Tensor,
    inverse: Tensor,
    forces: "Sequence[_CorrelationForce | _DifferenceForce]",
    weight: Tensor | None,
    stage: Stage,
    settings: DescentSettings,
    deadline: float | None,
    step_seconds: float,
) -> tuple[Tensor, Tensor, float]:
    """The displacement and its inverse after a stage, and the seconds that its last step took.

    ``step_seconds`` is the time that the first step is expected to take.
    """
    previous, previous_similarity = (displacement, inverse), -math.inf
    for number in range(1, stage.steps + 1):
        began = time.monotonic()
        if deadline is not None and began + step_seconds > deadline:
            break
        computed = [force(displacement) for force in forces]
        similarity = sum(value for _, value in computed)
        if similarity - previous_similarity < settings.tolerance:
            if similarity < previous_similarity:
                displacement, inverse = previous
            break
        previous, previous_similarity = (displacement, inverse), similarity
        total: Tensor = sum(force for force, _ in computed)  # type: ignore[assignment]
        smoothed = gaussian(total if weight is None else total * weight, settings.force_smoothing)
        step = bounded_step(smoothed, stage.step_length)
        displacement = gaussian(field.compose(displacement, step), stage.smoothing)
        if number % STEPS_PER_CORRECTION == 0:
            inverse = field.corrected_inverse(displacement, inverse)
        step_seconds = time.monotonic() - began
    return displacement, field.corrected_inverse(displacement, inverse), step_seconds


# Steps after which the inverse is corrected. Set by hand: it then stays within about a voxel of the
# exact inverse.
STEPS_PER_CORRECTION = 4


def bounded_step(force: Tensor, step_length: float) -> Tensor:
    """The step δ along a force F, (B, 3, X, Y, Z), with |δ| < ``step_length`` voxels.

    δ = step_length · F / (|F| + 3 mean |F|)
    """
    # Compared: better than steps that are scaled so that the longest has the full length. The 3
    # (a force of mean size makes a quarter of the longest step) was set by hand.
    size = force.square().sum(dim=1, keepdim=True).sqrt_()
    mean = size.mean(dim=(2, 3, 4), keepdim=True)
    return force * (step_length / (size + 3 * mean).clamp_(min=torch.finfo(size.dtype).tiny))


def _forces(
    features: Features | None,
    factor: int,
    settings: DescentSettings,
    *,
    moving: Tensor,
    fixed: Tensor,
) -> "list[_CorrelationForce | _DifferenceForce]":
    """The forces that act on the grid of a stage."""
    images = field.averaged(moving, factor), field.averaged(fixed, factor)
    forces: list[_CorrelationForce | _DifferenceForce] = [
        _CorrelationForce(moving=images[0], fixed=images[1], window=settings.window)
    ]
    if features is not None:
        map_factor = fixed.shape[2] // features.fixed.shape[2]
        averaging = max(factor // map_factor, 1)
        forces.append(
            _DifferenceForce(
                moving=field.averaged(features.moving, averaging),
                fixed=field.averaged(features.fixed, averaging),
                weight=features.weight,
                ratio=max(map_factor // factor, 1),
            )
        )
    return forces


class _CorrelationForce:
    """The force that increases the squared local correlation of the fixed and the moved image.

    cc = A² / (F M), where A, F and M are the covariance and the variances in windows. As in Avants
    et al., the derivative takes only the middle voxel of each window:
    2 A / (F M) · ((f − f̄) − A / M (m − m̄)) ∇m. Compared: the full gradient aligns labels less well.
    """

    # Added to F M: noise of 6 % of the brightest tissue in flat windows counts as no structure.
    # Set by hand; it was 1e-7 (2 %) before, and no row compares the two.
    GUARD = 1e-5
    ROUNDING = 1e-7  # lower bound of M, so that rounding errors are not divided by zero

    def __init__(self, *, moving: Tensor, fixed: Tensor, window: int):
        self.moving, self.fixed, self.window = moving, fixed, window
        moments = window_mean(torch.cat([fixed, fixed * fixed], dim=1), window)
        self.mean, square = moments.split(1, 1)
        self.variance = (square - self.mean.square()).clamp_(min=0)
        self.central = fixed - self.mean

    def __call__(self, displacement: Tensor) -> tuple[Tensor, float]:
        """The force, (B, 3, X, Y, Z), and the mean of cc over all voxels."""
        moved = field.warp(self.moving, displacement, padding="border")
        moments = torch.cat([moved, moved * moved, moved * self.fixed], dim=1)
        mean, square, product = window_mean(moments, self.window).split(1, 1)
        variance = square.addcmul(mean, mean, value=-1).clamp_(min=0)
        covariance = product.addcmul(mean, self.mean, value=-1)
        ratio = covariance / variance.clamp(min=self.ROUNDING)  # A / M
        slope = covariance / (self.variance * variance).add_(self.GUARD)
        cc = covariance.mul_(slope)
        slope.masked_fill_(cc > 1, 0)  # only rounding errors make it larger than 1
        factor = slope.mul_(self.central.addcmul(ratio, moved - mean, value=-1)).mul_(2)
        return _along_gradient(factor, moved), float(cc.clamp_(max=1).mean())


class _DifferenceForce:
    """The force that decreases the squared difference of maps, w (f − m) ∇m.

    Args:
        moving, fixed: the maps.
        weight: w.
        ratio: width of a voxel of the maps, in voxels of the stage's grid.
    """

    def __init__(self, *, moving: Tensor, fixed: Tensor, weight: float, ratio: int):
        self.moving, self.fixed, self.weight, self.ratio = moving, fixed, weight, ratio

    def __call__(self, displacement: Tensor) -> tuple[Tensor, float]:
        """The force on the stage's grid, (B, 3, X, Y, Z), and −w/2 mean |f − m|²."""
        shape = displacement.shape[2:]
        if self.ratio > 1:
            displacement = field.averaged(displacement, self.ratio) / self.ratio
        moved = field.warp(self.moving, displacement, padding="border")
        difference = self.fixed - moved
        force = _along_gradient(difference, moved).mul_(self.weight)
        if self.ratio > 1:
            force = F.interpolate(force, size=shape, mode="trilinear") / self.ratio
        return force, -self.weight / 2 * float(difference.square_().sum(dim=1).mean())


def _along_gradient(weights: Tensor, image: Tensor) -> Tensor:
    """Σ over channels of weight · ∇image, (B, 3, X, Y, Z)."""
    differences = (field.difference(image, axis) for axis in (2, 3, 4))
    return torch.stack([(weights * d).sum(dim=1) for d in differences], dim=1)


def upsampled(
    displacement: Tensor, inverse: Tensor, factor: int, target: int
) -> tuple[Tensor, Tensor]:
    """Upsample fields from the grid of one factor to the grid of a smaller one, ``target``."""
    while factor > target:
        displacement, inverse = field.upsample(displacement), field.upsample(inverse)
        factor //= 2
    return displacement, inverse


# Voxels. Folds are smoothed in blocks, to save time, together with their surroundings: a dilation
# by 2 voxels and a Gaussian that is truncated at 4 reach 6 voxels far.
BLOCK, REACH = 16, 6


def remove_folds(displacement: Tensor, *, min_determinant: float, rounds: int = 40) -> Tensor:
    """Smooth a displacement, (B, 3, X, Y, Z), where its determinant is below ``min_determinant``.

    Around such voxels, and nowhere else, the displacement is blended with a smoothed one, in at
    most ``rounds`` rounds (set by hand), until no such voxel is left by any kind of differences.
    """
    displacement = displacement.clone()
    folded = smallest_determinant(displacement) < min_determinant
    for _ in range(rounds):
        if not folded.any():
            break
        for sample, (x, y, z) in _regions(folded):
            part = displacement[sample : sample + 1, :, x, y, z]  # a view
            mask = folded[sample : sample + 1, None, x, y, z].float()
            blend = gaussian(F.max_pool3d(mask, 5, 1, 2), 1.0)
            # Voxels that change, and those that are checked, have all their neighbours in the part.
            changed, checked = (_inner((x, y, z), folded.shape[1:], by) for by in (2, 1))
            part[changed] += (blend * (gaussian(part, 1.0) - part))[changed]
            determinant = smallest_determinant(part)[0]
            folded[sample, x, y, z][checked] = determinant[checked] < min_determinant
    return displacement


def _regions(mask: Tensor) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Sample and slices of blocks of (B, X, Y, Z) that hold all true voxels, with a margin."""
    voxels = mask.nonzero()
    blocks = torch.unique(torch.cat([voxels[:, :1], voxels[:, 1:] // BLOCK], dim=1), dim=0)
    for sample, *corner in blocks.tolist():
        region = tuple(
            slice(max(BLOCK * i - REACH, 0), min(BLOCK * (i + 1) + REACH, n))
            for i, n in zip(corner, mask.shape[1:], strict=True)
        )
        yield sample, region


def _inner(region: Sequence[slice], shape: Sequence[int], by: int) -> field.Crop:
    """The slices of a region without ``by`` voxels at its ends, except at the ends of the grid."""
    slices = (
        slice(by if s.start > 0 else 0, s.stop - s.start - (by if s.stop < n else 0))
        for s, n in zip(region, shape, strict=True)
    )
    return (..., *slices)


def smallest_determinant(displacement: Tensor) -> Tensor:
    """The smallest det(I + ∇u) by forward, backward and central differences, (B, X, Y, Z)."""
    smallest = field.jacobian_determinant(displacement, differences="forward")
    for differences in ("backward", "central"):
        other = field.jacobian_determinant(displacement, differences=differences)
        smallest = torch.minimum(smallest, other)
    return smallest
