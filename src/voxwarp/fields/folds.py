"""Folds removed from a displacement, by smoothing it where it folds and nowhere else."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import compiled, field
from .filters import gaussian

# Voxels. The smoothing around folds is full up to WIDENING, and fades with a Gaussian, truncated at
# 4 sigma; so it reaches REACH far. Folds are smoothed in blocks with their surroundings, to save
# time.
SIGMA, WIDENING, REACH = 1.0, 2, 6
BLOCK = 16


def remove_folds(displacement: Tensor, *, min_determinant: float, rounds: int = 40) -> Tensor:
    """Smooth a displacement, (B, 3, X, Y, Z), where its determinant is below ``min_determinant``.

    Around such voxels, and nowhere else, the displacement is blended with a smoothed one, in at
    most ``rounds`` rounds (set by hand), until no such voxel is left by any kind of differences.
    If there is none, the displacement itself is returned, not a copy.
    """
    folded = field.jacobian_determinants(displacement)[1] < min_determinant
    if not folded.any():
        return displacement
    displacement = displacement.clone(memory_format=torch.contiguous_format)
    smooth = compiled.smooth_folds if compiled.can_take(displacement) else _smooth_folds
    for _ in range(rounds):
        if not folded.any():
            break
        for u, f in zip(displacement, folded, strict=True):
            for group in _groups(_regions(f)):
                smooth(u, f, group, widening=WIDENING, sigma=SIGMA, bound=min_determinant)
    return displacement


def _regions(folded: Tensor) -> Tensor:
    """The part of each block of (X, Y, Z) that has folds, and what is around it.

    Returns:
        The first voxel along each axis and the one past the last, (N, 3, 2).
    """
    voxels = folded.nonzero()
    blocks, block_of = torch.unique(voxels // BLOCK, dim=0, return_inverse=True)
    places, corners = block_of[:, None].expand(-1, 3), blocks * BLOCK
    first = (corners + BLOCK).scatter_reduce(0, places, voxels, "amin") - REACH
    last = corners.scatter_reduce(0, places, voxels, "amax") + 1 + REACH
    shape = torch.tensor(folded.shape, device=folded.device)
    return torch.stack([first.clamp(min=0), torch.minimum(last, shape)], dim=2)


def _groups(regions: Tensor) -> list[Tensor]:
    """The regions in groups that can be worked on at once, as those of a group do not overlap.

    Of two that overlap, the first is in an earlier group. So the result is the same as from one
    region after the other.
    """
    begin, end = regions.cpu().unbind(2)
    rank = torch.zeros(len(regions), dtype=torch.long)
    for i in range(1, len(regions)):
        overlap = ((begin[:i] < end[i]) & (begin[i] < end[:i])).all(dim=1)
        if overlap.any():
            rank[i] = rank[:i][overlap].max() + 1
    return [regions[(rank == r).to(regions.device)] for r in rank.unique()]


def _smooth_folds(
    u: Tensor, folded: Tensor, regions: Tensor, *, widening: int, sigma: float, bound: float
) -> None:
    """See ``compiled.smooth_folds``."""
    for region in regions.tolist():
        x, y, z = (slice(*ends) for ends in region)
        part = u[None, :, x, y, z]  # a view
        mask = folded[None, None, x, y, z].float()
        blend = gaussian(F.max_pool3d(mask, 2 * widening + 1, 1, widening), sigma)
        # Voxels that change, and those that are checked, have all their neighbours in the part.
        changed, checked = (_inner(region, folded.shape, by) for by in (2, 1))
        part[changed] += (blend * (gaussian(part, sigma) - part))[changed]
        least = field.jacobian_determinants(part)[1][0]
        folded[x, y, z][checked] = least[checked] < bound


def _inner(region: Sequence[Sequence[int]], shape: Sequence[int], by: int) -> field.Crop:
    """The slices of a region without ``by`` voxels at its ends, except at the ends of the grid."""
    slices = (
        slice(by if begin > 0 else 0, end - begin - (by if end < n else 0))
        for (begin, end), n in zip(region, shape, strict=True)
    )
    return (..., *slices)
