"""The table of a comparison: one row of means for each method."""

import math
from collections.abc import Sequence

import numpy as np

from .results import Results, check_one_resampling, reference_of
from .rows import Row
from .statistics import compare, interval, mean, median
from .times import seconds

DIFFERENCE = "difference", "difference_low", "difference_high", "p"
_MEANS = (
    *("dice_regions", "hd95_mm", "surface_mm", "tre_mm"),
    *("folds", "folds_percent", "nondiffeomorphic_percent"),
)


def table(results: Results, kind: str, *, reference: str | None = None) -> list[Row]:
    """One row for each method; no rows if no pair of the kind is "ok".

    The columns are: ``asked``, the number of pairs, and ``pairs``, the number that are "ok";
    means over the latter, with ``dice_worst``, the Dice of the worst pair, ``dice_sd``, the
    standard deviation over pairs, and ``dice_low`` and ``dice_high``, the 95 % interval of a
    bootstrap over subjects; ``difference``, the Dice minus that of the reference on the pairs that
    both have, with its interval and Wilcoxon's p; median seconds of the ``timed`` pairs ("> n" if
    the median pair was stopped at its limit of n s) and median memory; ``remarks`` about pairs
    that are not "ok". Unknown values are NaN.

    Args:
        results: rows whose labels were all resampled in the same way.
        kind: "inter" or "retest".
        reference: the method to compare with; by default the first one that deforms.

    Raises:
        InputError: labels were resampled in two ways, or the reference has no rows.
    """
    check_one_resampling(results)
    methods = [m for m in results.methods if results.rows_of(m, kind, None)]
    if not any(results.rows_of(method, kind) for method in methods):
        return []
    reference = reference_of(results, reference)
    return [_table_row(results, method, kind, reference) for method in methods]


def _table_row(results: Results, method: str, kind: str, reference: str) -> Row:
    asked, done = results.rows_of(method, kind, None), results.rows_of(method, kind)
    line: Row = {"method": method, "pairs": len(done), "asked": len(asked)}
    line["dice"], line["dice_low"], line["dice_high"] = interval(done)
    dice = [row["dice"] for row in done if not math.isnan(row["dice"])]
    line["dice_worst"] = min(dice, default=math.nan)
    line["dice_sd"] = float(np.std(dice, ddof=1)) if len(dice) > 1 else math.nan
    line |= dict.fromkeys(DIFFERENCE, math.nan)
    if method != reference:
        other = compare(results, method, reference, kind=kind)
        line |= zip(DIFFERENCE, (*other.difference, other.p), strict=True)
    line |= {column: mean(done, column) for column in _MEANS}
    for device, gpu in (("cpu", False), ("gpu", True)):
        for stage in ("deform_s", "whole_s"):
            time = seconds(results, method, kind, stage, gpu=gpu)
            line[f"{device}_{stage}"] = time.written
        line[f"{device}_timed"] = time.pairs
    line["memory_mb"] = median(row["memory_mb"] for row in done)
    return line | {"remarks": _remarks(asked)}


def _remarks(asked: Sequence[Row]) -> str:
    texts = {"failed": "failed", "time limit": "stopped at its time limit"}
    counts = {status: sum(row["status"] == status for row in asked) for status in texts}
    return ", ".join(f"{n} of {len(asked)} {texts[s]}" for s, n in counts.items() if n)
