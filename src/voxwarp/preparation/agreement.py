"""Agreement: how well two brains match after an affine map, and how well they have to match."""

from dataclasses import dataclass

import numpy as np
import torch

from ..fields import field
from ..fields.losses import local_ncc_map
from ..space.transform import Affine
from ..space.volume import Volume
from .coarse import Coarse


@dataclass(frozen=True)
class Agreement:
    """How well two brains agree after an affine map.

    Args:
        overlap: Dice of the two brains within the field of view of the moving scan.
        local_ncc: mean squared local correlation in windows of 12 mm; independent of the contrast.
        outside: fraction of the fixed brain that lies outside the field of view of the moving scan.
        largest_scale, smallest_scale: of the affine map, over all directions.
    """

    overlap: float
    local_ncc: float
    outside: float
    largest_scale: float
    smallest_scale: float


@dataclass(frozen=True)
class FitThresholds:
    """When a brain is in place on a template, judged by its ``Agreement``.

    On about 70 scans of three contrasts, brains in place on MNI152 had an overlap of at least 0.93
    and a correlation of at least 0.37; brains in the wrong place had at most 0.92 and 0.31. The
    good and certain thresholds follow from that, all others are set by hand. A template that is
    sharper or smoother, or shows other subjects, has thresholds of its own.

    Args:
        good_overlap, good_ncc: a brain in place has more than these.
        certain_overlap, certain_ncc: above these, no other starting pose is tried.
        hopeless_overlap, hopeless_ncc, hopeless_scale: below any of these, it is not a brain.
        least_scale, largest_scale: limits of the scale of the affine map, because heads differ in
            size only so much.
        largest_stretch: limit of the largest scale over the smallest.
    """

    good_overlap: float = 0.9
    good_ncc: float = 0.32
    certain_overlap: float = 0.93
    certain_ncc: float = 0.35
    hopeless_overlap: float = 0.8
    hopeless_ncc: float = 0.25
    hopeless_scale: float = 0.3
    least_scale: float = 0.42
    largest_scale: float = 2.0
    largest_stretch: float = 1.4

    def is_good(self, fit: Agreement) -> bool:
        """Whether the brain is in place."""
        return (
            fit.overlap > self.good_overlap
            and fit.local_ncc > self.good_ncc
            and self.is_plausible(fit)
        )

    def is_certain(self, fit: Agreement) -> bool:
        """Whether the brain is so clearly in place that no other starting pose needs a try."""
        return (
            fit.overlap > self.certain_overlap
            and fit.local_ncc > self.certain_ncc
            and self.is_plausible(fit)
        )

    def is_hopeless(self, fit: Agreement) -> bool:
        """Whether the agreement is so low that the scan does not show a brain."""
        return (
            fit.overlap < self.hopeless_overlap
            or fit.local_ncc < self.hopeless_ncc
            or fit.smallest_scale < self.hopeless_scale
        )

    def is_plausible(self, fit: Agreement) -> bool:
        """Whether the affine map scales and stretches no more than heads differ."""
        stretch = fit.largest_scale / fit.smallest_scale
        return (
            fit.smallest_scale > self.least_scale
            and fit.largest_scale < self.largest_scale
            and stretch < self.largest_stretch
        )

    def score(self, fit: Agreement) -> float:
        """One number by which affine maps are compared; larger is better."""
        return fit.local_ncc * fit.overlap * (1.0 if self.is_plausible(fit) else 0.5)


def agreement(fixed_to_moving: Affine, *, moving: Volume, fixed: Volume) -> Agreement:
    """Measure at 4 mm how well two brains agree after an affine map.

    Args:
        fixed_to_moving: maps points of the fixed brain to points of the moving brain, RAS mm.
        moving, fixed: skull-stripped, zero outside the brain, on any grids.
    """
    f, m = Coarse.of(fixed, 4.0), Coarse.of(moving, 4.0)
    points = f.nodes_in(m, fixed_to_moving)
    moved, in_view = field.sample(m.image, points), m.reaches(points)
    # 0.05 keeps voxels out that are brain only because interpolation blurs the edge; set by hand.
    fixed_mask, moved_mask = f.image > 0, moved > 0.05 * bright_level(m.image)
    shared = int((fixed_mask & moved_mask).sum())
    total = int((fixed_mask & in_view).sum() + moved_mask.sum())
    local_ncc = local_ncc_map(
        moved=moved / bright_level(m.image), fixed=f.image / bright_level(f.image), window=3
    )
    scales = np.linalg.svd(fixed_to_moving.matrix[:3, :3], compute_uv=False)
    return Agreement(
        overlap=2 * shared / max(1, total),
        local_ncc=float(local_ncc[fixed_mask & in_view].mean()) if shared else 0.0,
        outside=float((fixed_mask & ~in_view).sum() / fixed_mask.sum()),
        largest_scale=float(scales.max()),
        smallest_scale=float(scales.min()),
    )


def bright_level(image: torch.Tensor) -> torch.Tensor:
    """The intensity of bright tissue: the 99th percentile of the positive voxels."""
    inside = image[image > 0]
    return torch.quantile(inside, 0.99) if inside.numel() else torch.tensor(1.0)
