"""Intensities: from zero, and as shares of the brightest tissue."""

from dataclasses import replace

import numpy as np

from ..space.volume import Volume


def from_zero(scan: Volume) -> Volume:
    """The scan in float32 with intensities from zero: those of z-scored scans, say, are shifted.

    Voxels that are exactly zero are background and stay so; where no voxel is zero or less, the
    least value is.
    """
    data = scan.data.astype(np.float32)
    if data.min() > 0:
        data = data - data.min()
    if data.min() < 0:
        brain = data != 0
        data = np.where(brain, np.maximum(data - np.percentile(data[brain], 0.5), 0), 0)
    return replace(scan, data=data)


def scaled(image: np.ndarray, percentile: float) -> np.ndarray:
    """Intensities over their ``scale``, clipped to [0, 1]."""
    return np.clip(image / scale(image, percentile), 0, 1)


def scale(image: np.ndarray, percentile: float) -> float:
    """The ``percentile`` of a brain's intensities, of those that are positive; 1 if none is."""
    inside = image[image > 0]
    return float(np.percentile(inside, percentile)) if inside.size else 1.0
