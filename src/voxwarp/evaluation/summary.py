"""Rows as lines of text, as commands print them."""

import math
from collections.abc import Sequence

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


def summary(rows: Sequence[Row]) -> list[str]:
    """One line of means for each method and kind of pair."""
    lines = []
    for method, kind in dict.fromkeys((row["method"], row["kind"]) for row in rows):
        of_kind = [row for row in rows if (row["method"], row["kind"]) == (method, kind)]
        done = [row for row in of_kind if row["status"] == "ok"]
        parts = [f"{len(done)} of {len(of_kind)} pairs"]
        for column, form in _SUMMARY.items():
            if not math.isnan(value := mean(done, column)):
                parts.append(form.format(value))
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
