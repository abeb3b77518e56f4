"""Pairs of scans as a step takes them: one beside the other in a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

ATLAS = -1  # the atlas in ``names``, where scans have their numbers


@dataclass
class Sample:
    """A pair.

    Args:
        moving, fixed: (1, X, Y, Z) float32 in [0, 1]: what the losses compare.
        seen_moving, seen_fixed: what the network sees: the same with changed intensities, or
            the very same tensors where these do not change.
        moving_labels, fixed_labels: (X, Y, Z) numbers of structures; None unless both have them.
        names: numbers of the two scans; ``ATLAS``.
        skipped: what was wrong with scans that could not be read, in whose place these are.
    """

    moving: Tensor
    fixed: Tensor
    seen_moving: Tensor
    seen_fixed: Tensor
    moving_labels: Tensor | None
    fixed_labels: Tensor | None
    names: tuple[int, int]
    skipped: list[str]


@dataclass
class Batch:
    """Pairs side by side.

    Args:
        moving, fixed, seen_moving, seen_fixed: (B, 1, X, Y, Z), as in ``Sample``.
        labelled: which of the B pairs have labels.
        moving_labels, fixed_labels: (L, X, Y, Z), of these L pairs; None where there are none.
        names, skipped: of all pairs.
    """

    moving: Tensor
    fixed: Tensor
    seen_moving: Tensor
    seen_fixed: Tensor
    labelled: list[int]
    moving_labels: Tensor | None
    fixed_labels: Tensor | None
    names: list[tuple[int, int]]
    skipped: list[str]

    def to(self, device: str | torch.device) -> "Batch":
        """The batch on a device; tensors that are the same stay the same."""
        moving, fixed = self.moving.to(device), self.fixed.to(device)
        same_moving, same_fixed = self.seen_moving is self.moving, self.seen_fixed is self.fixed
        return replace(
            self,
            moving=moving,
            fixed=fixed,
            seen_moving=moving if same_moving else self.seen_moving.to(device),
            seen_fixed=fixed if same_fixed else self.seen_fixed.to(device),
            moving_labels=None if self.moving_labels is None else self.moving_labels.to(device),
            fixed_labels=None if self.fixed_labels is None else self.fixed_labels.to(device),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Pairs side by side; tensors that are the same in all of them stay the same."""
    moving = torch.stack([s.moving for s in samples])
    fixed = torch.stack([s.fixed for s in samples])
    same_moving = all(s.seen_moving is s.moving for s in samples)
    same_fixed = all(s.seen_fixed is s.fixed for s in samples)
    return Batch(
        moving,
        fixed,
        moving if same_moving else torch.stack([s.seen_moving for s in samples]),
        fixed if same_fixed else torch.stack([s.seen_fixed for s in samples]),
        [i for i, s in enumerate(samples) if s.moving_labels is not None],
        _stacked([s.moving_labels for s in samples]),
        _stacked([s.fixed_labels for s in samples]),
        [s.names for s in samples],
        [message for s in samples for message in s.skipped],
    )


def _stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(there) if there else None


def label_tensor(labels: np.ndarray, size: int) -> Tensor:
    """Numbers of structures in the narrowest type that torch computes with, a copy.

    Args:
        labels: of any integer type; torch can hardly compare the unsigned ones of two bytes.
        size: above all numbers of the cohort, so that the type is the same for all its scans.
    """
    wide = np.int16 if size <= 1 << 15 else np.int32
    return torch.from_numpy(labels.astype(np.uint8 if size <= 1 << 8 else wide))
