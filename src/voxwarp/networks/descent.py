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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..fields import compiled, field
from ..fields.box import Box
from ..fields.filters import gaussian
from ..fields.folds import remove_folds
from .forces import CorrelationForce, DifferenceForce


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

    def averaged(self, factor: int) -> "Features":
        """The mean of the maps in blocks of ``factor``³ voxels."""
        moving, fixed = (field.averaged(maps, factor) for maps in (self.moving, self.fixed))
        return Features(moving, fixed, self.weight)


class Weights(NamedTuple):
    """Weights of the forces: where one is 0, nothing pulls, as in a lesion.

    There the deformation continues smoothly from the surroundings.

    Args:
        fixed: of voxels of the fixed image, (B, 1, X, Y, Z).
        moving: of voxels of the moving image, of the same shape, or None for 1 everywhere; they
            move with it.
    """

    fixed: Tensor
    moving: Tensor | None = None

    def select(self, samples: slice) -> "Weights":
        """The weights of some pairs of the batch."""
        return self._each(lambda weight: weight[samples])

    def averaged(self, factor: int) -> "Weights":
        """The mean weight of the voxels behind each voxel of a stage's grid."""
        return self._each(lambda weight: field.averaged(weight, factor))

    def weigh(self, force: Tensor, displacement: Tensor) -> Tensor:
        """The force with these weights, where the moving image is displaced."""
        weighted = force * self.fixed
        if self.moving is None:
            return weighted
        return weighted * field.warp(self.moving, displacement, padding="border")

    def cropped(self, box: Box) -> "Weights":
        """The weights in a box; beyond the images, that of their border."""
        return self._each(lambda weight: box.crop(weight, border=True))

    def to(self, device: torch.device) -> "Weights":
        """The weights on a device."""
        return self._each(lambda weight: weight.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Weights":
        return Weights(change(self.fixed), None if self.moving is None else change(self.moving))


@dataclass(frozen=True)
class Stage:
    """Steps at one resolution.

    Args:
        factor: the grid of the stage has voxels ``factor`` times as wide as the images'; 2^k.
        steps: at most this many.
        smoothing: sigma of the Gaussian that smooths the displacement after each step, in voxels
            of the stage's grid.
        step_length: upper bound of the length of a step without momentum, in voxels of the stage's
            grid.
        momentum: share of the direction of the step before that is added to each direction, from 0
            to below 1 (Polyak's heavy ball, doi:10.1016/0041-5553(64)90137-5).
        force_smoothing: sigma of the Gaussian that smooths the force, in voxels of the stage's
            grid.
    """

    factor: int
    steps: int
    # Compared at 2 mm: 0.35, 0.42, 0.5, 0.6 and 0.7. 0.42 is the smallest without folds.
    smoothing: float = 0.42
    # Set by hand; at 2 mm no other length was compared without a segmentation.
    step_length: float = 0.3
    momentum: float = 0.0
    force_smoothing: float = 1.3  # compared: better than 1.73, 2 and 2.4


@dataclass(frozen=True)
class DescentSettings:
    """Settings of a descent.

    Args:
        stages: from coarse to fine.
        window: edge of the windows of the local correlation, odd, in voxels of each stage's grid.
        tolerance: a stage ends when a step increases the similarity (the mean squared correlation
            minus the weighted squared difference of the features) by less than this.
        halvings: a step that decreases it is taken back, and a stage goes on with steps of half the
            length, so many times; then it ends.
        min_determinant: lower bound of the Jacobian determinant in the result.
    """

    stages: Sequence[Stage]
    window: int = 3  # compared: the best of 3, 5 and 7
    # Between two scans of one subject, what remains to gain is soon only noise. The value was set
    # by hand; 1e-3 was used for a while, and no row compares the two.
    tolerance: float = 1e-4
    # Between two scans of one subject, the first steps are too long. Halving them for ever does not
    # help, as the smoothing after each makes the images a little less similar. Compared: 0 to 3.
    halvings: int = 2
    # Set by hand: above zero, so that resampling the displacement rarely brings folds.
    min_determinant: float = 0.02

    def smoother(self, factor: float) -> "DescentSettings":
        """The same settings with all Gaussians ``factor`` times as wide."""
        stages = [
            replace(
                stage,
                smoothing=stage.smoothing * factor,
                force_smoothing=stage.force_smoothing * factor,
            )
            for stage in self.stages
        ]
        return replace(self, stages=stages)


def descend(
    settings: DescentSettings,
    *,
    moving: Tensor,
    fixed: Tensor,
    start: Tensor | None = None,
    features: Features | None = None,
    weights: Weights | None = None,
    deadline: float | None = None,
) -> Tensor:
    """Find the displacement that aligns ``moving`` with ``fixed``.

    Each pair of a batch gets exactly what it would get alone.

    Args:
        settings: stages, smoothing and lengths.
        moving, fixed: (B, 1, X, Y, Z), intensities in about [0, 1]; the sides are multiples of
            the coarsest factor.
        start: the initial displacement, (B, 3, X, Y, Z), in voxels; by default the identity.
        features: further maps to be aligned.
        weights: of the forces; by default 1 everywhere.
        deadline: reading of ``time.monotonic`` by which the last step must end.

    Returns:
        The displacement, (B, 3, X, Y, Z), in voxels, with no determinant below
        ``settings.min_determinant``.
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
                    start=None if start is None else start[pair],
                    features=features and features.select(pair),
                    weights=weights and weights.select(pair),
                    deadline=deadline,
                )
            )
    return torch.cat(results)


def _descend_pair(
    settings: DescentSettings,
    *,
    moving: Tensor,
    fixed: Tensor,
    start: Tensor | None,
    features: Features | None,
    weights: Weights | None,
    deadline: float | None,
) -> Tensor:
    """``descend`` for a single pair."""
    factor = settings.stages[0].factor
    if start is None:
        displacement = fixed.new_zeros(1, 3, *(n // factor for n in fixed.shape[2:]))
    else:
        displacement = field.averaged(start, factor) / factor
    forces = _forces(settings, features, moving=moving, fixed=fixed)
    step_seconds = 0.0
    for stage in settings.stages:
        displacement = upsampled(displacement, factor, stage.factor)
        step_seconds *= (factor / stage.factor) ** 3  # proportional to the number of voxels
        factor = stage.factor
        on_grid = weights and weights.averaged(factor)
        displacement, step_seconds = _run_stage(
            displacement, forces[factor], on_grid, stage, settings, deadline, step_seconds
        )
    displacement = remove_folds(displacement, min_determinant=settings.min_determinant)
    return upsampled(displacement, factor, 1)


def _run_stage(
    displacement: Tensor,
    forces: Sequence[CorrelationForce | DifferenceForce],
    weights: Weights | None,
    stage: Stage,
    settings: DescentSettings,
    deadline: float | None,
    step_seconds: float,
) -> tuple[Tensor, float]:
    """The displacement after a stage, and the seconds that its last step took.

    ``step_seconds`` is the time that the first step is expected to take.
    """
    best, best_pull, best_similarity = displacement, Tensor(), -math.inf
    momentum, shortest = Momentum(stage.momentum), stage.step_length / 2**settings.halvings
    for left in reversed(range(stage.steps)):
        began = time.monotonic()
        if deadline is not None and began + step_seconds > deadline:
            break
        total, similarity = None, 0.0
        for force in forces:
            total, value = force(displacement, total)
            similarity += value
        gain = similarity - best_similarity
        if gain < min(settings.tolerance, 0):  # the step was too long: a shorter one in its place
            displacement = best
            if stage.step_length <= shortest or not left:  # none is kept that may be too long
                break
            stage = replace(stage, step_length=stage.step_length / 2)
            momentum = Momentum(stage.momentum)
        elif gain < settings.tolerance:
            break
        else:
            assert total is not None  # at least the images pull
            best_pull = total if weights is None else weights.weigh(total, displacement)
            best, best_similarity = displacement, similarity
        displacement = take_step(best, best_pull, stage, momentum)
        step_seconds = time.monotonic() - began
    return displacement, step_seconds


class Momentum:
    """The direction of the last step of a stage, of which a share is added to that of the next.

    Args:
        share: from 0 to below 1.
    """

    def __init__(self, share: float):
        self.share = share
        self._direction: Tensor | None = None
        self._extents: np.ndarray | None = None

    def add_to(self, direction: Tensor) -> Tensor:
        """The direction with the share of the last one; it is the last one from now on."""
        if not self.share:
            return direction
        if self._direction is not None:
            direction = direction + self.share * self._direction
        self._direction = direction
        return direction

    def take_step(
        self, displacement: Tensor, force: compiled.SmoothedForce, length: float
    ) -> Tensor:
        """``compiled.take_step`` with the direction, which this step changes."""
        if not self.share:
            return compiled.take_step(displacement, force, length)
        if self._direction is None:
            self._direction = torch.zeros_like(displacement)
        force = force.joined(self._extents)
        self._extents = force.extents
        return compiled.take_step(displacement, force, length, self._direction, self.share)


def take_step(
    displacement: Tensor,
    force: Tensor,
    stage: Stage,
    momentum: Momentum | None = None,
) -> Tensor:
    """The smoothed displacement of φ ∘ (Id + δ), where δ follows the smoothed force.

    Args:
        displacement: that of φ, (B, 3, X, Y, Z), voxels.
        force: (B, 3, X, Y, Z), per voxel.
        stage: length of the step, and smoothing of the force and of the displacement.
        momentum: of the steps of the stage so far; None: this is the first.
    """
    momentum = momentum or Momentum(0.0)
    smoothing = stage.force_smoothing
    if smoothing > 0 and len(force) == 1 and compiled.can_take(displacement, force):
        smoothed = compiled.smooth_force(force, smoothing)
        moved = momentum.take_step(displacement, smoothed, stage.step_length)
    else:
        direction = momentum.add_to(bounded_step(gaussian(force, smoothing), 1.0))
        moved = field.compose(displacement, stage.step_length * direction)
    return gaussian(moved, stage.smoothing)


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
    settings: DescentSettings, features: Features | None, *, moving: Tensor, fixed: Tensor
) -> dict[int, list[CorrelationForce | DifferenceForce]]:
    """The forces that act on the grids of the stages, by their factor."""
    found: dict[int, list[CorrelationForce | DifferenceForce]] = {}
    factor_of_maps = fixed.shape[2] // features.fixed.shape[2] if features else 0
    before = 1
    for factor in sorted(stage.factor for stage in settings.stages):
        # Each grid is averaged from the one before.
        moving, fixed = (field.averaged(image, factor // before) for image in (moving, fixed))
        found[factor] = [CorrelationForce(moving=moving, fixed=fixed, window=settings.window)]
        if features:
            features = features.averaged(max(factor // factor_of_maps, 1))
            factor_of_maps = max(factor, factor_of_maps)
            ratio = factor_of_maps // factor
            found[factor].append(DifferenceForce(**features._asdict(), ratio=ratio))
        before = factor
    return found


def upsampled(displacement: Tensor, factor: int, target: int) -> Tensor:
    """Upsample a field from the grid of one factor to the grid of a smaller one, ``target``."""
    while factor > target:
        displacement = field.upsample(displacement)
        factor //= 2
    return displacement
