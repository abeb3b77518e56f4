"""Refinement: improve a model's result by optimising the one pair; its weights do not change."""

import math
import time
from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError
from .deformation import Deformation
from .descent import DescentSettings, Stage, Weights
from .pair_descent import MapCache, PairDescent

# By default 8 steps: with momentum, 6 and 8 were compared with 16 without (benchmarks/tries.csv),
# and align labels a little better. More than 1000 are refused, which is set by hand.
STEPS, MOST_STEPS = 8, 1000
MOMENTUM = 0.5


@dataclass(frozen=True)
class Refinement:
    """How far a result is refined.

    Args:
        steps: at most this many steps. All of them are at full resolution if the result comes from
            a descent that ended there; else half of them are at half resolution first.
        seconds: no step begins that would not be done after this time; by default there is no
            limit.

    Raises:
        InputError: the number of steps is not between 1 and 1000, or the time is not above 0.

    Example:
        >>> import voxwarp
        >>> refinement = voxwarp.Refinement(steps=4, seconds=60)
        >>> result = voxwarp.register("moving.nii.gz", "fixed.nii.gz", refine=refinement)
        >>> result.metrics["settings"]["refine"]["steps"]
        4
    """

    steps: int = STEPS
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise InputError(f"refine_steps must be between 1 and {MOST_STEPS}, got {self.steps}")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"refine_seconds must be above 0 and finite, got {self.seconds}")

    @classmethod
    def from_value(cls, value: "bool | Refinement | None") -> "Refinement | None":
        """The refinement that a value of ``refine`` stands for; None means no refinement.

        Raises:
            InputError: the value is something else, such as a number of steps.
        """
        if isinstance(value, Refinement):
            return value
        if value is not None and not isinstance(value, bool):
            raise InputError(
                f"refine must be True, False or a Refinement, got {value!r}; for a number of "
                f"steps, give Refinement(steps)"
            )
        return cls() if value else None

    def settings(self, *, from_full: bool) -> DescentSettings:
        """The settings of the descent.

        Args:
            from_full: the result comes from a descent that ended at full resolution.
        """
        fine = self.steps if from_full else max(self.steps // 2, 1)
        # Less smoothing than at 2 mm (0.42); 0.35 and the shares of the steps were set by hand.
        stages = [
            Stage(2, self.steps - fine, momentum=MOMENTUM),
            Stage(1, fine, smoothing=0.35, momentum=MOMENTUM),
        ]
        return DescentSettings([stage for stage in stages if stage.steps])


def refine(
    deformation: Deformation,
    refinement: Refinement,
    *,
    moving: Tensor,
    fixed: Tensor,
    descent: PairDescent,
    smoothness: float = 1.0,
    map_cache: MapCache | None = None,
    weights: Weights | None = None,
) -> Deformation:
    """Continue from a deformation, and make ``moving`` more similar to ``fixed``.

    Args:
        deformation: the result of a model, where the descent starts.
        refinement: number of steps and time.
        moving, fixed: (B, 1, X, Y, Z), intensities in [0, 1].
        descent: takes the steps; if it has a segmentation, it compares structures, too, which it
            looks for in the mirrored images as well.
        smoothness: factor on the widths of the Gaussians that smooth.
        map_cache, weights: see ``PairDescent.forward``.
    """
    deadline = None if refinement.seconds is None else time.monotonic() + refinement.seconds
    return descent.descend(
        refinement.settings(from_full=descent.full_steps > 0).smoother(smoothness),
        moving=moving,
        fixed=fixed,
        start=deformation.displacement,
        deadline=deadline,
        mirrored=True,
        map_cache=map_cache,
        weights=weights,
    )
