"""Intensities: shifted to start at zero, and scaled by a percentile of the brain."""

from dataclasses import replace

import numpy as np

from ..space.volume import Volume

DARKEST = 1 / 255  # of changed intensities inside the brain: zero would be background


def from_zero(scan: Volume) -> Volume:
    """Shift the intensities of a scan so that they start at zero, in float32.

    Without negative values, the lowest value becomes zero. With negative values (as in z-scored
    scans), voxels that are exactly zero are background and stay zero; of the others, the 0.5th
    percentile becomes zero, so that single outliers do not decide (set by hand), and lower values
    are clipped.
    """
    data = scan.data.astype(np.float32)
    if data.min() > 0:
        data = data - data.min()
    if data.min() < 0:
        foreground = data != 0
        shifted = np.maximum(data - np.percentile(data[foreground], 0.5), 0)
        data = np.where(foreground, shifted, 0)
    return replace(scan, data=data)


def scaled(image: np.ndarray, percentile: float) -> np.ndarray:
    """Divide intensities by their ``scale`` and clip them to [0, 1]."""
    return np.clip(image / scale(image, percentile), 0, 1)


def scale(image: np.ndarray, percentile: float) -> float:
    """Return a percentile (0 to 100) of the positive intensities; 1 if there are none."""
    inside = image[image > 0]
    return float(np.percentile(inside, percentile)) if inside.size else 1.0
