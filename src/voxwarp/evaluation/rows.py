"""The rows that ``voxwarp evaluate`` and ``voxwarp benchmark`` write, as CSV files.

A folder of results holds ``pairs.csv``, with one row per method and pair, and ``structures.csv``,
with one row per method, pair and structure. Tables and figures are made from these alone.
"""

import csv
import io
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .._files import check_readable, write_bytes
from ..errors import InputError

PAIRS = "pairs.csv"
STRUCTURES = "structures.csv"
REFINE = "+refine"  # added to a model's name when its results were refined

#: kind: "inter" (two subjects) or "retest" (two scans of one subject); status: "ok", "failed" or
#: "time limit"; labels: how they were resampled, "nearest" or "linear"; dice, hd95_mm and
#: surface_mm: means over structures; folds: voxels of the fixed brain with det J <= 0 by central
#: differences, folds_any by central, forward or backward differences; device: "cpu" or the name
#: of a GPU; timed: "yes" if the machine was otherwise idle, so that times may be reported.
#: docs/benchmarks.md defines every column.
PAIR_COLUMNS = (
    *("method", "kind", "moving", "fixed", "moving_subject", "fixed_subject", "status", "reason"),
    *("labels", "dice", "dice_regions", "hd95_mm", "surface_mm", "tre_mm"),
    *("folds", "folds_percent", "folds_any", "minimum_determinant", "nondiffeomorphic_percent"),
    *("std_log_jacobian", "inverse_error_mm", "consistency_mm", "local_ncc", "correlation"),
    *("affine_s", "deform_s", "first_s", "whole_s", "memory_mb", "device", "threads", "timed"),
)
STRUCTURE_COLUMNS = (
    *("method", "kind", "moving", "fixed", "structure", "labels"),
    *("dice", "hd95_mm", "surface_mm", "fixed_ml"),
)
#: The columns that hold text; all others hold numbers.
TEXT_COLUMNS = frozenset(
    (
        *("method", "kind", "moving", "fixed", "moving_subject", "fixed_subject", "structure"),
        *("status", "reason", "labels", "device", "timed"),
    )
)

Row = dict[str, Any]

#: Column names that earlier versions wrote, and the current ones.
_FORMER_COLUMNS = {"moving_person": "moving_subject", "fixed_person": "fixed_subject"}


def write_rows(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write a CSV file, completely or not at all.

    Args:
        path: the file.
        columns: its columns, in this order.
        rows: values by column. Missing values, None and NaN become empty fields, floats are
            rounded to 6 significant digits, line breaks in text become spaces.

    Raises:
        InputError: the file cannot be written.
        ValueError: a row has a column that is not among ``columns``.
    """
    write_bytes(path, to_csv(columns, rows))


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The bytes that ``write_rows`` writes."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: _formatted(value) for column, value in row.items()})
    return stream.getvalue().encode()


def _formatted(value: Any) -> str:
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return ""
    if isinstance(value, Real):
        return str(int(value)) if isinstance(value, Integral) else f"{float(value):.6g}"
    return " ".join(str(value).splitlines())


def read_rows(
    path: str | os.PathLike[str], columns: Sequence[str], *, text: Collection[str] = TEXT_COLUMNS
) -> list[Row]:
    """Read the rows of a CSV file; other columns are ignored.

    Args:
        path: the file.
        columns: the columns to read.
        text: those that hold text; all others hold numbers, and an empty field is NaN.

    Raises:
        InputError: the file does not exist, is not a CSV file in UTF-8, lacks a column, or has
            text in a column of numbers. Messages count the header as row 1.
    """
    return [row for _, row in numbered_rows(Path(path), columns, text)]


def numbered_rows(
    path: Path, columns: Sequence[str], text: Collection[str] = TEXT_COLUMNS
) -> Iterator[tuple[int, Row]]:
    """As ``read_rows``, with the number of each row in the file; row 1 is the header."""
    check_readable(path, "rows")
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"rows {path}: not a CSV file in UTF-8 ({error})") from error
    header = [_FORMER_COLUMNS.get(column, column) for column in lines[0]] if lines else []
    if missing := [column for column in columns if column not in header]:
        raise InputError(
            f"rows {path}: no column {', '.join(missing)}; is this a file that voxwarp wrote?"
        )
    for number, fields in enumerate(lines[1:], 2):
        if not fields:  # an empty line
            continue
        where = f"rows {path}, row {number}"
        if len(fields) != len(header):
            raise InputError(f"{where}: has {len(fields)} fields, but row 1 has {len(header)}")
        row = dict(zip(header, fields, strict=True))
        yield number, {c: row[c] if c in text else _number(row[c], where, c) for c in columns}


def _number(field: str, where: str, column: str) -> float:
    try:
        return float(field) if field.strip() else math.nan
    except ValueError as error:
        raise InputError(f"{where}, column {column}: must be a number, got {field!r}") from error
