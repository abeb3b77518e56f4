"""The result files of a folder while a command adds rows to them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..data.pairs import Pair
from .rows import (
    PAIR_COLUMNS,
    PAIRS,
    STRUCTURE_COLUMNS,
    STRUCTURES,
    TEXT_COLUMNS,
    Row,
    read_rows,
    write_rows,
)

_COUNTS = "folds", "folds_any", "threads"  # columns of whole numbers
_BLANK = {column: "" if column in TEXT_COLUMNS else math.nan for column in PAIR_COLUMNS}


@dataclass
class ResultFiles:
    """The two files of rows in a folder; earlier rows are kept and new ones added."""

    folder: Path
    pairs: list[Row] = field(default_factory=list)
    structures: list[Row] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> "ResultFiles":
        """Read the rows of a folder, without structures whose pair has no row (after a crash)."""
        if not (folder / PAIRS).exists():
            return cls(folder)
        pairs = [_counted(row) for row in read_rows(folder / PAIRS, PAIR_COLUMNS)]
        keys = {_key(row) for row in pairs}
        structures = read_rows(folder / STRUCTURES, STRUCTURE_COLUMNS)
        return cls(folder, pairs, [row for row in structures if _key(row) in keys])

    def has(self, method: str, pair: Pair) -> bool:
        """Whether this method has a row for this pair."""
        return any(_key(row) == (method, *pair.key) for row in self.pairs)

    def add(self, method: str, row: Row, structures: Iterable[Row] = ()) -> None:
        """Add the rows of a pair and write both files."""
        self.pairs.append(_BLANK | {"method": method} | row)
        self.structures += [{"method": method} | structure for structure in structures]
        self.write()

    def drop_failures(self, method: str, pairs: Iterable[Pair]) -> None:
        """Drop the method's rows for these pairs that are not "ok"."""
        keys = {(method, *pair.key) for pair in pairs}
        self.pairs = [r for r in self.pairs if r["status"] == "ok" or _key(r) not in keys]

    def write(self) -> None:
        """Write both files, the pairs last: a pair counts as done once it has a row there."""
        write_rows(self.folder / STRUCTURES, STRUCTURE_COLUMNS, self.structures)
        write_rows(self.folder / PAIRS, PAIR_COLUMNS, self.pairs)


def _counted(row: Row) -> Row:
    """The row with its counts as whole numbers, as before writing."""
    return row | {c: int(row[c]) for c in _COUNTS if math.isfinite(row[c])}


def _key(row: Row) -> tuple[str, str, str]:
    return row["method"], row["moving"], row["fixed"]


def failed_row(pair: Pair, status: str, reason: str, labels: str) -> Row:
    """The row of a pair that a method failed to register."""
    return {
        "kind": pair.kind,
        "moving": pair.moving.name,
        "fixed": pair.fixed.name,
        "moving_subject": pair.moving.subject,
        "fixed_subject": pair.fixed.subject,
        "status": status,
        "reason": " ".join(reason.split())[:200],  # one line of a table
        "labels": labels,
    }
