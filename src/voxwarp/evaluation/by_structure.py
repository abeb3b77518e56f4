"""Dice of each structure, with the left and the right side joined."""

import math
import re
from collections.abc import Iterable

import numpy as np

from .results import Results


def dice_by_structure(results: Results, kind: str = "inter") -> dict[str, dict[str, list[float]]]:
    """Dice values by method and structure, one per pair.

    A structure that has a left and a right side counts once, with the mean of both sides.
    """
    pair_of = ("method", "moving", "fixed")
    done = {
        tuple(row[c] for c in pair_of)
        for row in results.pairs
        if (row["kind"], row["status"]) == (kind, "ok")
    }
    joined = join_sides(row["structure"] for row in results.structures)
    sides: dict[tuple, list[float]] = {}
    for row in results.structures:
        pair = tuple(row[c] for c in pair_of)
        if pair in done and not math.isnan(row["dice"]):
            sides.setdefault((joined[row["structure"]], *pair), []).append(row["dice"])
    dice: dict[str, dict[str, list[float]]] = {}
    for (structure, method, *_), values in sides.items():
        dice.setdefault(method, {}).setdefault(structure, []).append(float(np.mean(values)))
    return dice


def join_sides(names: Iterable[str]) -> dict[str, str]:
    """Map the names of a left and a right structure to their common name; others stay.

    Sides are left and right, L and R, or lh and rh, as separate words: ``cortex_L``,
    ``Left-Hippocampus``, ``ctx-lh-insula``. A structure without its other side keeps its name.
    """
    split = {name: _split_side(name) for name in names}
    sides: dict[str, list[str]] = {}
    for common, side in split.values():
        sides.setdefault(common, []).append(side)
    return {
        name: common if sorted(sides[common]) == ["l", "r"] else name
        for name, (common, _) in split.items()
    }


def _split_side(name: str) -> tuple[str, str]:
    """The name without its side, and the side: "l", "r" or nothing."""
    match = re.search(r"(?:^|[\W_]+)(left|right|[lr]h?)(?![^\W_])", name, re.IGNORECASE)
    if not match:
        return name, ""
    common = (name[: match.start()] + name[match.end() :]).strip(" _-()")
    return common or name, match[1][0].lower()
