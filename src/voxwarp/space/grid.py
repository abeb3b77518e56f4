"""Grids: where voxels are, as a shape and an affine to RAS millimetres."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

#: The xform codes of NIfTI: what world space coordinates are in.
SCANNER, ALIGNED, TALAIRACH, MNI, OTHER_TEMPLATE = 1, 2, 3, 4, 5
LONGEST = 2**31  # voxels along an axis
# Millimetres. Set by hand: products of three such numbers can be computed and stored.
FARTHEST = 1e9
SPACE_CODES = SCANNER, ALIGNED, TALAIRACH, MNI, OTHER_TEMPLATE


@dataclass(frozen=True, eq=False, init=False)
class Grid:
    """A regular grid of voxel centres in RAS+ world space.

    Args:
        shape: number of voxels along each of the three axes.
        affine: (4, 4) matrix from voxel indices (i, j, k, 1) to RAS mm, as in nibabel.
        space_code: the world space, as an xform code of NIfTI: 1 for a scanner's, 2 for one that
            was aligned with another image, 3 for Talairach, 4 for MNI152, 5 for another
            template. Images on the grid are written with it. Grids that differ in it alone are
            equal, because their voxels are in the same places.

    Raises:
        ValueError: the shape is not three positive integers, the affine is not an invertible
            homogeneous matrix of numbers below 1e9, or the space code is not one of NIfTI.

    Example:
        >>> import numpy as np
        >>> import voxwarp
        >>> grid = voxwarp.Grid((4, 5, 6), np.diag([2.0, 2.0, 3.0, 1.0]))
        >>> grid.spacing, grid.axes
        ((2.0, 2.0, 3.0), 'RAS')
        >>> grid.to_world(np.array([1, 1, 1]))
        array([2., 2., 3.])
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    space_code: int

    def __init__(self, shape: Sequence[int], affine: ArrayLike, space_code: int = SCANNER) -> None:
        if any(not 0 <= n < LONGEST or n != int(n) for n in shape):
            raise ValueError(f"shape must be three positive integers, got {tuple(shape)}")
        shape = tuple(int(n) for n in shape)
        affine = np.array(affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be three positive integers, got {shape}")
        if affine.shape != (4, 4) or not (abs(affine) < FARTHEST).all():  # NaN is not below
            raise ValueError(
                f"affine must be a finite (4, 4) matrix of numbers below {FARTHEST:.0e}, got "
                f"{affine.tolist()}"
            )
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise ValueError(f"affine must end in the row 0 0 0 1, got {affine[3].tolist()}")
        with np.errstate(over="ignore"):
            columns = np.linalg.norm(affine[:3, :3], axis=0)
        # The volume that the unit vectors of the axes span: 1 at right angles, 0 in one plane,
        # whatever the size of the voxels. The limit is set by hand.
        if columns.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / columns)) < 1e-6:
            raise ValueError(f"affine must be invertible, got {affine.tolist()}")
        if space_code not in SPACE_CODES:
            raise ValueError(f"space_code must be an xform code, 1 to 5, got {space_code!r}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "space_code", int(space_code))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each axis, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def direction(self) -> np.ndarray:
        """(3, 3) unit vectors of the voxel axes in RAS, one per column."""
        return self.affine[:3, :3] / np.asarray(self.spacing)

    @property
    def axes(self) -> str:
        """The world directions in which the voxel axes run, such as ``"LAS"``."""
        columns = canonical_axes(self.affine)
        signs = [self.affine[row, column] > 0 for column, row in enumerate(columns)]
        return "".join(
            "RAS"[row] if up else "LPI"[row] for row, up in zip(columns, signs, strict=True)
        )

    def described(self) -> dict[str, Any]:
        """The grid for JSON; ``Grid(**grid.described())`` is the same grid.

        The space code is left out if it is that of a scanner, as in records of earlier versions.
        """
        about: dict[str, Any] = {"shape": list(self.shape), "affine": self.affine.tolist()}
        return about if self.space_code == SCANNER else {**about, "space_code": self.space_code}

    def in_space(self, space_code: int) -> "Grid":
        """The same voxels in a world space of another code."""
        return Grid(self.shape, self.affine, space_code)

    def is_sheared(self, tolerance: float = 1e-4) -> bool:
        """Whether the axes are not at right angles, which ITK images cannot express.

        Args:
            tolerance: largest cosine between two axes that counts as a right angle, and largest
                deviation of direction · directionᵀ from the identity. ITK 5.4 has the same limit
                for the second, above which it does not read an sform.
        """
        d = self.direction
        deviation = np.abs(np.stack([d.T @ d, d @ d.T]) - np.eye(3)).max()
        return bool(deviation > tolerance)

    def matches(self, other: "Grid", *, tolerance: float = 0.05) -> bool:
        """Whether both grids have the same shape and, nearly, the same corners.

        Args:
            other: the grid to compare with.
            tolerance: largest difference of a coordinate of a corner, in voxels of the smallest
                spacing. 5 % is set by hand: headers are rounded.
        """
        if self.shape != other.shape:
            return False
        gap = np.abs(self.to_world(self.corners()) - other.to_world(self.corners())).max()
        return bool(gap <= tolerance * min(self.spacing))

    def corners(self) -> np.ndarray:
        """(8, 3) voxel indices of the corner voxels."""
        last = np.asarray(self.shape) - 1
        return np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * last

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """Voxel coordinates (..., 3) to RAS mm (..., 3)."""
        return np.asarray(voxels) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_voxel(self, points: np.ndarray) -> np.ndarray:
        """RAS mm (..., 3) to voxel coordinates (..., 3)."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points) @ inverse[:3, :3].T + inverse[:3, 3]

    def nodes(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """RAS mm of the voxel centres with first ≤ i < last, (last − first, Y, Z, 3), float64."""
        last = self.shape[0] if last is None else last
        i, j, k = (np.arange(n, dtype=np.float64) for n in self.shape)
        x, y, z = self.affine[:3, 0], self.affine[:3, 1], self.affine[:3, 2]
        plane = j[:, None, None] * y + k[:, None] * z + self.affine[:3, 3]  # (Y, Z, 3)
        return i[first:last, None, None, None] * x + plane

    def crop(self, start: Sequence[int], shape: Sequence[int]) -> "Grid":
        """The grid of the block of ``shape`` voxels that starts at voxel ``start``."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(np.asarray(start, dtype=np.float64))
        return Grid(shape, affine, self.space_code)

    def resized(self, shape: Sequence[int]) -> "Grid":
        """The grid of ``shape`` voxels with the same centres of the corner voxels."""
        ratio = [
            (n - 1) / (m - 1) if m > 1 else 1.0 for n, m in zip(self.shape, shape, strict=True)
        ]
        return Grid(shape, self.affine @ np.diag([*ratio, 1.0]), self.space_code)

    def averaged(self, factor: int) -> "Grid":
        """The grid of the means of cubes of ``factor`` voxels a side; incomplete ones have none."""
        affine = self.affine @ np.diag([factor, factor, factor, 1.0])
        affine[:3, 3] = self.to_world(np.full(3, (factor - 1) / 2))
        return Grid([n // factor for n in self.shape], affine, self.space_code)

    def unsheared(self) -> "Grid":
        """The grid with the nearest orthogonal axes that covers all voxels of this one."""
        u, _, vt = np.linalg.svd(self.direction)
        matrix = (u @ vt) * np.asarray(self.spacing)
        reach = self.to_world(self.corners()) @ np.linalg.inv(matrix).T
        low, high = reach.min(axis=0), reach.max(axis=0)
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = matrix, matrix @ low
        shape = (np.ceil(high - low - 1e-6).astype(int) + 1).tolist()
        return Grid(shape, affine, self.space_code)


def canonical_axes(affine: np.ndarray) -> tuple[int, int, int]:
    """For each voxel axis, the world axis (0 R, 1 A, 2 S) along which it runs most nearly.

    Each world axis occurs once, also for oblique grids: this is the assignment with the largest
    sum of direction cosines, so it does not depend on the order of the voxel axes.
    """
    cosines = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))  # (world, voxel)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    return max(orders, key=lambda order: sum(cosines[order[j], j] for j in range(3)))
