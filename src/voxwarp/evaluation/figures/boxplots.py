"""Dice of each structure as box plots: Figure 5 of the paper."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..by_structure import dice_by_structure
from ..captions import not_shown, pairs_sentence, plural
from ..markdown import escaped
from ..results import Results, check_one_resampling, deforms, reference_of
from ..statistics import mean
from .style import DARK, FILLS, Drawing, new_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled()
def figure5(results: Results, *, reference: str | None = None) -> Drawing | None:
    """Draw Dice of each structure as box plots, one box per method; None without rows.

    As in Figure 5 of the paper (arXiv 1802.02604), structures are sorted by the median of the
    reference. If there are more methods than distinguishable fills, the figure shows the
    reference, the methods that do not deform and those of the highest mean Dice.

    Args:
        results: rows whose labels were all resampled in the same way.
        reference: the method that sorts; by default the first one that deforms.

    Raises:
        InputError: labels were resampled in two ways, or the reference has no rows.
    """
    check_one_resampling(results)
    dice = dice_by_structure(results)
    if not dice:
        return None
    first = reference_of(results, reference)
    sorter = first if first in dice else next(iter(dice))

    def rank(method: str) -> tuple[bool, float]:
        kept = method == sorter or not deforms(results, method)
        return not kept, -mean(results.rows_of(method, "inter"), "dice")

    chosen = sorted(dice, key=rank)[: len(FILLS)]
    shown = {method: dice[method] for method in results.methods if method in chosen}
    heights = {s: -float(np.median(dice[sorter].get(s, 0.0))) for m in shown for s in dice[m]}
    structures = sorted(heights, key=lambda structure: (heights[structure], structure))
    return Drawing(
        _boxes(shown, structures, sorter),
        f"Dice of {plural(len(structures), 'structure')}, sorted by the median of "
        f"{escaped(sorter)}: {pairs_sentence(results, 'inter')} The left and right side of a "
        "structure are averaged. Box: quartiles and median over pairs; whiskers: the farthest "
        "pairs within 1.5 interquartile ranges of the box; dots: all other pairs."
        f"{not_shown(results, shown)}",
    )


def _boxes(
    dice: Mapping[str, Mapping[str, Sequence[float]]], structures: Sequence[str], sorter: str
) -> "Figure":
    figure, axes = new_axes(max(6.0, 1.0 + 0.08 * len(structures) * (len(dice) + 1.2)), 4.2)
    step = 0.84 / len(dice)
    fills = dict(zip(sorted(dice, key=lambda method: method != sorter), FILLS, strict=False))
    for i, (method, values) in enumerate(dice.items()):
        at = {n + (i - (len(dice) - 1) / 2) * step: s for n, s in enumerate(structures)}
        boxes = {x: values[structure] for x, structure in at.items() if structure in values}
        _draw_boxes(axes, boxes, 0.82 * step, *fills[method]).set_label(method)
    names = [structure.replace("_", " ") for structure in structures]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.tick_params(axis="x", which="both", length=0)
    axes.grid(axis="x", which="minor", color="0.85", linewidth=0.6)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylabel="Dice")
    columns = int(11 * figure.get_figwidth() / (9 + max(map(len, dice))))  # 9 point text
    ncols = max(1, min(columns, len(dice)))
    figure.legend(loc="outside upper center", ncols=ncols, handleheight=1.2)
    return figure


def _draw_boxes(
    axes: "Axes", values: Mapping[float, Sequence[float]], width: float, face: str, hatch: str
) -> Any:
    """Draw the boxes of one method, by horizontal position; return the first box."""
    thin = {"linewidth": 0.6}
    drawn = axes.boxplot(
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
    return drawn["boxes"][0]
