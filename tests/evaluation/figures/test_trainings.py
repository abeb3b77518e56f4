"""Curves of trainings, read back from what was drawn."""

from pathlib import Path

import numpy as np

from voxwarp.evaluation.figures.trainings import (
    LEARNING_COLUMNS,
    learning_curves,
    smoothness,
    training_set,
)
from voxwarp.evaluation.rows import Row, read_rows


def test_the_sweeps_take_the_last_row_of_each_training(learning: list[Row]) -> None:
    drawing = smoothness(learning)
    assert drawing is not None
    left, right = drawing.figure.axes
    np.testing.assert_allclose(left.lines[0].get_xydata(), [(0.1, 0.601), (1, 0.61), (10, 0.7)])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [(0.1, 10), (1, 1), (10, 0.1)])
    drawing = training_set(learning)
    assert drawing is not None
    np.testing.assert_allclose(
        drawing.figure.axes[0].lines[0].get_xydata(), [(5, 0.55), (20, 0.7), (44, 0.61)]
    )
    drawing = learning_curves(learning)
    assert drawing is not None
    for line, name in zip(
        drawing.figure.axes[0].lines, ("VoxelMorph-1", "VoxelMorph-2"), strict=False
    ):
        assert line.get_label() == name
        np.testing.assert_allclose(line.get_xydata(), [(50, 0.7 / 15), (750, 0.7)])
    assert smoothness([]) is training_set([]) is learning_curves([]) is None


def test_the_published_trainings() -> None:
    """What benchmarks/README.md says of them."""
    source = Path(__file__).parents[3] / "benchmarks" / "learning.csv"
    rows = read_rows(source, LEARNING_COLUMNS, text=("experiment", "network", "subjects"))
    sweep, subjects = smoothness(rows), training_set(rows)
    assert sweep is not None
    assert subjects is not None
    dice = sweep.figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(dice, [0.668, 0.672, 0.690, 0.688, 0.675], atol=6e-4)
    points = subjects.figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(
        points, [(5, 0.666), (10, 0.678), (20, 0.676), (44, 0.690)], atol=6e-4
    )
