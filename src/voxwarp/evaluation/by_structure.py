"""Dice by structure, of which left and right are one."""

import math
import re
from collections.abc import Iterable

import numpy as np

from .results import Results


def dice_by_structure(results: Results, kind: str = "inter") -> dict[str, dict[str, list[float]]]:
    """Dice by method and structure, one a pair; that of left and right is their mean."""
    pair_of = ("method", "moving", "fixed")
    done = {
        tuple(row[c] for c in pair_of)
        for row in results.pairs
        if (row["kind"], row["status"]) == (kind, "ok")
    }
    joint = joined_names(row["structure"] for row in results.structures)
    sides: dict[tuple, list[float]] = {}
    for row in results.structures:
        pair = tuple(row[c] for c in pair_of)
        if pair in done and not math.isnan(row["dice"]):
            sides.setdefault((joint[row["structure"]], *pair), []).append(row["dice"])
    dice: dict[str, dict[str, list[float]]] = {}
    for (structure, method, *_), both in sides.items():
        dice.setdefault(method, {}).setdefault(structure, []).append(float(np.mean(both)))
    return dice


def joined_names(names: Iterable[str]) -> dict[str, str]:
    """The name without its side for each of a left and a right structure; others keep theirs.

    Sides are left and right, L and R or lh and rh, as words of their own: ``cortex_L``,
    ``Left-Hippocampus``, ``ctx-lh-insula``. A structure whose other side is not there keeps its
    name, too.
    """
    without = {name: _without_side(name) for name in names}
    sides: dict[str, list[str]] = {}
    for whole, side in without.values():
        sides.setdefault(whole, []).append(side)
    return {
        name: whole if sorted(sides[whole]) == ["l", "r"] else name
        for name, (whole, _) in without.items()
    }


def _without_side(name: str) -> tuple[str, str]:
    """The name without its side, and the side: l, r or nothing."""
    found = re.search(r"(?:^|[\W_]+)(left|right|[lr]h?)(?![^\W_])", name, re.IGNORECASE)
    if not found:
        return name, ""
    whole = (name[: found.start()] + name[found.end() :]).strip(" _-()")
    return whole or name, found[1][0].lower()
