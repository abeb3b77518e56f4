"""What a training minimises: the losses of a batch of pairs after the network has moved them."""

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..device import bfloat16_convolutions
from ..errors import InputError
from ..fields import field
from ..fields.field import averaged, blocks
from .batch import Batch
from .config import Config, Phase
from .loss_terms import LossTerm, terms

Given = dict[str, Tensor]  # by the names that losses have for it, see ``losses``
_OTHER = {"fixed": "moved", "fixed_labels": "moved_labels"}  # the one comes with the other


class Objective:
    """The weighted sum of the losses of a configuration, for a network and a batch of pairs.

    Args:
        config: losses, and on which lattice and in which directions they compare.
        structures: how many there are in the label maps.

    Raises:
        InputError: a user's loss cannot be found or used.
    """

    def __init__(self, config: Config, structures: int):
        self.config, self.structures = config, structures
        self.capabilities = config.capabilities
        self.terms = terms(config.losses)
        self.wants = {name for term in self.terms for name in term.wants}
        self.wants |= {_OTHER[name] for name in self.wants & _OTHER.keys()}

    def __call__(self, network: nn.Module, batch: Batch, phase: Phase) -> dict[str, Tensor]:
        """``loss``, the sum, and each loss without its weight: scalars, means over the pairs.

        Args:
            network: of the configuration, on the device of the batch.
            batch: images on the lattice of the cohort; the phase averages them down.
        """
        if self.capabilities.learns_from == "labels":
            return self._summed(self._recognised(network, batch, phase), None, batch)
        given = self._deformation(network, batch, phase)
        if "moved" in self.wants:
            moving, fixed = (averaged(x, phase.downsample) for x in (batch.moving, batch.fixed))
            given["fixed"], given["moved"] = self._compared(moving, fixed, given, phase)
        labelled = self._of_labelled(given, batch, phase)
        return self._summed(given, labelled, batch)

    def _summed(self, given: Given, labelled: Given | None, batch: Batch) -> dict[str, Tensor]:
        values = {term.name: self._loss(term, given, labelled, batch) for term in self.terms}
        weighted = [term.weight * values[term.name] for term in self.terms]
        return {"loss": torch.stack(weighted).sum(), **values}

    def _deformation(self, network: Any, batch: Batch, phase: Phase) -> Given:
        """Displacement, regularity, and the inverse where there is one or one is wanted."""
        config = self.config
        moving, fixed = (
            averaged(x, phase.downsample) for x in (batch.seen_moving, batch.seen_fixed)
        )
        with convolutions(config.precision, moving.device):
            if config.compare_at == "velocity":
                rest = {"skip_finest": phase.leave_out} if phase.leave_out else {}
                velocity = network.velocity(moving=moving, fixed=fixed, **rest)
            elif not self.capabilities.has_velocity and self._both_ways:
                # There is no inverse: the network is asked for the way back, too.
                ways = network(moving=torch.cat([moving, fixed]), fixed=torch.cat([fixed, moving]))
                there, back = ways.displacement.chunk(2)
                return {"displacement": there, "inverse": back, "regularity": ways.regularity}
            else:
                one = network(moving=moving, fixed=fixed)
                inverse = {} if one.inverse is None else {"inverse": one.inverse}
                return {"displacement": one.displacement, "regularity": one.regularity, **inverse}
        ways = field.exponentiate(torch.cat([velocity, -velocity]), steps=network.steps)
        there, back = ways.chunk(2)
        return {"displacement": there, "inverse": back, "regularity": velocity}

    @property
    def _both_ways(self) -> bool:
        return self.config.both_directions or "inverse" in self.wants

    def _compared(
        self, moving: Tensor, fixed: Tensor, given: Given, phase: Phase
    ) -> tuple[Tensor, Tensor]:
        """What is to be alike: fixed and moved; of both directions, as one batch."""
        if self.config.compare_at == "velocity":
            shape, factor = given["regularity"].shape[2:], 2 ** (1 + phase.leave_out)
            moving, fixed = (as_velocity(x, shape, factor) for x in (moving, fixed))
        if not self.config.both_directions:
            return fixed, field.warp(moving, given["displacement"])
        ways = torch.cat([given["displacement"], given["inverse"]])
        return torch.cat([fixed, moving]), field.warp(torch.cat([moving, fixed]), ways)

    def _recognised(self, network: Any, batch: Batch, phase: Phase) -> Given:
        """Log-odds and labels of voxels of all labelled scans of the batch."""
        if batch.moving_labels is None or batch.fixed_labels is None:
            raise InputError("loss segmentation: pairs without labels: set sampling.labelled to 1")
        chosen = [x[batch.labelled] for x in (batch.seen_moving, batch.seen_fixed)]
        images = averaged(torch.cat(chosen), phase.downsample)
        with convolutions(self.config.precision, images.device):
            embedded = network.segmentation.network(images)
        labels = torch.cat([batch.moving_labels, batch.fixed_labels])
        behind = blocks(labels, 2 * phase.downsample).flatten(0, 3)
        embedded = embedded.movedim(1, -1).flatten(0, 3)
        if wanted := self.config.sampling.voxels:
            drawn = torch.randint(len(behind), (wanted * len(images),)).to(behind.device)
            behind, embedded = behind[drawn], embedded[drawn]
        return {"log_odds": network.segmentation.network.classify(embedded), "labels": behind}

    def _of_labelled(self, given: Given, batch: Batch, phase: Phase) -> Given | None:
        """What is given of the pairs with labels, and their structures, where losses want them."""
        if "moved_labels" not in self.wants or batch.moving_labels is None:
            return None
        assert batch.fixed_labels is not None
        drawn = drawn_structures(self.structures, self.config.sampling.structures)
        moving, fixed = (
            structures(labels, drawn.to(labels.device), phase.downsample)
            for labels in (batch.moving_labels, batch.fixed_labels)
        )
        pairs = len(batch.moving)  # what is of both directions has twice as many rows
        chosen = {
            name: tensor[[way + i for way in range(0, len(tensor), pairs) for i in batch.labelled]]
            for name, tensor in given.items()
        }
        chosen["fixed_labels"], chosen["moved_labels"] = self._compared(
            moving, fixed, chosen, phase
        )
        return chosen

    @staticmethod
    def _loss(term: LossTerm, given: Given, labelled: Given | None, batch: Batch) -> Tensor:
        """A mean over all pairs: those without the labels that a loss wants count as 0."""
        if not any(name.endswith("_labels") for name in term.wants):
            return term(given)
        if labelled is None:
            # Zero, and yet of the network: every process has the same gradients to share.
            return 0 * given["regularity"].sum()
        return len(batch.labelled) / len(batch.moving) * term(labelled)


def as_velocity(image: Tensor, shape: torch.Size, factor: int) -> Tensor:
    """The image on the velocity's lattice, (B, C, *shape): padded as the network did, averaged."""
    padding: list[int] = []
    for n, coarse in reversed(list(zip(image.shape[2:], shape, strict=True))):  # last axis first
        before = (factor * coarse - n) // 2
        padding += [before, factor * coarse - n - before]
    return F.avg_pool3d(F.pad(image, padding), factor)


def drawn_structures(count: int, wanted: int) -> Tensor:
    """Numbers of the structures 1..count that a step compares: all, or ``wanted`` at random."""
    if not 0 < wanted < count:
        return torch.arange(1, count + 1)
    return torch.randperm(count)[:wanted] + 1


def structures(labels: Tensor, numbers: Tensor, factor: int) -> Tensor:
    """(B, X, Y, Z) structure numbers to (B, K, X / factor, ...): the share of each in a block."""
    numbers = numbers.to(labels.dtype).view(1, -1, 1, 1, 1)
    return averaged((labels[:, None] == numbers).float(), factor)


def convolutions(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """In which precision the network's convolutions run; "auto": bf16 where it is native."""
    if precision == "auto":
        return bfloat16_convolutions(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
