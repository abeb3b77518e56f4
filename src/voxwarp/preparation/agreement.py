"""How well two brains lie on each other after an affine map, and when that is well enough."""

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
        overlap: Dice of the two brains, where the moving scan reaches.
        local_ncc: mean squared correlation in windows of 12 mm; of any contrast.
        outside: share of the fixed brain that lies outside the moving scan.
        largest_scale, smallest_scale: of the map, along any direction.
    """

    overlap: float
    local_ncc: float
    outside: float
    largest_scale: float
    smallest_scale: float


@dataclass(frozen=True)
class FitThresholds:
    """When brains lie on a template, as far as such numbers can tell.

    On some 70 scans of three contrasts and MNI152, brains in place had an overlap of 0.93 or more
    and a correlation of 0.37 or more; brains in the wrong place 0.92 and 0.31 at most. A template
    that is sharper or smoother, or of other subjects, has thresholds of its own.

    Args:
        good_overlap, good_ncc: above which brains are in place.
        certain_overlap, certain_ncc: above which no other pose needs to be tried.
        hopeless_overlap, hopeless_ncc, hopeless_scale: below which it cannot be two brains.
        least_scale, largest_scale, largest_stretch: how much, and how unevenly, heads differ.
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
        """Whether the brains lie on each other."""
        return (
            fit.overlap > self.good_overlap
            and fit.local_ncc > self.good_ncc
            and self.is_plausible(fit)
        )

    def is_certain(self, fit: Agreement) -> bool:
        """Whether no other pose needs to be tried."""
        return (
            fit.overlap > self.certain_overlap
            and fit.local_ncc > self.certain_ncc
            and self.is_plausible(fit)
        )

    def is_hopeless(self, fit: Agreement) -> bool:
        """Whether this cannot be two brains."""
        return (
            fit.overlap < self.hopeless_overlap
            or fit.local_ncc < self.hopeless_ncc
            or fit.smallest_scale < self.hopeless_scale
        )

    def is_plausible(self, fit: Agreement) -> bool:
        """Whether the map scales no more, and no less evenly, than heads differ."""
        stretch = fit.largest_scale / fit.smallest_scale
        return (
            fit.smallest_scale > self.least_scale
            and fit.largest_scale < self.largest_scale
            and stretch < self.largest_stretch
        )

    def score(self, fit: Agreement) -> float:
        """One number to compare maps by; larger is better."""
        return fit.local_ncc * fit.overlap * (1.0 if self.is_plausible(fit) else 0.5)


def agreement(fixed_to_moving: Affine, *, moving: Volume, fixed: Volume) -> Agreement:
    """Measure, at 4 mm, how well two brains lie on each other."""
    f, m = Coarse.of(fixed, 4.0), Coarse.of(moving, 4.0)
    at = f.lattice_in(m, fixed_to_moving)
    moved, reached = field.sample(m.image, at), m.reaches(at)
    a, b = f.image > 0, moved > 0.05 * bright(m.image)
    both, either = int((a & b).sum()), int((a & reached).sum() + b.sum())
    local = local_ncc_map(moved=moved / bright(m.image), fixed=f.image / bright(f.image), window=3)
    scales = np.linalg.svd(fixed_to_moving.matrix[:3, :3], compute_uv=False)
    return Agreement(
        overlap=2 * both / max(1, either),
        local_ncc=float(local[a & reached].mean()) if both else 0.0,
        outside=float((a & ~reached).sum() / a.sum()),
        largest_scale=float(scales.max()),
        smallest_scale=float(scales.min()),
    )


def bright(image: torch.Tensor) -> torch.Tensor:
    """An intensity that stands for white: the 99th percentile of the brain."""
    inside = image[image > 0]
    return torch.quantile(inside, 0.99) if inside.numel() else torch.tensor(1.0)
