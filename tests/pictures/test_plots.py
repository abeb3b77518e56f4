"""Matplotlib figures hold the pictures of the panels."""

import numpy as np
from scenes import scene

from voxwarp.pictures.panels import panels, rendered
from voxwarp.pictures.plots import draw
from voxwarp.pictures.scene import SlicedScene


def test_each_panel_is_a_figure_with_its_pictures():
    figures = draw(scene())
    shown_panels = list(panels(SlicedScene(scene())))
    assert list(figures) == [panel.key for panel in shown_panels]
    for panel, figure in zip(shown_panels, figures.values(), strict=True):
        shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
        expected = [rendered(p, plane) for p in panel.pictures for plane in p.mosaic]
        for got, expected_image in zip(shown, expected, strict=True):
            np.testing.assert_array_equal(got, expected_image)
        figure.canvas.draw()
