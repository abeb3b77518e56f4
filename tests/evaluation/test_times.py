"""Times of methods: ratios and bounds, computed by hand."""

import math

import pytest
from result_rows import pair, stopped, timed

from voxwarp.evaluation.results import Results
from voxwarp.evaluation.times import speed, speed_ratio


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
    for row in (ours, theirs):  # nor do two scans of one subject
        row.append(pair(row[0]["method"], "p", "p2", deform_s=7.0, whole_s=7.0, timed="yes"))
    rows = ours + theirs + others[:-1]
    ratio = speed_ratio(
        Results(rows, [], [r for r in rows if r["timed"] == "yes"]), "theirs", "ours"
    )
    assert ratio == {
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
    ratio = speed_ratio(two, "slow", "ours")
    assert (ratio["pairs"], ratio["deform_ratio"], ratio["is_bound"]) == (3, 900, True)
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
    ratio = {row["method"]: row for row in speed(Results(ours + fast + both, []), reference="ours")}
    assert (ratio["fast"]["device"], ratio["fast"]["deform_ratio"]) == ("NVIDIA H100", 2)
    assert (ratio["both"]["device"], ratio["both"]["deform_ratio"]) == ("cpu", 3)


def test_ratios_that_are_not_known() -> None:
    """The reference does not deform or came from a cache, or the threads are unknown."""
    still, cached = timed("ours", 0, 0.0, 5.0), timed("ours", 1, 2.0, math.nan)
    theirs = [timed("theirs", i, 4.0, 10.0) for i in range(2)]
    ratio = speed_ratio(Results([still, cached, *theirs], []), "theirs", "ours")
    assert (ratio["pairs"], ratio["deform_ratio"], ratio["whole_ratio"]) == (2, 2, 2)
    ratio = speed_ratio(Results([still, theirs[0]], []), "theirs", "ours")
    assert math.isnan(ratio["deform_ratio"])
    unknown = [row | {"threads": math.nan} for row in (cached, theirs[1])]
    assert speed(Results(unknown, []), reference="ours") == []
