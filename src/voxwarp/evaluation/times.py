"""How long methods take, in seconds and relative to another method."""

import math
import re
from typing import NamedTuple

from .results import Results, check_one_resampling, deforms, reference_of
from .rows import Row
from .statistics import median


class Seconds(NamedTuple):
    """How long a stage takes.

    Args:
        median: median over pairs, in s; NaN if unknown, the limit if the median pair was stopped.
        stopped: whether the median pair was stopped at a time limit.
        pairs: number of timed pairs.
    """

    median: float
    stopped: bool
    pairs: int

    @property
    def written(self) -> float | str:
        """The value in a table: a number, or "> limit"."""
        return f"> {self.median:g}" if self.stopped else self.median


def seconds(results: Results, method: str, kind: str, column: str, *, gpu: bool) -> Seconds:
    """Median time of a column over the timed pairs; a pair that was stopped counts as its limit."""
    about = {"method": method, "kind": kind}
    # Untimed pairs that hit their limit count only if no pair of the method was timed.
    for rows in (results.timed, results.rows_of(method, kind, "time limit")):
        ours = [r for r in rows if about.items() <= r.items() and on_gpu(r) == gpu]
        times = [r[column] for r in ours if r["status"] == "ok" and r[column] >= 0]
        limits = [limit for r in ours if (limit := limit_of(r))]
        if times or limits:
            stopped = median([*times, *(math.inf for _ in limits)]) == math.inf
            return Seconds(median([*times, *limits]), stopped, len(times) + len(limits))
    return Seconds(math.nan, False, 0)


def speed(results: Results, *, reference: str | None = None) -> list[Row]:
    """``speed_ratio`` of every deforming method with timed pairs, relative to the reference.

    Raises:
        InputError: the reference has no rows.
    """
    reference = reference_of(results, reference)
    others = [m for m in results.methods if m != reference and deforms(results, m)]
    ratios = [speed_ratio(results, method, reference) for method in others]
    return [row for row in ratios if row["pairs"]]


def speed_ratio(results: Results, method: str, reference: str) -> Row:
    """Time of a method as a multiple of the time of a reference.

    Counted are the pairs of different subjects on which both methods were timed, on the same
    device and with the same number of threads: those on a CPU or, if there are none, on a GPU.
    If the method was stopped on a pair, its limit counts as its time.

    Returns:
        ``pairs``, their number; ``deform_ratio`` and ``whole_ratio``, the median ratios of the
        deformable stage and of the whole command, NaN if unknown; ``is_bound``, whether a pair
        was stopped, so that the true ratios may be higher.

    Raises:
        InputError: labels were resampled in two ways, so pairs would count twice.
    """
    check_one_resampling(results)
    timed = [r for r in results.timed if r["kind"] == "inter" and r["threads"] > 0]
    done = {_run(r): r for r in timed if (r["method"], r["status"]) == (reference, "ok")}
    ours = [r for r in timed if r["method"] == method and (r["status"] == "ok" or limit_of(r))]
    pairs = [(row, done[_run(row)]) for row in ours if _run(row) in done]
    pairs = [pair for pair in pairs if not on_gpu(pair[0])] or pairs

    def ratio(column: str) -> float:
        return median((limit_of(a) or a[column]) / b[column] for a, b in pairs if b[column] > 0)

    return {
        "method": method,
        "reference": reference,
        "device": " and ".join(sorted({row["device"] for row, _ in pairs})),
        "pairs": len(pairs),
        "deform_ratio": ratio("deform_s"),
        "whole_ratio": ratio("whole_s"),
        "is_bound": any(limit_of(row) for row, _ in pairs),
    }


def _run(row: Row) -> tuple:
    return tuple(row[column] for column in ("moving", "fixed", "device", "threads"))


def on_gpu(row: Row) -> bool:
    """Whether a method ran on a GPU."""
    return row["device"] not in ("cpu", "")


def limit_of(row: Row) -> float:
    """The time limit in a reason such as "stopped after 1800 s"; 0 if it was not stopped."""
    match = re.search(r"(\d+(?:\.\d+)?) ?s\b", row["reason"])
    return float(match[1]) if match and row["status"] == "time limit" else 0.0
