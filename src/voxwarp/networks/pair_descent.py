"""Optimisation of one pair in a network's place: a plan for the descent, and maps of structures."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..fields.box import Box
from .deformation import Deformation
from .descent import Features, Plan, Stage, descend
from .segmentation import StructureMaps

#: Maps of the structures in a pair that were made before, by the part of it and the factor.
KeptMaps = dict[Hashable, Features]


class Pace(NamedTuple):
    """Length and smoothing of the steps of all stages but the last, see ``descent.Stage``."""

    length: float = 0.3
    smoothing: float = 0.42


STEADY = Pace()


class PairDescent(nn.Module):
    """Optimisation of one pair, coarse to fine: see ``descent``.

    Without a segmentation it has no weights, so it has no opinion of what scans look like. With
    one, the descent makes both alike: the images by their local correlation, the maps of their
    structures by their squared difference.

    Args:
        steps: at most, on the lattices of 1/2^n, ..., 1/4, 1/2 of the resolution.
        full_steps: at most, at the full resolution, then.
        pace: of the steps.
        segmentation: makes the maps.
        factor: of the lattice on which the maps are compared: 1/factor of the resolution.
    """

    def __init__(
        self,
        *,
        steps: Sequence[int] = (16, 20, 20),
        full_steps: int = 0,
        pace: Pace = STEADY,
        segmentation: StructureMaps | None = None,
        factor: int = 2,
    ):
        super().__init__()
        if not steps:
            raise ValueError("steps: a number for each lattice is wanted")
        self.steps, self.full_steps, self.pace = tuple(steps), full_steps, pace
        self.segmentation, self.factor = segmentation, factor

    @property
    def multiple(self) -> int:
        """What the sides of the images are padded to multiples of."""
        return max(2 ** len(self.steps), self.factor)

    @property
    def plan(self) -> Plan:
        """The stages of the descent, from coarse to fine."""
        factors = [2**k for k in range(len(self.steps), 0, -1)]
        coarse = zip(factors, self.steps, strict=True)
        stages = [Stage(f, n, self.pace.smoothing, self.pace.length) for f, n in coarse]
        stages += [Stage(1, self.full_steps, length=0.5)] if self.full_steps else []
        return Plan(stages)

    def forward(
        self,
        *,
        moving: Tensor,
        fixed: Tensor,
        smoothness: float = 1.0,
        kept: KeptMaps | None = None,
        weight: Tensor | None = None,
    ) -> Deformation:
        """The deformation that pulls ``moving`` onto ``fixed`` and its inverse.

        Args:
            moving, fixed: (B, 1, X, Y, Z), intensities in [0, 1].
            smoothness: factor of the widths of the Gaussians that smooth.
            kept: maps of this pair (B = 1) that were made before; new ones are added. They are
                of both images together: one alone comes out a little different in bf16, so a
                result would depend on what was done before.
            weight: of the forces, see ``descent.descend``.

        Raises:
            ValueError: maps are to be kept of more than one pair.
        """
        plan = self.plan.smoother(smoothness)
        return self.descended(
            plan, moving=moving, fixed=fixed, factor=self.factor, kept=kept, weight=weight
        )

    def descended(
        self,
        plan: Plan,
        *,
        moving: Tensor,
        fixed: Tensor,
        start: tuple[Tensor, Tensor] | None = None,
        until: float | None = None,
        factor: int = 2,
        kept: KeptMaps | None = None,
        weight: Tensor | None = None,
    ) -> Deformation:
        """The same by another plan, from another start: see ``descent.descend``.

        Each pair of a batch gets what it would get alone.

        Args:
            moving, fixed, plan, start, until, weight: see there.
            factor: of the lattice on which the maps are compared.
            kept: see ``forward``.

        Raises:
            ValueError: see ``forward``.
        """
        if kept is not None and len(moving) != 1:
            raise ValueError(f"kept: maps of a single pair can be kept, got {len(moving)} pairs")
        pairs = []
        for i in range(len(moving)):
            one = slice(i, i + 1)
            begin = None if start is None else (start[0][one], start[1][one])
            pairs.append(
                self._descended_pair(
                    plan,
                    moving=moving[one],
                    fixed=fixed[one],
                    start=begin,
                    until=until,
                    factor=factor,
                    kept=kept,
                    weight=None if weight is None else weight[one],
                )
            )
        displacement, inverse = (torch.cat(ways) for ways in zip(*pairs, strict=True))
        return Deformation(displacement, inverse, displacement)

    def _descended_pair(
        self,
        plan: Plan,
        *,
        moving: Tensor,
        fixed: Tensor,
        start: tuple[Tensor, Tensor] | None,
        until: float | None,
        factor: int,
        kept: KeptMaps | None,
        weight: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The displacement and its inverse, worked out in the box that both brains fill."""
        box = Box.around(moving, fixed, multiple=self.multiple)
        pair = box.crop(moving), box.crop(fixed)
        if start is not None:
            start = box.crop(start[0], border=True), box.crop(start[1], border=True)
        features = self._features(
            factor, box, {} if kept is None else kept, moving=pair[0], fixed=pair[1]
        )
        weight = None if weight is None else box.crop(weight, border=True)
        displacement, inverse = descend(
            plan,
            moving=pair[0],
            fixed=pair[1],
            start=start,
            features=features,
            weight=weight,
            until=until,
        )
        return box.put_back(displacement), box.put_back(inverse)

    def _features(
        self, factor: int, box: Box, kept: KeptMaps, *, moving: Tensor, fixed: Tensor
    ) -> Features | None:
        """What else than the images is to become alike."""
        if self.segmentation is None:
            return None
        if (box, factor) not in kept:
            maps = self.segmentation(torch.cat([moving, fixed]), factor).chunk(2)
            kept[box, factor] = Features(maps[0], maps[1], self.segmentation.weight)
        return kept[box, factor]
