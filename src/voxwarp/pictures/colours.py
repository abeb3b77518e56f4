"""Grey values and colours of slices, and what the colours mean."""

import numpy as np

from .slices import Mosaic, values_inside

Colour = tuple[int, int, int]  # red, green, blue, from 0 to 255

# Cyan, orange and white; red.
CONTOURS, MOVED_CONTOURS, SHARED_CONTOURS = (0, 229, 255), (255, 158, 0), (255, 255, 255)
FOLDS = (255, 0, 0)

# Differences go through black, as usual in neuroimaging. Changes of volume go through white and
# have no red, which marks folds.
COLD_HOT = [(190, 255, 255), (0, 130, 255), (0, 0, 0), (255, 90, 0), (255, 255, 190)]
PURPLE_GREEN = [(84, 20, 120), (170, 130, 200), (247, 247, 247), (110, 190, 110), (0, 90, 40)]

# From black by way of red and yellow to white.
HEAT: list[Colour] = [(0, 0, 0), (150, 0, 40), (230, 90, 0), (250, 200, 60), (255, 255, 255)]


def window(mosaic: Mosaic, inside: Mosaic | None = None) -> tuple[float, float]:
    """The values that are shown black and white.

    Black is 0, or the 0.5th percentile inside if that is negative; white is a tenth above the
    99.5th percentile (all set by hand). Zeros are background and do not count.
    """
    values = (
        values_inside(mosaic, inside)
        if inside
        else np.concatenate([m.ravel() for m in mosaic.values()])
    )
    values = values[values != 0]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    low = 0.0 if low >= 0 else low
    return low, max(high + 0.1 * (high - low), low + 1e-6 * max(1.0, abs(low)))


def windowed(mosaic: Mosaic, black_and_white: tuple[float, float]) -> Mosaic:
    """Scale values so that black is 0 and white is 1, and clip them; see ``window``."""
    low, high = black_and_white
    return {p: np.clip((m - low) / (high - low), 0, 1) for p, m in mosaic.items()}


def grey(mosaic: Mosaic) -> Mosaic:
    """Convert values from 0 to 1 to uint8, from black to white."""
    return {plane: np.rint(255 * image).astype(np.uint8) for plane, image in mosaic.items()}


def coloured(values: np.ndarray, colours: list[Colour]) -> np.ndarray:
    """Convert values (...) from −1 to 1 to colours, uint8 (..., 3), interpolated evenly."""
    at = np.linspace(-1, 1, len(colours))
    parts = [np.interp(values, at, [colour[i] for colour in colours]) for i in range(3)]
    return np.rint(np.stack(parts, axis=-1)).astype(np.uint8)
