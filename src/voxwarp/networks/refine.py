"""Refinement: the answer of a network made better for the very pair, its weights untouched."""

import math
import time
from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError
from ..fields import field
from .deformation import Deformation
from .descent import Plan, Stage
from .pair_descent import KeptMaps, PairDescent

STEPS, MOST_STEPS = 16, 1000


@dataclass(frozen=True)
class Refinement:
    """How much of it.

    Args:
        steps: at most. Where the answer has been at the full resolution, all of them are there;
            of others two of three are at half of it first.
        seconds: after which no further step begins that would not be done by then; no limit
            without.

    Raises:
        InputError: the steps are not 1 to 1000, or the time is none.
    """

    steps: int = STEPS
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise InputError(f"refine {self.steps}: 1 to {MOST_STEPS} steps are wanted")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"refine_seconds {self.seconds}: a time above 0 is wanted")

    @classmethod
    def of(cls, wanted: "bool | Refinement | None") -> "Refinement | None":
        """What a yes, a no or a refinement stands for; None: none.

        Raises:
            InputError: it is none of these, such as a number of steps.
        """
        if isinstance(wanted, Refinement):
            return wanted
        if wanted is not None and not isinstance(wanted, bool):
            raise InputError(f"refine {wanted!r}: True, False or a Refinement is wanted")
        return cls() if wanted else None

    def plan(self, *, from_full: bool) -> Plan:
        """The stages of the descent."""
        fine = self.steps if from_full else max(self.steps // 3, 1)
        stages = [Stage(2, self.steps - fine), Stage(1, fine, smoothing=0.35)]
        return Plan([stage for stage in stages if stage.steps])


def refined(
    answer: Deformation,
    refinement: Refinement,
    *,
    moving: Tensor,
    fixed: Tensor,
    descent: PairDescent,
    smoothness: float = 1.0,
    kept: KeptMaps | None = None,
    weight: Tensor | None = None,
) -> Deformation:
    """A deformation that makes ``moving`` more like ``fixed`` than a network's does.

    Args:
        moving, fixed: (B, 1, X, Y, Z), intensities in [0, 1].
        answer: of the network, to start from.
        refinement: how much.
        descent: that goes on from there; one that segments compares the structures, too.
        smoothness: factor of the widths of the Gaussians that smooth.
        kept, weight: see ``PairDescent.forward``.
    """
    until = None if refinement.seconds is None else time.monotonic() + refinement.seconds
    inverse = answer.inverse
    if inverse is None:
        inverse = field.invert(answer.displacement)
    plan = refinement.plan(from_full=descent.full_steps > 0).smoother(smoothness)
    start = answer.displacement, inverse
    return descent.descended(
        plan, moving=moving, fixed=fixed, start=start, until=until, kept=kept, weight=weight
    )
