"""Rows in a few words, as commands print them."""

import math
from collections.abc import Sequence

from .rows import Row
from .statistics import mean


def line(row: Row) -> str:
    """A row in a few words."""
    words = f"{row['method']}: {row['moving']} -> {row['fixed']}"
    if row["status"] != "ok":
        return f"{words}: {row['status']} ({row['reason']})"
    parts = [
        f"Dice {row['dice']:.3f}" if not math.isnan(row.get("dice", math.nan)) else "",
        f"folds {row['folds']}",
        f"local NCC {row['local_ncc']:.3f}",
        f"{row['deform_s']:.2f} s" if not math.isnan(row.get("deform_s", math.nan)) else "",
    ]
    return f"{words}: {', '.join(filter(None, parts))}"


def summary(rows: Sequence[Row]) -> list[str]:
    """A line of means for every method and kind of pairs."""
    lines = []
    for method, kind in dict.fromkeys((row["method"], row["kind"]) for row in rows):
        all_of = [row for row in rows if (row["method"], row["kind"]) == (method, kind)]
        done = [row for row in all_of if row["status"] == "ok"]
        parts = [f"{len(done)} of {len(all_of)} pairs"]
        for column, words in _SUMMARY.items():
            if not math.isnan(value := mean(done, column)):
                parts.append(words.format(value))
        lines.append(f"{method}, {kind}: {', '.join(parts)}")
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
