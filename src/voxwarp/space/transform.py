"""Transforms: maps from points of the fixed space to points of the moving space, in RAS mm."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from ..fields import compiled, field
from .grid import FARTHEST, Grid
from .region import start_and_shape

#: Voxels of a grid whose points are mapped at a time, to keep coordinates within about 100 MB.
SLAB_VOXELS = 1 << 20
#: Voxels of a larger grid on which kernels work at a time, 200 MB of displacements. Scans of 1 mm
#: have at most as many. Set by hand.
PART_VOXELS = 1 << 24


class Transform(Protocol):
    """Any map of points in RAS mm: ``Affine``, ``Warp``, ``Chain`` or another displacement."""

    def map(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 3) of the fixed space, RAS mm, to the moving space (..., 3)."""
        ...

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """Map the voxel centres of ``grid`` with first ≤ i < last: (last − first, Y, Z, 3)."""
        ...


@runtime_checkable
class Displacement(Transform, Protocol):
    """A transform x ↦ x + w(x) that is known at the voxel centres of grids."""

    def at_nodes(self, grid: Grid) -> np.ndarray | None:
        """Displacement w at the voxel centres of a grid, (3, X, Y, Z) float32, mm.

        None if only ``map`` can compute it.
        """
        ...


@dataclass(frozen=True, eq=False)
class Affine:
    """An affine map x ↦ A x.

    Args:
        matrix: A, (4, 4), from RAS mm of the fixed space to RAS mm of the moving space.

    Raises:
        ValueError: the matrix has numbers of 1e9 or more, is not invertible, or its last row is
            not 0 0 0 1.

    Example:
        >>> import numpy as np
        >>> import voxwarp
        >>> matrix = np.eye(4)
        >>> matrix[:3, 3] = 10, 0, 0
        >>> shift = voxwarp.Affine(matrix)
        >>> shift.map(np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))
        array([[10.,  0.,  0.],
               [11.,  2.,  3.]])
        >>> shift.inverse().matrix[:3, 3]
        array([-10.,   0.,   0.])
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not (abs(matrix) < FARTHEST).all():  # NaN is not below
            raise ValueError(
                f"matrix must be a finite (4, 4) matrix of numbers below {FARTHEST:.0e}, got "
                f"{matrix.tolist()}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            # Set by hand: no brain is scaled to a thousandth, or a thousand times, along each axis.
            volume_factor = abs(np.linalg.det(matrix[:3, :3]))
        if not np.allclose(matrix[3], (0, 0, 0, 1)) or not 1e-9 <= volume_factor <= 1e9:
            raise ValueError(
                f"matrix must be invertible and end in the row 0 0 0 1, got {matrix.tolist()}"
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def map(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 3) of the fixed space, RAS mm, to the moving space."""
        return points @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """Map the voxel centres of ``grid`` with first ≤ i < last."""
        return self.map(grid.nodes(first, last))

    def inverse(self) -> "Affine":
        """The map from the moving space to the fixed space."""
        return Affine(np.linalg.inv(self.matrix))

    def after(self, first: "Affine") -> "Affine":
        """Compose: the map x ↦ self(first(x))."""
        return Affine(self.matrix @ first.matrix)


@dataclass(frozen=True, eq=False)
class Warp:
    """A displacement on a grid: x ↦ x + w(x), interpolated linearly.

    More than half a voxel beyond the outer voxel centres it is the identity; up to there it has
    its border value. ITK does the same, so ANTs and SimpleITK agree there too.

    Args:
        displacement: w, (3, X, Y, Z) float32, mm, components R, A, S.
        grid: the grid of the displacement.

    Raises:
        ValueError: the shapes of displacement and grid differ.

    Example:
        >>> import numpy as np
        >>> import voxwarp
        >>> displacement = np.zeros((3, 8, 8, 8), np.float32)
        >>> displacement[0] = 2  # mm to the right, everywhere on the grid
        >>> warp = voxwarp.Warp(displacement, voxwarp.Grid((8, 8, 8), np.eye(4)))
        >>> warp.map(np.array([[4.0, 4.0, 4.0], [99.0, 99.0, 99.0]]))
        array([[ 6.,  4.,  4.],
               [99., 99., 99.]])
    """

    displacement: np.ndarray
    grid: Grid

    def __post_init__(self) -> None:
        if self.displacement.shape != (3, *self.grid.shape):
            raise ValueError(
                f"displacement must be of shape {(3, *self.grid.shape)}, "
                f"got {self.displacement.shape}"
            )

    @classmethod
    def from_voxels(cls, displacement: torch.Tensor, grid: Grid) -> "Warp":
        """Make a warp from a displacement (3, X, Y, Z) in voxels of ``grid``."""
        matrix = torch.from_numpy(grid.affine[:3, :3].astype(np.float32))
        return cls(_times(matrix, displacement.cpu()).numpy(), grid)

    def in_voxels(self) -> torch.Tensor:
        """The displacement (3, X, Y, Z) in voxels of its own grid."""
        matrix = torch.from_numpy(np.linalg.inv(self.grid.affine[:3, :3]).astype(np.float32))
        return _times(matrix, torch.from_numpy(self.displacement))

    def map(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 3) of the fixed space, RAS mm."""
        flat = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        voxels = self.grid.to_voxel(flat)
        at = torch.from_numpy(voxels.T.astype(np.float32).reshape(1, 3, -1, 1, 1))
        moved = field.sample(torch.from_numpy(self.displacement)[None], at, padding="border")
        last = np.asarray(self.grid.shape) - 1
        inside = ((voxels >= -0.5) & (voxels < last + 0.5)).all(axis=1, keepdims=True)
        return (flat + inside * moved.reshape(3, -1).T.numpy()).reshape(np.shape(points))

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """Map the voxel centres of ``grid`` with first ≤ i < last."""
        if grid == self.grid:  # no interpolation: the nodes are the field's own
            displacement: np.ndarray | None = self.displacement[:, first:last]
        else:
            displacement = self.at_nodes(grid.crop((first, 0, 0), (last - first, *grid.shape[1:])))
        nodes = grid.nodes(first, last)
        return self.map(nodes) if displacement is None else nodes + np.moveaxis(displacement, 0, -1)

    def block(self, box: tuple[slice, slice, slice]) -> "Warp":
        """The warp on a block of its grid; a view."""
        start, shape = start_and_shape(box)
        x, y, z = box
        return Warp(self.displacement[:, x, y, z], self.grid.crop(start, shape))

    def at_nodes(self, grid: Grid) -> np.ndarray | None:
        """The displacement at the voxel centres of a grid, (3, X, Y, Z) float32, mm.

        None if kernels cannot interpolate it.
        """
        if grid == self.grid:
            return self.displacement
        return _interpolated(self, compiled.GridMap.of(grid.affine), grid)


def conjugate(warp: Warp, affine: Affine, grid: Grid) -> Warp:
    """Express a warp in another space: A⁻¹ ∘ warp ∘ A, on another grid.

    The field is interpolated once. Beyond its own grid it continues with its border value (unlike
    in ``Warp.map``), because ``grid`` may be larger.

    Args:
        warp: the warp in its own space.
        affine: A, from the new space to the space of the warp, RAS mm.
        grid: grid of the result, in the new space.
    """
    voxels = np.linalg.inv(warp.grid.affine) @ affine.matrix @ grid.affine
    inverse = np.linalg.inv(affine.matrix[:3, :3])
    if compiled.enabled() and min(warp.grid.shape) > 1:
        displacement = compiled.resample_field(
            warp.displacement,
            grid.shape,
            compiled.GridMap.of(voxels),
            extend=True,
            turn=inverse,
        )
        return Warp(displacement, grid)
    turn = torch.from_numpy(inverse.astype(np.float32))
    source = _times(turn, torch.from_numpy(warp.displacement))[None]
    matrix, offset = (
        torch.from_numpy(part.astype(np.float32)) for part in (voxels[:3, :3], voxels[:3, 3])
    )
    out = torch.empty((3, *grid.shape))
    rows = max(1, SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    for first in range(0, grid.shape[0], rows):
        slab = field.identity_grid((min(rows, grid.shape[0] - first), *grid.shape[1:]), source)[0]
        slab[0] += first
        at = (matrix @ slab.flatten(1)).view_as(slab) + offset.view(3, 1, 1, 1)
        out[:, first : first + rows] = field.sample(source, at[None], padding="border")[0]
    return Warp(out.numpy(), grid)


@dataclass(frozen=True, eq=False)
class Chain:
    """Transforms one after the other, the first applied first; data are resampled only once.

    Args:
        transforms: maps of points, in the order in which points pass through them: [warp, affine]
            is x ↦ affine(warp(x)). An empty chain is the identity.

    Example:
        >>> import numpy as np
        >>> import voxwarp
        >>> zoom = voxwarp.Affine(np.diag([2.0, 2.0, 2.0, 1.0]))
        >>> matrix = np.eye(4)
        >>> matrix[:3, 3] = 10, 0, 0
        >>> chain = voxwarp.Chain([zoom, voxwarp.Affine(matrix)])  # first zoom, then shift
        >>> chain.map(np.array([[1.0, 1.0, 1.0]]))
        array([[12.,  2.,  2.]])
    """

    transforms: Sequence[Transform]

    def map(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 3) of the fixed space, RAS mm, to the moving space."""
        for transform in self.transforms:
            points = transform.map(points)
        return points

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """Map the voxel centres of ``grid`` with first ≤ i < last."""
        if not self.transforms:
            return grid.nodes(first, last)
        points = self.transforms[0].map_nodes(grid, first, last)
        return Chain(self.transforms[1:]).map(points)


def grid_map(transform: Transform, grid: Grid) -> compiled.GridMap | None:
    """Where the voxels of a grid go, RAS mm, as one matrix and one displacement for each voxel.

    None if kernels cannot compute it, as for a transform of another kind or a warp on a thin grid.
    """
    where = compiled.GridMap.of(grid.affine)
    for one in _flat(transform):
        if isinstance(one, Affine):
            where = where.then(one.matrix)
            continue
        more = None
        if not where.displacement.size and (where.matrix == grid.affine).all():
            more = one.at_nodes(grid) if isinstance(one, Displacement) else None
        elif isinstance(one, Warp):
            more = _interpolated(one, where, grid)
        if more is None:
            return None
        if where.displacement.size:
            before = np.einsum("ij,j...->i...", where.axes.astype(np.float32), where.displacement)
            more = more + before
        where = compiled.GridMap(where.matrix, more, np.eye(3))
    return where


def planes_of(grid: Grid, transform: Transform, first: int, last: int) -> tuple[Grid, Transform]:
    """The planes of a grid with first ≤ i < last, and the transform for their voxels.

    Where it begins with a warp on the grid, that is cut to these planes, so that it need not be
    interpolated.
    """
    part = grid.crop((first, 0, 0), (last - first, *grid.shape[1:]))
    steps = list(_flat(transform))
    if steps and isinstance(steps[0], Warp) and steps[0].grid == grid:
        rows, columns = (slice(0, n) for n in grid.shape[1:])
        steps[0] = steps[0].block((slice(first, last), rows, columns))
    return part, Chain(steps)


def _interpolated(warp: Warp, where: compiled.GridMap, grid: Grid) -> np.ndarray | None:
    """A warp's displacement where the voxels of a grid go; None if kernels cannot compute it."""
    if not compiled.enabled() or min(warp.grid.shape) < 2:
        return None
    to_voxels = where.then(np.linalg.inv(warp.grid.affine))
    return compiled.resample_field(warp.displacement, grid.shape, to_voxels, extend=False)


def _flat(transform: Transform) -> Iterator[Transform]:
    if isinstance(transform, Chain):
        for one in transform.transforms:
            yield from _flat(one)
    else:
        yield transform


def _times(matrix: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The product of a (3, 3) matrix with every vector of a field (3, X, Y, Z)."""
    return (matrix @ vectors.flatten(1)).view_as(vectors)
