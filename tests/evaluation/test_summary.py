"""Rows as lines of text."""

import math

from result_rows import plain_row as row_of

from voxwarp.evaluation.summary import format_row, summary


def test_one_row():
    """Also of a row that was read from a file, where missing numbers are NaN."""
    assert format_row(row_of(dice=0.81234, deform_s=1.5)) == (
        "m: a -> b: Dice 0.812, folds 31, local NCC 0.500, 1.50 s"
    )
    for nothing in ({}, {"dice": math.nan, "deform_s": math.nan}):
        assert format_row(row_of(**nothing)) == "m: a -> b: folds 31, local NCC 0.500"
    late = row_of(status="time limit", reason="stopped after 5 s")
    assert format_row(late) == "m: a -> b: time limit (stopped after 5 s)"


def test_means_of_rows():
    """By method and kind, over the known values; a mean of NaN alone is left out."""
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
