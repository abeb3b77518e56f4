"""The rows that ``voxwarp evaluate`` and ``voxwarp benchmark`` leave, to and from CSV files.

A folder of results holds ``pairs.csv``, a row for each method and pair, and ``structures.csv``,
a row for each method, pair and structure. Tables and figures are made of nothing else.
"""

import csv
import io
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import check_readable, write_bytes

PAIRS = "pairs.csv"
STRUCTURES = "structures.csv"
REFINE = "+refine"  # behind the name of a model whose answers were refined

#: kind: "inter" (two subjects) or "retest" (two scans of one); status: "ok", "failed" or
#: "time limit"; labels: "nearest" or "linear", how they were resampled; dice, hd95_mm and
#: surface_mm: means over structures; folds: voxels of the fixed brain with det J <= 0 by
#: central differences, folds_any by central, forward or backward ones; device: "cpu" or a GPU's
#: name; timed: "yes" where the machine was otherwise idle, so that times may be reported.
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
#: The columns that hold words; all others hold numbers.
WORDS = frozenset(
    (
        *("method", "kind", "moving", "fixed", "moving_subject", "fixed_subject", "structure"),
        *("status", "reason", "labels", "device", "timed"),
    )
)

Row = dict[str, Any]

#: Names of columns in files of earlier versions, and today's.
_FORMER_COLUMNS = {"moving_person": "moving_subject", "fixed_person": "fixed_subject"}


def write_rows(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write a whole CSV file, or none.

    Args:
        path: of the file.
        columns: its columns, in this order.
        rows: values by column; what is not there, None or NaN becomes an empty field, floats
            are rounded to 6 significant digits, line breaks in words become spaces.

    Raises:
        InputError: the file cannot be written.
        ValueError: a row has a column that is not among ``columns``.
    """
    write_bytes(path, to_csv(columns, rows))


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The contents of the file that ``write_rows`` writes."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: _written(value) for column, value in row.items()})
    return stream.getvalue().encode()


def _written(value: Any) -> str:
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return ""
    if isinstance(value, Real):
        return str(int(value)) if isinstance(value, Integral) else f"{float(value):.6g}"
    return " ".join(str(value).splitlines())


def read_rows(
    path: str | os.PathLike[str], columns: Sequence[str], *, words: Collection[str] = WORDS
) -> list[Row]:
    """Read the rows of a CSV file; columns that are not asked for are left out.

    Args:
        path: of the file.
        columns: the columns wanted.
        words: those of them that hold words; in all others, an empty field is NaN.

    Raises:
        InputError: the file is not there, is no CSV file in UTF-8, lacks a column, or has a
            field that is no number where one is wanted. Row 1 is the header.
    """
    return [row for _, row in numbered_rows(Path(path), columns, words)]


def numbered_rows(
    path: Path, columns: Sequence[str], words: Collection[str] = WORDS
) -> Iterator[tuple[int, Row]]:
    """``read_rows`` with the number of each row in the file; row 1 is the header."""
    check_readable(path, "rows")
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"rows {path}: a CSV file in UTF-8 is wanted ({error})") from error
    header = [_FORMER_COLUMNS.get(column, column) for column in lines[0]] if lines else []
    if missing := [column for column in columns if column not in header]:
        raise InputError(f"rows {path}: no column {', '.join(missing)}")
    for number, fields in enumerate(lines[1:], 2):
        if not fields:  # an empty line
            continue
        where = f"rows {path}, row {number}"
        if len(fields) != len(header):
            raise InputError(f"{where}: {len(fields)} fields, wanted {len(header)} as in row 1")
        row = dict(zip(header, fields, strict=True))
        yield number, {c: row[c] if c in words else _number(row[c], where, c) for c in columns}


def _number(text: str, where: str, column: str) -> float:
    try:
        return float(text) if text.strip() else math.nan
    except ValueError as error:
        raise InputError(f"{where}, column {column}: {text!r}, wanted a number") from error
