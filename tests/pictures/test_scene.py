"""The mosaics of a scene: outlines are where they should be."""

import numpy as np
import pytest
from scenes import BALL, CORE, GRID, distance, image, scene

from voxwarp.pictures.contours import FINER
from voxwarp.pictures.scene import SlicedScene
from voxwarp.pictures.slices import side_by_side
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume


def test_outlines_lie_on_the_borders():
    """Around both balls, and nowhere else."""
    sliced = SlicedScene(scene())
    for plane, drawn in sliced.outlines.items():
        away = distance(sliced, plane, FINER)
        hit = away[drawn != 0]
        off = np.minimum(np.abs(hit - BALL), np.abs(hit - CORE))
        assert off.max() < 2.5
        assert off.mean() < 1.0
        for radius in (BALL, CORE):
            ring = np.abs(away - radius) < 1.5
            assert drawn[ring].mean() > 0.1


@pytest.mark.parametrize("air", [0.0, -1000.0, -0.7])
def test_beyond_a_scan_is_its_background(air: float):
    """Air is black within the scan and beyond it, where the moved scan does not reach."""
    low = image()
    scan = Volume(np.where(low.data > 0, low.data, air).astype(np.float32), low.grid)
    away = np.eye(4)
    away[0, 3] = 60.0
    shown = SlicedScene(scene(moving=scan, affine=Affine(away)))
    for plane, grid in shown.slices.grids.items():
        assert shown.moved[plane].max() > 0.5
        nodes = grid.nodes() + np.array([60.0, 0.0, 0.0])
        beyond = side_by_side(GRID.to_voxel(nodes)[..., 0] > GRID.shape[0])
        assert beyond.any()
        assert (shown.moved[plane][beyond] == 0).all()
        assert (shown.before[plane][beyond] == 0).all()
