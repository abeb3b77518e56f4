"""The rows that ``voxwarp evaluate`` and ``voxwarp benchmark`` leave, to and from CSV files.

A folder of results holds ``pairs.csv``, a row for each method and pair, and ``structures.csv``,
a row for each method, pair and structure. Tables and figures are made of nothing else.
"""

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import check_readable, write_bytes

PAIRS = "pairs.csv"
STRUCTURES = "structures.csv"
REFINE = "+refine"  # behind the name of a model whose answers were refined
RECORDS = "benchmark.json", "evaluate.json"  # of where the rows beside them come from

#: kind: "inter" (two people) or "retest" (two scans of one); status: "ok", "failed" or
#: "time limit"; labels: "nearest" or "linear", how they were resampled; dice, hd95_mm and
#: surface_mm: means over structures; folds: voxels of the fixed brain with det J <= 0 by
#: central differences, folds_any by central, forward or backward ones; device: "cpu" or a GPU's
#: name; timed: "yes" where the machine was otherwise idle, so that times may be reported.
PAIR_COLUMNS = (
    *("method", "kind", "moving", "fixed", "moving_person", "fixed_person", "status", "reason"),
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
        *("method", "kind", "moving", "fixed", "moving_person", "fixed_person", "structure"),
        *("status", "reason", "labels", "device", "timed"),
    )
)
_CHOICES = {
    "kind": ("inter", "retest"),
    "status": ("ok", "failed", "time limit"),
    "labels": ("nearest", "linear"),
    "timed": ("yes", "no"),
}

Row = dict[str, Any]


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
    return [row for _, row in _numbered(Path(path), columns, words)]


def _numbered(
    path: Path, columns: Sequence[str], words: Collection[str] = WORDS
) -> Iterator[tuple[int, Row]]:
    check_readable(path, "rows")
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"rows {path}: a CSV file in UTF-8 is wanted ({error})") from error
    header = lines[0] if lines else []
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


@dataclass
class Results:
    """What is known of some methods on some pairs.

    Args:
        pairs: rows with ``PAIR_COLUMNS``; one for each method, pair and way of the labels.
        structures: rows with ``STRUCTURE_COLUMNS`` that belong to ``pairs``.
        timed: the rows whose times count; those among ``pairs`` where none are given. There
            can be more than one for a pair: one on the CPU, one on a GPU.
    """

    pairs: list[Row]
    structures: list[Row]
    timed: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.timed = self.timed or [row for row in self.pairs if row["timed"] == "yes"]

    @classmethod
    def load(cls, folders: Sequence[str | os.PathLike[str]]) -> "Results":
        """Read folders of results and join them.

        Of the rows for the same method, pair and way of the labels one is kept: a timed "ok"
        row before an untimed one, and that before all others; then the folder named first.
        So a quiet run of few pairs goes together with an unquiet run of all. The rows of the
        structures come from the folder of the pair's row. The times come from all timed rows,
        one for each device.

        Raises:
            InputError: a folder lacks a file, a file is not as it should be, one file has the
                same method, pair and way of the labels twice, or the records beside the rows
                tell of other structures, scans or weights under the same names.
        """
        _check_records([Path(folder) for folder in folders])
        chosen: dict[tuple, tuple[int, Row]] = {}
        timed: dict[tuple, Row] = {}
        structures: list[dict[tuple, list[Row]]] = []
        for number, folder in enumerate(folders):
            for row in _pairs_of(Path(folder) / PAIRS):
                key = _key(row)
                if key not in chosen or _worth(row) > _worth(chosen[key][1]):
                    chosen[key] = number, row  # its place is that of its first appearance
                on = (*key, row["device"])
                if row["timed"] == "yes" and (on not in timed or _worth(row) > _worth(timed[on])):
                    timed[on] = row
            structures.append({})
            for row in read_rows(Path(folder) / STRUCTURES, STRUCTURE_COLUMNS):
                structures[-1].setdefault(_key(row), []).append(row)
        return cls(
            [row for _, row in chosen.values()],
            [s for key, (number, _) in chosen.items() for s in structures[number].get(key, [])],
            list(timed.values()),
        )

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of their first appearance."""
        return list(dict.fromkeys(row["method"] for row in self.pairs))

    @property
    def labels(self) -> list[str]:
        """The ways in which labels were resampled, in the order of their first appearance."""
        return list(dict.fromkeys(row["labels"] for row in self.pairs))

    def of(self, labels: str) -> "Results":
        """The rows whose labels were resampled in this way."""
        return Results(
            *(
                [row for row in rows if row["labels"] == labels]
                for rows in (self.pairs, self.structures, self.timed)
            )
        )

    def of_method(self, method: str, kind: str, status: str | None = "ok") -> list[Row]:
        """Rows of a method's pairs of a kind; ``status`` None: however they ended."""
        return [
            row
            for row in self.pairs
            if (row["method"], row["kind"]) == (method, kind) and status in (None, row["status"])
        ]


def _check_records(folders: Sequence[Path]) -> None:
    """Refuse rows that mean different things by one name, as far as records tell."""
    known: dict[str, tuple[Path, Any]] = {}
    for folder in folders:
        for what, value in _facts(folder):
            first, before = known.setdefault(what, (folder, value))
            if before != value:
                raise InputError(f"rows {folder}: {what} are others than in {first}")


def _facts(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in (folder / name for name in RECORDS):
        try:
            record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            for part in ("structures", "regions"):
                if "protocol" in record:
                    yield f"the {part}", record["protocol"][part]
            for name, files in record.get("inputs", {}).items():
                for what, file in files.items():
                    if file and file["sha256"]:
                        yield f"the {what} of {name}", file["sha256"]
            methods = record.get("methods", {})
            if "model" in record:
                methods = {record["model"]["name"]: record["model"]}
            for name, about in methods.items():
                if "weights_sha256" in about:
                    yield f"the weights of {name}", about["weights_sha256"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"record {path}: it cannot be read ({error!r})") from error


def _pairs_of(path: Path) -> Iterator[Row]:
    seen = set()
    for number, row in _numbered(path, PAIR_COLUMNS):
        for column, choices in _CHOICES.items():
            if row[column] not in choices:
                raise InputError(
                    f"rows {path}, row {number}, column {column}: {row[column]!r}, "
                    f"wanted one of {', '.join(choices)}"
                )
        key = _key(row)
        if key in seen:
            raise InputError(
                f"rows {path}, row {number}: method {row['method']!r} has the pair "
                f"{row['moving']}, {row['fixed']} with {row['labels']} labels twice"
            )
        seen.add(key)
        yield row


def _key(row: Row) -> tuple[str, ...]:
    return row["method"], row["moving"], row["fixed"], row["labels"]


def _worth(row: Row) -> int:
    return (row["status"] == "ok") * (2 if row["timed"] == "yes" else 1)
