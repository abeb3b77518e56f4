"""What a registration is measured by, and what in that is worth a warning."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..fields import field
from ..measures.deformation import jacobian_statistics
from ..measures.overlap import dice
from ..measures.similarity import similarity
from ..preparation.scan import Prepared
from ..space.transform import Warp
from ..space.volume import Volume


@dataclass(frozen=True)
class Measures:
    """How well two scans lie on each other, and what the deformation does to get there.

    Args:
        before, after: similarity of the prepared scans, before and after the deformation; see
            ``measures.similarity``.
        dice: by label value, where both scans have labels.
        jacobian: see ``measures.deformation.jacobian_statistics``.
    """

    before: dict[str, float]
    after: dict[str, float]
    dice: dict[int, float] | None
    jacobian: dict[str, float | int]

    def described(self) -> dict[str, Any]:
        """For records in JSON."""
        scores = (
            None
            if self.dice is None
            else {
                "mean": float(np.mean(list(self.dice.values()))),
                "per_label": self.dice,
                "labels": "nearest neighbour",
            }
        )
        return {
            "similarity": {"before": self.before, "after": self.after},
            "dice": scores,
            "jacobian": self.jacobian,
        }

    def warnings(self) -> list[str]:
        """Reasons to look twice at the result, a sentence each."""
        told = list[str]()
        before, after = self.before["local_ncc"], self.after["local_ncc"]
        if before == 0:
            told.append("the scans do not overlap: they are not aligned in world space")
        elif after < before - 0.005:
            told.append(
                f"the scans are less alike after the registration: local NCC {before:.3f} → "
                f"{after:.3f}"
            )
        elif after < 0.15:
            told.append(f"the scans are hardly alike after the registration: local NCC {after:.3f}")
        correlation = self.after["correlation"]
        if before and correlation < 0.5 and after >= 0.15:
            told.append(
                f"the scans are not much alike after the registration (correlation "
                f"{correlation:.2f}): are they of one contrast?"
            )
        if self.jacobian["folds"]:
            told.append(
                f"the deformation folds in {self.jacobian['folds']} voxels of the fixed brain"
            )
        return told


def measure(
    *,
    moving: Prepared,
    fixed: Prepared,
    displacement: torch.Tensor,
    warp: Warp,
    brain: np.ndarray,
    labels: tuple[Volume, Volume] | None,
) -> Measures:
    """Measure a registration.

    Args:
        moving, fixed: the scans on the working grid.
        displacement: of the answer there, (1, 3, X, Y, Z), voxels.
        warp: the deformation on the fixed scan's grid.
        brain: (X, Y, Z) boolean mask on that.
        labels: the moved label map and the fixed one, if there are both.
    """
    moved = field.warp(moving.image, displacement)
    return Measures(
        before=similarity(moved=moving.image[0, 0], fixed=fixed.image[0, 0]),
        after=similarity(moved=moved[0, 0], fixed=fixed.image[0, 0]),
        dice=None if labels is None else dice(labels[0].data, labels[1].data),
        jacobian=jacobian_statistics(warp, brain),
    )
