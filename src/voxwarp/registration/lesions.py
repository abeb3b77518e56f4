"""What a registration does to the volume of lesions, and its warnings about that."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Transform
from ..space.volume import Volume

if TYPE_CHECKING:
    from .result import Registration

LARGEST_CHANGE = 0.2  # of the volume, beyond which there is a warning; set by hand


class LesionVolumes(NamedTuple):
    """The volume of the lesions of one scan, mL.

    Args:
        scan: in the scan.
        affine: on the grid of the other scan, after the affine part alone.
        warped: on that grid, after the whole transform.
    """

    scan: float
    affine: float
    warped: float

    @property
    def change(self) -> float:
        """By which share the deformation changes the volume; 0 for an empty mask."""
        return self.warped / self.affine - 1 if self.affine else 0.0

    def described(self) -> dict[str, float]:
        """The entry of ``metrics.json``."""
        return {
            "scan_ml": round(self.scan, 3),
            "affine_ml": round(self.affine, 3),
            "warped_ml": round(self.warped, 3),
            "change": round(self.change, 4),
        }


def lesion_volumes(result: "Registration") -> dict[str, LesionVolumes]:
    """The volumes of the lesions of the moving and of the fixed scan, as far as there are any."""
    ways = {
        "moving": (result.moving, result.fixed, result.transform, result.affine),
        "fixed": (result.fixed, result.moving, result.inverse, result.affine.inverse()),
    }
    volumes = {}
    for role, (scan, other, transform, affine) in ways.items():
        if scan.lesion is None:
            continue
        volumes[role] = LesionVolumes(
            _millilitres(scan.lesion),
            *(_millilitres_on(scan.lesion, other.grid, way) for way in (affine, transform)),
        )
    return volumes


def described(volumes: dict[str, LesionVolumes]) -> dict[str, Any] | None:
    """The entry ``lesions`` of ``metrics.json``; None without lesions."""
    return {role: volume.described() for role, volume in volumes.items()} or None


def warnings(volumes: dict[str, LesionVolumes]) -> list[str]:
    """Warnings about lesions whose volume the deformation changes a lot, a sentence each."""
    return [
        f"the deformation {'enlarges' if volume.change > 0 else 'shrinks'} the lesion of the "
        f"{role} scan by {100 * abs(volume.change):.0f} % ({volume.affine:.1f} → "
        f"{volume.warped:.1f} mL), more than {100 * LARGEST_CHANGE:.0f} %; check it in the pictures"
        for role, volume in volumes.items()
        if abs(volume.change) > LARGEST_CHANGE
    ]


def _millilitres(share: Volume) -> float:
    """The volume of a mask of 0 and 1, or of shares of voxels, mL."""
    voxel = abs(np.linalg.det(share.grid.affine[:3, :3]))
    return float(share.data.sum(dtype=np.float64) * voxel / 1000)


def _millilitres_on(lesion: Volume, grid: Grid, transform: Transform) -> float:
    """The volume of a mask on another grid, with shares of voxels at its border."""
    soft = replace(lesion, data=lesion.data.astype(np.float32))
    return _millilitres(resample(soft, grid, transform))
