"""Transforms map points of the fixed space to the moving space, in RAS mm; no images here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..fields import field
from .grid import Grid

SLAB_VOXELS = 1 << 20  # of a grid, worked on at a time: bounds coordinates to about 100 MB


class Transform(Protocol):
    """A map of points in RAS mm."""

    def map(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the fixed space, RAS mm, to points (..., 3) of the moving space."""
        ...

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """``map`` of the voxel centres with first <= i < last of ``grid``: (slab, Y, Z, 3)."""
        ...


@dataclass(frozen=True, eq=False)
class Affine:
    """x ↦ A x.

    Args:
        matrix: (4, 4) matrix, RAS mm to RAS mm.

    Raises:
        ValueError: the matrix is not a finite, invertible homogeneous one.
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError(f"matrix must be a finite (4, 4) matrix, got {matrix.tolist()}")
        with np.errstate(over="ignore", invalid="ignore"):
            size = abs(np.linalg.det(matrix[:3, :3]))
        if not np.allclose(matrix[3], (0, 0, 0, 1)) or not 1e-9 <= size < np.inf:
            raise ValueError(f"matrix must be invertible, got {matrix.tolist()}")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def map(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the fixed space, RAS mm, to the moving space."""
        return points @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """``map`` of the voxel centres with first <= i < last of ``grid``."""
        return self.map(grid.nodes(first, last))

    def inverse(self) -> "Affine":
        """The map from the moving space to the fixed."""
        return Affine(np.linalg.inv(self.matrix))

    def after(self, first: "Affine") -> "Affine":
        """X ↦ self(first(x))."""
        return Affine(self.matrix @ first.matrix)


@dataclass(frozen=True, eq=False)
class Warp:
    """x ↦ x + w(x), w given on a grid and interpolated linearly; the identity outside of it.

    Outside means more than half a voxel beyond the outer voxel centres; up to there the border's
    value holds. That is what ITK does, so that other tools agree with us there as well.

    Args:
        displacement: w, (3, X, Y, Z) float32, mm, components R, A, S.
        grid: where its nodes are.
    """

    displacement: np.ndarray
    grid: Grid

    def __post_init__(self) -> None:
        if self.displacement.shape != (3, *self.grid.shape):
            raise ValueError(
                f"displacement must be {(3, *self.grid.shape)}, got {self.displacement.shape}"
            )

    @classmethod
    def from_voxels(cls, displacement: torch.Tensor, grid: Grid) -> "Warp":
        """From a displacement (3, X, Y, Z) in voxels of ``grid``."""
        matrix = torch.from_numpy(grid.affine[:3, :3].astype(np.float32))
        return cls(_times(matrix, displacement.cpu()).numpy(), grid)

    def in_voxels(self) -> torch.Tensor:
        """The displacement (3, X, Y, Z) in voxels of its own grid."""
        matrix = torch.from_numpy(np.linalg.inv(self.grid.affine[:3, :3]).astype(np.float32))
        return _times(matrix, torch.from_numpy(self.displacement))

    def map(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3), RAS mm, displaced."""
        flat = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        voxels = self.grid.to_voxel(flat)
        at = torch.from_numpy(voxels.T.astype(np.float32).reshape(1, 3, -1, 1, 1))
        moved = field.sample(torch.from_numpy(self.displacement)[None], at, padding="border")
        last = np.asarray(self.grid.shape) - 1
        inside = ((voxels >= -0.5) & (voxels < last + 0.5)).all(axis=1, keepdims=True)
        return (flat + inside * moved.reshape(3, -1).T.numpy()).reshape(np.shape(points))

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """``map`` of the voxel centres with first <= i < last of ``grid``."""
        if grid == self.grid:  # no interpolation: the nodes are the field's own
            return grid.nodes(first, last) + np.moveaxis(self.displacement[:, first:last], 0, -1)
        return self.map(grid.nodes(first, last))


def conjugate(warp: Warp, space: Affine, onto: Grid) -> Warp:
    """A⁻¹ ∘ warp ∘ A on another grid: the same motion, seen from another space.

    The field is interpolated once and, other than ``Warp.map``, extended beyond its own grid
    with its border value, so that ``onto`` may reach further.

    Args:
        warp: the motion in the space that ``space`` maps to.
        space: A, from ``onto``'s space to the warp's, RAS mm.
        onto: grid of the result.
    """
    voxels = np.linalg.inv(warp.grid.affine) @ space.matrix @ onto.affine
    matrix, offset = (
        torch.from_numpy(part.astype(np.float32)) for part in (voxels[:3, :3], voxels[:3, 3])
    )
    back = torch.from_numpy(np.linalg.inv(space.matrix[:3, :3]).astype(np.float32))
    source = _times(back, torch.from_numpy(warp.displacement))[None]
    out = torch.empty((3, *onto.shape))
    rows = max(1, SLAB_VOXELS // (onto.shape[1] * onto.shape[2]))
    for first in range(0, onto.shape[0], rows):
        slab = field.identity_grid((min(rows, onto.shape[0] - first), *onto.shape[1:]), source)[0]
        slab[0] += first
        at = (matrix @ slab.flatten(1)).view_as(slab) + offset.view(3, 1, 1, 1)
        out[:, first : first + rows] = field.sample(source, at[None], padding="border")[0]
    return Warp(out.numpy(), onto)


@dataclass(frozen=True, eq=False)
class Chain:
    """x ↦ the last of ``steps`` ∘ … ∘ the first; data are resampled once, at the end."""

    steps: Sequence[Transform]

    def map(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the fixed space, RAS mm, to the moving space."""
        for step in self.steps:
            points = step.map(points)
        return points

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """``map`` of the voxel centres with first <= i < last of ``grid``."""
        points = (
            self.steps[0].map_nodes(grid, first, last) if self.steps else grid.nodes(first, last)
        )
        return Chain(self.steps[1:]).map(points) if self.steps else points


def _times(matrix: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """A (3, 3) matrix times every vector of a field (3, X, Y, Z)."""
    return (matrix @ vectors.flatten(1)).view_as(vectors)
