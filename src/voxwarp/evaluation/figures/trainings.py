"""Scores of trainings, against λ, the number of subjects and the number of steps."""

from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np

from ..captions import join_words
from ..rows import Row
from .style import Drawing, log_axis, new_axes, styled

LEARNING_COLUMNS = (
    *("experiment", "network", "smoothness", "subjects"),
    *("step", "seconds", "val_dice", "val_folds_percent"),
)
#: How benchmarks/learning.py scores and trains; its rows do not hold these facts.
_SCORED = (
    "Dice over 30 structures and folds, on the working grid of 1 mm, with labels resampled by "
    "nearest neighbour; means over the 2 ordered pairs of the 2 validation subjects"
)
PHASES = {"4 mm": 0, "2 mm": 700, "1 mm": 1000}  # voxel size, and the step after which it begins
ALL_SUBJECTS = 44
NETWORKS = {"vm1": "VoxelMorph-1", "vm2": "VoxelMorph-2"}


@styled()
def smoothness(rows: Sequence[Row]) -> Drawing | None:
    """Draw Dice and folds against λ, after the last step of each training; None without rows.

    Args:
        rows: rows with ``LEARNING_COLUMNS``; only the experiment "lambda" is used.
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
    left.set(xlabel="weight of the smoothness loss, λ", ylabel="Dice (mean)")
    left.set_xticks(weights)
    right.set_ylabel("folded voxels, % of the brain")
    figure.legend(loc="outside upper center", ncols=2)
    return Drawing(figure, f"{_SCORED}, {_training_ends(sweep.values())}.")


@styled()
def training_set(rows: Sequence[Row]) -> Drawing | None:
    """Draw Dice against the number of subjects in the training; None without rows.

    Args:
        rows: rows with ``LEARNING_COLUMNS``; used are the experiment "subjects", and those rows
            of "lambda" that differ from it only in the number of subjects.
    """
    same = {(r["network"], r["smoothness"]) for r in rows if r["experiment"] == "subjects"}
    chosen = {  # the last of each
        ALL_SUBJECTS if r["subjects"] == "all" else int(r["subjects"]): r
        for r in rows
        if r["experiment"] in ("subjects", "lambda") and (r["network"], r["smoothness"]) in same
    }
    if not chosen:
        return None
    subjects = sorted(chosen)
    figure, axes = new_axes(4.5, 2.8)
    axes.plot(subjects, [chosen[n]["val_dice"] for n in subjects], "o-", color="black")
    axes.set(
        xlabel="number of training subjects", ylabel="Dice (mean)", xlim=(0, 1.05 * subjects[-1])
    )
    axes.set_xticks(subjects)
    return Drawing(figure, f"{_SCORED}, {_training_ends(chosen.values())}.")


@styled()
def learning_curves(rows: Sequence[Row]) -> Drawing | None:
    """Draw Dice against the training steps of each network; None without rows.

    Args:
        rows: rows with ``LEARNING_COLUMNS``; only the experiment "networks" is used.
    """
    rows = [row for row in rows if row["experiment"] == "networks"]
    if not rows:
        return None
    figure, axes = new_axes(5.0, 3.2)
    styles = cycle((("o-", "black"), ("s--", "white"), ("^:", "0.6"), ("D-.", "white")))
    for network in dict.fromkeys(row["network"] for row in rows):
        (style, face), name = next(styles), NETWORKS.get(network, network)
        curve = [(row["step"], row["val_dice"]) for row in rows if row["network"] == network]
        axes.plot(*np.transpose(curve), style, color="k", mfc=face, ms=4, lw=1, label=name)
    for voxels, start in PHASES.items():
        if start:
            axes.axvline(start, color="0.8", linewidth=0.8, zorder=0)
        axes.text(start, 1.01, f" {voxels}", color="0.4", transform=axes.get_xaxis_transform())
    axes.set(xlabel="training steps", ylabel="Dice (mean)", xlim=(0, None))
    axes.legend(loc="upper left")
    return Drawing(figure, f"{_SCORED}. Above: the voxel size in each phase of the training.")


def _training_ends(rows: Iterable[Row]) -> str:
    networks = [NETWORKS.get(n, n) for n in dict.fromkeys(row["network"] for row in rows)]
    return f"at the end of each training of {join_words(networks)}"
