"""Lines where values of slices change: outlines of a mask or a tissue, borders of labels."""

import numpy as np
import torch

from .slices import Mosaic

FINER = 2  # pixels of lines to one of the picture below


def outline(mosaic: Mosaic, level: float) -> Mosaic:
    """Pixels at or above a level that touch one below."""
    return borders({p: (m >= level).astype(np.uint8) for p, m in mosaic.items()}, inner=True)


def borders(mosaic: Mosaic, *, inner: bool = False) -> Mosaic:
    """Pixels whose right or lower neighbour has another value; with ``inner``, that are not 0."""
    found = {}
    for plane, image in mosaic.items():
        edge = np.zeros(image.shape, bool)
        across, down = image[:, 1:] != image[:, :-1], image[1:] != image[:-1]
        edge[:, :-1] |= across
        edge[:-1] |= down
        if inner:
            edge[:, 1:] |= across
            edge[1:] |= down
            edge &= image != 0
        found[plane] = edge
    return found


def interpolated(mosaic: Mosaic) -> Mosaic:
    """At ``FINER`` pixels to one, linearly."""
    return {
        plane: torch.nn.functional.interpolate(
            torch.from_numpy(image)[None, None].float(), scale_factor=FINER, mode="bilinear"
        )[0, 0].numpy()
        for plane, image in mosaic.items()
    }


def enlarged(mosaic: Mosaic) -> Mosaic:
    """At ``FINER`` pixels to one, as they are."""
    return {p: m.repeat(FINER, axis=0).repeat(FINER, axis=1) for p, m in mosaic.items()}


def brightest_class(values: np.ndarray) -> float:
    """The threshold between the brightest of three classes of values and the rest (k-means)."""
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
