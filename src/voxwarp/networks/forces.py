"""The forces of a descent, which make the moved image more similar to the fixed one.

A force is called with the displacement so far and the sum of the forces before it. Where compiled
kernels can be used, they compute the same in one pass over the volumes.
"""

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..fields import compiled, field
from ..fields.filters import window_mean


class CorrelationForce:
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
        if compiled.can_take(moving, fixed):
            self.mean, self.variance = compiled.window_moments(fixed, window)
            return
        moments = window_mean(torch.cat([fixed, fixed * fixed], dim=1), window)
        self.mean, square = moments.split(1, 1)
        self.variance = (square - self.mean.square()).clamp_(min=0)

    @cached_property
    def _central(self) -> Tensor:
        return self.fixed - self.mean

    @cached_property
    def _extents(self) -> tuple[np.ndarray, ...]:
        """Where rows of the fixed image vary, where the windows around are, and planes beside."""
        reach, length = self.window // 2, self.fixed.shape[4]
        active = compiled.extents(self.variance[0])
        beside = (max(reach, 1),) * 3
        return active, *(compiled.widened(active, by, length) for by in ((0, reach, reach), beside))

    def __call__(self, displacement: Tensor, onto: Tensor | None = None) -> tuple[Tensor, float]:
        """The force, (B, 3, X, Y, Z), added to ``onto``, and the mean of cc over all voxels."""
        if onto is None and compiled.can_take(self.moving, displacement):
            return self._compiled(displacement)
        moved = field.warp(self.moving, displacement, padding="border")
        moments = torch.cat([moved, moved * moved, moved * self.fixed], dim=1)
        mean, square, product = window_mean(moments, self.window).split(1, 1)
        variance = square.addcmul(mean, mean, value=-1).clamp_(min=0)
        covariance = product.addcmul(mean, self.mean, value=-1)
        ratio = covariance / variance.clamp(min=self.ROUNDING)  # A / M
        slope = covariance / (self.variance * variance).add_(self.GUARD)
        cc = covariance.mul_(slope)
        slope.masked_fill_(cc > 1, 0)  # only rounding errors make it larger than 1
        factor = slope.mul_(self._central.addcmul(ratio, moved - mean, value=-1)).mul_(2)
        return _sum(_along_gradient(factor, moved), onto), float(cc.clamp_(max=1).mean())

    def _compiled(self, displacement: Tensor) -> tuple[Tensor, float]:
        force = torch.empty_like(displacement, memory_format=torch.contiguous_format)
        sums = np.empty(displacement.shape[2])
        compiled.run(
            "correlation_force",
            len(sums),
            *(x[0, 0] for x in (self.moving, self.fixed, self.mean, self.variance)),
            *(displacement[0], self.window, np.float32(self.GUARD), np.float32(self.ROUNDING)),
            *(self._extents, force[0], sums),
        )
        return force, float(sums.sum() / self.fixed.numel())


class DifferenceForce:
    """The force that decreases the squared difference of maps, w (f − m) ∇m.

    Args:
        moving, fixed: the maps.
        weight: w.
        ratio: width of a voxel of the maps, in voxels of the stage's grid.
    """

    def __init__(self, *, moving: Tensor, fixed: Tensor, weight: float, ratio: int):
        self.moving, self.fixed, self.weight, self.ratio = moving, fixed, weight, ratio

    def __call__(self, displacement: Tensor, onto: Tensor | None = None) -> tuple[Tensor, float]:
        """The force on the stage's grid, added to ``onto``, and −w/2 mean |f − m|².

        ``onto`` may be changed.
        """
        if self.ratio <= 2 and compiled.can_take(self.moving, displacement):
            return self._compiled(displacement, onto)
        shape = displacement.shape[2:]
        if self.ratio > 1:
            displacement = field.averaged(displacement, self.ratio) / self.ratio
        moved = field.warp(self.moving, displacement, padding="border")
        difference = self.fixed - moved
        force = _along_gradient(difference, moved).mul_(self.weight)
        if self.ratio > 1:
            force = F.interpolate(force, size=shape, mode="trilinear") / self.ratio
        similarity = -self.weight / 2 * float(difference.square_().sum(dim=1).mean())
        return _sum(force, onto), similarity

    def _compiled(self, displacement: Tensor, onto: Tensor | None) -> tuple[Tensor, float]:
        if self.ratio == 2:
            displacement = compiled.average(displacement, 0.5)
        adds = onto is not None and self.ratio == 1
        force = onto if onto is not None and adds else torch.empty_like(displacement)
        sums = np.empty(displacement.shape[2])
        compiled.run(
            "difference_force",
            len(sums),
            *(self.moving[0], self.fixed[0], displacement[0], np.float32(self.weight)),
            *(*self._background, force[0], adds, sums),
        )
        if self.ratio == 2:
            force = compiled.upsample(force, 0.5, onto)
        return force, -self.weight / 2 * float(sums.sum() / self.fixed[0, 0].numel())

    @cached_property
    def _background(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The maps' value outside the brains; the moving cells and fixed rows with another one.

        It is the value of the first voxel; if the maps begin with different ones, all are others.
        """
        value = self.moving[0, :, :1, :1, :1]
        moving, fixed = ((x[0] != value).any(dim=0)[None, None] for x in (self.moving, self.fixed))
        if (value != self.fixed[0, :, :1, :1, :1]).any():
            moving, fixed = torch.ones_like(moving), torch.ones_like(fixed)
        cells = moving[0, 0].clone()  # of 2³ voxels, by the first of them
        for axis in range(3):
            cells.narrow(axis, 0, cells.shape[axis] - 1).logical_or_(
                cells.narrow(axis, 1, cells.shape[axis] - 1).clone()
            )
        # Contiguous for any number of maps, so that one kernel is compiled for all.
        background = np.ascontiguousarray(value.flatten().numpy())
        return background, cells.numpy().ravel(), compiled.extents(fixed[0].float())


def _sum(force: Tensor, onto: Tensor | None) -> Tensor:
    return force if onto is None else onto + force


def _along_gradient(weights: Tensor, image: Tensor) -> Tensor:
    """Σ over channels of weight · ∇image, (B, 3, X, Y, Z)."""
    differences = (field.difference(image, axis) for axis in (2, 3, 4))
    return torch.stack([(weights * d).sum(dim=1) for d in differences], dim=1)
