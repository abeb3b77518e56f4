"""Captions of tables and figures: how the numbers were obtained."""

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
    "linear": "linear interpolation of each label (the label with the largest value wins)",
}


def table_caption(results: Results, kind: str, *, reference: str | None = None) -> str:
    """The caption of ``table``: how its numbers were measured."""
    rows = [row for row in results.pairs if row["kind"] == kind]
    methods = {row["method"] for row in rows}
    reference = reference_of(results, reference)
    stopped = any(limit_of(r) for r in (*rows, *results.timed) if r["kind"] == kind)
    parts = [
        f"{plural(len(methods), 'method')} on {pairs_sentence(results, kind)} Each value is the "
        "mean over the finished pairs of the mean over structures; sd: standard deviation over "
        "pairs; worst pair: its Dice.",
        f"Difference: Dice minus that of {escaped(reference)} on the pairs that both have, with "
        f"the 95 % interval of a bootstrap over subjects{interval_warning(rows)}; p: Wilcoxon's "
        "two-sided test, which is optimistic because pairs share subjects."
        * (reference in methods and len(methods) > 1),
        "Folds: voxels of the fixed brain with det J ≤ 0 by central differences.",
        times_sentence(results, kind),
        "> n: the method was stopped after n s of the whole command." * stopped,
        "–: not known.",
    ]
    return " ".join(filter(None, parts))


def speed_caption(rows: Sequence[Row]) -> str:
    """The caption of ``speed``."""
    caption = (
        f"Time of each method as a multiple of the time of {escaped(rows[0]['reference'])}: median "
        "of the ratios over the ordered pairs of different subjects that both methods registered "
        "alone on the same device with the same number of threads."
    )
    if any(row["is_bound"] for row in rows):
        caption += " > n: at least n, because the method was stopped at its time limit."
    return caption


def times_sentence(results: Results, kind: str) -> str:
    """A sentence that says how many pairs were timed, and on which device."""
    timed = [r for r in results.timed if (r["kind"], r["status"]) == (kind, "ok")]
    if not timed:
        return "No times: no pair ran alone on the machine."
    runs = [(row["method"], on_gpu(row)) for row in timed]
    counts = {runs.count(run) for run in runs}
    pairs = _span(counts, "pair") + (" of each method" if len({*runs}) > 1 else "")
    threads = {int(row["threads"]) for row in timed if not on_gpu(row) and row["threads"] > 0}
    devices = [f"a CPU with {_span(threads, 'thread')}"] if threads else []
    devices += sorted({escaped(row["device"]) for row in timed if on_gpu(row)})
    where = f", on {join_words(devices)}" if devices else ""
    return f"Times: median of the {pairs} that ran alone{where}."


def pairs_sentence(results: Results, kind: str) -> str:
    """The end of a sentence: how many pairs and subjects, and how labels were resampled."""
    rows = [row for row in results.pairs if row["kind"] == kind]
    pairs = {(row["moving"], row["fixed"]) for row in rows}
    pairs_of = KINDS[kind] if len(pairs) != 1 else KINDS[kind].replace("pairs", "pair")
    return (
        f"{len(pairs)} {pairs_of}, {plural(len(_subjects(rows)), 'subject')} in all; "
        f"labels resampled once, by {LABELS[results.labels[0]]}."
    )


def not_shown(results: Results, shown: Collection[str], why: str = "") -> str:
    """A sentence that names the methods missing from a figure, or nothing."""
    missing = [escaped(method) for method in results.methods if method not in shown]
    return f" Not shown{why}: {join_words(missing)}." if missing else ""


def _subjects(rows: Iterable[Row]) -> set[str]:
    return {row[f"{role}_subject"] for row in rows for role in ("moving", "fixed")}


def interval_warning(rows: Iterable[Row]) -> str:
    """In brackets, what is wrong with intervals from few subjects, or nothing.

    ``bootstrap_over_subjects`` gives no interval for fewer than 3 subjects. The limit of 10 for
    the warning is set by hand, near the 12 subjects at which a 95 % interval covers 90 %.
    """
    subjects = len(_subjects(rows))
    if subjects < 3:
        return " (none from fewer than 3 subjects)"
    return f" (too narrow, with only {subjects} subjects)" if subjects < 10 else ""


def plural(number: int, word: str) -> str:
    """A number and a noun: "1 pair", "3 pairs"."""
    return f"{number} {word if number == 1 else f'{word}s'}"


def _span(numbers: Collection[int], word: str) -> str:
    low, high = min(numbers), max(numbers)
    return plural(low, word) if low == high else f"{low} to {plural(high, word)}"


def join_words(words: Sequence[str]) -> str:
    """The words as a list in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
