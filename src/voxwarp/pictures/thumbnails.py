"""A small picture of a result: the middle slice of each plane, side by side."""

import numpy as np

from ..space.volume import Volume
from .colours import CONTOURS, grey, window, windowed
from .panels import Overlay, Picture, rendered
from .scene import SlicedScene
from .slices import Slices, interpolable


def thumbnail(sliced: SlicedScene) -> np.ndarray:
    """The moved scan with outlines of the fixed scan, (height, width, 3) uint8."""
    whole, images = Picture("", grey(sliced.moved), Overlay(sliced.outlines, (CONTOURS,))), []
    for plane, grid in sliced.slices.grids.items():
        first = grid.shape[2] // 2 * grid.shape[0]
        images.append(rendered(whole, plane)[:, first : first + grid.shape[0]])
    return _in_a_row(images)


def middle_slices(volume: Volume) -> np.ndarray:
    """A volume without outlines, grey, (height, width) uint8."""
    volume = interpolable(volume)
    shown = Slices.through_head(volume, columns=1).sample(volume)
    return _in_a_row(list(grey(windowed(shown, window(shown))).values()))


def _in_a_row(images: list[np.ndarray]) -> np.ndarray:
    """Join pictures side by side, centred vertically."""
    height = max(image.shape[0] for image in images)
    padded = []
    for image in images:
        above = (height - image.shape[0]) // 2
        below = height - image.shape[0] - above
        padded.append(np.pad(image, ((above, below), (0, 0), (0, 0))[: image.ndim]))
    return np.concatenate(padded, axis=1)
