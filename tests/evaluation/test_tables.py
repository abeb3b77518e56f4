"""Tables: numbers worked out by hand."""

import math
import re
from typing import Any

import pytest
from result_rows import PAIRS, cohort, pair

from voxwarp.errors import InputError
from voxwarp.evaluation.rows import Results, Row
from voxwarp.evaluation.statistics import bootstrap_over_people, compare
from voxwarp.evaluation.tables import (
    escaped,
    markdown,
    speed,
    speed_caption,
    speed_ratio,
    table,
    table_caption,
)


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
        ([1, 2], 2, "> 31"),  # 1, 2, >60, >60: half way from 2 to more than 60
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


def test_two_ways_of_the_labels_do_not_mix() -> None:
    results = cohort("a", "b")
    results.pairs.append(pair("a", "p", "q", labels="linear"))
    for make in (lambda r: table(r, "inter"), speed):
        with pytest.raises(InputError, match=r"two ways \(nearest and linear\)"):
            make(results)


# ----------------------------------------------------------------------------------------- speed


def timed(method: str, number: int, deform: float, whole: float, **more: Any) -> Row:
    return pair(method, *PAIRS[number], deform_s=deform, whole_s=whole, timed="yes") | more


def stopped(method: str, number: int, limit: str, **more: Any) -> Row:
    reason = f"stopped after {limit} s"
    return (
        timed(method, number, math.nan, math.nan)
        | {"status": "time limit", "reason": reason}
        | more
    )


def test_a_ratio_by_hand() -> None:
    ours = [timed("ours", i, 1.0 + i, 10.0 + i) for i in range(4)]
    theirs = [timed("theirs", 0, 30, 40), timed("theirs", 1, 20, 22), timed("theirs", 2, 300, 36)]
    others = [  # none of which counts
        timed("theirs", 3, 9, 9, threads=1.0),
        timed("theirs", 3, 9, 9, device="NVIDIA H100"),
        timed("theirs", 4, 9, 9),
        timed("theirs", 3, 9, 9, timed="no"),
        timed("theirs", 3, 9, 9, status="failed"),
    ]
    for row in (ours, theirs):  # nor do two scans of one person
        row.append(pair(row[0]["method"], "p", "p2", deform_s=7.0, whole_s=7.0, timed="yes"))
    rows = ours + theirs + others[:-1]
    found = speed_ratio(
        Results(rows, [], [r for r in rows if r["timed"] == "yes"]), "theirs", "ours"
    )
    assert found == {
        **{"method": "theirs", "reference": "ours", "device": "cpu", "pairs": 3},
        **{"deform_ratio": 30, "whole_ratio": 3, "is_bound": False},  # of 30, 10, 100; of 4, 2, 3
    }
    assert speed_ratio(Results(ours + others, []), "theirs", "ours")["pairs"] == 0
    back = speed_ratio(Results(rows, []), "ours", "theirs")
    assert back["deform_ratio"] == pytest.approx(1 / 30)


def test_a_pair_that_was_stopped_is_a_bound() -> None:
    ours = [timed("ours", i, 2.0, 10.0) for i in range(3)]
    one = Results([*ours, stopped("slow", 0, "1800")], [])
    assert speed(one, reference="ours") == [
        {"method": "slow", "reference": "ours", "device": "cpu", "pairs": 1}
        | {"deform_ratio": 900, "whole_ratio": 180, "is_bound": True}
    ]
    two = Results([*one.pairs, timed("slow", 1, 2000.0, 2010.0), stopped("slow", 2, "0.5")], [])
    found = speed_ratio(two, "slow", "ours")
    assert (found["pairs"], found["deform_ratio"], found["is_bound"]) == (3, 900, True)
    failed = {"status": "failed", "reason": "signal 9 after 3 s"}
    none = Results([*ours, stopped("slow", 0, "1800") | failed], [])
    assert speed(none, reference="ours") == []
    no_limit = Results([*ours, stopped("slow", 0, "many")], [])
    assert speed(no_limit, reference="ours") == []
    assert speed(one, reference="slow") == []  # a bound is nothing to measure by


def test_a_gpu_counts_where_there_is_no_cpu() -> None:
    gpu = {"device": "NVIDIA H100"}
    ours = [timed("ours", 0, 2.0, 10.0), timed("ours", 0, 0.1, 8.0, **gpu)]
    fast = [timed("fast", 0, 0.2, 4.0, **gpu)]
    both = [timed("both", 0, 6.0, 20.0), timed("both", 0, 0.1, 8.0, **gpu)]
    found = {row["method"]: row for row in speed(Results(ours + fast + both, []), reference="ours")}
    assert (found["fast"]["device"], found["fast"]["deform_ratio"]) == ("NVIDIA H100", 2)
    assert (found["both"]["device"], found["both"]["deform_ratio"]) == ("cpu", 3)


def test_ratios_that_are_not_known() -> None:
    """The reference does not deform, or came from the cache; or nobody knows the threads."""
    still, cached = timed("ours", 0, 0.0, 5.0), timed("ours", 1, 2.0, math.nan)
    theirs = [timed("theirs", i, 4.0, 10.0) for i in range(2)]
    found = speed_ratio(Results([still, cached, *theirs], []), "theirs", "ours")
    assert (found["pairs"], found["deform_ratio"], found["whole_ratio"]) == (2, 2, 2)
    found = speed_ratio(Results([still, theirs[0]], []), "theirs", "ours")
    assert math.isnan(found["deform_ratio"])
    unknown = [row | {"threads": math.nan} for row in (cached, theirs[1])]
    assert speed(Results(unknown, []), reference="ours") == []


def test_speed_as_it_is_written() -> None:
    rows = [timed("ours", 0, 2.0, 10.0), stopped("slow_", 0, "1800"), timed("affine", 0, 0.0, 8.0)]
    found = speed(Results(rows, []))
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in markdown(found).splitlines()]
    assert cells[0] == ["Method", "Pairs", "Device", "Deformable, ×", "Whole command, ×"]
    assert cells[2:] == [
        [r"slow\_", "1", "cpu", "> 900", "> 180"],
    ]
    told = speed_caption(found)
    assert told.startswith("How many times as long as ours a method takes: ")
    assert "> n: at least n" in told
    rows = [rows[0], timed("theirs", 0, 4.0, 10.0)]
    assert "> n" not in speed_caption(speed(Results(rows, [])))
