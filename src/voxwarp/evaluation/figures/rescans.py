"""Dice of two scans of one subject beside that of two subjects."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..captions import KINDS, pairs_told, warning
from ..results import Results, check_one_way
from ..rows import Row
from ..statistics import interval
from .style import Drawing, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled()
def rescans(results: Results) -> Drawing | None:
    """Dice of two scans of one subject beside that of two subjects; None where there is none.

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
    figure, axes = new_axes(6.5, 1.0 + 0.36 * len(methods))
    for kind, shift, look in (("inter", 0.16, ("o", "black")), ("retest", -0.16, ("s", "white"))):
        axes.plot([], [], look[0], color="black", markerfacecolor=look[1], label=KINDS[kind])
        for height, method in enumerate(reversed(methods)):
            _strip(axes, rows[method, kind], height + shift, *look)
    axes.set_yticks(range(len(methods)), methods[::-1])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="Dice", ylim=(-0.6, len(methods) - 0.4))
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=2)
    counts = [pairs_told(results, kind) for kind in KINDS if any(rows[m, kind] for m in methods)]
    return Drawing(
        figure,
        "Dice of two scans of one subject (squares) beside that of two subjects (discs). "
        f"{' '.join(counts)} Large: means, with the 95 % interval of a bootstrap over subjects"
        f"{warning(r for m in methods for r in rows[m, 'retest'])}; small: pairs.",
    )


def _strip(axes: "Axes", rows: Sequence[Row], height: float, marker: str, face: str) -> None:
    dice = [row["dice"] for row in rows]
    axes.plot(dice, [height] * len(dice), "|", color="0.65", markersize=7, zorder=1)
    middle, *ends = interval(rows)
    axes.plot(ends, (height, height), color="black", linewidth=1.2, zorder=2)
    axes.plot(middle, height, marker, color="black", mfc=face, markersize=5.5, zorder=3)
