"""The table of a comparison: a row of means for each method, made from rows and nothing else."""

import math
from collections.abc import Sequence

import numpy as np

from .results import Results, check_one_way, reference_of
from .rows import Row
from .statistics import compare, interval, mean, median
from .times import seconds

DIFFERENCE = "difference", "difference_low", "difference_high", "p"
_MEANS = (
    *("dice_regions", "hd95_mm", "surface_mm", "tre_mm"),
    *("folds", "folds_percent", "nondiffeomorphic_percent"),
)


def table(results: Results, kind: str, *, reference: str | None = None) -> list[Row]:
    """A row for each method; none where no pair of the kind is "ok".

    The columns: ``pairs`` that are "ok", of those ``asked``; means over them (``dice_sd``: the
    standard deviation over pairs, with ``dice_low`` and ``dice_high`` the 95 % interval of a
    bootstrap over subjects); ``difference`` in Dice to the reference on the pairs both have, with
    its interval and Wilcoxon's p; medians of the seconds of the pairs that were ``timed`` ("> n"
    where the median pair was stopped at the time limit of n s) and of the memory;
    ``remarks`` on the pairs that are not "ok". What is not known is NaN.

    Args:
        results: rows whose labels were all resampled in the same way.
        kind: "inter" or "retest".
        reference: the method compared to; the first one that deforms where none is named.

    Raises:
        InputError: labels were resampled in two ways, or there is no such reference.
    """
    check_one_way(results)
    there = [m for m in results.methods if results.of_method(m, kind, None)]
    if not any(results.of_method(method, kind) for method in there):
        return []
    reference = reference_of(results, reference)
    return [_line(results, method, kind, reference) for method in there]


def _line(results: Results, method: str, kind: str, reference: str) -> Row:
    asked, done = results.of_method(method, kind, None), results.of_method(method, kind)
    line: Row = {"method": method, "pairs": len(done), "asked": len(asked)}
    line["dice"], line["dice_low"], line["dice_high"] = interval(done)
    dice = [row["dice"] for row in done if not math.isnan(row["dice"])]
    line["dice_sd"] = float(np.std(dice, ddof=1)) if len(dice) > 1 else math.nan
    line |= dict.fromkeys(DIFFERENCE, math.nan)
    if method != reference:
        other = compare(results, method, reference, kind=kind)
        line |= zip(DIFFERENCE, (*other.difference, other.p), strict=True)
    line |= {column: mean(done, column) for column in _MEANS}
    for device, gpu in (("cpu", False), ("gpu", True)):
        for stage in ("deform_s", "whole_s"):
            took = seconds(results, method, kind, stage, gpu=gpu)
            line[f"{device}_{stage}"] = took.written
        line[f"{device}_timed"] = took.pairs
    line["memory_mb"] = median(row["memory_mb"] for row in done)
    return line | {"remarks": _remarks(asked)}


def _remarks(asked: Sequence[Row]) -> str:
    words = {"failed": "failed", "time limit": "stopped at its time limit"}
    counts = {s: sum(row["status"] == s for row in asked) for s in words}
    return ", ".join(f"{n} of {len(asked)} {words[s]}" for s, n in counts.items() if n)
