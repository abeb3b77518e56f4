"""The part of a lattice that the brains fill, where the work is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A part of a lattice, which may reach beyond it.

    Args:
        first: index of its first voxel along each axis.
        shape: its voxels.
        whole: those of the lattice.
    """

    first: tuple[int, ...]
    shape: tuple[int, ...]
    whole: tuple[int, ...]

    @classmethod
    def around(cls, *images: Tensor, multiple: int, margin: int = 4) -> "Box":
        """What is not zero in any of (B, 1, X, Y, Z) images, and ``margin`` voxels on each side.

        Its sides are multiples of ``multiple``; of images of nothing, it is everything.
        """
        seen = torch.stack([(x != 0).flatten(0, 1).any(dim=0) for x in images]).any(dim=0)
        whole = tuple(seen.shape)
        first, shape = [], []
        for axis, n in enumerate(whole):
            others = [a for a in range(3) if a != axis]
            at = seen.any(dim=others[1]).any(dim=others[0]).nonzero()
            low, high = (int(at[0]) - margin, int(at[-1]) + margin + 1) if len(at) else (0, n)
            low, high = max(low, 0), min(high, n)
            side = -(-(high - low) // multiple) * multiple
            start = low - (side - (high - low)) // 2
            first.append(min(max(start, 0), n - side) if side <= n else start)
            shape.append(side)
        return cls(tuple(first), tuple(shape), whole)

    def take(self, volume: Tensor, *, border: bool = False) -> Tensor:
        """The part of (B, C, X, Y, Z); beyond the lattice zeros, or the border's value."""
        return _reach(volume, self.first, self.shape, "replicate" if border else "constant")

    def put_back(self, field: Tensor) -> Tensor:
        """A field of the box on the whole lattice; around the box the border's value."""
        return _reach(field, [-n for n in self.first], self.whole, "replicate")


def _reach(volume: Tensor, first: Sequence[int], shape: Sequence[int], mode: str) -> Tensor:
    """The voxels from ``first`` on, cut out and padded."""
    pads: list[int] = []
    for axis, (low, side) in enumerate(zip(first, shape, strict=True)):
        n = volume.shape[2 + axis]
        start, stop = max(low, 0), min(low + side, n)
        volume = volume.narrow(2 + axis, start, stop - start)
        pads = [start - low, low + side - stop, *pads]  # the last axis first
    return F.pad(volume, pads, mode=mode) if any(pads) else volume
