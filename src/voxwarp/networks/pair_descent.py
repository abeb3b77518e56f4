"""A descent as a model: its stages, and the segmentation that may guide it."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..fields.box import Box
from .deformation import Deformation
from .descent import DescentSettings, Features, Stage, Weights, descend
from .segmentation import Segmentation, StructureMaps

#: Segmentations of a pair of images, by the box that they cover and the factor of the maps.
MapCache = dict[Hashable, Segmentation]


class Trust(NamedTuple):
    """How much the structures count, by the share of voxels where they are unsure.

    See ``Segmentation``. The defaults suited the first weights of ``default``; models that are
    surer, of what they know and of what they do not, have their own (benchmarks/recognition.csv).

    Args:
        sure: up to this share in both images, they count fully.
        unsure: from this share on in either image, they count for nothing: the images alone are
            aligned.
    """

    sure: float = 0.06
    unsure: float = 0.09

    def of(self, share: float) -> float:
        """The factor on the weight of the structures, from 0 to 1."""
        return min(max((self.unsure - share) / (self.unsure - self.sure), 0.0), 1.0)


DEFAULT_TRUST = Trust()


class StepSettings(NamedTuple):
    """How the stages of a model make their steps, see ``descent.Stage``.

    Args:
        step_length, smoothing: of all stages but that at full resolution.
        momentum: of all stages.
        force_smoothing: of each stage, from coarse to fine; the last one holds for all after it.
    """

    step_length: float = 0.3
    smoothing: float = 0.42
    momentum: float = 0.0
    force_smoothing: Sequence[float] = (1.3,)


DEFAULT_STEPS = StepSettings()


class PairDescent(nn.Module):
    """A model that optimises the deformation of each pair, from coarse to fine, see ``descent``.

    Without a segmentation it has no weights, and does not depend on training scans. With one, it
    makes the images similar by their local correlation, and the maps of their structures by their
    squared difference.

    Args:
        steps: the largest number of steps on the grids of 1/2^n, ..., 1/4, 1/2 of the resolution.
        full_steps: the largest number of steps that follow at full resolution.
        step_settings: how the steps are made.
        segmentation: makes the maps.
        factor: the maps are compared at 1/factor of the resolution.
        trust: how much they count.
    """

    def __init__(
        self,
        *,
        steps: Sequence[int] = (16, 20, 20),
        full_steps: int = 0,
        step_settings: StepSettings = DEFAULT_STEPS,
        segmentation: StructureMaps | None = None,
        factor: int = 2,
        trust: Trust = DEFAULT_TRUST,
    ):
        super().__init__()
        if not steps:
            raise ValueError("steps must hold a number for each resolution, but it is empty")
        if not 0 <= step_settings.momentum < 1:
            raise ValueError(
                f"momentum must be at least 0 and below 1, got {step_settings.momentum}; from 1 "
                f"on, the steps would grow without end"
            )
        if not step_settings.force_smoothing:
            raise ValueError("force_smoothing must hold at least one number, but it is empty")
        self.steps, self.full_steps, self.step_settings = tuple(steps), full_steps, step_settings
        self.segmentation, self.factor, self.trust = segmentation, factor, trust

    @property
    def multiple(self) -> int:
        """The sides of the images are padded to multiples of this number of voxels."""
        return max(2 ** len(self.steps), self.factor)

    @property
    def settings(self) -> DescentSettings:
        """The settings of the descent, with its stages from coarse to fine."""
        length, smoothing, momentum, force_smoothing = self.step_settings
        factors = [2**k for k in range(len(self.steps), 0, -1)]
        stages = [
            Stage(factor, steps, smoothing, length)
            for factor, steps in zip(factors, self.steps, strict=True)
        ]
        # At 1 mm, 0.5 was compared with 0.3 (benchmarks/tries.csv): slightly better.
        stages += [Stage(1, self.full_steps, step_length=0.5)] if self.full_steps else []
        widths = chain(force_smoothing, repeat(force_smoothing[-1]))
        stages = [
            replace(stage, momentum=momentum, force_smoothing=width)
            for stage, width in zip(stages, widths, strict=False)
        ]
        return DescentSettings(stages)

    @property
    def last_settings(self) -> DescentSettings:
        """The settings of its stages from half the resolution on, to continue from a result."""
        return replace(self.settings, stages=[s for s in self.settings.stages if s.factor <= 2])

    def forward(
        self,
        *,
        moving: Tensor,
        fixed: Tensor,
        smoothness: float = 1.0,
        map_cache: MapCache | None = None,
        weights: Weights | None = None,
    ) -> Deformation:
        """The deformation that aligns ``moving`` with ``fixed``.

        Args:
            moving, fixed: (B, 1, X, Y, Z), intensities in [0, 1].
            smoothness: factor on the widths of the Gaussians that smooth.
            map_cache: maps of this pair (B = 1) that were computed before; new ones are added. Both
                images are always segmented together: alone, they give slightly different maps in
                bf16, and the result would depend on what was computed before.
            weights: of the forces, see ``descent.descend``.

        Raises:
            ValueError: ``map_cache`` is given for more than one pair.
        """
        return self.descend(
            self.settings.smoother(smoothness),
            moving=moving,
            fixed=fixed,
            factor=self.factor,
            map_cache=map_cache,
            weights=weights,
        )

    def descend(
        self,
        settings: DescentSettings,
        *,
        moving: Tensor,
        fixed: Tensor,
        start: Tensor | None = None,
        deadline: float | None = None,
        factor: int = 2,
        mirrored: bool = False,
        map_cache: MapCache | None = None,
        weights: Weights | None = None,
    ) -> Deformation:
        """Like ``forward``, but with other settings or from another start.

        Each pair of a batch gets exactly what it would get alone.

        Args:
            settings, moving, fixed, start, deadline, weights: see ``descent.descend``.
            factor: the maps are compared at 1/factor of the resolution.
            mirrored: segment the mirrored images, too, see ``StructureMaps.with_mirrored``.
            map_cache: see ``forward``.

        Raises:
            ValueError: see ``forward``.
        """
        if map_cache is not None and len(moving) != 1:
            raise ValueError(f"map_cache holds maps of a single pair, got {len(moving)} pairs")
        results = []
        for i in range(len(moving)):
            pair = slice(i, i + 1)
            results.append(
                self._descend_pair(
                    settings,
                    moving=moving[pair],
                    fixed=fixed[pair],
                    start=None if start is None else start[pair],
                    deadline=deadline,
                    factor=factor,
                    mirrored=mirrored,
                    map_cache=map_cache,
                    weights=weights and weights.select(pair),
                )
            )
        displacement, *unsure = (torch.cat(x) for x in zip(*results, strict=True))
        return Deformation(displacement, displacement, *unsure)

    def _descend_pair(
        self,
        settings: DescentSettings,
        *,
        moving: Tensor,
        fixed: Tensor,
        start: Tensor | None,
        deadline: float | None,
        factor: int,
        mirrored: bool,
        map_cache: MapCache | None,
        weights: Weights | None,
    ) -> tuple[Tensor, ...]:
        """The displacement and, with a segmentation, how unsure that is.

        They are computed in the box around both brains.
        """
        box = Box.around(moving, fixed, multiple=self.multiple)
        moving, fixed = box.crop(moving), box.crop(fixed)
        if start is not None:
            start = box.crop(start, border=True)
        found = self._segmented(
            factor, box, map_cache, mirrored=mirrored, moving=moving, fixed=fixed
        )
        displacement = descend(
            settings,
            moving=moving,
            fixed=fixed,
            start=start,
            features=found and self._features(found),
            weights=weights and weights.cropped(box),
            deadline=deadline,
        )
        displacement = box.put_back(displacement)
        return (displacement,) if found is None else (displacement, found.unsure[None])

    def segmented(
        self, *, moving: Tensor, fixed: Tensor, map_cache: MapCache
    ) -> Segmentation | None:
        """Segment a pair of images, as ``forward`` does, which then finds it in ``map_cache``.

        Args:
            moving, fixed, map_cache: see ``forward``, B = 1.
        """
        box = Box.around(moving, fixed, multiple=self.multiple)
        moving, fixed = box.crop(moving), box.crop(fixed)
        return self._segmented(self.factor, box, map_cache, moving=moving, fixed=fixed)

    def _segmented(
        self,
        factor: int,
        box: Box,
        map_cache: MapCache | None,
        *,
        mirrored: bool = False,
        moving: Tensor,
        fixed: Tensor,
    ) -> Segmentation | None:
        """Both images segmented, now or before; None without a segmentation."""
        if self.segmentation is None:
            return None
        cache = {} if map_cache is None else map_cache
        if (box, factor) not in cache:
            cache[box, factor] = self.segmentation(torch.cat([moving, fixed]), factor)
        found = cache[box, factor]
        if not mirrored:
            return found
        return self.segmentation.with_mirrored(found, torch.cat([moving, fixed]), factor)

    def _features(self, found: Segmentation) -> Features | None:
        """The maps of both images, with less weight where their structures are unsure."""
        assert self.segmentation is not None
        trust = self.trust.of(float(found.unsure.max()))
        moving, fixed = found.maps.chunk(2)
        return Features(moving, fixed, trust * self.segmentation.weight) if trust else None
