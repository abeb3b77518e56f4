"""The tables and figures of a comparison, made from rows and from nothing else.

Where there are no rows for something, it is left out. Figures are grey, with hatches and markers,
so that they can be read in print and by everybody.
"""

import io
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import InputError
from .files import write_bytes
from .rows import Results, Row, read_rows, to_csv
from .statistics import Interval, bootstrap_over_people, check_method, check_one_way, compare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

LEARNING_COLUMNS = (
    *("experiment", "network", "smoothness", "people"),
    *("step", "seconds", "val_dice", "val_folds_percent"),
)
KINDS = {"inter": "ordered pairs of different people", "retest": "pairs of two scans of one person"}
LABELS = {
    "nearest": "nearest neighbour",
    "linear": "linear interpolation of each label, of which the largest wins",
}
PHASES = {"4 mm": 0, "2 mm": 700, "1 mm": 1000}  # of benchmarks/learning.py: after what step
NETWORKS = {"vm1": "VoxelMorph-1", "vm2": "VoxelMorph-2"}
FILLS = (  # face, hatch: boxes that differ in print
    *(("white", ""), ("0.82", ""), ("0.6", ""), ("0.35", "")),
    *(("white", "//////"), ("0.82", "......"), ("white", "------"), ("0.82", "xxxxxx")),
)
MARKERS = "osD^vP*Xph<>"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a method's name may hold a $
    "svg.fonttype": "none",  # words stay words: to be searched, and edited for print
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "voxwarp",  # the same rows give the same bytes
}


class Drawing(NamedTuple):
    """A figure, and what has to be said under it."""

    figure: "Figure"
    caption: str


def draw(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    learning: str | os.PathLike[str] | None = None,
    reference: str | None = None,
) -> list[Path]:
    """Make every table and figure there are rows for.

    Tables are written as CSV and Markdown, figures as PNG and SVG, their captions as
    ``captions.md``. The same rows give the same bytes. Where labels were resampled otherwise
    than by nearest neighbour, the names of the files say so: ``table1-linear.md``.

    Args:
        folders: of results, which are joined, see ``Results.load``.
        out: folder for the files.
        learning: rows of trainings, as in benchmarks/learning.csv.
        reference: the method that others are compared to; the first one that deforms where
            none is named.

    Returns:
        The files, in the order of ``captions.md``, which is the last.

    Raises:
        InputError: there is nothing to draw, rows are wrong, the reference is not among the
            methods, matplotlib is not installed, or a file cannot be written.
    """
    results = Results.load(folders)
    if reference is not None:
        check_method(results, reference)
    files: dict[str, bytes] = {}
    captions: dict[str, str] = {}
    for labels in results.labels:
        part = results.of(labels)
        ending = "" if labels == "nearest" else f"-{labels}"
        _add(files, captions, part, reference if reference in part.methods else None, ending)
    if learning is not None:
        _add_learning(files, captions, learning)
    if not files:
        where = ", ".join(str(folder) for folder in folders) or "no folder"
        raise InputError(f"nothing to draw in {where}: a row with status 'ok' is wanted")
    told = "\n\n".join(f"**{name}.** {caption}" for name, caption in captions.items())
    files["captions.md"] = f"# Captions\n\n{told}\n".encode()
    for name, payload in files.items():  # all are made before the first is written
        write_bytes(Path(out) / name, payload)
    return [Path(out) / name for name in files]


def _add(
    files: dict[str, bytes],
    captions: dict[str, str],
    results: Results,
    reference: str | None,
    ending: str,
) -> None:
    for name, kind in (("table1", "inter"), ("retest", "retest")):
        rows = table(results, kind, reference=reference)
        if rows:
            captions[name + ending] = told = table_caption(results, kind, reference=reference)
            files[f"{name}{ending}.csv"] = to_csv(tuple(rows[0]), rows)
            files[f"{name}{ending}.md"] = f"{told}\n\n{markdown(rows)}".encode()
    _add_drawings(
        files,
        captions,
        {
            f"figure5{ending}": figure5(results, reference=reference),
            f"dice_against_time{ending}": dice_against_time(results),
            f"rescans{ending}": rescans(results),
        },
    )


def _add_learning(
    files: dict[str, bytes], captions: dict[str, str], source: str | os.PathLike[str]
) -> None:
    rows = read_rows(source, LEARNING_COLUMNS, words=("experiment", "network", "people"))
    drawings = {
        "smoothness": smoothness(rows),
        "training_set": training_set(rows),
        "learning": learning_curves(rows),
    }
    if not any(drawings.values()):
        raise InputError(f"nothing to draw in {source}: rows of a training are wanted")
    _add_drawings(files, captions, drawings)


def _add_drawings(
    files: dict[str, bytes], captions: dict[str, str], drawings: Mapping[str, Drawing | None]
) -> None:
    for name, drawing in drawings.items():
        if drawing is not None:
            captions[name] = drawing.caption
            files |= {f"{name}.{e}": _rendered(drawing.figure, e) for e in ("png", "svg")}


@contextmanager
def _style() -> Iterator[None]:
    """Our look, whatever the user's matplotlibrc says; also a decorator."""
    try:
        import matplotlib.style
    except ImportError as error:
        raise InputError("figures need matplotlib: pip install 'voxwarp[benchmark]'") from error
    with matplotlib.style.context(["default", STYLE]):
        yield


@_style()
def _rendered(figure: "Figure", ending: str) -> bytes:
    stream = io.BytesIO()
    metadata = {"Date": None} if ending == "svg" else {"Software": None}
    figure.savefig(stream, format=ending, dpi=150, metadata=metadata)
    return stream.getvalue()


# ---------------------------------------------------------------------------------------- tables


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
    if not any(results.of_method(method, kind) for method in results.methods):
        return []
    reference = _reference(results, reference)
    there = [m for m in results.methods if results.of_method(m, kind, None)]
    return [_line(results, method, kind, reference) for method in there]


def _line(results: Results, method: str, kind: str, reference: str) -> Row:
    asked, done = results.of_method(method, kind, None), results.of_method(method, kind)
    dice = [row["dice"] for row in done if not math.isnan(row["dice"])]
    line: Row = {"method": method, "pairs": len(done), "asked": len(asked)}
    _, low, high = _interval(done)
    line |= {"dice": _mean(done, "dice"), "dice_low": low, "dice_high": high}
    line["dice_sd"] = float(np.std(dice, ddof=1)) if len(dice) > 1 else math.nan
    line |= _difference(results, method, reference, kind)
    means = ("dice_regions", "hd95_mm", "surface_mm", "tre_mm")
    folding = ("folds", "folds_percent", "nondiffeomorphic_percent")
    line |= {column: _mean(done, column) for column in (*means, *folding)}
    for device, gpu in (("cpu", False), ("gpu", True)):
        times = [_seconds(results, method, kind, c, gpu=gpu) for c in ("deform_s", "whole_s")]
        line |= {f"{device}_deform_s": times[0].written, f"{device}_whole_s": times[1].written}
        line[f"{device}_timed"] = times[1].pairs
    memory = [row["memory_mb"] for row in done if not math.isnan(row["memory_mb"])]
    line["memory_mb"] = float(np.median(memory)) if memory else math.nan
    return line | {"remarks": _remarks(asked)}


def _difference(results: Results, method: str, reference: str, kind: str) -> Row:
    mean = low = high = p = math.nan
    if method != reference:
        comparison = compare(results, method, reference, kind=kind)
        (mean, low, high), p = comparison.difference, comparison.p
    return {"difference": mean, "difference_low": low, "difference_high": high, "p": p}


def _reference(results: Results, named: str | None) -> str:
    if named is not None:
        check_method(results, named)
        return named
    return next((m for m in results.methods if _deforms(results, m)), results.methods[0])


def _deforms(results: Results, method: str) -> bool:
    """Whether it does more than the affine stage: all its pairs take 0 s to deform."""
    done = [r for r in results.pairs if (r["method"], r["status"]) == (method, "ok")]
    return method != "affine" and not (done and all(row["deform_s"] == 0 for row in done))


def _mean(rows: Sequence[Row], column: str) -> float:
    there = [row[column] for row in rows if not math.isnan(row[column])]
    return math.fsum(there) / len(there) if there else math.nan


def _interval(rows: Sequence[Row]) -> Interval:
    people = [[row[f"{role}_person"] for row in rows] for role in ("moving", "fixed")]
    return bootstrap_over_people([row["dice"] for row in rows], *people)


class _Seconds(NamedTuple):
    median: float  # NaN where it is not known; the limit where the median pair was stopped
    stopped: bool
    pairs: int

    @property
    def written(self) -> float | str:
        return f"> {self.median:g}" if self.stopped else self.median


def _seconds(results: Results, method: str, kind: str, column: str, *, gpu: bool) -> _Seconds:
    """Median over the timed pairs; one that was stopped took longer than any that was not."""

    def ours(rows: Sequence[Row]) -> list[Row]:
        about = {"method": method, "kind": kind}
        return [r for r in rows if about.items() <= r.items() and _on_gpu(r) == gpu]

    # A limit that was hit beside other work is told where nothing better is known.
    rows = ours(results.timed) or ours(results.of_method(method, kind, "time limit"))
    seconds = [row[column] for row in rows if row["status"] == "ok" and row[column] >= 0]
    limits = [limit for row in rows if row["status"] == "time limit" and (limit := _limit(row))]
    if not seconds and not limits:
        return _Seconds(math.nan, False, 0)
    median = float(np.median([*seconds, *(math.inf for _ in limits)]))
    pairs = len(seconds) + len(limits)
    return (
        _Seconds(median, False, pairs) if median < math.inf else _Seconds(min(limits), True, pairs)
    )


def _on_gpu(row: Row) -> bool:
    return row["device"] not in ("cpu", "")


def _limit(row: Row) -> float:
    """Seconds in a reason such as "stopped after 1800 s"; 0 where there are none."""
    found = re.search(r"(\d+(?:\.\d+)?) ?s\b", row["reason"])
    return float(found[1]) if found else 0.0


def _remarks(asked: Sequence[Row]) -> str:
    words = {"failed": "failed", "time limit": "stopped at its time limit"}
    counts = {s: sum(row["status"] == s for row in asked) for s in words}
    return ", ".join(f"{n} of {len(asked)} {words[s]}" for s, n in counts.items() if n)


def table_caption(results: Results, kind: str, *, reference: str | None = None) -> str:
    """What has to be said above ``table``: how it was measured."""
    rows = [row for row in results.pairs if row["kind"] == kind]
    there = {row["method"] for row in rows}
    parts = [
        f"{_plural(len(there), 'method')} on {_protocol(results, kind)} "
        "Means over the pairs done of the means over structures; sd: over pairs."
    ]
    reference = _reference(results, reference)
    if reference in there and len(there) > 1:
        parts.append(
            f"Difference: Dice minus that of {escaped(reference)} on the pairs both have, with the "
            f"95 % interval of a bootstrap over people{_warning(rows)}; p: Wilcoxon's test, "
            "two-sided, optimistic since pairs share people."
        )
    parts.append("Folds: voxels of the fixed brain with det J ≤ 0 by central differences.")
    return " ".join(
        [*parts, _times_told(results, kind), *_limits_told(results, kind), "–: not known."]
    )


def _limits_told(results: Results, kind: str) -> list[str]:
    rows = [row for row in (*results.pairs, *results.timed) if row["kind"] == kind]
    if any(row["status"] == "time limit" and _limit(row) for row in rows):
        return ["> n: stopped when the whole command had run n s."]
    return []


def _times_told(results: Results, kind: str) -> str:
    timed = [r for r in results.timed if (r["kind"], r["status"]) == (kind, "ok")]
    if not timed:
        return "Times are not told: no pair ran alone."
    each: dict[tuple, int] = {}
    for row in timed:
        each[row["method"], _on_gpu(row)] = each.get((row["method"], _on_gpu(row)), 0) + 1
    pairs = _span([*each.values()], "pair") + (" of each method" if len(each) > 1 else "")
    threads = {int(row["threads"]) for row in timed if not _on_gpu(row) and row["threads"] > 0}
    where = [f"a CPU with {_span(threads, 'thread')}"] if threads else []
    where += sorted({escaped(row["device"]) for row in timed if _on_gpu(row)})
    return f"Times: median of the {pairs} that ran alone{f', on {_and(where)}' if where else ''}."


def _protocol(results: Results, kind: str) -> str:
    """A sentence's end: how many pairs and people, and how labels were resampled."""
    rows = [row for row in results.pairs if row["kind"] == kind]
    pairs = {(row["moving"], row["fixed"]) for row in rows}
    labels = LABELS.get(results.labels[0], results.labels[0])
    return (
        f"{len(pairs)} {KINDS[kind]}, {_plural(len(_people(rows)), 'person')} in all; "
        f"labels resampled once, by {labels}."
    )


def _people(rows: Sequence[Row]) -> set[str]:
    return {row[f"{role}_person"] for row in rows for role in ("moving", "fixed")}


def _warning(rows: Sequence[Row]) -> str:
    people = len(_people(rows))
    if people < 3:
        return " (none from fewer than 3 people)"
    return f" (which {people} people make too narrow)" if people < 10 else ""


def _plural(number: int, word: str) -> str:
    plural = {"person": "people"}.get(word, f"{word}s")
    return f"{number} {word if number == 1 else plural}"


def _span(numbers: Collection[int], word: str) -> str:
    low, high = min(numbers), max(numbers)
    return _plural(low, word) if low == high else f"{low} to {_plural(high, word)}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, in a cell of a table, too."""
    text = re.sub(r"[\\|*`<\[\]&~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return " ".join(text.split())


def markdown(rows: Sequence[Row]) -> str:
    """Rows of ``table`` as a Markdown table; columns of which nothing is known are left out."""
    cells = {title: [write(row) for row in rows] for title, write in _TABLE.items()}
    cells = {t: column for t, column in cells.items() if set(column) - {"–"} or t == "Dice (sd)"}
    lines = [list(cells), *map(list, zip(*cells.values(), strict=True))]
    width = [max(len(line[i]) for line in lines) for i in range(len(cells))]
    left = [title in ("Method", "Remarks") for title in cells]
    rule = [
        f":{'-' * (w - 1)}" if on else f"{'-' * (w - 1)}:"
        for w, on in zip(width, left, strict=True)
    ]
    padded = [
        [
            cell.ljust(w) if on else cell.rjust(w)
            for cell, w, on in zip(line, width, left, strict=True)
        ]
        for line in lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (padded[0], rule, *padded[1:]))


def _number(column: str, form: str, least: float = 0.0) -> Callable[[Row], str]:
    def write(row: Row) -> str:
        value = row[column]
        if isinstance(value, str):  # "> 1800"
            return value
        if math.isnan(value):
            return "–"
        if value == 0 and form[0] == ".":
            return "0"
        if 0 < abs(value) < least:  # not to be read as none
            return f"<{least:g}"
        return format(value, form).replace("-", "−")

    return write


def _time(column: str) -> Callable[[Row], str]:
    def write(row: Row) -> str:
        value = row[column]
        digits = 0 if isinstance(value, str) or value >= 99.95 else 1 if value >= 9.995 else 2
        return _number(column, f".{digits}f")(row)

    return write


def _with_spread(row: Row) -> str:
    spread = "" if math.isnan(row["dice_sd"]) else f" ({row['dice_sd']:.3f})"
    return _number("dice", ".3f")(row) + spread


def _with_interval(row: Row) -> str:
    if math.isnan(row["difference_low"]):
        return _number("difference", "+.3f")(row)
    numbers = (_number(f"difference{end}", "+.3f")(row) for end in ("", "_low", "_high"))
    return "{} [{}, {}]".format(*numbers)


_TABLE: dict[str, Callable[[Row], str]] = {
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
    "Deformable, s": _time("cpu_deform_s"),
    "Whole command, s": _time("cpu_whole_s"),
    "Deformable on GPU, s": _time("gpu_deform_s"),
    "Whole command on GPU, s": _time("gpu_whole_s"),
    "Memory, MB": _number("memory_mb", ".0f"),
    "Remarks": lambda row: row["remarks"] or "–",
}


# --------------------------------------------------------------------------- Dice of structures


def joined_names(names: Sequence[str]) -> dict[str, str]:
    """The name without its side for each of a left and a right structure; others keep theirs.

    Sides are left and right, L and R or lh and rh, as words of their own: ``cortex_L``,
    ``Left-Hippocampus``, ``ctx-lh-insula``. A structure whose other side is not there keeps its
    name, too.
    """
    sides: dict[str, dict[str, list[str]]] = {}
    for name in dict.fromkeys(names):
        whole, side = _without_side(name)
        sides.setdefault(whole, {}).setdefault(side, []).append(name)
    joined: dict[str, str] = {}
    for whole, by_side in sides.items():
        both = {side: len(members) for side, members in by_side.items()} == {"l": 1, "r": 1}
        joined |= {name: whole if both else name for m in by_side.values() for name in m}
    return joined


def _without_side(name: str) -> tuple[str, str]:
    """The name without its side, and the side: l, r or nothing."""
    words = re.split(r"([\W_]+)", name)
    for i in range(0, len(words), 2):
        if words[i].lower() in ("left", "right", "lh", "rh", "l", "r"):
            rest = words[: max(0, i - 1)] + words[i + 1 if i else 2 :]
            return "".join(rest).strip(" _-()") or name, words[i][0].lower()
    return name, ""


def dice_by_structure(results: Results, kind: str = "inter") -> dict[str, dict[str, np.ndarray]]:
    """Dice by method and structure, one a pair; that of left and right is their mean."""
    done = {
        (row["method"], row["moving"], row["fixed"])
        for row in results.pairs
        if (row["kind"], row["status"]) == (kind, "ok")
    }
    joined = joined_names([row["structure"] for row in results.structures])
    sides: dict[tuple[str, str], dict[tuple, list[float]]] = {}
    for row in results.structures:
        pair = row["method"], row["moving"], row["fixed"]
        if pair in done and not math.isnan(row["dice"]):
            of_structure = sides.setdefault((row["method"], joined[row["structure"]]), {})
            of_structure.setdefault(pair, []).append(row["dice"])
    dice: dict[str, dict[str, np.ndarray]] = {}
    for (method, structure), pairs in sides.items():
        dice.setdefault(method, {})[structure] = np.array([np.mean(v) for v in pairs.values()])
    return dice


@_style()
def figure5(
    results: Results,
    *,
    methods: Sequence[str] | None = None,
    reference: str | None = None,
    most: int = 6,
) -> Drawing | None:
    """Dice of each structure as box plots, one box a method; None where there are no rows.

    The figure 5 of the paper (arXiv 1802.02604), which sorts structures, as this does, by the
    median of the reference.

    Args:
        results: rows whose labels were all resampled in the same way.
        methods: the methods shown; where they are not named and there are more than ``most``,
            the reference, those that do not deform and those of the highest mean Dice.
        reference: the method that sorts; the first one that deforms where none is named.
        most: how many methods are shown where they are not named.

    Raises:
        InputError: labels were resampled in two ways, there is no such method, or there are
            more of them than boxes can be told apart.
    """
    check_one_way(results)
    dice = dice_by_structure(results)
    if not dice:
        return None
    for method in methods or ():
        check_method(results, method)
    reference = _reference(results, reference)
    shown = [m for m in methods or _choice(results, list(dice), reference, most) if m in dice]
    if not shown:
        return None
    if len(shown) > len(FILLS):
        raise InputError(f"figure 5: {len(shown)} methods, wanted {len(FILLS)} at most")
    sorter = reference if reference in dice else shown[0]
    structures = sorted({s for method in shown for s in dice[method]})
    structures.sort(key=lambda s: -float(np.median(dice[sorter].get(s, [0.0]))))
    figure = _boxes({method: dice[method] for method in shown}, structures)
    hidden = [escaped(method) for method in dice if method not in shown]
    return Drawing(
        figure,
        f"Dice of {_plural(len(structures), 'structure')}, by the median of {escaped(sorter)}: "
        f"{_protocol(results, 'inter')} Left and right are one: the mean of both. Box: quartiles "
        "and median over pairs; whiskers: farthest pair within 1.5 times the box; dots: others."
        + (f" Not shown: {_and(hidden)}." if hidden else ""),
    )


def _choice(results: Results, methods: list[str], reference: str, most: int) -> list[str]:
    def rank(method: str) -> tuple[bool, float]:
        kept = method == reference or not _deforms(results, method)
        return not kept, -_mean(results.of_method(method, "inter"), "dice")

    chosen = sorted(methods, key=rank)[:most]
    return [method for method in results.methods if method in chosen]


def _boxes(dice: Mapping[str, Mapping[str, np.ndarray]], structures: Sequence[str]) -> "Figure":
    from matplotlib.patches import Patch

    figure, axes = _axes(max(6.0, 1.0 + 0.08 * len(structures) * (len(dice) + 1.2)), 4.2)
    step = 0.84 / len(dice)
    handles = []
    for i, (method, by_structure) in enumerate(dice.items()):
        face, hatch = FILLS[i % len(FILLS)]
        look: dict[str, Any] = {
            "facecolor": face,
            "hatch": hatch,
            "edgecolor": "black",
            "linewidth": 0.6,
        }
        handles.append(Patch(**look, label=method))
        there = [n for n, s in enumerate(structures) if s in by_structure]
        made = axes.boxplot(
            [by_structure[structures[n]] for n in there],
            positions=[n + (i - (len(dice) - 1) / 2) * step for n in there],
            widths=0.82 * step,
            patch_artist=True,
            manage_ticks=False,
            boxprops=look,
            medianprops={"color": "white" if face == "0.35" else "black", "linewidth": 1.3},
            whiskerprops={"linewidth": 0.6},
            capprops={"linewidth": 0.6},
            flierprops={"marker": ".", "markersize": 2.5, "markeredgecolor": "0.3"},
        )
        for n, line in zip(there, made["medians"], strict=True):
            line.set_label(f"_{method}: {structures[n]}")  # hidden from the legend
    for n in range(len(structures) - 1):
        axes.axvline(n + 0.5, color="0.85", linewidth=0.6, zorder=0)
    names = [structure.replace("_", " ") for structure in structures]
    axes.set_xticks(range(len(structures)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-0.5, len(structures) - 0.5), ylabel="Dice")
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    columns = int(11 * figure.get_figwidth() / (9 + max(map(len, dice))))  # of 9 points
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=max(1, min(columns, len(dice))),
        handleheight=1.2,
    )
    return figure


def _axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure of so many inches that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


# ------------------------------------------------------------------------------ Dice against time


class _Point(NamedTuple):
    method: str
    gpu: bool
    seconds: _Seconds
    dice: Interval


def pareto(seconds: Sequence[float], values: Sequence[float]) -> list[int]:
    """Numbers of the points that none betters, from the fastest to the slowest.

    A point betters another if it is no slower and no worse, and faster or better. Of points
    that are the same, all are there.
    """
    order = sorted(range(len(seconds)), key=lambda i: (seconds[i], -values[i]))
    front: list[int] = []
    for i in order:
        best = front[-1] if front else None
        same = best is not None and (seconds[i], values[i]) == (seconds[best], values[best])
        if best is None or values[i] > values[best] or same:
            front.append(i)
    return front


@_style()
def dice_against_time(results: Results) -> Drawing | None:
    """Mean Dice against the seconds of the deformable stage; None where no pair was timed.

    Bars are the 95 % interval of a bootstrap over people, the line is the Pareto front of one
    kind of device, the CPU where it was used. What was stopped at a time limit is an arrow
    there, on the bottom edge where it has no Dice; what does not deform a dashed line.

    Raises:
        InputError: labels were resampled in two ways.
    """
    check_one_way(results)
    points = list(_points(results))
    flat = {
        method: _mean(done, "dice")
        for method in results.methods
        if (done := results.of_method(method, "inter")) and not _deforms(results, method)
    }
    flat = {method: dice for method, dice in flat.items() if not math.isnan(dice)}
    if not any(not math.isnan(point.dice.mean) for point in points):
        return None
    figure = _scatter(points, flat)
    shown = {*flat, *(point.method for point in points)}
    missing = [escaped(method) for method in results.methods if method not in shown]
    rows = [row for row in results.pairs if row["kind"] == "inter"]
    return Drawing(
        figure,
        f"Mean Dice against the time of the deformable stage: {_protocol(results, 'inter')} "
        f"Bars: 95 % interval of a bootstrap over people{_warning(rows)}; grey line: no method "
        f"is both faster and better{_legend_of(points, flat)}. "
        f"{_times_told(results, 'inter')}"
        + (f" Not shown, for want of times: {_and(missing)}." if missing else ""),
    )


def _legend_of(points: Sequence[_Point], flat: Mapping[str, float]) -> str:
    """What is not explained in the figure, of what is there."""
    told = {
        "dashed: no deformation": bool(flat),
        "open, dotted: the same on a GPU": any(point.gpu for point in points),
        "arrow: stopped at its time limit": any(point.seconds.stopped for point in points),
    }
    return "".join(f"; {text}" for text, there in told.items() if there)


def _points(results: Results) -> Iterator[_Point]:
    for method in results.methods:
        if not _deforms(results, method):
            continue
        dice = _interval(results.of_method(method, "inter"))
        for gpu in (False, True):
            seconds = _seconds(results, method, "inter", "deform_s", gpu=gpu)
            if seconds.median > 0 and (seconds.stopped or not math.isnan(dice.mean)):
                yield _Point(method, gpu, seconds, dice)


def _scatter(points: Sequence[_Point], flat: Mapping[str, float]) -> "Figure":
    figure, axes = _axes(6.8, 4.4)
    axes.set(xlabel="deformable stage, s (median)", ylabel="Dice (mean)")
    _log_axis(axes)
    floor = _set_limits(axes, points, flat)
    labels, methods = [], list(dict.fromkeys(point.method for point in points))
    for point in points:
        x, dice = point.seconds.median, point.dice
        y = floor if math.isnan(dice.mean) else dice.mean
        if not math.isnan(dice.mean):
            face = "white" if point.gpu else "black"
            marker = MARKERS[methods.index(point.method) % len(MARKERS)]
            axes.plot(x, y, marker, color="black", markersize=5.5, markerfacecolor=face)
        if not math.isnan(dice.low):
            axes.plot((x, x), (dice.low, dice.high), color="0.55", linewidth=0.9, zorder=1)
        if point.seconds.stopped:
            arrow = {"arrowstyle": "<|-", "color": "black", "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (x, y), (22, 0), textcoords="offset points", arrowprops=arrow)
        twin = next((p for p in points if point.gpu and p[:2] == (point.method, False)), None)
        if twin is None:
            labels.append((x, y, f"{point.method}, GPU" if point.gpu else point.method))
        else:  # a dotted line leads to the name
            ends = (x, twin.seconds.median), (y, y)
            axes.plot(*ends, ":", color="0.55", linewidth=0.9, zorder=0)
    _draw_front(axes, points)
    for method, value in flat.items():
        axes.axhline(value, color="0.3", linestyle=(0, (5, 3)), linewidth=0.9, zorder=1)
        labels.append((axes.get_xlim()[0], value, method))
    _place(axes, labels)
    return figure


def _log_axis(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _set_limits(axes: "Axes", points: Sequence[_Point], flat: Mapping[str, float]) -> float:
    """Room for names around the points; the height at which arrows without Dice lie."""
    times = [point.seconds.median for point in points]
    heights = [y for point in points for y in point.dice if not math.isnan(y)] + [*flat.values()]
    low, high = min(heights), max(heights)
    room = 0.1 * (high - low) or 0.01
    without = any(math.isnan(point.dice.mean) for point in points)
    bottom = low - (3 if without else 1) * room
    axes.set(xlim=(min(times) / 3, max(times) * 4), ylim=(bottom, high + room))
    return bottom + 0.3 * room


def _draw_front(axes: "Axes", points: Sequence[_Point]) -> None:
    whole = [p for p in points if not p.seconds.stopped and not math.isnan(p.dice.mean)]
    whole = [p for p in whole if not p.gpu] or whole
    seconds, values = [p.seconds.median for p in whole], [p.dice.mean for p in whole]
    front = pareto(seconds, values)
    if front:
        corners = np.repeat([(seconds[i], values[i]) for i in front], 2, axis=0)
        x = [*corners[1:, 0], axes.get_xlim()[1]]  # first to the right, then up
        axes.plot(x, corners[:, 1], color="0.75", linewidth=1.2, zorder=0)


def _place(axes: "Axes", labels: Sequence[tuple[float, float, str]]) -> None:
    """Write each name beside its point, where it covers least, as far as simple offsets do."""
    from matplotlib.transforms import Bbox

    figure: Any = axes.get_figure()
    figure.draw_without_rendering()  # lays the axes out
    corners = [axes.transData.transform((x, y)) for x, y, _ in labels]
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in corners]
    for line in axes.lines:  # bars, the front and dashed lines: boxes without width
        ends = line.get_transform().transform(line.get_xydata())
        taken += [Bbox([a, b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    texts = [axes.annotate(t, (x, y), (9, 0), textcoords="offset points") for x, y, t in labels]
    boxes: dict[Annotation, Bbox] = {}
    for text in texts * 3:  # those that came first make room for those that came later
        names = [box for other, box in boxes.items() if other is not text]
        costs = {}
        for rank, offset in enumerate(_OFFSETS):
            box = _put(text, offset)
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            covered = box.count_overlaps(taken) + 3 * box.count_overlaps(names)
            costs[offset] = covered + 10 * (not inside) + 0.02 * rank
        boxes[text] = _put(text, min(costs, key=costs.__getitem__))
    look = {"arrowstyle": "-", "color": "0.7", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    for text in texts:
        at = text.get_position()
        if abs(at[1]) > 15:  # too far to be told whose it is
            axes.annotate("", text.xy, at, textcoords="offset points", arrowprops=look, zorder=0)


_OFFSETS = [  # points to the right and up
    *((8, 0), (-8, 0)),
    *((x, y) for d in (5, 9, 14, 20, 28, 40, 52) for y in (d, -d) for x in (5, -5, 0)),
]


def _put(text: "Annotation", offset: tuple[float, float]) -> "Bbox":
    x, y = offset
    text.set_position(offset)
    text.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
    text.set_verticalalignment("bottom" if y > 0 else "top" if y < 0 else "center")
    return text.get_window_extent().padded(1)


# ----------------------------------------------------------------------- two scans of one person


@_style()
def rescans(results: Results) -> Drawing | None:
    """Dice of two scans of one person beside that of two people; None where there is none.

    Raises:
        InputError: labels were resampled in two ways.
    """
    check_one_way(results)
    rows = {
        (method, kind): [r for r in results.of_method(method, kind) if not math.isnan(r["dice"])]
        for method in results.methods
        for kind in KINDS
    }
    methods = [method for method in results.methods if rows[method, "retest"]]
    if not methods:
        return None
    figure, axes = _axes(6.5, 1.0 + 0.36 * len(methods))
    for kind, shift, look in (("inter", 0.16, ("o", "black")), ("retest", -0.16, ("s", "white"))):
        axes.plot([], [], look[0], color="black", markerfacecolor=look[1], label=KINDS[kind])
        for height, method in enumerate(reversed(methods)):
            _strip(axes, rows[method, kind], height + shift, *look)
    axes.set_yticks(range(len(methods)), methods[::-1])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="Dice", ylim=(-0.6, len(methods) - 0.4))
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=2)
    counts = " ".join(
        _protocol(results, kind) for kind in KINDS if any(rows[m, kind] for m in methods)
    )
    return Drawing(
        figure,
        f"Dice of two scans of one person (squares) beside that of two people (discs). {counts} "
        "Large: means, with the 95 % interval of a bootstrap over people"
        f"{_warning([r for m in methods for r in rows[m, 'retest']])}; small: pairs.",
    )


def _strip(axes: "Axes", rows: Sequence[Row], height: float, marker: str, face: str) -> None:
    dice = [row["dice"] for row in rows]
    axes.plot(dice, [height] * len(dice), "|", color="0.65", markersize=7, zorder=1)
    mean, low, high = _interval(rows)
    axes.plot((low, high), (height, height), color="black", linewidth=1.2, zorder=2)
    look: dict[str, Any] = {
        "color": "black",
        "markerfacecolor": face,
        "markersize": 5.5,
        "zorder": 3,
    }
    axes.plot(mean, height, marker, **look)


# ------------------------------------------------------------------------------------- trainings

#: How benchmarks/learning.py scores; its rows do not say it.
_SCORED = (
    "Dice of 30 structures and folds on the lattice of 1 mm, labels by nearest neighbour, means "
    "of the 2 ordered pairs of the 2 validation people"
)


@_style()
def smoothness(rows: Sequence[Row]) -> Drawing | None:
    """Dice and folds against λ, after the last step of each training; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "lambda" count.
    """
    sweep = {r["smoothness"]: r for r in _last(rows) if r["experiment"] == "lambda"}
    if not sweep:
        return None
    weights = sorted(sweep)
    figure, left = _axes(4.5, 3.0)
    right = left.twinx()
    right.spines["right"].set_visible(True)
    folds = [sweep[w]["val_folds_percent"] for w in weights]
    right.plot(weights, folds, "s--", color="0.5", markerfacecolor="white", label="folds")
    left.plot(weights, [sweep[w]["val_dice"] for w in weights], "o-", color="black", label="Dice")
    _log_axis(left)
    left.set(xlabel="weight of the smoothness, λ", ylabel="Dice (mean)")
    left.set_xticks(weights)
    left.set_zorder(right.get_zorder() + 1)  # Dice lies above the folds
    left.patch.set_visible(False)
    right.set_ylabel("folded voxels, % of the brain")
    figure.legend(loc="outside upper center", ncols=2)
    return Drawing(figure, f"{_SCORED}, at the end of {_of(sweep.values())}.")


@_style()
def training_set(rows: Sequence[Row], *, everybody: int = 44) -> Drawing | None:
    """Dice against the number of people a network was trained on; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "people" count, and those of
            "lambda" that differ from them in nothing but the number of people.
        everybody: how many people "all" are.
    """
    last = _last(rows)
    alike = {(r["network"], r["smoothness"]) for r in last if r["experiment"] == "people"}
    chosen = {
        everybody if r["people"] == "all" else int(r["people"]): r
        for r in last
        if r["experiment"] in ("people", "lambda") and (r["network"], r["smoothness"]) in alike
    }
    if not chosen:
        return None
    people = sorted(chosen)
    figure, axes = _axes(4.5, 2.8)
    axes.plot(people, [chosen[n]["val_dice"] for n in people], "o-", color="black")
    axes.set(xlabel="people in training", ylabel="Dice (mean)", xlim=(0, 1.05 * people[-1]))
    axes.set_xticks(people)
    return Drawing(figure, f"{_SCORED}, at the end of {_of(chosen.values())}.")


@_style()
def learning_curves(
    rows: Sequence[Row],
    *,
    phases: Mapping[str, int] = PHASES,
) -> Drawing | None:
    """Dice against steps of each network; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "networks" count.
        phases: voxels that the networks learn at, and the step after which that begins.
    """
    curves: dict[str, list[Row]] = {}
    for row in rows:
        if row["experiment"] == "networks":
            curves.setdefault(row["network"], []).append(row)
    if not curves:
        return None
    figure, axes = _axes(5.0, 3.2)
    styles = (("o-", "black"), ("s--", "white"), ("^:", "0.6"), ("D-.", "white"))
    for i, (network, curve) in enumerate(curves.items()):
        style, face = styles[i % len(styles)]
        look: dict[str, Any] = {
            "color": "black",
            "markerfacecolor": face,
            "markersize": 4,
            "linewidth": 1,
        }
        points = [row["step"] for row in curve], [row["val_dice"] for row in curve]
        axes.plot(*points, style, label=NETWORKS.get(network, network), **look)
    for voxels, begin in phases.items():
        if begin:
            axes.axvline(begin, color="0.8", linewidth=0.8, zorder=0)
        axes.text(begin, 1.01, f" {voxels}", color="0.4", transform=axes.get_xaxis_transform())
    axes.set(xlabel="steps", ylabel="Dice (mean)", xlim=(0, None))
    axes.legend(loc="upper left")
    return Drawing(figure, f"{_SCORED}; above: the voxels that the networks see.")


def _last(rows: Sequence[Row]) -> list[Row]:
    """The last row of each training."""
    about = ("experiment", "network", "smoothness", "people")
    return list({tuple(row[c] for c in about): row for row in rows}.values())


def _of(rows: Iterable[Row]) -> str:
    networks = [NETWORKS.get(n, n) for n in dict.fromkeys(row["network"] for row in rows)]
    return f"trainings of {_and(networks)}"
