"""Lines where the values of slices change: outlines of a mask or a tissue, borders of labels."""

import numpy as np
import torch

from .slices import Mosaic

FINER = 2  # pixels of the lines per pixel of the picture below them


def outline(mosaic: Mosaic, level: float) -> Mosaic:
    """Pixels at or above a level that have a neighbour below it."""
    return borders({p: (m >= level).astype(np.uint8) for p, m in mosaic.items()}, inner=True)


def borders(mosaic: Mosaic, *, inner: bool = False) -> Mosaic:
    """Pixels whose right or lower neighbour has another value.

    With ``inner``, pixels other than 0 of which any neighbour has another value.
    """
    lines = {}
    for plane, image in mosaic.items():
        edge = np.zeros(image.shape, bool)
        across, down = image[:, 1:] != image[:, :-1], image[1:] != image[:-1]
        edge[:, :-1] |= across
        edge[:-1] |= down
        if inner:
            edge[:, 1:] |= across
            edge[1:] |= down
            edge &= image != 0
        lines[plane] = edge
    return lines


def interpolated(mosaic: Mosaic) -> Mosaic:
    """Interpolate linearly to ``FINER`` times as many pixels along each axis."""
    return {
        plane: torch.nn.functional.interpolate(
            torch.from_numpy(image)[None, None].float(), scale_factor=FINER, mode="bilinear"
        )[0, 0].numpy()
        for plane, image in mosaic.items()
    }


def enlarged(mosaic: Mosaic) -> Mosaic:
    """Repeat each pixel ``FINER`` times along each axis."""
    return {p: m.repeat(FINER, axis=0).repeat(FINER, axis=1) for p, m in mosaic.items()}


def brightest_class(values: np.ndarray) -> float:
    """The threshold above which a value belongs to the brightest of three classes (k-means)."""
    if not values.size:
        return 0.0
    centres = np.percentile(values, (10, 50, 90))
    for _ in range(20):
        edges = (centres[:-1] + centres[1:]) / 2
        classes = np.digitize(values, edges)
        counts = np.bincount(classes, minlength=3)
        sums = np.bincount(classes, values, minlength=3)
        centres = np.sort(np.where(counts > 0, sums / np.maximum(counts, 1), centres))
    return float((centres[1] + centres[2]) / 2)
