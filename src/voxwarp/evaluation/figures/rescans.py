"""Dice between two scans of one subject, beside Dice between two subjects."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..captions import KINDS, interval_warning, pairs_sentence
from ..results import Results, check_one_resampling
from ..rows import Row
from ..statistics import interval
from .style import Drawing, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled()
def rescans(results: Results) -> Drawing | None:
    """Draw Dice between two scans of one subject beside Dice between two subjects.

    Returns None if no pair of two scans of one subject has a Dice.

    Raises:
        InputError: labels were resampled in two ways.
    """
    check_one_resampling(results)
    rows = {
        (method, kind): [r for r in results.rows_of(method, kind) if not math.isnan(r["dice"])]
        for method in results.methods
        for kind in KINDS
    }
    methods = [method for method in results.methods if rows[method, "retest"]]
    if not methods:
        return None
    figure, axes = new_axes(6.5, 1.0 + 0.36 * len(methods))
    for kind, shift, marker, face in (
        ("inter", 0.16, "o", "black"),
        ("retest", -0.16, "s", "white"),
    ):
        axes.plot([], [], marker, color="black", markerfacecolor=face, label=KINDS[kind])
        for height, method in enumerate(reversed(methods)):
            _draw_strip(axes, rows[method, kind], height + shift, marker, face)
    axes.set_yticks(range(len(methods)), methods[::-1])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="Dice", ylim=(-0.6, len(methods) - 0.4))
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=2)
    counts = [
        pairs_sentence(results, kind) for kind in KINDS if any(rows[m, kind] for m in methods)
    ]
    return Drawing(
        figure,
        "Dice between two scans of one subject (squares) beside Dice between two subjects (discs). "
        f"{' '.join(counts)} Large markers: means, with the 95 % interval of a bootstrap over "
        f"subjects{interval_warning(r for m in methods for r in rows[m, 'retest'])}; small marks: "
        "single pairs.",
    )


def _draw_strip(axes: "Axes", rows: Sequence[Row], height: float, marker: str, face: str) -> None:
    """Draw the pairs of one method and kind in a row, with their mean and its interval."""
    dice = [row["dice"] for row in rows]
    axes.plot(dice, [height] * len(dice), "|", color="0.65", markersize=7, zorder=1)
    middle, *ends = interval(rows)
    axes.plot(ends, (height, height), color="black", linewidth=1.2, zorder=2)
    axes.plot(middle, height, marker, color="black", mfc=face, markersize=5.5, zorder=3)
