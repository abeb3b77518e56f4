"""The objective of a training: the weighted losses of a network on a batch of pairs."""

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._device import bfloat16_convolutions
from ..errors import InputError
from ..fields import field
from ..fields.field import averaged, blocks
from ..networks.deformation import integrate
from .batch import Batch
from .config import Config, Phase
from .loss_terms import LossTerm, build_terms

LossInputs = dict[str, Tensor]  # by the names in ``loss_terms``
_OTHER = {"fixed": "moved", "fixed_labels": "moved_labels"}  # these are computed together


class Objective:
    """The weighted sum of losses, for a network and a batch of pairs.

    Args:
        config: configuration: the losses, their grid and their directions.
        structures: number of structures in the label maps.

    Raises:
        InputError: a user's loss cannot be found or used.
    """

    def __init__(self, config: Config, structures: int):
        self.config, self.structures = config, structures
        self.capabilities = config.capabilities
        self.terms = build_terms(config.losses)
        self.inputs = {name for term in self.terms for name in term.inputs}
        self.inputs |= {_OTHER[name] for name in self.inputs & _OTHER.keys()}

    def __call__(self, network: nn.Module, batch: Batch, phase: Phase) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            network: network of the configuration, on the device of the batch.
            batch: images on the working grid.
            phase: phase of the training, which may average the images down.

        Returns:
            Scalars, means over the pairs: ``loss``, the weighted sum, and each loss by name,
            without its weight.
        """
        if self.capabilities.learns_from == "labels":
            return self._sum(self._segmentation_inputs(network, batch, phase), None, batch)
        inputs = self._deformation(network, batch, phase)
        if "moved" in self.inputs:
            images = [averaged(x, phase.downsample) for x in (batch.moving, batch.fixed)]
            if grid := self._velocity_grid(inputs, phase):
                images = [F.avg_pool3d(to_velocity_grid(x, *grid), grid[1]) for x in images]
            moving, fixed = images
            inputs["fixed"], inputs["moved"] = self._move(moving, fixed, inputs)
        labelled = self._labelled_inputs(inputs, batch, phase)
        return self._sum(inputs, labelled, batch)

    def _sum(
        self, inputs: LossInputs, labelled: LossInputs | None, batch: Batch
    ) -> dict[str, Tensor]:
        values = {term.name: self._loss(term, inputs, labelled, batch) for term in self.terms}
        weighted = [term.weight * values[term.name] for term in self.terms]
        return {"loss": torch.stack(weighted).sum(), **values}

    def _deformation(self, network: Any, batch: Batch, phase: Phase) -> LossInputs:
        """Displacement, regularity, and the inverse if a loss needs it."""
        config = self.config
        moving, fixed = (
            averaged(x, phase.downsample) for x in (batch.moving_input, batch.fixed_input)
        )
        with convolutions(config.precision, moving.device):
            if config.compare_at == "velocity":
                rest = {"skip_finest": phase.leave_out} if phase.leave_out else {}
                velocity = network.velocity(moving=moving, fixed=fixed, **rest)
            elif not self.capabilities.has_velocity and self._needs_inverse:
                # Nothing is known of the inverse, so the other direction is registered, too.
                pair = network(moving=torch.cat([moving, fixed]), fixed=torch.cat([fixed, moving]))
                forward, inverse = pair.displacement.chunk(2)
                return {"displacement": forward, "inverse": inverse, "regularity": pair.regularity}
            else:
                displacement, regularity, _ = network(moving=moving, fixed=fixed)
                inputs = {"displacement": displacement, "regularity": regularity}
                if self._needs_inverse:
                    inputs["inverse"] = integrate(-regularity, moving.shape[2:], network.steps)
                return inputs
        ways = [velocity, -velocity] if self._needs_inverse else [velocity]
        flows = field.exponentiate(torch.cat(ways), steps=network.steps).chunk(len(ways))
        found = dict(zip(("displacement", "inverse"), flows, strict=False))
        return {**found, "regularity": velocity}

    @property
    def _needs_inverse(self) -> bool:
        return self.config.both_directions or "inverse" in self.inputs

    def _velocity_grid(self, inputs: LossInputs, phase: Phase) -> tuple[torch.Size, int] | None:
        """The velocity's grid, if losses compare there, and how many voxels one of its has."""
        if self.config.compare_at != "velocity":
            return None
        return inputs["regularity"].shape[2:], 2 ** (1 + phase.leave_out)

    def _move(self, moving: Tensor, fixed: Tensor, inputs: LossInputs) -> tuple[Tensor, Tensor]:
        """Fixed and moved images, or structures; both directions are one batch."""
        if not self.config.both_directions:
            return fixed, field.warp(moving, inputs["displacement"])
        displacements = torch.cat([inputs["displacement"], inputs["inverse"]])
        return torch.cat([fixed, moving]), field.warp(torch.cat([moving, fixed]), displacements)

    def _segmentation_inputs(self, network: Any, batch: Batch, phase: Phase) -> LossInputs:
        """Log-odds and labels for the voxels of all labelled scans of a batch."""
        if batch.moving_labels is None or batch.fixed_labels is None:
            raise InputError(
                "loss segmentation: a batch has no pair with labels; set sampling.labelled to 1"
            )
        chosen = [x[batch.labelled] for x in (batch.moving_input, batch.fixed_input)]
        images = averaged(torch.cat(chosen), phase.downsample)
        with convolutions(self.config.precision, images.device):
            embedded = network.segmentation.network(images)
        labels = torch.cat([batch.moving_labels, batch.fixed_labels])
        behind = blocks(labels, 2 * phase.downsample).flatten(0, 3)
        embedded = embedded.movedim(1, -1).flatten(0, 3)
        if count := self.config.sampling.voxels:
            drawn = torch.randint(len(behind), (count * len(images),)).to(behind.device)
            behind, embedded = behind[drawn], embedded[drawn]
        return {"log_odds": network.segmentation.network.classify(embedded), "labels": behind}

    def _labelled_inputs(self, inputs: LossInputs, batch: Batch, phase: Phase) -> LossInputs | None:
        """The inputs for the pairs with labels, with structures; None if no loss needs them."""
        if "moved_labels" not in self.inputs or batch.moving_labels is None:
            return None
        assert batch.fixed_labels is not None
        drawn = draw_structures(self.structures, self.config.sampling.structures)
        labels, factor = [batch.moving_labels, batch.fixed_labels], int(phase.downsample)
        if grid := self._velocity_grid(inputs, phase):
            labels = [to_velocity_grid(x, *grid, unit=factor) for x in labels]
            factor *= grid[1]
        moving, fixed = (structures(x, drawn.to(x.device), factor) for x in labels)
        pairs = len(batch.moving)
        chosen = {  # a tensor for both directions has 2 * pairs rows
            name: tensor[[row + i for row in range(0, len(tensor), pairs) for i in batch.labelled]]
            for name, tensor in inputs.items()
        }
        chosen["fixed_labels"], chosen["moved_labels"] = self._move(moving, fixed, chosen)
        return chosen

    @staticmethod
    def _loss(
        term: LossTerm, inputs: LossInputs, labelled: LossInputs | None, batch: Batch
    ) -> Tensor:
        """The mean over all pairs; pairs without labels count as 0 in a loss that needs labels."""
        if not any(name.endswith("_labels") for name in term.inputs):
            return term(inputs)
        if labelled is None:
            # Zero that depends on the network: every process needs the same gradients to share.
            return 0 * inputs["regularity"].sum()
        return len(batch.labelled) / len(batch.moving) * term(labelled)


def to_velocity_grid(image: Tensor, shape: torch.Size, factor: int, *, unit: int = 1) -> Tensor:
    """Pad an image as the network does, so that each voxel of the velocity has ``factor``³.

    ``unit`` is how many voxels of the image one of the network's has along each axis.
    """
    padding: list[int] = []
    for n, coarse in reversed(list(zip(image.shape[-3:], shape, strict=True))):  # last axis first
        missing = factor * coarse - n // unit
        padding += [unit * (missing // 2), unit * (missing - missing // 2)]
    return F.pad(image, padding)


def draw_structures(count: int, number: int) -> Tensor:
    """Draw ``number`` of the structures 1..count at random; all if ``number`` is 0."""
    if not 0 < number < count:
        return torch.arange(1, count + 1)
    return torch.randperm(count)[:number] + 1


def structures(labels: Tensor, numbers: Tensor, factor: int) -> Tensor:
    """Share of each structure in blocks: (B, X, Y, Z) numbers to (B, K, X / factor, ...)."""
    # Voxel by voxel of the blocks, so that sums are of whole vectors.
    members = blocks(labels, factor).movedim(-1, 0).contiguous()
    counts = [(members == n).sum(0, dtype=torch.int32) for n in numbers.to(labels.dtype)]
    return torch.stack(counts, dim=1).float() / factor**3


def convolutions(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Set the precision of convolutions; "auto" is bf16 on processors that compute with it."""
    if precision == "auto":
        return bfloat16_convolutions(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
