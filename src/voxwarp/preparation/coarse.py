"""Volumes averaged down to a coarse grid: computed once for poses, bias fields and affine maps."""

from collections.abc import Sequence
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

# Averages by volume and spacing; they go when their volume goes.
_AVERAGES: "WeakKeyDictionary[Volume, dict[float, Coarse]]" = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Coarse:
    """A volume averaged down: (1, 1, X, Y, Z) float32, and the grid of its voxels."""

    image: torch.Tensor
    grid: Grid

    @classmethod
    def of(cls, volume: Volume, spacing: float) -> "Coarse":
        """Average a volume over blocks of about ``spacing`` mm.

        Axes that are already coarser stay as they are. The result is kept as long as the volume.
        """
        averages = _AVERAGES.setdefault(volume, {})
        if spacing not in averages:
            averages[spacing] = cls._averaged(volume, spacing)
        return averages[spacing]

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

    def cropped(self, box: Sequence[slice]) -> "Coarse":
        """A block of it."""
        image = self.image[:, :, box[0], box[1], box[2]].contiguous()
        return Coarse(image, self.grid.crop([part.start for part in box], image.shape[2:]))

    @cached_property
    def centre_and_volume(self) -> tuple[np.ndarray, float]:
        """Centre of the positive voxels, RAS mm, and their volume, mm³."""
        inside = torch.nonzero(self.image[0, 0] > 0).double().numpy()
        voxel = abs(np.linalg.det(self.grid.affine[:3, :3]))
        return self.grid.to_world(inside.mean(axis=0)), len(inside) * voxel

    def reaches(self, points: torch.Tensor) -> torch.Tensor:
        """Whether voxel coordinates (1, 3, X, Y, Z) lie in the image: (1, 1, X, Y, Z)."""
        last = torch.tensor([n - 1.0 for n in self.grid.shape]).view(1, 3, 1, 1, 1)
        return ((points >= -0.5) & (points <= last + 0.5)).all(dim=1, keepdim=True)

    def nodes_in(self, other: "Coarse", transform: Affine) -> torch.Tensor:
        """Map the voxel centres of this image to voxel coordinates of another.

        Args:
            other: the image whose voxel coordinates are returned.
            transform: maps points of this image's space to points of the other's, RAS mm.

        Returns:
            (1, 3, X, Y, Z) on this image's grid.
        """
        matrix = np.linalg.inv(other.grid.affine) @ transform.matrix @ self.grid.affine
        m = torch.from_numpy(matrix.astype(np.float32))
        voxels = field.identity_grid(self.image.shape[2:], self.image)
        return (m[:3, :3] @ voxels[0].flatten(1) + m[:3, 3:]).view_as(voxels)
