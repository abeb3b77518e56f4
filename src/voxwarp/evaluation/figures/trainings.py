"""What trainings came to: over λ, over the number of subjects, over steps."""

from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np

from ..captions import joined
from ..rows import Row
from .style import Drawing, log_axis, new_axes, styled

LEARNING_COLUMNS = (
    *("experiment", "network", "smoothness", "subjects"),
    *("step", "seconds", "val_dice", "val_folds_percent"),
)
#: How benchmarks/learning.py scores and trains; its rows do not say it.
_SCORED = (
    "Dice of 30 structures and folds on the lattice of 1 mm, labels by nearest neighbour, means "
    "of the 2 ordered pairs of the 2 validation subjects"
)
PHASES = {"4 mm": 0, "2 mm": 700, "1 mm": 1000}  # the step after which they begin
EVERYBODY = 44
NETWORKS = {"vm1": "VoxelMorph-1", "vm2": "VoxelMorph-2"}


@styled()
def smoothness(rows: Sequence[Row]) -> Drawing | None:
    """Dice and folds against λ, after the last step of each training; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "lambda" count.
    """
    sweep = {r["smoothness"]: r for r in rows if r["experiment"] == "lambda"}  # the last of each
    if not sweep:
        return None
    weights = sorted(sweep)
    figure, left = new_axes(4.5, 3.0)
    right = left.twinx()
    right.spines["right"].set_visible(True)
    folds = [sweep[w]["val_folds_percent"] for w in weights]
    right.plot(weights, folds, "s--", color="0.5", markerfacecolor="white", label="folds")
    left.plot(weights, [sweep[w]["val_dice"] for w in weights], "o-", color="black", label="Dice")
    log_axis(left)
    left.set(xlabel="weight of the smoothness, λ", ylabel="Dice (mean)")
    left.set_xticks(weights)
    right.set_ylabel("folded voxels, % of the brain")
    figure.legend(loc="outside upper center", ncols=2)
    return Drawing(figure, f"{_SCORED}, {_ends(sweep.values())}.")


@styled()
def training_set(rows: Sequence[Row]) -> Drawing | None:
    """Dice against the number of subjects a network was trained on; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "subjects" count, and those of
            "lambda" that differ from them in nothing but the number of subjects.
    """
    alike = {(r["network"], r["smoothness"]) for r in rows if r["experiment"] == "subjects"}
    chosen = {  # the last of each
        EVERYBODY if r["subjects"] == "all" else int(r["subjects"]): r
        for r in rows
        if r["experiment"] in ("subjects", "lambda") and (r["network"], r["smoothness"]) in alike
    }
    if not chosen:
        return None
    subjects = sorted(chosen)
    figure, axes = new_axes(4.5, 2.8)
    axes.plot(subjects, [chosen[n]["val_dice"] for n in subjects], "o-", color="black")
    axes.set(xlabel="subjects in training", ylabel="Dice (mean)", xlim=(0, 1.05 * subjects[-1]))
    axes.set_xticks(subjects)
    return Drawing(figure, f"{_SCORED}, {_ends(chosen.values())}.")


@styled()
def learning_curves(rows: Sequence[Row]) -> Drawing | None:
    """Dice against steps of each network; None without such rows.

    Args:
        rows: with ``LEARNING_COLUMNS``; those of the experiment "networks" count.
    """
    there = [row for row in rows if row["experiment"] == "networks"]
    if not there:
        return None
    figure, axes = new_axes(5.0, 3.2)
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
