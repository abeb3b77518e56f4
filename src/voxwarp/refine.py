"""Refinement: the answer of a network made better for the very pair, its weights untouched."""

import time
from dataclasses import dataclass

from torch import Tensor, nn

from . import field
from .descent import Plan, Stage
from .network import Deformation, PairDescent

STEPS = 24


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
        stages = [Stage(2, self.steps - fine), Stage(1, fine, smoothing=0.5, length=0.5)]
        return Plan([stage for stage in stages if stage.steps])


def refined(
    moving: Tensor,
    fixed: Tensor,
    answer: Deformation,
    refinement: Refinement,
    *,
    network: nn.Module | None = None,
    smoothness: float = 1.0,
) -> Deformation:
    """A deformation that makes ``moving`` more like ``fixed`` than a network's does.

    Args:
        moving, fixed: (B, 1, X, Y, Z), intensities in [0, 1].
        answer: of the network, to start from.
        refinement: how much.
        network: that answered; one that recognises structures is asked for them again.
        smoothness: factor of the widths of the Gaussians that smooth.
    """
    until = None if refinement.seconds is None else time.monotonic() + refinement.seconds
    inverse = answer.inverse
    if inverse is None:
        inverse = field.invert(answer.displacement)
    plan = refinement.plan.smoother(smoothness)
    describer = network if isinstance(network, PairDescent) else PairDescent()
    start = answer.displacement, inverse
    return describer.descended(moving, fixed, plan, start=start, until=until, factor=2)
