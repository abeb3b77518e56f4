"""Mean Dice against the time of the deformable stage, with the Pareto front."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..captions import interval_warning, not_shown, pairs_sentence, times_sentence
from ..results import Results, check_one_resampling, deforms
from ..statistics import Interval, interval, mean
from ..times import Seconds, seconds
from .style import MARKERS, Drawing, log_axis, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox


class _Point(NamedTuple):
    method: str
    gpu: bool
    seconds: Seconds
    dice: Interval
    fewer_pairs: int = 0  # its number of pairs if other methods have more, else 0


@styled()
def dice_against_time(results: Results) -> Drawing | None:
    """Draw mean Dice against the seconds of the deformable stage; None if no pair was timed.

    Bars are the 95 % interval of a bootstrap over subjects. The line is the Pareto front of one
    kind of device, the CPU if it was used. A method that was stopped is an arrow at its time
    limit, on the bottom edge if it has no Dice; a method that does not deform is a dashed line.

    Raises:
        InputError: labels were resampled in two ways.
    """
    check_one_resampling(results)
    points = list(_points(results))
    if all(math.isnan(point.dice.mean) for point in points):
        return None
    flat = {
        method: dice
        for method in results.methods
        if not deforms(results, method)
        and not math.isnan(dice := mean(results.rows_of(method, "inter"), "dice"))
    }
    stopped = any(point.seconds.stopped for point in points)
    legend = [
        "; dashed: no deformation" * bool(flat),
        "; open marker, dotted: the same on a GPU" * any(point.gpu for point in points),
        "; arrow: stopped at its time limit, on the bottom edge if it has no Dice" * stopped,
        "; (n pairs): the mean over these pairs alone, which may be easier or harder than all pairs"
        * any(point.fewer_pairs for point in points),
    ]
    shown = {*flat, *(point.method for point in points)}
    return Drawing(
        _scatter(points, flat),
        f"Mean Dice against the time of the deformable stage: {pairs_sentence(results, 'inter')} "
        "Bars: 95 % interval of a bootstrap over subjects"
        f"{interval_warning(row for row in results.pairs if row['kind'] == 'inter')}; grey line: "
        f"the best Dice within a given time{''.join(legend)}. "
        f"{times_sentence(results, 'inter')}{not_shown(results, shown, ', because not timed')}",
    )


def _points(results: Results) -> Iterator[_Point]:
    counts = {m: len(results.rows_of(m, "inter")) for m in results.methods}
    for method in results.methods:
        if not deforms(results, method):
            continue
        dice = interval(results.rows_of(method, "inter"))
        for gpu in (False, True):
            time = seconds(results, method, "inter", "deform_s", gpu=gpu)
            if time.median > 0 and (time.stopped or not math.isnan(dice.mean)):
                fewer = counts[method] if counts[method] < max(counts.values()) else 0
                yield _Point(method, gpu, time, dice, fewer)


def _scatter(points: Sequence[_Point], flat: Mapping[str, float]) -> "Figure":
    figure, axes = new_axes(6.8, 4.4)
    axes.set(xlabel="time of the deformable stage, s (median)", ylabel="Dice (mean)")
    log_axis(axes)
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
            pairs = f" ({point.fewer_pairs} pairs)" if point.fewer_pairs else ""
            labels.append((x, y, f"{point.method}{', GPU' if point.gpu else ''}{pairs}"))
        else:  # a dotted line leads to the name
            ends = (x, twin.seconds.median), (y, y)
            axes.plot(*ends, ":", color="0.55", linewidth=0.9, zorder=0)
    _draw_front(axes, [point for point in points if not point.fewer_pairs])
    for method, value in flat.items():
        axes.axhline(value, color="0.3", linestyle=(0, (5, 3)), linewidth=0.9, zorder=1)
        labels.append((axes.get_xlim()[0], value, method))
    _place(axes, labels)
    return figure


def _set_limits(axes: "Axes", points: Sequence[_Point], flat: Mapping[str, float]) -> float:
    """Leave room for names around the points; return the height of arrows without Dice."""
    times = [point.seconds.median for point in points]
    heights = [y for point in points for y in point.dice if not math.isnan(y)] + [*flat.values()]
    room = 0.1 * (max(heights) - min(heights)) or 0.01
    without = any(math.isnan(point.dice.mean) for point in points)
    bottom = min(heights) - (3 if without else 1) * room
    axes.set(xlim=(min(times) / 3, max(times) * 4), ylim=(bottom, max(heights) + room))
    return bottom + 0.3 * room


def _draw_front(axes: "Axes", points: Sequence[_Point]) -> None:
    """Draw the best Dice within a given time."""
    whole = [p for p in points if not p.seconds.stopped and not math.isnan(p.dice.mean)]
    whole = [p for p in whole if not p.gpu] or whole
    if whole:
        times, dice = np.transpose(sorted((p.seconds.median, p.dice.mean) for p in whole))
        x = [*times.repeat(2)[1:], axes.get_xlim()[1]]  # first to the right, then up
        best = np.maximum.accumulate(dice).repeat(2)
        axes.plot(x, best, color="0.75", linewidth=1.2, zorder=0)


def _place(axes: "Axes", labels: Sequence[tuple[float, float, str]]) -> None:
    """Write each name beside its point, at the offset where it covers least.

    The weights of the penalties are set by hand, on the figure in benchmarks/figures.
    """
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
    for text in texts * 3:  # later rounds move early names out of the way of late ones
        names = [box for other, box in boxes.items() if other is not text]
        penalties = {}
        for offset in _OFFSETS:
            box = _put(text, offset)
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            covered = box.count_overlaps(thin) + 4 * box.count_overlaps([*solid, *names])
            penalties[offset] = covered + 10 * (not inside) + 0.05 * math.hypot(*offset)
        boxes[text] = _put(text, min(penalties, key=penalties.__getitem__))
    pointer = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    for text in texts:
        at = text.get_position()
        if abs(at[1]) > 12:  # so far away that it needs a line to its point
            axes.annotate("", text.xy, at, textcoords="offset points", arrowprops=pointer, zorder=0)


def _put(text: "Annotation", offset: tuple[float, float]) -> "Bbox":
    """Move a name to an offset in points; return the box that it covers."""
    x, y = offset
    text.set_position(offset)
    text.set_horizontalalignment("left" if x > 0 else "right" if x < 0 else "center")
    text.set_verticalalignment("bottom" if y > 0 else "top" if y < 0 else "center")
    return text.get_window_extent().padded(1)


_OFFSETS = [  # in points, to the right and up
    *((8, 0), (-8, 0)),
    *((x, y) for d in (5, 9, 14, 20, 28, 40, 52) for y in (d, -d) for x in (5, -5, 0)),
]
