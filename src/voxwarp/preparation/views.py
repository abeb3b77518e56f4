"""Views of a scan: the grids on which a brain is extracted, and the conformed grid."""

import numpy as np
import torch

from ..space.grid import Grid
from ..space.transform import Affine
from ..space.volume import Volume
from .coarse import Coarse

CONFORMED = 256  # voxels of 1 mm along each axis, as FreeSurfer conforms scans
ROOM = 40.0  # mm around a brain for skull and skin; set by hand
_LIA = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # as FreeSurfer conforms


def conformed(grid: Grid) -> Grid:
    """Return the conformed grid of a scan: 256³ voxels around it, of 1 mm, or larger if needed."""
    corners = grid.to_world(grid.corners())
    low, high = corners.min(axis=0), corners.max(axis=0)
    return cube((low + high) / 2, float((high - low).max()))


def cube(centre: np.ndarray, extent: float) -> Grid:
    """Return a grid of 256³ voxels around a point.

    Args:
        centre: RAS mm.
        extent: mm that have to fit in; above 255 mm the voxels are larger than 1 mm.
    """
    affine = np.eye(4)
    affine[:3, :3] = max(1.0, extent / (CONFORMED - 1)) * _LIA
    affine[:3, 3] = centre - affine[:3, :3] @ np.full(3, (CONFORMED - 1) / 2)
    return Grid((CONFORMED,) * 3, affine)


def views_of(scan: Volume) -> list[Grid]:
    """Return the grids on which to look for the brain of a head, in the order in which to try them.

    The whole scan, and before it the top 255 mm of the body if the scan is longer than that. The
    axes are those of the world. A grid is not larger than the scan and has at most 256 voxels along
    an axis, of 1 mm or larger.
    """
    corners = scan.grid.to_world(scan.grid.corners())
    low, high = corners.min(axis=0), corners.max(axis=0)
    longest = CONFORMED - 1.0
    whole = block(low, high, max(1.0, float((high - low).max()) / longest), np.eye(3))
    if (high - low).max() <= longest:
        return [whole]
    coarse = Coarse.of(scan, 4.0)
    # Body, not air: above a tenth of the bright voxels; set by hand. Every seventh voxel is enough.
    threshold = 0.1 * float(torch.quantile(coarse.image.flatten()[::7], 0.995))
    body = coarse.grid.to_world(torch.nonzero(coarse.image[0, 0] > threshold).numpy())
    top = min(high[2], np.percentile(body[:, 2], 99.9) + 10)
    body = body[body[:, 2] > top - longest]
    middle = np.array([*np.median(body[:, :2], axis=0), top - longest / 2])
    low, high = np.maximum(low, middle - longest / 2), np.minimum(high, middle + longest / 2)
    return [block(low, high, 1.0, np.eye(3)), whole]


def upright_view(brain: Volume, template_to_scan: Affine) -> Grid:
    """Return a grid of 1 mm on which a tilted head is upright, with room for skull and skin.

    Args:
        brain: skull-stripped, zero outside.
        template_to_scan: maps points of the template to points of the scan, RAS mm; its rotation
            is that of the head.
    """
    u, _, vt = np.linalg.svd(template_to_scan.matrix[:3, :3])
    rotation = u @ vt
    inside = brain.grid.to_world(np.argwhere(brain.data > 0)) @ rotation
    return block(inside.min(axis=0) - ROOM, inside.max(axis=0) + ROOM, 1.0, rotation)


def block(low: np.ndarray, high: np.ndarray, spacing: float, rotation: np.ndarray) -> Grid:
    """Return the grid that fills a rotated box.

    Args:
        low, high: opposite corners, mm along the rotated axes.
        spacing: of the voxels, mm.
        rotation: (3, 3), its columns are the rotated axes in RAS.
    """
    affine = np.eye(4)
    affine[:3, :3] = spacing * rotation
    affine[:3, 3] = rotation @ low
    return Grid((np.ceil((high - low) / spacing).astype(int) + 1).tolist(), affine)


def centre_and_extent(brain: Volume) -> tuple[np.ndarray, float]:
    """Middle (RAS mm) and longest side (mm) of the box around a skull-stripped brain."""
    coarse = Coarse.of(brain, 4.0)
    inside = coarse.grid.to_world(torch.nonzero(coarse.image[0, 0] > 0).numpy())
    low, high = inside.min(axis=0), inside.max(axis=0)
    return (low + high) / 2, float((high - low).max()) + 4
