"""Batches of pairs, as a training step takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

ATLAS = -1  # stands for the atlas in ``numbers``


@dataclass
class Sample:
    """A pair of scans.

    Args:
        moving, fixed: (1, X, Y, Z) float32 in [0, 1]; the losses compare these.
        moving_input, fixed_input: the network gets these: the same images with changed
            intensities, or the same tensors if the intensities are not changed.
        moving_labels, fixed_labels: (X, Y, Z) structure numbers; None unless both scans have them.
        numbers: numbers of the moving and of the fixed scan in the cohort, or ``ATLAS``.
        skipped: messages about scans that could not be read and that this pair replaces.
    """

    moving: Tensor
    fixed: Tensor
    moving_input: Tensor
    fixed_input: Tensor
    moving_labels: Tensor | None
    fixed_labels: Tensor | None
    numbers: tuple[int, int]
    skipped: list[str]


@dataclass
class Batch:
    """A batch of B pairs.

    Args:
        moving, fixed, moving_input, fixed_input: (B, 1, X, Y, Z), as in ``Sample``.
        labelled: indices of the L pairs with labels.
        moving_labels, fixed_labels: (L, X, Y, Z) structure numbers of these pairs, or None.
        numbers, skipped: of all pairs, as in ``Sample``.
    """

    moving: Tensor
    fixed: Tensor
    moving_input: Tensor
    fixed_input: Tensor
    labelled: list[int]
    moving_labels: Tensor | None
    fixed_labels: Tensor | None
    numbers: list[tuple[int, int]]
    skipped: list[str]

    def to(self, device: str | torch.device) -> "Batch":
        """Move the batch to a device; inputs that are the images themselves stay that."""
        moving, fixed = self.moving.to(device), self.fixed.to(device)
        same_moving, same_fixed = self.moving_input is self.moving, self.fixed_input is self.fixed
        return replace(
            self,
            moving=moving,
            fixed=fixed,
            moving_input=moving if same_moving else self.moving_input.to(device),
            fixed_input=fixed if same_fixed else self.fixed_input.to(device),
            moving_labels=None if self.moving_labels is None else self.moving_labels.to(device),
            fixed_labels=None if self.fixed_labels is None else self.fixed_labels.to(device),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack pairs into a batch; inputs that are the images themselves stay that."""
    moving = torch.stack([s.moving for s in samples])
    fixed = torch.stack([s.fixed for s in samples])
    same_moving = all(s.moving_input is s.moving for s in samples)
    same_fixed = all(s.fixed_input is s.fixed for s in samples)
    return Batch(
        moving,
        fixed,
        moving if same_moving else torch.stack([s.moving_input for s in samples]),
        fixed if same_fixed else torch.stack([s.fixed_input for s in samples]),
        [i for i, s in enumerate(samples) if s.moving_labels is not None],
        _stacked([s.moving_labels for s in samples]),
        _stacked([s.fixed_labels for s in samples]),
        [s.numbers for s in samples],
        [message for s in samples for message in s.skipped],
    )


def _stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None


def label_tensor(labels: np.ndarray, size: int) -> Tensor:
    """Copy structure numbers into the narrowest type that PyTorch computes with.

    Args:
        labels: array of any integer type; PyTorch does not compare most of the unsigned ones.
        size: larger than all numbers of the cohort, so that all its scans have the same type.
    """
    wide = np.int16 if size <= 1 << 15 else np.int32
    return torch.from_numpy(labels.astype(np.uint8 if size <= 1 << 8 else wide))
