"""Figures of matplotlib's hold the pictures of the panels."""

import numpy as np
from scenes import scene

from voxwarp.pictures.panels import composed, panels
from voxwarp.pictures.plots import draw
from voxwarp.pictures.scene import SlicedScene


def test_figures_of_matplotlib():
    """One of each panel; their images are the pictures."""
    figures = draw(scene())
    shown_panels = list(panels(SlicedScene(scene())))
    assert list(figures) == [panel.key for panel in shown_panels]
    for panel, figure in zip(shown_panels, figures.values(), strict=True):
        shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
        expected = [composed(p, plane) for p in panel.pictures for plane in p.mosaic]
        for got, wanted in zip(shown, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
        figure.canvas.draw()
