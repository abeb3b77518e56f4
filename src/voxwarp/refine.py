"""Refinement: the answer of a network made better for the very pair, its weights untouched."""

import time
from dataclasses import dataclass

from torch import Tensor

from . import field
from .box import Box
from .descent import Plan, Stage, descend
from .network import Deformation

STEPS = 30


@dataclass(frozen=True)
class Refinement:
    """How much of it.

    Args:
        steps: at most; two of three at 1/2 of the resolution, then the rest at the full one.
        seconds: after which no further step begins that would not be done by then; no limit
            without.
    """

    steps: int = STEPS
    seconds: float | None = None

    @property
    def plan(self) -> Plan:
        """The stages of the descent."""
        fine = max(self.steps // 3, 1)
        stages = [Stage(2, self.steps - fine), Stage(1, fine, smoothing=0.6, length=0.5)]
        return Plan([stage for stage in stages if stage.steps])


def refined(
    moving: Tensor,
    fixed: Tensor,
    answer: Deformation,
    refinement: Refinement,
    *,
    smoothness: float = 1.0,
) -> Deformation:
    """A deformation that makes ``moving`` more like ``fixed`` than a network's does.

    Args:
        moving, fixed: (B, 1, X, Y, Z), intensities in [0, 1].
        answer: of the network, to start from.
        refinement: how much.
        smoothness: factor of the widths of the Gaussians that smooth.
    """
    until = None if refinement.seconds is None else time.monotonic() + refinement.seconds
    inverse = answer.inverse
    if inverse is None:
        inverse = field.invert(answer.displacement)
    plan = refinement.plan.smoother(smoothness)
    box = Box.around(moving, fixed, multiple=max(stage.factor for stage in plan.stages))
    start = box.take(answer.displacement, border=True), box.take(inverse, border=True)
    ways = descend(box.take(moving), box.take(fixed), plan, start=start, until=until)
    displacement, inverse = (box.put_back(way) for way in ways)
    return Deformation(displacement, inverse, displacement)
