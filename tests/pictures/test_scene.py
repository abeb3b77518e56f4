"""The mosaics of a scene: outlines are where they should be."""

import numpy as np
from scenes import BALL, CORE, distance, scene

from voxwarp.pictures.contours import FINER
from voxwarp.pictures.scene import SlicedScene


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
