"""Figures: read back from what was drawn; and all files of a comparison."""

import csv
import itertools
import math
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from result_rows import cohort, pair

from voxwarp.errors import InputError
from voxwarp.evaluation.figures import (
    LEARNING_COLUMNS,
    dice_against_time,
    draw,
    figure5,
    learning_curves,
    rescans,
    smoothness,
    training_set,
)
from voxwarp.evaluation.rows import (
    PAIR_COLUMNS,
    STRUCTURE_COLUMNS,
    Results,
    Row,
    read_rows,
    write_rows,
)
from voxwarp.evaluation.statistics import dice_by_structure
from voxwarp.evaluation.tables import table


def save(results: Results, folder: Path) -> Path:
    write_rows(folder / "pairs.csv", PAIR_COLUMNS, results.pairs)
    write_rows(folder / "structures.csv", STRUCTURE_COLUMNS, results.structures)
    return folder


def words(figure: Figure) -> list[str]:
    """All texts of a figure, as they are drawn."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


@pytest.fixture
def learning() -> list[Row]:
    """Rows of trainings; only the last of each counts in the sweeps."""
    rows = []
    for experiment, network, weight, people, dice in [
        *(("lambda", "vm1", weight, "all", 0.6 + weight / 100) for weight in (10.0, 0.1, 1.0)),
        *(("people", "vm1", 1.0, people, 0.5 + int(people) / 100) for people in ("20", "5")),
        *(("networks", network, 1.0, "all", 0.7) for network in ("vm1", "vm2")),
    ]:
        for step in (50, 750):
            row = {"experiment": experiment, "network": network, "smoothness": weight}
            row |= {"people": people, "step": step, "seconds": 2.0 * step}
            rows.append(row | {"val_dice": dice * step / 750, "val_folds_percent": 1 / weight})
    return rows


def test_two_ways_of_the_labels_do_not_mix() -> None:
    results = cohort("a")
    results.pairs.append(pair("a", "p", "q", labels="linear"))
    for make in (figure5, dice_against_time, rescans):
        with pytest.raises(InputError, match=r"two ways \(nearest and linear\)"):
            make(results)


# --------------------------------------------------------------------------- Dice of structures


def test_the_boxes_are_the_quartiles() -> None:
    results = cohort("affine", "a", "b")
    drawing = figure5(results, reference="b")
    assert drawing is not None
    expected = dice_by_structure(results)
    by_reference = sorted(expected["b"], key=lambda s: -np.median(expected["b"][s]))
    (axes,) = drawing.figure.axes
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [name.replace("_", " ") for name in by_reference]
    boxes = [patch.get_path().get_extents() for patch in axes.patches]
    medians = [line for line in axes.lines if line.get_linewidth() == 1.3]
    drawn = [(method, name) for method in results.methods for name in by_reference]
    for (method, name), box, median in zip(drawn, boxes, medians, strict=True):
        found = box.y0, median.get_ydata()[0], box.y1
        quartiles = np.quantile(expected[method][name], [0.25, 0.5, 0.75])
        np.testing.assert_allclose(found, quartiles, atol=1e-12)
        assert abs(np.mean(median.get_xdata()) - by_reference.index(name)) < 0.5
        assert (median.get_color() == "white") == (method == "b")  # on dark: the reference


def test_at_most_six_methods_and_the_reference_and_affine_among_them() -> None:
    names = ["affine", *"abcdefg"]
    results = cohort(*names)
    for rank, method in enumerate("bcdefga"):  # b is the best, a the worst
        for row in results.of_method(method, "inter"):
            row["dice"] = 0.9 - 0.1 * rank
    drawing = figure5(results, reference="a")
    assert drawing is not None
    shown = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert shown == ["affine", "a", "b", "c", "d", "e"]
    assert "Not shown: f and g." in drawing.caption


# ------------------------------------------------------------------------------ Dice against time


def test_points_bars_and_the_front() -> None:
    results = cohort("affine", "fast", "worse", "best")
    for method, dice in (("fast", 0.7), ("worse", 0.6), ("best", 0.8)):
        for i, row in enumerate(results.of_method(method, "inter")):
            row["dice"] = dice + i / 100
    drawing = dice_against_time(results)
    assert drawing is not None
    (axes,) = drawing.figure.axes
    lines = table(results, "inter")
    found = [
        (line.get_xdata(), line.get_ydata()) for line in axes.lines if line.get_marker() != "None"
    ]
    assert [(x[0], y[0]) for x, y in found] == [
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
    assert {"affine", "fast", "worse", "best"} <= {*words(drawing.figure)}


def test_means_of_fewer_pairs_say_so() -> None:
    """They may be those of easier pairs, so they are no part of the front either."""
    results = cohort("a", "b")
    for method, dice in (("a", 0.7), ("b", 0.8)):
        for row in results.of_method(method, "inter"):
            row["dice"] = dice
    gone = results.of_method("b", "inter")[2:]
    results.pairs = [row for row in results.pairs if row not in gone]
    drawing = dice_against_time(results)
    assert drawing is not None
    assert {"a", "b, of 2 pairs"} <= {*words(drawing.figure)}
    assert "of n pairs: a mean of these alone" in drawing.caption
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
    assert "Not shown, for want of times: untimed." in drawing.caption
    assert "open, dotted: the same on a GPU" in drawing.caption
    gpu = [
        line
        for line in axes.lines
        if line.get_marker() == "o" and line.get_markerfacecolor() == "white"
    ]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in gpu] == [
        (0.5, table(results, "inter")[1]["dice"])
    ]


def test_two_people_and_nothing_but_limits() -> None:
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


# -------------------------------------------------------------------------------- other figures


def test_rescans_beside_two_people() -> None:
    results = cohort("a", "b")
    drawing = rescans(results)
    assert drawing is not None
    (axes,) = drawing.figure.axes
    discs = {
        line.get_ydata()[0]: line.get_xdata()[0]
        for line in axes.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    }
    squares = {
        line.get_ydata()[0]: line.get_xdata()[0]
        for line in axes.lines
        if line.get_marker() == "s" and len(line.get_xdata())
    }
    for kind, found in (("inter", discs), ("retest", squares)):
        means = [line["dice"] for line in table(results, kind)]
        assert [found[height] for height in sorted(found, reverse=True)] == means
    assert "6 pairs of two scans of one person, 3 people in all" in drawing.caption
    inter = Results([row for row in results.pairs if row["kind"] == "inter"], [])
    assert rescans(inter) is None


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
    source = Path(__file__).parents[2] / "benchmarks" / "learning.csv"
    rows = read_rows(source, LEARNING_COLUMNS, words=("experiment", "network", "people"))
    sweep, people = smoothness(rows), training_set(rows)
    assert sweep is not None
    assert people is not None
    dice = sweep.figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(dice, [0.668, 0.672, 0.690, 0.688, 0.675], atol=6e-4)
    found = people.figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(
        found, [(5, 0.666), (10, 0.678), (20, 0.676), (44, 0.690)], atol=6e-4
    )


# ------------------------------------------------------------------------------------- all of it

EVERYTHING = [
    *("table1.csv", "table1.md", "retest.csv", "retest.md", "speed.csv", "speed.md"),
    *("figure5.png", "figure5.svg"),
    *("dice_against_time.png", "dice_against_time.svg", "rescans.png", "rescans.svg"),
    *("smoothness.png", "smoothness.svg", "training_set.png", "training_set.svg"),
    *("learning.png", "learning.svg", "captions.md"),
]


def test_everything_and_the_same_bytes_again(tmp_path: Path, learning: list[Row]) -> None:
    names = "affine", "a|b & <c> $x$", "réf_1"
    folder = save(cohort(*names), tmp_path / "rows")
    source = tmp_path / "learning.csv"
    write_rows(source, LEARNING_COLUMNS, learning)
    files = draw([folder], tmp_path / "one", learning=source, reference="réf_1")
    assert [file.relative_to(tmp_path / "one").as_posix() for file in files] == EVERYTHING
    again = draw([folder], tmp_path / "two", learning=source, reference="réf_1")
    for one, two in zip(files, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    captions = (tmp_path / "one" / "captions.md").read_text(encoding="utf-8")
    items = list(dict.fromkeys(name.partition(".")[0] for name in EVERYTHING[:-1]))
    assert re.findall(r"^\*\*(\w+)\.\*\* ", captions, re.MULTILINE) == items
    for item in ("figure5", "dice_against_time", "rescans"):  # names can be searched for
        tree = ET.fromstring((tmp_path / "one" / f"{item}.svg").read_bytes())
        assert {*names} <= {"".join(node.itertext()) for node in tree.iter() if "text" in node.tag}
    with open(tmp_path / "one" / "table1.csv", newline="", encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    for row, line in zip(written, table(cohort(*names), "inter", reference="réf_1"), strict=True):
        assert row["method"] == line["method"]
        assert float(row["dice"]) == pytest.approx(line["dice"], rel=1e-5)


def test_linear_labels_have_files_of_their_own(tmp_path: Path) -> None:
    one, other = cohort("a"), cohort("a", "b", seed=1, labels="linear")
    both = Results(one.pairs + other.pairs, one.structures + other.structures)
    files = draw([save(both, tmp_path / "rows")], tmp_path / "out", reference="b")
    names = {file.name for file in files}
    assert {"table1.md", "table1-linear.md", "figure5-linear.svg"} <= names
    linear = (tmp_path / "out" / "table1-linear.md").read_text(encoding="utf-8")
    assert "by linear interpolation of each label" in linear
    assert f"{np.mean([row['dice'] for row in other.of_method('b', 'inter')]):.3f} (" in linear


def test_trainings_alone(tmp_path: Path, learning: list[Row]) -> None:
    source = tmp_path / "learning.csv"
    write_rows(source, LEARNING_COLUMNS, learning)
    files = draw([], tmp_path / "out", learning=source, reference="default")
    assert [file.name for file in files] == EVERYTHING[-7:]


def test_trainings_without_rows_are_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path / "learning.csv", LEARNING_COLUMNS, [])
    folder = save(cohort("a"), tmp_path / "rows")
    files = draw([folder], tmp_path / "out", learning=tmp_path / "learning.csv")
    assert {"table1.md", "figure5.svg"} <= {file.name for file in files}


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    results = cohort("a", timed="no")
    inter = [row for row in results.pairs if row["kind"] == "inter"]
    files = draw([save(Results(inter, []), tmp_path / "rows")], tmp_path / "out")
    assert [file.name for file in files] == ["table1.csv", "table1.md", "captions.md"]


def test_nothing_to_draw(tmp_path: Path) -> None:
    failed = Results([pair("a", "p", "q", status="failed", reason="no memory")], [])
    with pytest.raises(InputError, match=r"nothing to draw in .*rows: no row is 'ok'"):
        draw([save(failed, tmp_path / "rows")], tmp_path / "out")
    with pytest.raises(InputError, match="nothing to draw in no folder"):
        draw([], tmp_path / "out")
    write_rows(tmp_path / "learning.csv", LEARNING_COLUMNS, [])
    with pytest.raises(InputError, match=r"nothing to draw in .*learning\.csv"):
        draw([], tmp_path / "out", learning=tmp_path / "learning.csv")
    with pytest.raises(InputError, match=r"nothing to draw in .*rows, .*learning\.csv"):
        draw([tmp_path / "rows"], tmp_path / "out", learning=tmp_path / "learning.csv")
    with pytest.raises(InputError, match="method 'b': no rows of it; there are a"):
        draw([tmp_path / "rows"], tmp_path / "out", reference="b")
    assert not (tmp_path / "out").exists()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(InputError, match=r"figures need matplotlib: pip install 'voxwarp\[bench"):
        draw([save(cohort("a"), tmp_path / "rows")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert table(cohort("a"), "inter")  # numbers need none
