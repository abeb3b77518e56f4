"""Grey values and colours of known values."""

import numpy as np
import pytest

from voxwarp.pictures.colours import COLD_HOT, coloured, grey, window, windowed
from voxwarp.pictures.slices import PLANES


def everywhere(values: np.ndarray) -> dict[str, np.ndarray]:
    return dict.fromkeys(PLANES, values)


def test_the_window_depends_on_the_values_inside_without_extremes():
    values = np.linspace(100, 200, 1001).reshape(7, 143)
    inside = everywhere(np.ones(values.shape, bool))
    low, high = window(everywhere(values), inside)
    assert low == 0  # black is zero if nothing is negative
    darkest, brightest = np.percentile(values, (0.5, 99.5))
    assert high == pytest.approx(brightest + 0.1 * brightest)
    low, high = window(everywhere(values - 150.05), inside)
    assert low == pytest.approx(darkest - 150.05)
    bright = np.where(np.arange(143) < 5, 1e6, values)
    half = everywhere(np.broadcast_to(np.arange(143) >= 5, values.shape))
    assert window(everywhere(bright), half)[1] < 250
    assert window(everywhere(bright))[1] > 1e5


@pytest.mark.parametrize("value", [0, 7, -7])
def test_the_window_of_a_single_value_is_not_empty(value):
    low, high = window(everywhere(np.full((3, 4), float(value))))
    assert low < high


def test_values_beyond_the_window_are_black_or_white():
    shown = grey(windowed(everywhere(np.array([[-5.0, 0, 1, 2, 9]])), (0, 2)))
    assert all(image.tolist() == [[0, 0, 128, 255, 255]] for image in shown.values())
    assert all(image.dtype == np.uint8 for image in shown.values())


def test_colours_are_interpolated_evenly():
    got = coloured(np.array([-9.0, -1, -0.5, 0, 0.25, 1, 9]), COLD_HOT)
    assert got[[0, 1, 2, 3, 5, 6]].tolist() == [list(COLD_HOT[i]) for i in (0, 0, 1, 2, 4, 4)]
    assert got[4].tolist() == [128, 45, 0]  # half way from black to orange
