"""Measures of a deformation: local volumes, folds, errors of its inverse and at landmarks."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..fields import field
from ..space.grid import Grid
from ..space.region import bounding_box
from ..space.transform import Transform, Warp

# Planes of a field that are computed at a time, so that they stay in the cache of the CPU. Set by
# hand.
_PLANES = 4
# Planes of a field in mm that are converted to voxels at a time, because fields are large. Set by
# hand.
_LAYERS = 32


class NonDiffeomorphic(NamedTuple):
    """The volume that a warp turns inside out.

    Args:
        volume_mm3: the volume, mm³.
        percent: its share of the brain's volume, percent.
    """

    volume_mm3: float
    percent: float


@torch.no_grad()
def jacobian_determinant(warp: Warp, box: tuple[slice, slice, slice]) -> np.ndarray:
    """Jacobian determinant in a block of a warp's grid, by central differences.

    The values are those of the whole grid: differences are one-sided only where the grid ends.

    Args:
        warp: the deformation.
        box: slices of its grid.

    Returns:
        float32 array of the shape of the block.
    """
    first, last = box[0].start, box[0].stop
    end, slabs = warp.grid.shape[0], []
    around = tuple(
        slice(max(0, side.start - 1), min(n, side.stop + 1))
        for side, n in zip(box[1:], warp.grid.shape[1:], strict=True)
    )
    for low in range(first, last, _LAYERS):
        high = min(low + _LAYERS, last)
        wide = slice(max(0, low - 1), min(end, high + 1))
        slab = warp.block((wide, around[0], around[1])).in_voxels()
        determinant = field.jacobian_determinant(slab[None])[0].numpy()
        inner = (
            slice(side.start - wider.start, side.stop - wider.start)
            for side, wider in zip((slice(low, high), *box[1:]), (wide, *around), strict=True)
        )
        slabs.append(determinant[tuple(inner)])
    return np.concatenate(slabs)


@torch.no_grad()
def jacobian_statistics(warp: Warp, brain: np.ndarray) -> dict[str, float | int]:
    """Statistics of the Jacobian determinant over the voxels of a brain.

    Args:
        warp: the deformation.
        brain: (X, Y, Z) boolean mask on its grid; if it is empty, all voxels count.

    Returns:
        ``minimum``, ``maximum`` and ``mean`` of det J by central differences; ``std_log``, the
        standard deviation of its logarithm over voxels that are not folded; ``voxels``, the
        number of voxels; ``folds`` and ``folds_percent``, the voxels with det J ≤ 0; and
        ``folds_any_difference``, the voxels with det J ≤ 0 by central, forward or backward
        differences.
    """
    brain = brain if brain.any() else np.ones_like(brain)
    inside = zip(*_determinants_inside(warp, brain), strict=True)
    values, smallest = (torch.cat(parts) for parts in inside)
    count = int((values <= 0).sum())
    return {
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "mean": float(values.mean()),
        "std_log": float(values[values > 0].log().std()) if (values > 0).sum() > 1 else 0.0,
        "voxels": len(values),
        "folds": count,
        "folds_percent": 100 * count / max(1, len(values)),
        "folds_any_difference": int((smallest <= 0).sum()),
    }


def _determinants_inside(
    warp: Warp, brain: np.ndarray
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``field.jacobian_determinants`` in a brain, (N,) each, some planes at a time."""
    x, y, z = bounding_box(brain)
    for low in range(x.start, x.stop, _LAYERS):
        high = min(low + _LAYERS, x.stop)
        wide = slice(max(x.start, low - 1), min(x.stop, high + 1))
        slab = warp.block((wide, y, z)).in_voxels()
        inside = torch.from_numpy(brain[low:high, y, z])
        central, smallest = (
            d[0, low - wide.start :][: high - low][inside]
            for d in field.jacobian_determinants(slab[None])
        )
        yield central, smallest


def nondiffeomorphic_volume(warp: Warp, brain: np.ndarray) -> NonDiffeomorphic:
    """The volume of a brain that a warp turns inside out, including folds within a voxel.

    The non-diffeomorphic volume of Liu et al. (doi:10.1007/s11263-024-02047-1). The cells
    between voxel centres are cut into five tetrahedra, in both possible ways; x ↦ x + w(x) is
    linear on each; and the volumes of the tetrahedra that it turns inside out are added and
    halved. Each voxel has ten tetrahedra: eight on its three edges (differences + and − along
    each axis) and one in the middle of the cells above and below it (J1*, J2*). Beyond its grid
    the field continues with its border value. The values are those of the authors' package
    digital-diffeomorphism 1.1.1, which counts in voxels instead of mm³.

    Args:
        warp: the deformation.
        brain: (X, Y, Z) boolean mask on its grid; if it is empty, all voxels count.
    """
    brain = brain if brain.any() else np.ones_like(brain)
    x, y, z = box = bounding_box(brain)
    displacement = F.pad(warp.in_voxels()[None, :, x, y, z], (1,) * 6, mode="replicate")[0]
    inside = torch.from_numpy(brain[box])
    folded_volume = 0.0
    for first in range(0, len(inside), _PLANES):
        slab = displacement[:, first : first + _PLANES + 2]
        volume = _folded_volume(slab) * inside[first : first + _PLANES]
        folded_volume += float(volume.sum(dtype=torch.float64))
    voxel = abs(np.linalg.det(warp.grid.affine[:3, :3]))
    return NonDiffeomorphic(folded_volume * float(voxel), 100 * folded_volume / int(inside.sum()))


def _folded_volume(u: torch.Tensor) -> torch.Tensor:
    """The volume turned inside out in each voxel, (X, Y, Z), by u (3, X+2, Y+2, Z+2), in voxels."""
    x, y, z = (n - 2 for n in u.shape[1:])

    def edge(i: int, j: int, k: int) -> torch.Tensor:
        """φ(x + (i, j, k)) − φ(x)."""
        neighbour = u[:, 1 + i : 1 + i + x, 1 + j : 1 + j + y, 1 + k : 1 + k + z]
        return neighbour - u[:, 1:-1, 1:-1, 1:-1] + u.new_tensor((i, j, k)).view(3, 1, 1, 1)

    determinants = [
        i * j * k * _triple(edge(i, 0, 0), edge(0, j, 0), edge(0, 0, k))
        for i, j, k in itertools.product((1, -1), repeat=3)
    ]
    determinants.append(_triple(edge(-1, -1, 0), edge(-1, 0, -1), edge(0, -1, -1)))
    determinants.append(_triple(edge(1, 1, 0), edge(0, 1, 1), edge(1, 0, 1)))
    # A tetrahedron has a sixth of the determinant as volume; each way of cutting counts half.
    return torch.stack([-d.clamp(max=0) for d in determinants]).sum(0) / 12


def _triple(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The triple product a · (b × c) of vectors (3, X, Y, Z)."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = a, b, c
    return ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)


def inverse_error(
    forward: Transform, backward: Transform, grid: Grid, brain: np.ndarray, *, every: int = 2
) -> dict[str, float]:
    """Inverse error: the distance of x from backward(forward(x)) over a brain, mm.

    Args:
        forward: a map of points, RAS mm.
        backward: its supposed inverse.
        grid: a grid in the space from which ``forward`` maps.
        brain: (X, Y, Z) boolean mask on ``grid``; x are its voxel centres.
        every: step between the voxels that are used along each axis; 2 is every second voxel.

    Returns:
        ``mean``, 95th percentile ``p95`` and ``max``, mm.

    Raises:
        ValueError: the shapes of mask and grid differ, or none of these voxels is in the mask.
    """
    if brain.shape != grid.shape:
        raise ValueError(f"brain must have the shape of grid, {grid.shape}, got {brain.shape}")
    voxels = every * np.argwhere(brain[::every, ::every, ::every])
    if not len(voxels):
        raise ValueError(f"brain must have voxels with indices at multiples of {every}, got none")
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
    """Target registration errors: the distances of transform(fixed) from moving landmarks.

    Args:
        transform: maps points of the fixed space to the moving space, RAS mm.
        moving: (N, 3) landmarks in the moving space, RAS mm.
        fixed: (N, 3), the same landmarks in the fixed space, RAS mm.

    Returns:
        (N,) distances, mm.

    Raises:
        ValueError: the landmarks are not (N, 3), or their numbers differ.
    """
    for name, points in (("fixed", fixed), ("moving", moving)):
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"{name} must be (N, 3), got {points.shape}")
    if len(fixed) != len(moving):
        raise ValueError(
            f"moving must have as many points as fixed, {len(fixed)}, got {len(moving)}"
        )
    return np.linalg.norm(transform.map(fixed) - moving, axis=1)
