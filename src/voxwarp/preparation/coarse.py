"""Volumes averaged down, once for all who look at them so: poses, bias fields, affine maps."""

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F

from ..fields import field
from ..space.grid import Grid
from ..space.transform import Affine
from ..space.volume import Volume

_KEPT: "WeakKeyDictionary[Volume, dict[float, Coarse]]" = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Coarse:
    """A volume averaged down: (1, 1, X, Y, Z) float32 and where its voxels are."""

    image: torch.Tensor
    grid: Grid

    @classmethod
    def of(cls, volume: Volume, spacing: float) -> "Coarse":
        """Means of blocks of about ``spacing`` mm; axes that are coarser already stay.

        They are computed once for a volume, and kept as long as it is.
        """
        kept = _KEPT.setdefault(volume, {})
        if spacing not in kept:
            kept[spacing] = cls._averaged(volume, spacing)
        return kept[spacing]

    @classmethod
    def _averaged(cls, volume: Volume, spacing: float) -> "Coarse":
        factors = [
            max(1, min(round(spacing / step), size))
            for step, size in zip(volume.grid.spacing, volume.grid.shape, strict=True)
        ]
        image = torch.from_numpy(np.ascontiguousarray(volume.data, dtype=np.float32))[None, None]
        image = F.avg_pool3d(image, factors)
        affine = volume.grid.affine @ np.diag([*factors, 1.0])
        affine[:3, 3] = volume.grid.to_world(np.array([(k - 1) / 2 for k in factors]))
        return cls(image, Grid(image.shape[2:], affine))

    @cached_property
    def centre_and_volume(self) -> tuple[np.ndarray, float]:
        """Centre of the non-zero voxels, RAS mm, and their volume, mm³."""
        inside = torch.nonzero(self.image[0, 0] > 0).double().numpy()
        voxel = abs(np.linalg.det(self.grid.affine[:3, :3]))
        return self.grid.to_world(inside.mean(axis=0)), len(inside) * voxel

    def reaches(self, at: torch.Tensor) -> torch.Tensor:
        """Whether voxel coordinates (1, 3, ...) lie in the image: (1, 1, ...)."""
        last = torch.tensor([n - 1.0 for n in self.grid.shape]).view(1, 3, 1, 1, 1)
        return ((at >= -0.5) & (at <= last + 0.5)).all(dim=1, keepdim=True)

    def lattice_in(self, other: "Coarse", through: Affine) -> torch.Tensor:
        """Where an affine map sends the voxels, in voxels of the other: (1, 3, X, Y, Z)."""
        matrix = np.linalg.inv(other.grid.affine) @ through.matrix @ self.grid.affine
        m = torch.from_numpy(matrix.astype(np.float32))
        lattice = field.identity_grid(self.image.shape[2:], self.image)
        return (m[:3, :3] @ lattice[0].flatten(1) + m[:3, 3:]).view_as(lattice)
