"""Rows as lines of text, as commands print them."""

import math
from collections.abc import Sequence
from typing import Any

from .rows import Row
from .statistics import mean


def format_row(row: Row) -> str:
    """One line about a row."""
    pair = f"{row['method']}: {row['moving']} -> {row['fixed']}"
    if row["status"] != "ok":
        return f"{pair}: {row['status']} ({row['reason']})"
    parts = [
        f"Dice {row['dice']:.3f}" if not math.isnan(row.get("dice", math.nan)) else "",
        f"folds {row['folds']}",
        f"local NCC {row['local_ncc']:.3f}",
        f"{row['deform_s']:.2f} s" if not math.isnan(row.get("deform_s", math.nan)) else "",
    ]
    return f"{pair}: {', '.join(filter(None, parts))}"


def means_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The means of each method and kind of pair, by the names of columns of ``pairs.csv``.

    Each has ``method``, ``kind``, ``pairs``, of which ``scored`` had a result, and the columns that
    are known for some of these.
    """
    groups = []
    for method, kind in dict.fromkeys((row["method"], row["kind"]) for row in rows):
        of_kind = [row for row in rows if (row["method"], row["kind"]) == (method, kind)]
        done = [row for row in of_kind if row["status"] == "ok"]
        means = {column: mean(done, column) for column in _SUMMARY}
        known = {column: value for column, value in means.items() if not math.isnan(value)}
        counts = {"pairs": len(of_kind), "scored": len(done)}
        groups.append({"method": method, "kind": kind, **counts, **known})
    return groups


def summary(rows: Sequence[Row]) -> list[str]:
    """One line of means for each method and kind of pair."""
    lines = []
    for group in means_of(rows):
        parts = [f"{group['scored']} of {group['pairs']} pairs"]
        parts += [form.format(group[name]) for name, form in _SUMMARY.items() if name in group]
        lines.append(f"{group['method']}, {group['kind']}: {', '.join(parts)}")
    return lines


_SUMMARY = {
    "dice": "Dice {:.4f}",
    "dice_regions": "Dice-regions {:.4f}",
    "hd95_mm": "HD95 {:.2f} mm",
    "tre_mm": "TRE {:.2f} mm",
    "folds": "folds {:.1f}",
    "local_ncc": "local NCC {:.3f}",
    "deform_s": "deformable stage {:.2f} s",
    "memory_mb": "{:.0f} MB",
}
