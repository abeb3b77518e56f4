"""What is said above tables and under figures: how the numbers came about."""

from collections.abc import Collection, Iterable, Sequence

from .markdown import escaped
from .results import Results, reference_of
from .rows import Row
from .times import limit_of, on_gpu

KINDS = {
    "inter": "ordered pairs of different subjects",
    "retest": "pairs of two scans of one subject",
}
LABELS = {
    "nearest": "nearest neighbour",
    "linear": "linear interpolation of each label, of which the largest wins",
}


def table_caption(results: Results, kind: str, *, reference: str | None = None) -> str:
    """What has to be said above ``table``: how it was measured."""
    rows = [row for row in results.pairs if row["kind"] == kind]
    there = {row["method"] for row in rows}
    reference = reference_of(results, reference)
    stopped = any(limit_of(r) for r in (*rows, *results.timed) if r["kind"] == kind)
    parts = [
        f"{plural(len(there), 'method')} on {pairs_told(results, kind)} Means over the pairs done "
        "of the means over structures; sd: over pairs.",
        f"Difference: Dice minus that of {escaped(reference)} on the pairs both have, with the "
        f"95 % interval of a bootstrap over subjects{warning(rows)}; p: Wilcoxon's test, two-sided, "
        "optimistic since pairs share subjects." * (reference in there and len(there) > 1),
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
        "ratios on the ordered pairs of different subjects that both did alone on one device with "
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
    runs = [(row["method"], on_gpu(row)) for row in timed]
    counts = {runs.count(run) for run in runs}
    pairs = _span(counts, "pair") + (" of each method" if len({*runs}) > 1 else "")
    threads = {int(row["threads"]) for row in timed if not on_gpu(row) and row["threads"] > 0}
    where = [f"a CPU with {_span(threads, 'thread')}"] if threads else []
    where += sorted({escaped(row["device"]) for row in timed if on_gpu(row)})
    return f"Times: median of the {pairs} that ran alone{f', on {joined(where)}' if where else ''}."


def pairs_told(results: Results, kind: str) -> str:
    """A sentence's end: how many pairs and subjects, and how labels were resampled."""
    rows = [row for row in results.pairs if row["kind"] == kind]
    pairs = {(row["moving"], row["fixed"]) for row in rows}
    return (
        f"{len(pairs)} {KINDS[kind]}, {plural(len(_subjects(rows)), 'subject')} in all; "
        f"labels resampled once, by {LABELS[results.labels[0]]}."
    )


def not_shown(results: Results, shown: Collection[str], why: str = "") -> str:
    """A sentence that names the methods that a figure lacks, or nothing."""
    missing = [escaped(method) for method in results.methods if method not in shown]
    return f" Not shown{why}: {joined(missing)}." if missing else ""


def _subjects(rows: Iterable[Row]) -> set[str]:
    return {row[f"{role}_subject"] for row in rows for role in ("moving", "fixed")}


def warning(rows: Iterable[Row]) -> str:
    """What is wrong with intervals from few subjects, in brackets, or nothing."""
    subjects = len(_subjects(rows))
    if subjects < 3:
        return " (none from fewer than 3 subjects)"
    return f" (which {subjects} subjects make too narrow)" if subjects < 10 else ""


def plural(number: int, word: str) -> str:
    """A number of things: "1 pair", "3 subjects"."""
    return f"{number} {word if number == 1 else {'subject': 'subjects'}.get(word, f'{word}s')}"


def _span(numbers: Collection[int], word: str) -> str:
    low, high = min(numbers), max(numbers)
    return plural(low, word) if low == high else f"{low} to {plural(high, word)}"


def joined(words: Sequence[str]) -> str:
    """Words as a sentence lists them: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
