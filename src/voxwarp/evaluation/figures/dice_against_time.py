"""The figures of a comparison, and all its files, made from rows and from nothing else.

Where there are no rows for something, it is left out. Figures are grey, with hatches and markers,
so that they can be read in print and by everybody.
"""

import io
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..files import write_bytes
from . import tables
from .rows import Results, Row, read_rows, to_csv
from .statistics import (
    Interval,
    check_method,
    check_one_way,
    deforms,
    dice_by_structure,
    interval,
    mean,
    reference_of,
)
from .tables import KINDS, Seconds, escaped, joined, protocol, seconds, warning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

LEARNING_COLUMNS = (
    *("experiment", "network", "smoothness", "people"),
    *("step", "seconds", "val_dice", "val_folds_percent"),
)
#: How benchmarks/learning.py scores and trains; its rows do not say it.
_SCORED = (
    "Dice of 30 structures and folds on the lattice of 1 mm, labels by nearest neighbour, means "
    "of the 2 ordered pairs of the 2 validation people"
)
PHASES = {"4 mm": 0, "2 mm": 700, "1 mm": 1000}  # the step after which they begin
EVERYBODY = 44
NETWORKS = {"vm1": "VoxelMorph-1", "vm2": "VoxelMorph-2"}

DARK = "0.35"
FILLS = (  # face, hatch: boxes that differ in print; the reference is the dark one
    *((DARK, ""), ("white", ""), ("0.82", ""), ("0.6", "")),
    *(("white", "//////"), ("white", "||||||")),
)
MARKERS = "osD^vP*Xp<"
STYLE = {
    "font.size": 9,
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


class _Item(NamedTuple):
    caption: str
    files: dict[str, bytes]  # by their ending


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
        folders: of results, which are joined, see ``Results.load``; none for trainings alone.
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
    items = dict(_items(folders, learning, reference))
    if not items:
        where = ", ".join(map(str, filter(None, (*folders, learning)))) or "no folder"
        raise InputError(f"nothing to draw in {where}: no row is 'ok', and none of a training")
    told = "\n\n".join(f"**{name}.** {item.caption}" for name, item in items.items())
    files = {f"{n}.{end}": payload for n, i in items.items() for end, payload in i.files.items()}
    files["captions.md"] = f"# Captions\n\n{told}\n".encode()
    for name, payload in files.items():  # all are made before the first is written
        write_bytes(Path(out) / name, payload)
    return [Path(out) / name for name in files]


def _items(
    folders: Sequence[str | os.PathLike[str]],
    learning: str | os.PathLike[str] | None,
    reference: str | None,
) -> Iterator[tuple[str, _Item]]:
    results = Results.load(folders)
    if folders and reference is not None:
        check_method(results, reference)
    for labels in results.labels:
        part, ending = results.of(labels), "" if labels == "nearest" else f"-{labels}"
        for name, item in _of_results(part, reference if reference in part.methods else None):
            yield name + ending, item
    if learning is not None:
        rows = read_rows(learning, LEARNING_COLUMNS, words=("experiment", "network", "people"))
        yield from _drawn("smoothness", smoothness(rows)).items()
        yield from _drawn("training_set", training_set(rows)).items()
        yield from _drawn("learning", learning_curves(rows)).items()


def _of_results(results: Results, reference: str | None) -> Iterator[tuple[str, _Item]]:
    for name, kind in (("table1", "inter"), ("retest", "retest")):
        if rows := tables.table(results, kind, reference=reference):
            yield name, _tabled(rows, tables.table_caption(results, kind, reference=reference))
    if rows := tables.speed(results, reference=reference):
        yield "speed", _tabled(rows, tables.speed_caption(rows))
    yield from _drawn("figure5", figure5(results, reference=reference)).items()
    yield from _drawn("dice_against_time", dice_against_time(results)).items()
    yield from _drawn("rescans", rescans(results)).items()


def _tabled(rows: Sequence[Row], caption: str) -> _Item:
    written = f"{caption}\n\n{tables.markdown(rows)}".encode()
    return _Item(caption, {"csv": to_csv(tuple(rows[0]), rows), "md": written})


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
def _drawn(name: str, drawing: Drawing | None) -> dict[str, _Item]:
    if drawing is None:
        return {}
    files = {}
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        stream = io.BytesIO()
        drawing.figure.savefig(stream, format=ending, dpi=150, metadata=metadata)
        files[ending] = stream.getvalue()
    return {name: _Item(drawing.caption, files)}


def _axes(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure of so many inches that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


# --------------------------------------------------------------------------- Dice of structures


@_style()
def figure5(results: Results, *, reference: str | None = None) -> Drawing | None:
    """Dice of each structure as box plots, one box a method; None where there are no rows.

    The figure 5 of the paper (arXiv 1802.02604), which sorts structures, as this does, by the
    median of the reference. Of more methods than boxes can be told apart, those shown are the
    reference, those that do not deform and those of the highest mean Dice.

    Args:
        results: rows whose labels were all resampled in the same way.
        reference: the method that sorts; the first one that deforms where none is named.

    Raises:
        InputError: labels were resampled in two ways, or there is no such method.
    """
    check_one_way(results)
    dice = dice_by_structure(results)
    if not dice:
        return None
    first = reference_of(results, reference)
    sorter = first if first in dice else next(iter(dice))

    def rank(method: str) -> tuple[bool, float]:
        kept = method == sorter or not deforms(results, method)
        return not kept, -mean(results.of_method(method, "inter"), "dice")

    chosen = sorted(dice, key=rank)[: len(FILLS)]
    shown = {method: dice[method] for method in results.methods if method in chosen}
    heights = {s: -float(np.median(dice[sorter].get(s, 0.0))) for m in shown for s in dice[m]}
    structures = sorted(heights, key=lambda structure: (heights[structure], structure))
    return Drawing(
        _boxes(shown, structures, sorter),
        f"Dice of {tables.plural(len(structures), 'structure')}, by the median of "
        f"{escaped(sorter)}: {protocol(results, 'inter')} Left and right are one: the mean of "
        "both. Box: quartiles and median over pairs; whiskers: farthest pair within 1.5 times "
        f"the box; dots: others.{_not_shown(results, shown)}",
    )


def _not_shown(results: Results, shown: Collection[str], why: str = "") -> str:
    missing = [escaped(method) for method in results.methods if method not in shown]
    return f" Not shown{why}: {joined(missing)}." if missing else ""


def _boxes(
    dice: Mapping[str, Mapping[str, Sequence[float]]], structures: Sequence[str], sorter: str
) -> "Figure":
    figure, axes = _axes(max(6.0, 1.0 + 0.08 * len(structures) * (len(dice) + 1.2)), 4.2)
    step = 0.84 / len(dice)
    fills = dict(zip(sorted(dice, key=lambda method: method != sorter), FILLS, strict=False))
    for i, (method, values) in enumerate(dice.items()):
        at = {n + (i - (len(dice) - 1) / 2) * step: s for n, s in enumerate(structures)}
        there = {x: values[structure] for x, structure in at.items() if structure in values}
        _draw_boxes(axes, there, 0.82 * step, *fills[method]).set_label(method)
    names = [structure.replace("_", " ") for structure in structures]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.tick_params(axis="x", which="both", length=0)
    axes.grid(axis="x", which="minor", color="0.85", linewidth=0.6)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylabel="Dice")
    columns = int(11 * figure.get_figwidth() / (9 + max(map(len, dice))))  # of 9 points
    ncols = max(1, min(columns, len(dice)))
    figure.legend(loc="outside upper center", ncols=ncols, handleheight=1.2)
    return figure


def _draw_boxes(
    axes: "Axes", values: Mapping[float, Sequence[float]], width: float, face: str, hatch: str
) -> Any:
    """Boxes of one look by where they stand; the first of them."""
    thin = {"linewidth": 0.6}
    made = axes.boxplot(
        [*values.values()],
        positions=[*values],
        widths=width,
        patch_artist=True,
        manage_ticks=False,
        showcaps=False,
        boxprops={"facecolor": face, "hatch": hatch, "edgecolor": "black", **thin},
        medianprops={"color": "white" if face == DARK else "black", "linewidth": 1.3},
        whiskerprops=thin,
        flierprops={"marker": ".", "markersize": 2.5, "markeredgecolor": "0.3"},
    )
    return made["boxes"][0]


# ------------------------------------------------------------------------------ Dice against time


class _Point(NamedTuple):
    method: str
    gpu: bool
    seconds: Seconds
    dice: Interval
    some: int = 0  # how many pairs it has Dice of, where others have it of more


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
    if all(math.isnan(point.dice.mean) for point in points):
        return None
    flat = {
        method: dice
        for method in results.methods
        if not deforms(results, method)
        and not math.isnan(dice := mean(results.of_method(method, "inter"), "dice"))
    }
    stopped = any(point.seconds.stopped for point in points)
    told = [
        "; dashed: no deformation" * bool(flat),
        "; open, dotted: the same on a GPU" * any(point.gpu for point in points),
        "; arrow: stopped at its time limit, at the bottom where there is no Dice" * stopped,
        "; of n pairs: a mean of these alone, which may be easier or harder than all"
        * any(point.some for point in points),
    ]
    shown = {*flat, *(point.method for point in points)}
    return Drawing(
        _scatter(points, flat),
        f"Mean Dice against the time of the deformable stage: {protocol(results, 'inter')} "
        "Bars: 95 % interval of a bootstrap over people"
        f"{warning(row for row in results.pairs if row['kind'] == 'inter')}; grey line: no "
        f"method is both faster and better{''.join(told)}. "
        f"{tables.times_told(results, 'inter')}{_not_shown(results, shown, ', for want of times')}",
    )


def _points(results: Results) -> Iterator[_Point]:
    counts = {m: len(results.of_method(m, "inter")) for m in results.methods}
    for method in results.methods:
        if not deforms(results, method):
            continue
        dice = interval(results.of_method(method, "inter"))
        for gpu in (False, True):
            took = seconds(results, method, "inter", "deform_s", gpu=gpu)
            if took.median > 0 and (took.stopped or not math.isnan(dice.mean)):
                some = counts[method] if counts[method] < max(counts.values()) else 0
                yield _Point(method, gpu, took, dice, some)


def _scatter(points: Sequence[_Point], flat: Mapping[str, float]) -> "Figure":
    figure, axes = _axes(6.8, 4.4)
    axes.set(xlabel="deformable stage, s (median)", ylabel="Dice (mean)")
    _log_axis(axes)
    floor = _set_limits(axes, points, flat)
    labels: list[tuple[float, float, str]] = []
    markers = dict(zip(dict.fromkeys(p.method for p in points), cycle(MARKERS), strict=False))
    for point in points:
        x, dice = point.seconds.median, point.dice
        y = floor if math.isnan(dice.mean) else dice.mean
        if not math.isnan(dice.mean):
            face = "white" if point.gpu else "black"
            axes.plot(x, y, markers[point.method], color="black", mfc=face, markersize=6)
        if not math.isnan(dice.low):
            axes.plot((x, x), (dice.low, dice.high), color="0.55", linewidth=0.9, zorder=1)
        if point.seconds.stopped:
            axes.plot((x, 1.7 * x), (y, y), "k->", markevery=[1], markersize=5, linewidth=1)
        twin = next((p for p in points if point.gpu and p[:2] == (point.method, False)), None)
        if twin is None:
            of = f", of {point.some} pairs" if point.some else ""
            labels.append((x, y, f"{point.method}{', GPU' if point.gpu else ''}{of}"))
        else:  # a dotted line leads to the name
            ends = (x, twin.seconds.median), (y, y)
            axes.plot(*ends, ":", color="0.55", linewidth=0.9, zorder=0)
    _draw_front(axes, [point for point in points if not point.some])
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
    room = 0.1 * (max(heights) - min(heights)) or 0.01
    without = any(math.isnan(point.dice.mean) for point in points)
    bottom = min(heights) - (3 if without else 1) * room
    axes.set(xlim=(min(times) / 3, max(times) * 4), ylim=(bottom, max(heights) + room))
    return bottom + 0.3 * room


def _draw_front(axes: "Axes", points: Sequence[_Point]) -> None:
    """The best Dice that can be had in so many seconds."""
    whole = [p for p in points if not p.seconds.stopped and not math.isnan(p.dice.mean)]
    whole = [p for p in whole if not p.gpu] or whole
    if whole:
        took, dice = np.transpose(sorted((p.seconds.median, p.dice.mean) for p in whole))
        x = [*took.repeat(2)[1:], axes.get_xlim()[1]]  # first to the right, then up
        best = np.maximum.accumulate(dice).repeat(2)
        axes.plot(x, best, color="0.75", linewidth=1.2, zorder=0)


def _place(axes: "Axes", labels: Sequence[tuple[float, float, str]]) -> None:
    """Write each name beside its point, where it covers least, as far as simple offsets do."""
    from matplotlib.transforms import Bbox

    figure: Any = axes.get_figure()
    figure.draw_without_rendering()  # lays the axes out
    lines = [line.get_transform().transform(line.get_xydata()) for line in axes.lines]
    thin = [Bbox([a, b]) for line in lines for a, b in zip(line[:-1], line[1:], strict=True)]
    corners = axes.transData.transform([(x, y) for x, y, _ in labels])
    dots = [*corners, *(line[0] for line in lines if len(line) == 1)]
    solid = [Bbox.from_extents(x - 8, y - 8, x + 8, y + 8) for x, y in dots]
    texts = [axes.annotate(t, (x, y), (9, 0), textcoords="offset points") for x, y, t in labels]
    boxes: dict[Annotation, Bbox] = {}
    for text in texts * 3:  # those that came first make room for those that came later
        names = [box for other, box in boxes.items() if other is not text]
        costs = {}
        for offset in _OFFSETS:
            box = _put(text, offset)
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            covered = box.count_overlaps(thin) + 4 * box.count_overlaps([*solid, *names])
            costs[offset] = covered + 10 * (not inside) + 0.05 * math.hypot(*offset)
        boxes[text] = _put(text, min(costs, key=costs.__getitem__))
    look = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    for text in texts:
        at = text.get_position()
        if abs(at[1]) > 12:  # too far to be told whose it is
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
    counts = [protocol(results, kind) for kind in KINDS if any(rows[m, kind] for m in methods)]
    return Drawing(
        figure,
        "Dice of two scans of one person (squares) beside that of two people (discs). "
        f"{' '.join(counts)} Large: means, with the 95 % interval of a bootstrap over people"
        f"{warning(r for m in methods for r in rows[m, 'retest'])}; small: pairs.",
    )


def _strip(axes: "Axes", rows: Sequence[Row], height: float, marker: str, face: str) -> None:
    dice = [row["dice"] for row in rows]
    axes.plot(dice, [height] * len(dice), "|", color="0.65", markersize=7, zorder=1)
    middle, *ends = interval(rows)
    axes.plot(ends, (height, height), color="black", linewidth=1.2, zorder=2)
    axes.plot(middle, height, marker, color="black", mfc=face, markersize=5.5, zorder=3)


# ------------------------------------------------------------------------------------- trainings


@_style()
def smoothness(rows: Sequence[Row]) -> Drawing | None:
    """Dice and folds against λ, after the last step of each training; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "lambda" count.
    """
    sweep = {r["smoothness"]: r for r in rows if r["experiment"] == "lambda"}  # the last of each
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
    right.set_ylabel("folded voxels, % of the brain")
    figure.legend(loc="outside upper center", ncols=2)
    return Drawing(figure, f"{_SCORED}, {_ends(sweep.values())}.")


@_style()
def training_set(rows: Sequence[Row]) -> Drawing | None:
    """Dice against the number of people a network was trained on; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "people" count, and those of
            "lambda" that differ from them in nothing but the number of people.
    """
    alike = {(r["network"], r["smoothness"]) for r in rows if r["experiment"] == "people"}
    chosen = {  # the last of each
        EVERYBODY if r["people"] == "all" else int(r["people"]): r
        for r in rows
        if r["experiment"] in ("people", "lambda") and (r["network"], r["smoothness"]) in alike
    }
    if not chosen:
        return None
    people = sorted(chosen)
    figure, axes = _axes(4.5, 2.8)
    axes.plot(people, [chosen[n]["val_dice"] for n in people], "o-", color="black")
    axes.set(xlabel="people in training", ylabel="Dice (mean)", xlim=(0, 1.05 * people[-1]))
    axes.set_xticks(people)
    return Drawing(figure, f"{_SCORED}, {_ends(chosen.values())}.")


@_style()
def learning_curves(rows: Sequence[Row]) -> Drawing | None:
    """Dice against steps of each network; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "networks" count.
    """
    there = [row for row in rows if row["experiment"] == "networks"]
    if not there:
        return None
    figure, axes = _axes(5.0, 3.2)
    styles = cycle((("o-", "black"), ("s--", "white"), ("^:", "0.6"), ("D-.", "white")))
    for network in dict.fromkeys(row["network"] for row in there):
        (style, face), name = next(styles), NETWORKS.get(network, network)
        curve = [(row["step"], row["val_dice"]) for row in there if row["network"] == network]
        axes.plot(*np.transpose(curve), style, color="k", mfc=face, ms=4, lw=1, label=name)
    for voxels, begin in PHASES.items():
        if begin:
            axes.axvline(begin, color="0.8", linewidth=0.8, zorder=0)
        axes.text(begin, 1.01, f" {voxels}", color="0.4", transform=axes.get_xaxis_transform())
    axes.set(xlabel="steps", ylabel="Dice (mean)", xlim=(0, None))
    axes.legend(loc="upper left")
    return Drawing(figure, f"{_SCORED}; above: the voxels that the networks see.")


def _ends(rows: Iterable[Row]) -> str:
    networks = [NETWORKS.get(n, n) for n in dict.fromkeys(row["network"] for row in rows)]
    return f"at the end of trainings of {joined(networks)}"
