"""Tables and figures: numbers worked out by hand, and read back from what was drawn."""

import csv
import itertools
import math
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from voxwarp.errors import InputError
from voxwarp.figures import (
    LEARNING_COLUMNS,
    dice_against_time,
    dice_by_structure,
    draw,
    escaped,
    figure5,
    joined_names,
    learning_curves,
    markdown,
    pareto,
    rescans,
    smoothness,
    table,
    table_caption,
    training_set,
)
from voxwarp.rows import (
    PAIR_COLUMNS,
    STRUCTURE_COLUMNS,
    Results,
    Row,
    read_rows,
    write_rows,
)
from voxwarp.statistics import bootstrap_over_people, compare

PEOPLE = ("p", "q", "r")
PAIRS = [*itertools.permutations(PEOPLE, 2)]
STRUCTURES = ("cortex_L", "cortex_R", "brain_stem", "3rd_ventricle")


def pair(method: str, moving: str, fixed: str, **more: Any) -> Row:
    """An "ok" row: scans are their people, or "p2", another scan of p."""
    people = moving[0], fixed[0]
    row: Row = dict.fromkeys(PAIR_COLUMNS, math.nan)
    row |= {"method": method, "moving": moving, "fixed": fixed, "status": "ok", "reason": ""}
    row |= {"moving_person": people[0], "fixed_person": people[1], "labels": "nearest"}
    row |= {"kind": "inter" if len({*people}) == 2 else "retest", "device": "cpu", "timed": "no"}
    return row | {"threads": 2.0} | more


def structures(row: Row, dice: dict[str, float]) -> list[Row]:
    about = {c: row[c] for c in STRUCTURE_COLUMNS if c in PAIR_COLUMNS}
    return [about | {"structure": name, "dice": value} for name, value in dice.items()]


def cohort(*methods: str, seed: int = 0, **more: Any) -> Results:
    """Methods on every ordered pair of three people and on two re-scans of each, all timed."""
    random = np.random.default_rng(seed)
    scans = PAIRS + [pair for p in PEOPLE for pair in ((p, f"{p}2"), (f"{p}2", p))]
    pairs, of_structures = [], []
    for i, method in enumerate(methods):
        for moving, fixed in scans:
            seconds = 0 if method == "affine" else 2.0 * 3**i + random.random()
            row = pair(method, moving, fixed, deform_s=seconds, whole_s=seconds + 5, timed="yes")
            dice = dict(zip(STRUCTURES, random.uniform(0.4, 0.9, 4), strict=True))
            pairs.append(row | {"dice": float(np.mean([*dice.values()]))} | more)
            of_structures += structures(pairs[-1], dice)
    return Results(pairs, of_structures)


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


# ---------------------------------------------------------------------------------------- tables


@pytest.fixture
def small() -> Results:
    """Two methods by hand: one timed twice, one that failed once; and one that never ended."""
    dice = [0.7, 0.8, 0.9, 0.6, 0.7, 0.8]
    ours = [
        pair("ours", *ij, dice=d, dice_regions=d - 0.2, hd95_mm=2.0, folds=i, memory_mb=100 + i)
        | {"folds_percent": 0.0001, "deform_s": 9.0, "whole_s": 20.0}
        for i, (ij, d) in enumerate(zip(PAIRS, dice, strict=True))
    ]
    for row, seconds in zip(ours, (1.0, 4.0), strict=False):
        row |= {"timed": "yes", "deform_s": seconds, "whole_s": 10 * seconds}
    theirs = [pair("theirs", *ij, dice=d - 0.1) for ij, d in zip(PAIRS, dice, strict=True)]
    theirs[5] |= {"status": "failed", "reason": "out of memory", "dice": math.nan}
    slow = [pair("slow", "p", "q", status="time limit", reason="stopped after 1800 s")]
    return Results(ours + theirs + slow, [])


def test_a_table_by_hand(small: Results) -> None:
    ours, theirs, slow = table(small, "inter", reference="theirs")
    assert [line["method"] for line in (ours, theirs, slow)] == ["ours", "theirs", "slow"]
    assert (ours["pairs"], ours["asked"]) == (6, 6)
    assert ours["dice"] == pytest.approx(0.75)
    assert ours["dice_sd"] == pytest.approx(math.sqrt(0.055 / 5))
    assert ours["dice_regions"] == pytest.approx(0.55)
    assert (ours["hd95_mm"], ours["folds"], ours["memory_mb"]) == (2, 2.5, 102.5)
    assert ours["difference"] == pytest.approx(0.1)
    assert ours["difference_low"] == pytest.approx(0.1)
    assert (ours["cpu_deform_s"], ours["cpu_whole_s"], ours["cpu_timed"]) == (2.5, 25, 2)
    assert math.isnan(ours["gpu_deform_s"])
    assert math.isnan(ours["tre_mm"])
    assert ours["remarks"] == ""
    assert (theirs["pairs"], theirs["asked"], theirs["remarks"]) == (5, 6, "1 of 6 failed")
    assert theirs["dice"] == pytest.approx(0.64)
    assert math.isnan(theirs["difference"])  # to itself
    assert math.isnan(theirs["cpu_deform_s"])  # it was never alone on the machine
    assert (slow["cpu_deform_s"], slow["cpu_whole_s"]) == ("> 1800", "> 1800")
    assert slow["remarks"] == "1 of 1 stopped at its time limit"


def test_the_table_agrees_with_the_statistics() -> None:
    results = cohort("affine", "a", "b")
    for kind in ("inter", "retest"):
        for line in table(results, kind, reference="b"):
            rows = results.of_method(line["method"], kind)
            people = [[r[f"{role}_person"] for r in rows] for role in ("moving", "fixed")]
            interval = bootstrap_over_people([r["dice"] for r in rows], *people)
            assert (line["dice"], line["dice_low"], line["dice_high"]) == interval
            if line["method"] != "b":
                found = compare(results, line["method"], "b", kind=kind)
                assert (line["difference"], line["p"]) == (found.difference.mean, found.p)


@pytest.mark.parametrize(
    ("seconds", "stopped", "expected"),
    [
        ([3, 1, 2], 0, 2),
        ([3, 1, 2], 2, 3),  # the median of 1, 2, 3, >60, >60
        ([1, 2], 2, "> 60"),
        ([1], 3, "> 60"),
    ],
)
def test_pairs_that_were_stopped_took_longer_than_the_others(
    seconds: list[float], stopped: int, expected: float | str
) -> None:
    done = [
        pair("a", *ij, deform_s=s, whole_s=s, timed="yes")
        for ij, s in zip(PAIRS, seconds, strict=False)
    ]
    limit = {"status": "time limit", "reason": "stopped after 60 s", "timed": "yes"}
    other = [pair("a", *ij, **limit) for ij in PAIRS[6 - stopped :]]
    (line,) = table(Results(done + other, []), "inter")
    assert line["cpu_deform_s"] == expected
    assert line["cpu_timed"] == len(seconds) + stopped


def test_dice_of_an_unquiet_run_and_the_limit_of_a_quiet_one() -> None:
    """A pair that has its Dice from a run without a limit: the limit is told all the same."""
    quiet = pair("a", "p", "q", status="time limit", reason="stopped after 60 s", timed="yes")
    results = Results([pair("a", "p", "q", dice=0.5, deform_s=99.0)], [], [quiet])
    (line,) = table(results, "inter")
    assert (line["dice"], line["cpu_deform_s"], line["remarks"]) == (0.5, "> 60", "")
    assert "> n: stopped" in table_caption(results, "inter")


def test_times_of_a_gpu() -> None:
    on = {"timed": "yes", "whole_s": 9.0}
    cpu = [pair("a", *ij, dice=0.5, deform_s=4.0, **on) for ij in PAIRS[:3]]
    gpu = [pair("a", *ij, deform_s=0.1, device="NVIDIA H100", **on) for ij in PAIRS]
    results = Results(cpu, [], cpu + gpu)
    (line,) = table(results, "inter")
    assert (line["cpu_deform_s"], line["cpu_timed"]) == (4, 3)
    assert (line["gpu_deform_s"], line["gpu_whole_s"], line["gpu_timed"]) == (0.1, 9, 6)
    assert (
        "Times: median of the 3 to 6 pairs of each method that ran alone, on a CPU with "
        "2 threads and NVIDIA H100." in table_caption(results, "inter")
    )


def test_markdown_of_a_table(small: Results) -> None:
    lines = markdown(table(small, "inter", reference="theirs")).splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert all(re.fullmatch(":-+|-+:", cell) for cell in cells[1])
    ours, theirs, slow = (dict(zip(cells[0], row, strict=True)) for row in cells[2:])
    assert ours == {
        "Method": "ours",
        "Pairs": "6 of 6",
        "Dice (sd)": "0.750 (0.105)",
        "Difference [95 %]": "+0.100 [+0.100, +0.100]",
        "p": ours["p"],
        "Dice, regions": "0.550",
        "HD95, mm": "2.00",
        "Folds, voxels": "2",
        "Folds, %": "<0.001",
        "Deformable, s": "2.50",
        "Whole command, s": "25.0",
        "Memory, MB": "102",
        "Remarks": "–",
    }
    assert theirs["Deformable, s"] == theirs["Memory, MB"] == "–"
    assert slow["Whole command, s"] == "> 1800"
    assert slow["Remarks"] == "1 of 1 stopped at its time limit"


def test_what_stands_above_a_table(small: Results) -> None:
    told = table_caption(small, "inter", reference="theirs")
    assert told.startswith(
        "3 methods on 6 ordered pairs of different people, 3 people in all; labels resampled "
        "once, by nearest neighbour. "
    )
    assert "Dice minus that of theirs" in told
    assert "(which 3 people make too narrow)" in told
    assert "Times: median of the 2 pairs that ran alone, on a CPU with 2 threads." in told
    untimed = Results([row | {"timed": "no"} for row in small.pairs], [])
    assert "Times are not told: no pair ran alone." in table_caption(untimed, "inter")


def test_the_reference_is_the_first_that_deforms() -> None:
    lines = table(cohort("affine", "a", "b"), "inter")
    assert [math.isnan(line["difference"]) for line in lines] == [False, True, False]
    still = cohort("still", "a", deform_s=0.0)
    still.pairs[len(still.pairs) // 2 :] = cohort("a").pairs
    assert not math.isnan(table(still, "inter")[0]["difference"])
    with pytest.raises(InputError, match="method 'c': no rows of it; there are affine, a"):
        table(cohort("affine", "a"), "inter", reference="c")


def test_no_table_of_what_is_not_there(small: Results) -> None:
    assert table(small, "retest") == []
    assert table(Results(small.pairs[-1:], []), "inter") == []  # stopped: no row is "ok"


def test_two_ways_of_the_labels_do_not_mix() -> None:
    results = cohort("a")
    results.pairs.append(pair("a", "p", "q", labels="linear"))
    for make in (lambda r: table(r, "inter"), figure5, dice_against_time, rescans):
        with pytest.raises(InputError, match=r"two ways \(nearest and linear\)"):
            make(results)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("snake_case stays", "snake_case stays"),
        ("_a_ *b* `c` <d> [e] & ~f~", r"\_a\_ \*b\* \`c\` \<d> \[e\] \& \~f\~"),
        ("two\nlines", "two lines"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markdown_shows_names_as_they_are(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_a_bar_in_a_name_does_not_make_a_column() -> None:
    lines = markdown(table(cohort("a|b"), "inter")).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert r"a\|b" in lines[2]


# --------------------------------------------------------------------------- Dice of structures


def test_left_and_right_are_joined() -> None:
    assert joined_names(
        [
            *("cortex_L", "cortex_R", "brain_stem", "Left-Hippocampus", "Right-Hippocampus"),
            *("ctx-lh-insula", "ctx-rh-insula", "ventral dc (left)", "ventral dc (right)"),
            *("R", "L", "5th_l", "Right vessel", "roar", "x", "left_x", "right_x", "cerebellum_R"),
        ]
    ) == {
        "cortex_L": "cortex",
        "cortex_R": "cortex",
        "brain_stem": "brain_stem",
        "Left-Hippocampus": "Hippocampus",
        "Right-Hippocampus": "Hippocampus",
        "ctx-lh-insula": "ctx-insula",
        "ctx-rh-insula": "ctx-insula",
        "ventral dc (left)": "ventral dc",
        "ventral dc (right)": "ventral dc",
        "R": "R",
        "L": "L",
        "5th_l": "5th_l",  # no other side
        "Right vessel": "Right vessel",
        "roar": "roar",
        "x": "x",
        "left_x": "left_x",  # the name is taken
        "right_x": "right_x",
        "cerebellum_R": "cerebellum_R",
    }


def test_the_30_structures_become_17(data: Path) -> None:
    with open(data / "oasis-malf" / "labels.csv", newline="", encoding="utf-8") as stream:
        names = {row["structure"] for row in csv.DictReader(stream)} - {""}
    joined = set(joined_names(sorted(names)).values())
    assert (len(names), len(joined)) == (30, 17)
    assert {"cortex", "brain_stem", "3rd_ventricle", "vermis"} < joined


def test_dice_of_both_sides_is_their_mean() -> None:
    done, failed = pair("a", "p", "q"), pair("a", "q", "p", status="failed")
    rows = structures(done, {"cortex_L": 0.5, "cortex_R": 0.7, "stem": math.nan, "hip_L": 0.1})
    rows += structures(done, {"hip_R": math.nan}) + structures(failed, {"stem": 0.3})
    found = dice_by_structure(Results([done, failed], rows))
    assert {name: values.tolist() for name, values in found["a"].items()} == {
        "cortex": [0.6],
        "hip": [0.1],
    }


def medians(figure: Figure) -> dict[str, float]:
    """Height of each box's median, by "method: structure"."""
    (axes,) = figure.axes
    named = [
        line
        for line in axes.lines
        if str(line.get_label()).startswith("_") and ":" in str(line.get_label())
    ]
    return {str(line.get_label())[1:]: float(line.get_ydata()[0]) for line in named}


def test_the_boxes_are_the_quartiles() -> None:
    results = cohort("affine", "a", "b")
    drawing = figure5(results, reference="b")
    assert drawing is not None
    expected = dice_by_structure(results)
    found = medians(drawing.figure)
    assert len(found) == 3 * 3
    (axes,) = drawing.figure.axes
    boxes = [patch.get_path().get_extents() for patch in axes.patches]
    for (name, median), box in zip(found.items(), boxes, strict=True):
        method, structure = name.split(": ")
        quartiles = np.quantile(expected[method][structure], [0.25, 0.5, 0.75])
        np.testing.assert_allclose((box.y0, median, box.y1), quartiles, atol=1e-12)
    by_reference = sorted(expected["b"], key=lambda s: -np.median(expected["b"][s]))
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [name.replace("_", " ") for name in by_reference]
    for name, line in zip(
        found, (line for line in axes.lines if str(line.get_label())[1:] in found), strict=True
    ):
        position = by_reference.index(name.split(": ")[1])
        assert abs(np.mean(line.get_xdata()) - position) < 0.5  # over its own name


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
    chosen = figure5(results, methods=["g", "a"])
    assert chosen is not None
    assert [text.get_text() for text in chosen.figure.legends[0].get_texts()] == ["g", "a"]
    with pytest.raises(InputError, match="method 'z'"):
        figure5(results, methods=["z"])
    with pytest.raises(InputError, match="figure 5: 9 methods, wanted 8 at most"):
        figure5(cohort(*"abcdefghi"), methods=list("abcdefghi"))


# ------------------------------------------------------------------------------ Dice against time


def test_pareto_by_brute_force() -> None:
    random = np.random.default_rng(6)
    for _ in range(200):
        seconds, dice = random.integers(0, 6, (2, random.integers(0, 12)))
        points = [*zip(seconds, dice, strict=True)]
        expected = {
            i
            for i, (s, d) in enumerate(points)
            if not any(t <= s and e >= d and (t, e) != (s, d) for t, e in points)
        }
        found = pareto(seconds, dice)
        assert set(found) == expected
        assert len(found) == len(expected)
        assert sorted(found, key=lambda i: seconds[i]) == found


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
    np.testing.assert_allclose(
        front, [fast, (best[0], fast[1]), best, (axes.get_xlim()[1], best[1])]
    )
    (flat,) = (line.get_ydata() for line in axes.lines if line.get_color() == "0.3")
    assert [*flat] == [lines[0]["dice"]] * 2
    assert {"affine", "fast", "worse", "best"} <= {*words(drawing.figure)}


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


def test_a_method_that_was_stopped_is_an_arrow_at_its_limit() -> None:
    results = cohort("affine", "a")
    stopped = {"status": "time limit", "reason": "stopped after 1800 s"}
    results.pairs.append(pair("slow", "p", "q", **stopped))
    results.timed.append(pair("a", "p", "q", device="H100", timed="yes", deform_s=0.5))
    results.pairs.append(pair("untimed", "p", "q", dice=0.5))
    drawing = dice_against_time(results)
    assert drawing is not None
    (axes,) = drawing.figure.axes
    (arrow,) = (text for text in axes.texts if text.arrow_patch)
    low, high = axes.get_ylim()
    assert arrow.xy[0] == 1800
    assert low < arrow.xy[1] < low + 0.1 * (high - low)
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
    drawing = training_set(learning, everybody=44)
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
    source = Path(__file__).parents[1] / "benchmarks" / "learning.csv"
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
    *("table1.csv", "table1.md", "retest.csv", "retest.md", "figure5.png", "figure5.svg"),
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


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    results = cohort("a", timed="no")
    inter = [row for row in results.pairs if row["kind"] == "inter"]
    files = draw([save(Results(inter, []), tmp_path / "rows")], tmp_path / "out")
    assert [file.name for file in files] == ["table1.csv", "table1.md", "captions.md"]


def test_nothing_to_draw(tmp_path: Path) -> None:
    failed = Results([pair("a", "p", "q", status="failed", reason="no memory")], [])
    with pytest.raises(InputError, match=r"nothing to draw in .*rows: a row with status 'ok'"):
        draw([save(failed, tmp_path / "rows")], tmp_path / "out")
    with pytest.raises(InputError, match="nothing to draw in no folder"):
        draw([], tmp_path / "out")
    write_rows(tmp_path / "learning.csv", LEARNING_COLUMNS, [])
    with pytest.raises(InputError, match=r"nothing to draw in .*learning\.csv"):
        draw([], tmp_path / "out", learning=tmp_path / "learning.csv")
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
