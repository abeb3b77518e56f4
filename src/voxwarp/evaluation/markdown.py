"""Tables in Markdown."""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from .rows import Row
from .tables import DIFFERENCE


def escaped(text: str) -> str:
    """The text with Markdown's special characters escaped, on one line, for cells of tables."""
    text = re.sub(r"[\\|*`<\[\]&~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return " ".join(text.split())


def markdown(rows: Sequence[Row]) -> str:
    """Rows of ``table`` or ``speed`` as a Markdown table, without columns that are unknown."""
    columns = []
    for title, write in (_TABLE if "asked" in rows[0] else _SPEED).items():
        cells = [title, *(write(row) for row in rows)]
        if {*cells[1:]} == {"–"}:
            continue
        width, left = max(map(len, cells)), title in ("Method", "Device", "Remarks")
        head, *others = (cell.ljust(width) if left else cell.rjust(width) for cell in cells)
        rule = "-" * (width - 1)
        columns.append([head, f":{rule}" if left else f"{rule}:", *others])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*columns, strict=True))


def _number(column: str, form: str = "", least: float = 0.0) -> Callable[[Row], str]:
    """A function that formats a column.

    Args:
        column: name of the column.
        form: format of the number; by default three digits, or all digits before the point.
        least: smaller values are written as "<least", so that they do not read as zero.
    """

    def write(row: Row) -> str:
        value = row[column]
        if isinstance(value, str):  # a bound such as "> 1800"
            return value
        if math.isnan(value):
            return "–"
        if value == 0 and form[:1] != "+":
            return "0"
        if 0 < abs(value) < least:
            return f"<{least:g}"
        digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
        number = format(value, form or f".{digits}f").replace("-", "−")
        return f"> {number}" if row.get("is_bound") else number

    return write


def _dice_with_sd(row: Row) -> str:
    spread = "" if math.isnan(row["dice_sd"]) else f" ({row['dice_sd']:.3f})"
    return _number("dice", ".3f")(row) + spread


def _difference_with_interval(row: Row) -> str:
    difference, low, high = (_number(column, "+.3f")(row) for column in DIFFERENCE[:3])
    return difference if low == "–" else f"{difference} [{low}, {high}]"


_TABLE: Mapping[str, Callable[[Row], str]] = {
    "Method": lambda row: escaped(row["method"]),
    "Pairs": lambda row: f"{row['pairs']} of {row['asked']}",
    "Dice (sd)": _dice_with_sd,
    "Worst pair": _number("dice_worst", ".3f"),
    "Difference [95 %]": _difference_with_interval,
    "p": _number("p", ".3f", 0.001),
    "Dice, regions": _number("dice_regions", ".3f"),
    "HD95, mm": _number("hd95_mm", ".2f"),
    "Surface distance, mm": _number("surface_mm", ".2f"),
    "Landmarks, mm": _number("tre_mm", ".2f"),
    "Folds, voxels": _number("folds", ".0f", 1),
    "Folds, %": _number("folds_percent", ".3f", 0.001),
    "Not diffeomorphic, %": _number("nondiffeomorphic_percent", ".3f", 0.001),
    "Deformable, s": _number("cpu_deform_s"),
    "Whole command, s": _number("cpu_whole_s"),
    "Deformable on GPU, s": _number("gpu_deform_s"),
    "Whole command on GPU, s": _number("gpu_whole_s"),
    "Memory, MB": _number("memory_mb", ".0f"),
    "Remarks": lambda row: row["remarks"] or "–",
}
_SPEED: Mapping[str, Callable[[Row], str]] = {
    "Method": lambda row: escaped(row["method"]),
    "Pairs": lambda row: str(row["pairs"]),
    "Device": lambda row: escaped(row["device"]),
    "Deformable, ×": _number("deform_ratio"),
    "Whole command, ×": _number("whole_ratio"),
}
