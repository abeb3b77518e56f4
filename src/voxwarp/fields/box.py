"""The box around the brains of a pair: computing in it alone saves time and memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import compiled


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
        whole = tuple(images[0].shape[2:])
        first, shape = [], []
        for n, occupied in zip(whole, _occupied(images), strict=True):
            planes = occupied.nonzero()
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


def _occupied(images: Sequence[Tensor]) -> list[Tensor]:
    """Which planes across each axis hold a voxel that is not zero, in any of the images."""
    if compiled.can_take(*images):
        rows = [compiled.extents(x.flatten(0, 1)) for x in images]
        first = torch.from_numpy(np.minimum.reduce([r[..., 0] for r in rows]))
        last = torch.from_numpy(np.maximum.reduce([r[..., 1] for r in rows]))
        mask, z = first < last, torch.arange(images[0].shape[-1])
        along = (z >= first.min()) & (z < last.max())
        return [mask.any(dim=1), mask.any(dim=0), along]
    mask = torch.stack([(x != 0).flatten(0, 1).any(dim=0) for x in images]).any(dim=0)
    return [mask.transpose(0, axis).flatten(1).any(dim=1) for axis in range(3)]


def _cut_and_pad(volume: Tensor, first: Sequence[int], shape: Sequence[int], mode: str) -> Tensor:
    """The block of ``shape`` voxels that starts at ``first``, padded where it is outside."""
    pads = []
    for axis, (low, side) in enumerate(zip(first, shape, strict=True)):
        n = volume.shape[2 + axis]
        start, stop = max(low, 0), min(low + side, n)
        volume = volume.narrow(2 + axis, start, stop - start)
        pads.append((start - low, stop - low))  # where it is in the block
    if all(end - begin == side for (begin, end), side in zip(pads, shape, strict=True)):
        return volume
    make = volume.new_empty if mode == "replicate" else volume.new_zeros
    block = make((*volume.shape[:2], *shape))
    x, y, z = (slice(*pad) for pad in pads)
    block[..., x, y, z] = volume
    return _continue_border(block, pads) if mode == "replicate" else block


def _continue_border(block: Tensor, within: Sequence[tuple[int, int]]) -> Tensor:
    """Fill (B, C, X, Y, Z) in place around its values, which are ``within``, with their border."""
    for axis in (4, 3, 2):  # the last one first, so that the most is copied in whole planes
        begin, end = within[axis - 2]
        known = block
        for done in range(2, axis):
            low, high = within[done - 2]
            known = known.narrow(done, low, high - low)
        known.narrow(axis, 0, begin).copy_(known.narrow(axis, begin, 1))
        after = known.shape[axis] - end
        known.narrow(axis, end, after).copy_(known.narrow(axis, end - 1, 1))
    return block
