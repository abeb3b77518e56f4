"""What methods take, and how many times as long as another one."""

import math
import re
from typing import NamedTuple

from .results import Results, check_one_way, deforms, reference_of
from .rows import Row
from .statistics import median


class Seconds(NamedTuple):
    """What a stage takes.

    Args:
        median: over pairs, s; NaN where it is not known, the limit where it was stopped.
        stopped: the median pair was stopped at a time limit.
        pairs: how many were timed.
    """

    median: float
    stopped: bool
    pairs: int

    @property
    def written(self) -> float | str:
        """As a table has it: a number, or "> limit"."""
        return f"> {self.median:g}" if self.stopped else self.median


def seconds(results: Results, method: str, kind: str, column: str, *, gpu: bool) -> Seconds:
    """Median over the timed pairs, for which the limit of one that was stopped is a bound."""
    about = {"method": method, "kind": kind}
    # A limit that was hit beside other work is told where nothing better is known.
    for rows in (results.timed, results.of_method(method, kind, "time limit")):
        ours = [r for r in rows if about.items() <= r.items() and on_gpu(r) == gpu]
        took = [r[column] for r in ours if r["status"] == "ok" and r[column] >= 0]
        limits = [limit for r in ours if (limit := limit_of(r))]
        if took or limits:
            stopped = median([*took, *(math.inf for _ in limits)]) == math.inf
            return Seconds(median([*took, *limits]), stopped, len(took) + len(limits))
    return Seconds(math.nan, False, 0)


def speed(results: Results, *, reference: str | None = None) -> list[Row]:
    """``speed_ratio`` of every other method that has one.

    Raises:
        InputError: there is no such reference.
    """
    to = reference_of(results, reference)
    others = [m for m in results.methods if m != to and deforms(results, m)]
    ratios = [speed_ratio(results, method, to) for method in others]
    return [row for row in ratios if row["pairs"]]


def speed_ratio(results: Results, method: str, reference: str) -> Row:
    """How many times as long as the reference a method takes.

    What counts are pairs of different subjects that were timed for both on one device with the
    same number of threads: those on a CPU, or on a GPU where there are none on a CPU. For a pair
    on which the method was stopped, its limit is what it took at least.

    Returns:
        ``pairs``, how many those are; the medians over them of the ratio of the deformable stage,
        ``deform_ratio``, and of the whole command, ``whole_ratio``, NaN where they are not known;
        ``is_bound``, whether a pair was stopped, so that the true ratios may be higher.

    Raises:
        InputError: labels were resampled in two ways, so that pairs are there twice.
    """
    check_one_way(results)
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
    """Seconds in a reason such as "stopped after 1800 s"; 0 where it was not stopped."""
    found = re.search(r"(\d+(?:\.\d+)?) ?s\b", row["reason"])
    return float(found[1]) if found and row["status"] == "time limit" else 0.0
