"""The names of label values, from a table beside a label map or of its own."""

from pathlib import Path

from ..errors import InputError
from .tables import read_table

VALUES, NAMES = ("index", "value"), ("name", "structure")


def read_label_names(path: Path) -> dict[int, str]:
    """Read the names of label values.

    Args:
        path: CSV or TSV with a column index or value, and a column name or structure, as the
            ``dseg.tsv`` of BIDS.

    Raises:
        InputError: the table cannot be read, a column is missing, or a value is no whole number.
    """
    rows, columns = read_table(path)
    chosen = [next((name for name in names if name in columns), None) for names in (VALUES, NAMES)]
    value, name = chosen
    if value is None or name is None:
        missing = " or ".join(VALUES if value is None else NAMES)
        raise InputError(
            f"label_names {path}: it has no column {missing}; found {', '.join(columns) or 'none'}"
        )
    names = {}
    for row in rows:
        text = row.values.get(value, "")
        if not text.lstrip("-").isdigit():
            raise InputError(
                f"label_names {row.where}: {value} must be a whole number, got {text!r}"
            )
        if row.values.get(name):
            names[int(text)] = row.values[name]
    return names
