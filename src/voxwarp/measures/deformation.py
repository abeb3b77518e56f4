"""What a deformation does: local volumes, folds, errors of its inverse and at landmarks."""

import itertools
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..fields import field
from ..space.grid import Grid
from ..space.region import bounding_box, start_and_shape
from ..space.transform import Transform, Warp

_PLANES = 4  # of a field, worked on at a time: what is computed from them stays in the cache
_LAYERS = 32  # of a field in mm, turned into voxels at a time: whole fields are large


class NonDiffeomorphic(NamedTuple):
    """The volume that a warp turns inside out.

    Args:
        volume_mm3: in mm³.
        percent: of the brain's volume.
    """

    volume_mm3: float
    percent: float


def jacobian_determinant(warp: Warp, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Det J in a block of a warp's grid, by central differences: as of the whole grid.

    Args:
        warp: the deformation.
        box: voxels of its grid; differences are one-sided only where the grid ends.

    Returns:
        float32 of the block's shape.
    """
    first, last = box[0].start, box[0].stop
    end, found = warp.grid.shape[0], []
    around = tuple(
        slice(max(0, side.start - 1), min(n, side.stop + 1))
        for side, n in zip(box[1:], warp.grid.shape[1:], strict=True)
    )
    for low in range(first, last, _LAYERS):
        high = min(low + _LAYERS, last)
        wide = slice(max(0, low - 1), min(end, high + 1))
        part = np.ascontiguousarray(warp.displacement[:, wide, around[0], around[1]])
        slab = Warp(part, warp.grid.crop(*start_and_shape((wide, *around)))).in_voxels()
        determinant = field.jacobian_determinant(slab[None])[0].numpy()
        inner = (
            slice(side.start - wider.start, side.stop - wider.start)
            for side, wider in zip((slice(low, high), *box[1:]), (wide, *around), strict=True)
        )
        found.append(determinant[tuple(inner)])
    return np.concatenate(found)


def jacobian_statistics(warp: Warp, brain: np.ndarray) -> dict[str, float | int]:
    """How the volume changes locally, over the voxels of ``brain``.

    Args:
        warp: the deformation.
        brain: (X, Y, Z) boolean mask on its grid.

    Returns:
        Minimum, maximum and mean of det J by central differences, the standard deviation of
        its logarithm (over unfolded voxels), and the folds: how many voxels, and how many
        percent, have det J ≤ 0; ``folds_any_difference`` counts those where central, forward
        or backward differences say so.
    """
    brain = brain if brain.any() else np.ones_like(brain)
    x, y, z = box = bounding_box(brain)
    inside = torch.from_numpy(brain[box])
    displacement = warp.in_voxels()[None, :, x, y, z]
    determinant = field.jacobian_determinant(displacement)[0]
    folded = determinant <= 0
    any_folded = folded.clone()
    any_folded |= field.jacobian_determinant(displacement, differences="forward")[0] <= 0
    any_folded |= field.jacobian_determinant(displacement, differences="backward")[0] <= 0
    values = determinant[inside]
    count = int(folded[inside].sum())
    return {
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "mean": float(values.mean()),
        "std_log": float(values[values > 0].log().std()) if (values > 0).sum() > 1 else 0.0,
        "voxels": int(inside.sum()),
        "folds": count,
        "folds_percent": 100 * count / max(1, int(inside.sum())),
        "folds_any_difference": int(any_folded[inside].sum()),
    }


def nondiffeomorphic_volume(warp: Warp, brain: np.ndarray) -> NonDiffeomorphic:
    """How much of ``brain`` the warp turns inside out, however small the folds are.

    The non-diffeomorphic volume of Liu et al. (doi:10.1007/s11263-024-02047-1). The cells
    between voxel centres are cut into five tetrahedra in both ways there are, x ↦ x + w(x) is
    taken as linear on each, and the volumes of those that it turns over are added and halved.
    A voxel has ten: eight on its three edges (differences + and − along each axis) and one in the
    middle of the cells above and below it (J1*, J2*). Beyond its grid the field continues with
    its border value. The numbers are those of the authors' package digital-diffeomorphism 1.1.1,
    which has voxels for mm³.

    Args:
        warp: the deformation.
        brain: (X, Y, Z) boolean mask on its grid; if it is empty, everything counts.
    """
    brain = brain if brain.any() else np.ones_like(brain)
    x, y, z = box = bounding_box(brain)
    displacement = F.pad(warp.in_voxels()[None, :, x, y, z], (1,) * 6, mode="replicate")[0]
    inside = torch.from_numpy(brain[box])
    turned = 0.0
    for first in range(0, len(inside), _PLANES):
        slab = displacement[:, first : first + _PLANES + 2]
        volume = _turned_volume(slab) * inside[first : first + _PLANES]
        turned += float(volume.sum(dtype=torch.float64))
    voxel = abs(np.linalg.det(warp.grid.affine[:3, :3]))
    return NonDiffeomorphic(turned * float(voxel), 100 * turned / int(inside.sum()))


def _turned_volume(u: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z) voxels turned over, of u (3, X+2, Y+2, Z+2), both in voxels."""
    x, y, z = (n - 2 for n in u.shape[1:])

    def edge(i: int, j: int, k: int) -> torch.Tensor:
        """φ(x + (i, j, k)) − φ(x)."""
        there = u[:, 1 + i : 1 + i + x, 1 + j : 1 + j + y, 1 + k : 1 + k + z]
        return there - u[:, 1:-1, 1:-1, 1:-1] + u.new_tensor((i, j, k)).view(3, 1, 1, 1)

    determinants = [
        i * j * k * _triple(edge(i, 0, 0), edge(0, j, 0), edge(0, 0, k))
        for i, j, k in itertools.product((1, -1), repeat=3)
    ]
    determinants.append(_triple(edge(-1, -1, 0), edge(-1, 0, -1), edge(0, -1, -1)))
    determinants.append(_triple(edge(1, 1, 0), edge(0, 1, 1), edge(1, 0, 1)))
    # A sixth of the determinant is the tetrahedron's volume; either way of cutting counts half.
    return torch.stack([-d.clamp(max=0) for d in determinants]).sum(0) / 12


def _triple(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The triple product a · (b × c) of vectors (3, X, Y, Z)."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = a, b, c
    return ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)


def inverse_error(
    forward: Transform, backward: Transform, grid: Grid, brain: np.ndarray, *, every: int = 2
) -> dict[str, float]:
    """How far x is from backward(forward(x)), mm, over the voxel centres x of ``brain``.

    Args:
        forward: a map of points, RAS mm.
        backward: its inverse, or nearly.
        grid: where the voxels are, in the space that ``forward`` maps from.
        brain: (X, Y, Z) boolean mask on ``grid``.
        every: which of the voxels are looked at: every one, second, third … along each axis.

    Returns:
        ``mean``, 95th percentile ``p95`` and ``max``.

    Raises:
        ValueError: the mask is not on the grid, or has none of these voxels.
    """
    if brain.shape != grid.shape:
        raise ValueError(f"brain must have the shape of grid, {grid.shape}, got {brain.shape}")
    voxels = every * np.argwhere(brain[::every, ::every, ::every])
    if not len(voxels):
        raise ValueError(f"brain must have voxels at multiples of {every}, got none")
    points = grid.to_world(voxels)
    error = np.linalg.norm(backward.map(forward.map(points)) - points, axis=-1)
    return {
        "mean": float(error.mean()),
        "p95": float(np.percentile(error, 95)),
        "max": float(error.max()),
    }


def target_registration_errors(
    transform: Transform, *, moving: np.ndarray, fixed: np.ndarray
) -> np.ndarray:
    """(N,) distances in mm of transform(fixed landmarks) from the moving ones.

    Args:
        transform: maps points of the fixed space to the moving space, RAS mm.
        fixed: (N, 3) landmarks, RAS mm.
        moving: (N, 3), the same landmarks in the moving space, RAS mm.

    Raises:
        ValueError: the landmarks are not (N, 3), or not as many in either space.
    """
    for name, points in (("fixed", fixed), ("moving", moving)):
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"{name} must be (N, 3), got {points.shape}")
    if len(fixed) != len(moving):
        raise ValueError(
            f"moving must have as many points as fixed, {len(fixed)}, got {len(moving)}"
        )
    return np.linalg.norm(transform.map(fixed) - moving, axis=1)
