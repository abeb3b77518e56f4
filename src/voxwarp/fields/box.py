"""The box around the brains of a pair: computing in it alone saves time and memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A box of voxels in a volume; it may extend beyond the volume.

    Args:
        first: index of its first voxel along each axis, negative before the volume.
        shape: its number of voxels along each axis.
        whole: the number of voxels of the volume along each axis.
    """

    first: tuple[int, ...]
    shape: tuple[int, ...]
    whole: tuple[int, ...]

    @classmethod
    def around(cls, *images: Tensor, multiple: int, margin: int = 4) -> "Box":
        """The box around all voxels that are not zero, with a margin.

        Args:
            images: (B, 1, X, Y, Z); the box holds the non-zero voxels of all of them, or the
                whole volume if there are none.
            multiple: the sides are multiples of this number of voxels.
            margin: voxels on each side, within the volume.
        """
        mask = torch.stack([(x != 0).flatten(0, 1).any(dim=0) for x in images]).any(dim=0)
        whole = tuple(mask.shape)
        first, shape = [], []
        for axis, n in enumerate(whole):
            others = [a for a in range(3) if a != axis]
            planes = mask.any(dim=others[1]).any(dim=others[0]).nonzero()
            low, high = (
                (int(planes[0]) - margin, int(planes[-1]) + margin + 1) if len(planes) else (0, n)
            )
            low, high = max(low, 0), min(high, n)
            side = -(-(high - low) // multiple) * multiple
            start = low - (side - (high - low)) // 2
            first.append(min(max(start, 0), n - side) if side <= n else start)
            shape.append(side)
        return cls(tuple(first), tuple(shape), whole)

    def crop(self, volume: Tensor, *, border: bool = False) -> Tensor:
        """Cut the box out of (B, C, X, Y, Z); beyond the volume zeros, or its border value."""
        return _cut_and_pad(volume, self.first, self.shape, "replicate" if border else "constant")

    def put_back(self, field: Tensor) -> Tensor:
        """Put a field on the box back into the whole volume; around the box its border value."""
        return _cut_and_pad(field, [-n for n in self.first], self.whole, "replicate")


def _cut_and_pad(volume: Tensor, first: Sequence[int], shape: Sequence[int], mode: str) -> Tensor:
    """The block of ``shape`` voxels that starts at ``first``, padded where it is outside."""
    pads: list[int] = []
    for axis, (low, side) in enumerate(zip(first, shape, strict=True)):
        n = volume.shape[2 + axis]
        start, stop = max(low, 0), min(low + side, n)
        volume = volume.narrow(2 + axis, start, stop - start)
        pads = [start - low, low + side - stop, *pads]  # F.pad takes the last axis first
    return F.pad(volume, pads, mode=mode) if any(pads) else volume
