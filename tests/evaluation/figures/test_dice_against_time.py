"""Dice against time, read back from what was drawn."""

import itertools
import math

import numpy as np
from matplotlib.figure import Figure
from result_rows import cohort, pair

from voxwarp.evaluation.figures.dice_against_time import dice_against_time
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.tables import table


def texts_of(figure: Figure) -> list[str]:
    """All texts of a figure, as they are drawn."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def test_points_bars_and_the_front() -> None:
    results = cohort("affine", "fast", "worse", "best")
    for method, dice in (("fast", 0.7), ("worse", 0.6), ("best", 0.8)):
        for i, row in enumerate(results.rows_of(method, "inter")):
            row["dice"] = dice + i / 100
    drawing = dice_against_time(results)
    assert drawing is not None
    (axes,) = drawing.figure.axes
    lines = table(results, "inter")
    points_drawn = [
        (line.get_xdata(), line.get_ydata()) for line in axes.lines if line.get_marker() != "None"
    ]
    assert [(x[0], y[0]) for x, y in points_drawn] == [
        (line["cpu_deform_s"], line["dice"]) for line in lines[1:]
    ]
    bars = [line.get_ydata() for line in axes.lines if line.get_color() == "0.55"]
    assert [tuple(bar) for bar in bars] == [(n["dice_low"], n["dice_high"]) for n in lines[1:]]
    (front,) = (line.get_xydata() for line in axes.lines if line.get_color() == "0.75")
    fast, best = ((lines[i]["cpu_deform_s"], lines[i]["dice"]) for i in (1, 3))
    worse = lines[2]["cpu_deform_s"]
    expected = [fast, (worse, fast[1]), (worse, fast[1]), (best[0], fast[1]), best]
    np.testing.assert_allclose(front, [*expected, (axes.get_xlim()[1], best[1])])
    (flat,) = (line.get_ydata() for line in axes.lines if line.get_color() == "0.3")
    assert [*flat] == [lines[0]["dice"]] * 2
    assert {"affine", "fast", "worse", "best"} <= {*texts_of(drawing.figure)}


def test_means_of_fewer_pairs_say_so() -> None:
    """These pairs may be easier, so the front leaves such a method out too."""
    results = cohort("a", "b")
    for method, dice in (("a", 0.7), ("b", 0.8)):
        for row in results.rows_of(method, "inter"):
            row["dice"] = dice
    gone = results.rows_of("b", "inter")[2:]
    results.pairs = [row for row in results.pairs if row not in gone]
    drawing = dice_against_time(results)
    assert drawing is not None
    assert {"a", "b (2 pairs)"} <= {*texts_of(drawing.figure)}
    assert "(n pairs): the mean over these pairs alone" in drawing.caption
    (front,) = (x.get_ydata() for x in drawing.figure.axes[0].lines if x.get_color() == "0.75")
    assert {*np.round(front, 9)} == {0.7}


def test_names_beside_points_do_not_cover_each_other() -> None:
    results = cohort("affine", *(f"a method called {i}" for i in range(9)))
    for row in results.pairs:  # all of much the same Dice, in pairs of much the same time
        row["dice"] = 0.5 if row["method"] == "affine" else 0.7 + row["dice"] / 100
    drawing = dice_against_time(results)
    assert drawing is not None
    (axes,) = drawing.figure.axes
    texts = [text for text in axes.texts if text.get_text()]
    assert len(texts) == 10
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max) for box in boxes)
    points = [line.get_xydata()[0] for line in axes.lines if line.get_marker() != "None"]
    assert len(points) == 9
    for point in axes.transData.transform(points):
        assert not any(box.padded(2).contains(*point) for box in boxes)


def test_a_method_that_was_stopped_is_an_arrow_at_its_limit() -> None:
    results = cohort("affine", "a")
    stopped = {"status": "time limit", "reason": "stopped after 1800 s"}
    results.pairs.append(pair("slow", "p", "q", **stopped))
    results.timed.append(pair("a", "p", "q", device="H100", timed="yes", deform_s=0.5))
    results.pairs.append(pair("untimed", "p", "q", dice=0.5))
    drawing = dice_against_time(results)
    assert drawing is not None
    (axes,) = drawing.figure.axes
    (arrow,) = (line for line in axes.lines if line.get_marker() == ">")
    low, high = axes.get_ylim()
    assert arrow.get_xdata()[0] == 1800
    assert low < arrow.get_ydata()[0] < low + 0.1 * (high - low)
    assert "Not shown, because not timed: untimed." in drawing.caption
    assert "open marker, dotted: the same on a GPU" in drawing.caption
    gpu = [
        line
        for line in axes.lines
        if line.get_marker() == "o" and line.get_markerfacecolor() == "white"
    ]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in gpu] == [
        (0.5, table(results, "inter")[1]["dice"])
    ]


def test_two_subjects_and_nothing_but_limits() -> None:
    """No intervals, and no front."""
    limit = {"status": "time limit", "reason": "stopped after 60 s", "timed": "yes"}
    quiet = pair("a", "p", "q", **limit)
    drawing = dice_against_time(Results([pair("a", "p", "q", dice=0.5)], [], [quiet]))
    assert drawing is not None
    (axes,) = drawing.figure.axes
    assert [(*line.get_xydata()[0],) for line in axes.lines] == [(60, 0.5)] * 2  # point, arrow


def test_no_figure_without_times() -> None:
    assert dice_against_time(cohort("affine", "a", timed="no")) is None
    assert dice_against_time(cohort("a", dice=math.nan)) is None
