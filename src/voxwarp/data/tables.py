"""Read tables (CSV, TSV, JSON lines) into rows that know their line, for error messages."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .._files import check_readable
from .._json import parse_json
from ..errors import InputError

JSON_LINES = ".jsonl", ".ndjson", ".json"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Record(NamedTuple):
    """A row of a table.

    Args:
        where: file and line of the row, such as "subjects.csv row 3", for messages.
        values: value by column; "" if it is empty.
    """

    where: str
    values: dict[str, str]


def read_table(table: Path) -> tuple[list[Record], list[str]]:
    """Read the rows of a table that are not blank, and the names of all columns.

    Args:
        table: CSV, TSV or JSON-lines file in UTF-8; the first row of CSV and TSV names the
            columns.

    Raises:
        InputError: the file cannot be read, has no rows, or is not a table.
    """
    check_readable(table, "table")
    if table.is_dir():
        raise InputError(f"table {table}: this is a folder, but it must be a file")
    try:
        text = table.read_text(encoding="utf-8-sig")
        read_rows = _json_lines if table.suffix.lower() in JSON_LINES else _csv
        if "\0" in text:
            raise csv.Error("line contains NUL")  # Python's reader accepts it
        records = [record for record in read_rows(table, text) if any(record.values.values())]
    except OSError as error:
        raise InputError(f"table {table}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"table {table}: this is not a CSV, TSV or JSON-lines table in UTF-8 ({error})"
        ) from error
    if not records:
        raise InputError(f"table {table}: it has no rows")
    return records, list(dict.fromkeys(name for record in records for name in record.values))


def _csv(table: Path, text: str) -> Iterator[Record]:
    """Rows of CSV or TSV, counted as lines of the file; line 1 has the column names."""
    header = text.partition("\n")[0]
    is_tabbed = table.suffix.lower() == ".tsv" or ("\t" in header and "," not in header)
    reader = csv.reader(io.StringIO(text), delimiter="\t" if is_tabbed else ",", strict=True)
    columns = [name.strip() for name in next(reader, [])]
    if len(set(columns)) < len(columns):
        raise InputError(f"table {table}: two columns have the same name ({', '.join(columns)})")
    for fields in reader:
        where = f"{table.name} row {reader.line_num}"
        if len(fields) > len(columns):
            raise InputError(
                f"{where}: it has {len(fields)} values, but the first row has {len(columns)} "
                f"column names, in {table}"
            )
        values = [field.strip() for field in fields] + [""] * (len(columns) - len(fields))
        yield Record(where, dict(zip(columns, values, strict=True)))


def _json_lines(table: Path, text: str) -> Iterator[Record]:
    """Rows of JSON lines, each an object."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{table.name} row {number}"
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(f"{where}: the line is not JSON ({error}), in {table}") from error
        if not isinstance(row, dict):
            raise InputError(
                f'{where}: the line must be a JSON object such as {{"scan": "a.nii.gz"}}, got '
                f"{line.strip()[:40]}"
            )
        for name, value in row.items():
            if isinstance(value, (bool, list, dict)):
                raise InputError(
                    f"{where}: {name} must be a string or a number, got {json.dumps(value)[:40]}"
                )
        values = {name: "" if value is None else str(value) for name, value in row.items()}
        yield Record(where, {name: value.strip() for name, value in values.items()})


# ------------------------------------------------------------------------------------- Patterns


def placeholders(pattern: str) -> list[str]:
    """The names in braces in a pattern such as ``t1/{id}.nii.gz``."""
    return _PLACEHOLDER.findall(pattern)


def check_columns(pattern: str, columns: Sequence[str], table: Path) -> None:
    """Make sure that a table has a column for each placeholder of a pattern.

    Args:
        pattern: text with names of columns in braces, such as ``t1/{id}.nii.gz``.
        columns: the columns of the table.
        table: path of the table, for messages.

    Raises:
        InputError: a column is missing.
    """
    for name in placeholders(pattern):
        if name not in columns:
            need = "" if pattern == f"{{{name}}}" else f", which {pattern} needs"
            raise InputError(
                f"table {table}: it has no column {name!r}{need}; its columns are "
                f"{', '.join(columns)}"
            )


def fill_pattern(pattern: str, values: Mapping[str, str]) -> str | None:
    """Replace the placeholders of a pattern by values; None if one of them is empty."""
    if not all(values.get(name) for name in placeholders(pattern)):
        return None
    return _PLACEHOLDER.sub(lambda match: values[match[1]], pattern)
