"""Refinement: the answer of a network made better for the very pair, its weights untouched."""

import time
from dataclasses import dataclass

from torch import Tensor, nn

from ..fields import field
from .descent import Plan, Stage
from .network import Deformation, PairDescent

STEPS = 16


@dataclass(frozen=True)
class Refinement:
    """How much of it.

    Args:
        steps: at most. Where the answer has been at the full resolution, all of them are there;
            of others two of three are at half of it first.
        seconds: after which no further step begins that would not be done by then; no limit
            without.
    """

    steps: int = STEPS
    seconds: float | None = None

    def plan(self, *, from_full: bool) -> Plan:
        """The stages of the descent."""
        fine = self.steps if from_full else max(self.steps // 3, 1)
        stages = [Stage(2, self.steps - fine), Stage(1, fine, smoothing=0.35)]
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
    describer = network if isinstance(network, PairDescent) else PairDescent()
    plan = refinement.plan(from_full=describer.full_steps > 0).smoother(smoothness)
    start = answer.displacement, inverse
    return describer.descended(moving, fixed, plan, start=start, until=until)
