"""Measure a registration: similarity, Dice and folds, and the warnings that follow from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..fields import field
from ..measures.overlap import dice
from ..measures.similarity import similarity
from ..networks.pair_descent import DEFAULT_TRUST, Trust
from ..preparation.scan import Prepared
from ..space.volume import Volume


@dataclass(frozen=True)
class Measures:
    """The measurements of a registration.

    Args:
        before, after: similarity of the prepared scans before and after the deformation, see
            ``measures.similarity``.
        dice: Dice overlap by label value; None unless both scans have label maps.
        jacobian: statistics of det J, see ``measures.deformation.jacobian_statistics``.
        unsure: by scan, the share of voxels where the model is unsure of the structures, see
            ``networks.segmentation.Segmentation``; None if it recognises none.
    """

    before: dict[str, float]
    after: dict[str, float]
    dice: dict[int, float] | None
    jacobian: dict[str, float | int]
    unsure: dict[str, float] | None = None

    def described(self) -> dict[str, Any]:
        """The entries of ``metrics.json``."""
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
            "unsure_share": self.unsure,
        }

    def warnings(
        self, *, trust: Trust = DEFAULT_TRUST, contrasts_may_differ: bool = False
    ) -> list[str]:
        """Reasons to check the result, one sentence each.

        Args:
            trust: of the model, if it recognises structures.
            contrasts_may_differ: the model that registered the scans is made for that.

        All limits are set by hand; docs/thresholds.md lists them.
        """
        warnings = list[str]()
        before, after = self.before["local_ncc"], self.after["local_ncc"]
        if before == 0:  # not one voxel in common
            warnings.append(
                "the scans do not overlap in world space; check the origins in their headers"
            )
        elif after < before - 0.005:  # scans that are aligned already vary by less
            warnings.append(
                f"the scans are less similar after the registration than before (local NCC "
                f"{before:.3f} → {after:.3f}); check the result by eye"
            )
        elif after < 0.15:
            warnings.append(
                f"the scans are not very similar after the registration (local NCC {after:.3f}); "
                f"check the result by eye"
            )
        correlation = self.after["correlation"]
        # A local NCC that is not low shows that the edges match. If the intensities do not
        # correlate nevertheless, the contrasts differ.
        if not contrasts_may_differ and before and correlation < 0.5 and after >= 0.15:
            warnings.append(
                f"the intensities of the scans do not match after the registration (correlation "
                f"{correlation:.2f}); do both scans have the same contrast?"
            )
        scans = {name: share for name, share in (self.unsure or {}).items() if share > trust.sure}
        if scans:
            shares = " and ".join(
                f"{100 * share:.0f} % of the {name} brain" for name, share in scans.items()
            )
            effect = (
                "structures count for less in this registration"
                if max(scans.values()) < trust.unsure
                else "this registration aligns the intensities alone"
            )
            warnings.append(
                f"the model is unsure of the structures in {shares}, as in contrasts that it has "
                f"not learned; so {effect}"
            )
        if folds := self.jacobian["folds"]:
            warnings.append(
                f"the deformation folds in {folds} voxels of the fixed brain (det J ≤ 0)"
            )
        return warnings


@torch.no_grad()
def measure(
    *,
    moving: Prepared,
    fixed: Prepared,
    displacement: torch.Tensor,
    jacobian: dict[str, float | int],
    labels: tuple[Volume, Volume] | None,
    unsure: torch.Tensor | None = None,
) -> Measures:
    """Measure a registration.

    Args:
        moving, fixed: the scans on the working grid.
        displacement: the displacement on the working grid, (1, 3, X, Y, Z), voxels.
        jacobian: statistics of det J on the fixed grid.
        labels: the moved and the fixed label map, if both scans have one.
        unsure: (1, 2), of the moving and the fixed scan, see ``Deformation``.
    """
    names = "moving", "fixed"
    moved = field.warp(moving.image, displacement)
    return Measures(
        before=similarity(moved=moving.image[0, 0], fixed=fixed.image[0, 0]),
        after=similarity(moved=moved[0, 0], fixed=fixed.image[0, 0]),
        dice=None if labels is None else dice(labels[0].data, labels[1].data),
        jacobian=jacobian,
        unsure=None if unsure is None else dict(zip(names, unsure[0].tolist(), strict=True)),
    )
