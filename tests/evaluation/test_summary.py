"""Rows in a few words."""

import math

from result_rows import plain_row as row_of

from voxwarp.evaluation.summary import line, summary


def test_a_line_of_a_row():
    """Also of one that was read back, where numbers that are not there are NaN."""
    assert line(row_of(dice=0.81234, deform_s=1.5)) == (
        "m: a -> b: Dice 0.812, folds 31, local NCC 0.500, 1.50 s"
    )
    for nothing in ({}, {"dice": math.nan, "deform_s": math.nan}):
        assert line(row_of(**nothing)) == "m: a -> b: folds 31, local NCC 0.500"
    late = row_of(status="time limit", reason="stopped after 5 s")
    assert line(late) == "m: a -> b: time limit (stopped after 5 s)"


def test_means_of_rows():
    """By method and kind, of what is there; NaN is nothing."""
    rows = [
        row_of(dice=0.8, folds=1, hd95_mm=math.nan),
        row_of(dice=0.6, folds=2, hd95_mm=3.0),
        row_of(status="failed", dice=math.nan, folds=math.nan),
        row_of(kind="retest", folds=0, dice=math.nan),
        row_of(method="n", kind="retest", status="failed"),
    ]
    assert summary(rows) == [
        "m, inter: 2 of 3 pairs, Dice 0.7000, HD95 3.00 mm, folds 1.5, local NCC 0.500",
        "m, retest: 1 of 1 pairs, folds 0.0, local NCC 0.500",
        "n, retest: 0 of 1 pairs",
    ]
    assert summary([]) == []
