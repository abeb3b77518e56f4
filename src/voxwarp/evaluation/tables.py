"""The tables of a comparison, made from rows and from nothing else, and what is said above them.

Where there are no rows for something, it is left out.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .rows import Results, Row
from .statistics import check_one_way, compare, deforms, interval, mean, reference_of

KINDS = {"inter": "ordered pairs of different people", "retest": "pairs of two scans of one person"}
LABELS = {
    "nearest": "nearest neighbour",
    "linear": "linear interpolation of each label, of which the largest wins",
}
_DIFFERENCE = "difference", "difference_low", "difference_high", "p"
_MEANS = (
    *("dice_regions", "hd95_mm", "surface_mm", "tre_mm"),
    *("folds", "folds_percent", "nondiffeomorphic_percent"),
)


def table(results: Results, kind: str, *, reference: str | None = None) -> list[Row]:
    """A row for each method; none where no pair of the kind is "ok".

    The columns: ``pairs`` that are "ok", of those ``asked``; means over them (``dice_sd``: the
    standard deviation over pairs, with ``dice_low`` and ``dice_high`` the 95 % interval of a
    bootstrap over people); ``difference`` in Dice to the reference on the pairs both have, with
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
    line |= dict.fromkeys(_DIFFERENCE, math.nan)
    if method != reference:
        other = compare(results, method, reference, kind=kind)
        line |= zip(_DIFFERENCE, (*other.difference, other.p), strict=True)
    line |= {column: mean(done, column) for column in _MEANS}
    for device, gpu in (("cpu", False), ("gpu", True)):
        for stage in ("deform_s", "whole_s"):
            took = seconds(results, method, kind, stage, gpu=gpu)
            line[f"{device}_{stage}"] = took.written
        line[f"{device}_timed"] = took.pairs
    line["memory_mb"] = _median(row["memory_mb"] for row in done)
    return line | {"remarks": _remarks(asked)}


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan


def _remarks(asked: Sequence[Row]) -> str:
    words = {"failed": "failed", "time limit": "stopped at its time limit"}
    counts = {s: sum(row["status"] == s for row in asked) for s in words}
    return ", ".join(f"{n} of {len(asked)} {words[s]}" for s, n in counts.items() if n)


# ----------------------------------------------------------------------------------------- times


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
        ours = [r for r in rows if about.items() <= r.items() and _on_gpu(r) == gpu]
        took = [r[column] for r in ours if r["status"] == "ok" and r[column] >= 0]
        limits = [limit for r in ours if (limit := _limit(r))]
        if took or limits:
            stopped = _median([*took, *(math.inf for _ in limits)]) == math.inf
            return Seconds(_median([*took, *limits]), stopped, len(took) + len(limits))
    return Seconds(math.nan, False, 0)


def speed_ratio(results: Results, method: str, reference: str) -> Row:
    """How many times as long as the reference a method takes.

    What counts are pairs of different people that were timed for both on one device with the
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
    ours = [r for r in timed if r["method"] == method and (r["status"] == "ok" or _limit(r))]
    pairs = [(row, done[_run(row)]) for row in ours if _run(row) in done]
    pairs = [pair for pair in pairs if not _on_gpu(pair[0])] or pairs

    def ratio(column: str) -> float:
        return _median((_limit(a) or a[column]) / b[column] for a, b in pairs if b[column] > 0)

    return {
        "method": method,
        "reference": reference,
        "device": " and ".join(sorted({row["device"] for row, _ in pairs})),
        "pairs": len(pairs),
        "deform_ratio": ratio("deform_s"),
        "whole_ratio": ratio("whole_s"),
        "is_bound": any(_limit(row) for row, _ in pairs),
    }


def _run(row: Row) -> tuple:
    return tuple(row[column] for column in ("moving", "fixed", "device", "threads"))


def speed(results: Results, *, reference: str | None = None) -> list[Row]:
    """``speed_ratio`` of every other method that has one.

    Raises:
        InputError: there is no such reference.
    """
    to = reference_of(results, reference)
    others = [m for m in results.methods if m != to and deforms(results, m)]
    ratios = [speed_ratio(results, method, to) for method in others]
    return [row for row in ratios if row["pairs"]]


def _on_gpu(row: Row) -> bool:
    return row["device"] not in ("cpu", "")


def _limit(row: Row) -> float:
    """Seconds in a reason such as "stopped after 1800 s"; 0 where it was not stopped."""
    found = re.search(r"(\d+(?:\.\d+)?) ?s\b", row["reason"])
    return float(found[1]) if found and row["status"] == "time limit" else 0.0


# ----------------------------------------------------------------------------------------- words


def table_caption(results: Results, kind: str, *, reference: str | None = None) -> str:
    """What has to be said above ``table``: how it was measured."""
    rows = [row for row in results.pairs if row["kind"] == kind]
    there = {row["method"] for row in rows}
    reference = reference_of(results, reference)
    stopped = any(_limit(r) for r in (*rows, *results.timed) if r["kind"] == kind)
    parts = [
        f"{plural(len(there), 'method')} on {protocol(results, kind)} Means over the pairs done "
        "of the means over structures; sd: over pairs.",
        f"Difference: Dice minus that of {escaped(reference)} on the pairs both have, with the "
        f"95 % interval of a bootstrap over people{warning(rows)}; p: Wilcoxon's test, two-sided, "
        "optimistic since pairs share people." * (reference in there and len(there) > 1),
        "Folds: voxels of the fixed brain with det J ≤ 0 by central differences.",
        times_told(results, kind),
        "> n: stopped when the whole command had run n s." * stopped,
        "–: not known.",
    ]
    return " ".join(filter(None, parts))


def speed_caption(rows: Sequence[Row]) -> str:
    """What has to be said above ``speed``."""
    told = (
        f"How many times as long as {escaped(rows[0]['reference'])} a method takes: medians of the "
        "ratios on the ordered pairs of different people that both did alone on one device with "
        "the same number of threads."
    )
    if any(row["is_bound"] for row in rows):
        told += " > n: at least n; the whole command was stopped at its time limit."
    return told


def times_told(results: Results, kind: str) -> str:
    """A sentence: how many pairs were timed, and on what."""
    timed = [r for r in results.timed if (r["kind"], r["status"]) == (kind, "ok")]
    if not timed:
        return "Times are not told: no pair ran alone."
    runs = [(row["method"], _on_gpu(row)) for row in timed]
    counts = {runs.count(run) for run in runs}
    pairs = _span(counts, "pair") + (" of each method" if len({*runs}) > 1 else "")
    threads = {int(row["threads"]) for row in timed if not _on_gpu(row) and row["threads"] > 0}
    where = [f"a CPU with {_span(threads, 'thread')}"] if threads else []
    where += sorted({escaped(row["device"]) for row in timed if _on_gpu(row)})
    return f"Times: median of the {pairs} that ran alone{f', on {joined(where)}' if where else ''}."


def protocol(results: Results, kind: str) -> str:
    """A sentence's end: how many pairs and people, and how labels were resampled."""
    rows = [row for row in results.pairs if row["kind"] == kind]
    pairs = {(row["moving"], row["fixed"]) for row in rows}
    return (
        f"{len(pairs)} {KINDS[kind]}, {plural(len(_people(rows)), 'person')} in all; "
        f"labels resampled once, by {LABELS[results.labels[0]]}."
    )


def _people(rows: Iterable[Row]) -> set[str]:
    return {row[f"{role}_person"] for row in rows for role in ("moving", "fixed")}


def warning(rows: Iterable[Row]) -> str:
    """What is wrong with intervals from few people, in brackets, or nothing."""
    people = len(_people(rows))
    if people < 3:
        return " (none from fewer than 3 people)"
    return f" (which {people} people make too narrow)" if people < 10 else ""


def plural(number: int, word: str) -> str:
    """A number of things: "1 pair", "3 people"."""
    return f"{number} {word if number == 1 else {'person': 'people'}.get(word, f'{word}s')}"


def _span(numbers: Collection[int], word: str) -> str:
    low, high = min(numbers), max(numbers)
    return plural(low, word) if low == high else f"{low} to {plural(high, word)}"


def joined(words: Sequence[str]) -> str:
    """Words as a sentence lists them: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


# -------------------------------------------------------------------------------------- Markdown


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, in a cell of a table, too."""
    text = re.sub(r"[\\|*`<\[\]&~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return " ".join(text.split())


def markdown(rows: Sequence[Row]) -> str:
    """Rows of ``table`` or ``speed`` as a Markdown table, without columns that are not known."""
    columns = []
    for title, write in (_TABLE if "asked" in rows[0] else _SPEED).items():
        cells = [title, *(write(row) for row in rows)]
        if {*cells[1:]} == {"–"}:
            continue
        width, left = max(map(len, cells)), title in ("Method", "Device", "Remarks")
        head, *others = (cell.ljust(width) if left else cell.rjust(width) for cell in cells)
        rule = "-" * (width - 1)
        columns.append([head, f":{rule}" if left else f"{rule}:", *others])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*columns, strict=True))


def _number(column: str, form: str = "", least: float = 0.0) -> Callable[[Row], str]:
    """Writes a column; where there is no form, with three digits or all before the point."""

    def write(row: Row) -> str:
        value = row[column]
        if isinstance(value, str):  # "> 1800"
            return value
        if math.isnan(value):
            return "–"
        if value == 0 and form[:1] != "+":
            return "0"
        if 0 < abs(value) < least:  # not to be read as none
            return f"<{least:g}"
        digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
        number = format(value, form or f".{digits}f").replace("-", "−")
        return f"> {number}" if row.get("is_bound") else number

    return write


def _with_spread(row: Row) -> str:
    spread = "" if math.isnan(row["dice_sd"]) else f" ({row['dice_sd']:.3f})"
    return _number("dice", ".3f")(row) + spread


def _with_interval(row: Row) -> str:
    whole, low, high = (_number(column, "+.3f")(row) for column in _DIFFERENCE[:3])
    return whole if low == "–" else f"{whole} [{low}, {high}]"


_TABLE: Mapping[str, Callable[[Row], str]] = {
    "Method": lambda row: escaped(row["method"]),
    "Pairs": lambda row: f"{row['pairs']} of {row['asked']}",
    "Dice (sd)": _with_spread,
    "Difference [95 %]": _with_interval,
    "p": _number("p", ".3f", 0.001),
    "Dice, regions": _number("dice_regions", ".3f"),
    "HD95, mm": _number("hd95_mm", ".2f"),
    "Surface distance, mm": _number("surface_mm", ".2f"),
    "Landmarks, mm": _number("tre_mm", ".2f"),
    "Folds, voxels": _number("folds", ".0f", 1),
    "Folds, %": _number("folds_percent", ".3f", 0.001),
    "Not diffeomorphic, %": _number("nondiffeomorphic_percent", ".3f", 0.001),
    "Deformable, s": _number("cpu_deform_s"),
    "Whole command, s": _number("cpu_whole_s"),
    "Deformable on GPU, s": _number("gpu_deform_s"),
    "Whole command on GPU, s": _number("gpu_whole_s"),
    "Memory, MB": _number("memory_mb", ".0f"),
    "Remarks": lambda row: row["remarks"] or "–",
}
_SPEED: Mapping[str, Callable[[Row], str]] = {
    "Method": lambda row: escaped(row["method"]),
    "Pairs": lambda row: str(row["pairs"]),
    "Device": lambda row: escaped(row["device"]),
    "Deformable, ×": _number("deform_ratio"),
    "Whole command, ×": _number("whole_ratio"),
}
