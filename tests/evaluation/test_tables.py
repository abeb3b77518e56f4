"""Tables: numbers worked out by hand."""

import math

import pytest
from result_rows import PAIRS, cohort, pair

from voxwarp.errors import InputError
from voxwarp.evaluation.captions import table_caption
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.statistics import bootstrap_over_subjects, compare
from voxwarp.evaluation.tables import table
from voxwarp.evaluation.times import speed


def test_a_table_by_hand(small: Results) -> None:
    ours, theirs, slow = table(small, "inter", reference="theirs")
    assert [line["method"] for line in (ours, theirs, slow)] == ["ours", "theirs", "slow"]
    assert (ours["pairs"], ours["asked"]) == (6, 6)
    assert ours["dice"] == pytest.approx(0.75)
    assert (ours["dice_worst"], theirs["dice_worst"]) == (0.6, pytest.approx(0.5))
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
    assert math.isnan(theirs["cpu_deform_s"])  # never timed
    assert (slow["cpu_deform_s"], slow["cpu_whole_s"]) == ("> 1800", "> 1800")
    assert slow["remarks"] == "1 of 1 stopped at its time limit"


def test_the_table_agrees_with_the_statistics() -> None:
    results = cohort("affine", "a", "b")
    for kind in ("inter", "retest"):
        for line in table(results, kind, reference="b"):
            rows = results.rows_of(line["method"], kind)
            subjects = [[r[f"{role}_subject"] for r in rows] for role in ("moving", "fixed")]
            interval = bootstrap_over_subjects([r["dice"] for r in rows], *subjects)
            assert (line["dice"], line["dice_low"], line["dice_high"]) == interval
            if line["method"] != "b":
                comparison = compare(results, line["method"], "b", kind=kind)
                assert (line["difference"], line["p"]) == (comparison.difference.mean, comparison.p)


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


def test_dice_of_an_untimed_run_and_the_limit_of_a_timed_one() -> None:
    """A pair has its Dice from a run without a limit, but the table shows the limit."""
    stopped = pair("a", "p", "q", status="time limit", reason="stopped after 60 s", timed="yes")
    results = Results([pair("a", "p", "q", dice=0.5, deform_s=99.0)], [], [stopped])
    (line,) = table(results, "inter")
    assert (line["dice"], line["cpu_deform_s"], line["remarks"]) == (0.5, "> 60", "")
    caption = table_caption(results, "inter")
    assert caption.startswith("1 method on 1 ordered pair of different subjects, 2 subjects in all")
    assert "> n: the method was stopped after n s" in caption


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


def test_the_reference_is_the_first_that_deforms() -> None:
    lines = table(cohort("affine", "a", "b"), "inter")
    assert [math.isnan(line["difference"]) for line in lines] == [False, True, False]
    still = cohort("still", "a", deform_s=0.0)
    still.pairs[len(still.pairs) // 2 :] = cohort("a").pairs
    assert not math.isnan(table(still, "inter")[0]["difference"])
    with pytest.raises(
        InputError, match="method 'c': has no rows; the methods with rows are: affine, a"
    ):
        table(cohort("affine", "a"), "inter", reference="c")


def test_no_table_of_what_is_not_there(small: Results) -> None:
    assert table(small, "retest") == []
    assert table(Results(small.pairs[-1:], []), "inter") == []  # stopped: no row is "ok"


def test_two_ways_of_the_labels_do_not_mix() -> None:
    results = cohort("a", "b")
    results.pairs.append(pair("a", "p", "q", labels="linear"))
    for make in (lambda r: table(r, "inter"), speed):
        with pytest.raises(InputError, match=r"two ways \(nearest and linear\)"):
            make(results)
