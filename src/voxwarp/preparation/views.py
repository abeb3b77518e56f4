"""Where to look for a brain: blocks of space around heads and brains, as grids."""

import numpy as np
import torch

from ..space.grid import Grid
from ..space.transform import Affine
from ..space.volume import Volume
from .coarse import Coarse

CONFORMED = 256  # voxels of 1 mm along each axis
ROOM = 40.0  # mm around a brain for skull and skin
_LIA = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # as FreeSurfer conforms


def conformed(grid: Grid) -> Grid:
    """256³ voxels around a scan; of 1 mm, or larger ones if need be."""
    corners = grid.to_world(grid.corners())
    low, high = corners.min(axis=0), corners.max(axis=0)
    return cube((low + high) / 2, float((high - low).max()))


def cube(centre: np.ndarray, reach: float) -> Grid:
    """256³ voxels around a point; of 1 mm, or more so that a reach (mm) fits in."""
    affine = np.eye(4)
    affine[:3, :3] = max(1.0, reach / (CONFORMED - 1)) * _LIA
    affine[:3, 3] = centre - affine[:3, :3] @ np.full(3, (CONFORMED - 1) / 2)
    return Grid((CONFORMED,) * 3, affine)


def views_of(scan: Volume) -> list[Grid]:
    """Where to look for the brain: the whole scan; first the top of one that shows the trunk too.

    World axes, no more than the scan, no more than 256 voxels along an axis: of 1 mm, or larger.
    """
    corners = scan.grid.to_world(scan.grid.corners())
    low, high = corners.min(axis=0), corners.max(axis=0)
    reach = CONFORMED - 1.0
    whole = block(low, high, max(1.0, float((high - low).max()) / reach), np.eye(3))
    if (high - low).max() <= reach:
        return [whole]
    coarse = Coarse.of(scan, 4.0)
    bright = 0.1 * float(torch.quantile(coarse.image.flatten()[::7], 0.995))
    body = coarse.grid.to_world(torch.nonzero(coarse.image[0, 0] > bright).numpy())
    top = min(high[2], np.percentile(body[:, 2], 99.9) + 10)
    body = body[body[:, 2] > top - reach]
    middle = np.array([*np.median(body[:, :2], axis=0), top - reach / 2])
    low, high = np.maximum(low, middle - reach / 2), np.minimum(high, middle + reach / 2)
    return [block(low, high, 1.0, np.eye(3)), whole]


def upright_view(only: Volume, template_to_scan: Affine) -> Grid:
    """1 mm around the brain with room for the head, turned as the brain lies.

    Args:
        only: the brain, zero outside.
        template_to_scan: where an upright brain lies, RAS mm.
    """
    u, _, vt = np.linalg.svd(template_to_scan.matrix[:3, :3])
    rotation = u @ vt
    inside = only.grid.to_world(np.argwhere(only.data > 0)) @ rotation
    return block(inside.min(axis=0) - ROOM, inside.max(axis=0) + ROOM, 1.0, rotation)


def block(low: np.ndarray, high: np.ndarray, spacing: float, rotation: np.ndarray) -> Grid:
    """The grid from ``low`` to ``high``, coordinates along turned axes, mm."""
    affine = np.eye(4)
    affine[:3, :3] = spacing * rotation
    affine[:3, 3] = rotation @ low
    return Grid((np.ceil((high - low) / spacing).astype(int) + 1).tolist(), affine)


def centre_and_reach(only: Volume) -> tuple[np.ndarray, float]:
    """Middle and extent of a brain, mm."""
    coarse = Coarse.of(only, 4.0)
    inside = coarse.grid.to_world(torch.nonzero(coarse.image[0, 0] > 0).numpy())
    low, high = inside.min(axis=0), inside.max(axis=0)
    return (low + high) / 2, float((high - low).max()) + 4
