"""Scenes to be pictured, of which every pixel is known: a bright ball in a grey one."""

import numpy as np
from scipy import ndimage

from voxwarp.pictures.scene import Scene, SlicedScene
from voxwarp.pictures.slices import fine, side_by_side
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Warp
from voxwarp.space.volume import Volume

GRID = Grid((48, 56, 52), np.diag([2.0, 2, 2, 1]))
CENTRE = np.array([47.0, 55, 51])
BALL, CORE = 36.0, 20.0  # mm: a grey ball with a bright one in it


def ball(radius: float, grid: Grid = GRID, centre: np.ndarray = CENTRE) -> np.ndarray:
    return np.linalg.norm(grid.nodes() - centre, axis=-1) <= radius


def image(grid: Grid = GRID, centre: np.ndarray = CENTRE) -> Volume:
    data = 60.0 * ball(BALL, grid, centre) + 100.0 * ball(CORE, grid, centre)
    return Volume(ndimage.gaussian_filter(data, 0.7).astype(np.float32), grid)


def still(grid: Grid = GRID) -> Warp:
    return Warp(np.zeros((3, *grid.shape), np.float32), grid)


def scene(**other: object) -> Scene:
    """Nothing moves, and both scans are one."""
    values = {
        "fixed": image(),
        "moving": image(),
        "affine": Affine(np.eye(4)),
        "warp": still(),
        "brain": ball(BALL),
        "masks": {"moving": None, "fixed": None},
    }
    return Scene(**(values | other))


def distance(sliced: SlicedScene, plane: str, finer: int = 1) -> np.ndarray:
    """(height, width): of a mosaic's pixels from the centre, mm."""
    grid = fine(sliced.slices.grids[plane], finer)
    return side_by_side(np.linalg.norm(grid.nodes() - CENTRE, axis=-1))
