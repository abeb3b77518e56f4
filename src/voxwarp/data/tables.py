"""Tables of text: CSV, TSV and JSON lines to rows that know where they stand, for messages."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..files import check_readable

JSON_LINES = ".jsonl", ".ndjson", ".json"
_NAMED = re.compile(r"\{([^{}]*)\}")


class Record(NamedTuple):
    """A row of a table.

    Args:
        where: it stands, such as "subjects.csv row 3", for messages.
        words: by column; "" where the row is empty.
    """

    where: str
    words: dict[str, str]


def read_table(table: Path) -> tuple[list[Record], list[str]]:
    """The rows of a table that are not blank, and the names of all columns.

    Raises:
        InputError: it cannot be read, is empty, or is no table.
    """
    check_readable(table, "table")
    if table.is_dir():
        raise InputError(f"table {table}: this is a folder, a file is wanted")
    try:
        text = table.read_text(encoding="utf-8-sig")
        read = _json_lines if table.suffix.lower() in JSON_LINES else _csv
        if "\0" in text:
            raise csv.Error("line contains NUL")  # as Python's reader had it up to 3.10
        records = [record for record in read(table, text) if any(record.words.values())]
    except OSError as error:
        raise InputError(f"table {table}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"table {table}: this is no table of UTF-8 text ({error})") from error
    if not records:
        raise InputError(f"table {table}: there are no rows in it")
    return records, list(dict.fromkeys(name for record in records for name in record.words))


def _csv(table: Path, text: str) -> Iterator[Record]:
    """Rows are counted as lines, as editors and spreadsheets do: the first holds the names."""
    top = text.partition("\n")[0]
    is_tabbed = table.suffix.lower() == ".tsv" or ("\t" in top and "," not in top)
    reader = csv.reader(io.StringIO(text), delimiter="\t" if is_tabbed else ",", strict=True)
    columns = [name.strip() for name in next(reader, [])]
    if len(set(columns)) < len(columns):
        raise InputError(f"table {table}: two columns have the same name ({', '.join(columns)})")
    for values in reader:
        where = f"{table.name} row {reader.line_num}"
        if len(values) > len(columns):
            raise InputError(
                f"{where}: it has {len(values)} fields, the first row of {table} {len(columns)}"
            )
        words = [value.strip() for value in values] + [""] * (len(columns) - len(values))
        yield Record(where, dict(zip(columns, words, strict=True)))


def _json_lines(table: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{table.name} row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: it is not JSON ({error}) in {table}") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: a JSON object is wanted, got {line.strip()[:40]}")
        for name, value in row.items():
            if isinstance(value, (bool, list, dict)):
                raise InputError(f"{where}: {name}: a word or a number is wanted, got {value!r}")
        words = {name: "" if value is None else str(value) for name, value in row.items()}
        yield Record(where, {name: word.strip() for name, word in words.items()})


# ------------------------------------------------------------------------------------- Patterns


def check_pattern(pattern: str, columns: Sequence[str], what: str) -> None:
    """Make sure that there is something for all names in a pattern.

    Args:
        pattern: with names in braces, such as ``t1/{id}.nii.gz``.
        columns: names that there are.
        what: whose columns they are, for messages.

    Raises:
        InputError: a name is none of them.
    """
    for name in _NAMED.findall(pattern):
        if name not in columns:
            raise InputError(
                f"{what}: there is no {name!r} for {pattern!r}; there are {', '.join(columns)}"
            )


def filled(pattern: str, words: Mapping[str, str]) -> str | None:
    """The pattern with the words in their places; None where one of them is empty."""
    if not all(words.get(name) for name in _NAMED.findall(pattern)):
        return None
    return _NAMED.sub(lambda match: words[match[1]], pattern)
