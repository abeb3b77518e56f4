"""The rows of a folder of results while they come: what is there is kept and added to."""

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
    WORDS,
    Row,
    read_rows,
    write_rows,
)

_COUNTS = "folds", "folds_any", "threads"  # whole numbers, that is
_BLANK = {column: "" if column in WORDS else math.nan for column in PAIR_COLUMNS}


@dataclass
class Sheet:
    """The two files of rows in a folder; what is there already is kept and added to."""

    folder: Path
    pairs: list[Row] = field(default_factory=list)
    structures: list[Row] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> "Sheet":
        """With the rows that the folder holds; structures of no pair are what a crash left."""
        if not (folder / PAIRS).exists():
            return cls(folder)
        pairs = [_counted(row) for row in read_rows(folder / PAIRS, PAIR_COLUMNS)]
        there = {_key(row) for row in pairs}
        structures = read_rows(folder / STRUCTURES, STRUCTURE_COLUMNS)
        return cls(folder, pairs, [row for row in structures if _key(row) in there])

    def holds(self, method: str, pair: Pair) -> bool:
        """Whether there is a row of this method and pair."""
        return any(_key(row) == (method, *pair.key) for row in self.pairs)

    def add(self, method: str, row: Row, structures: Iterable[Row] = ()) -> None:
        """Add the rows of a pair and write both files, that of the pairs last."""
        self.pairs.append(_BLANK | {"method": method} | row)
        self.structures += [{"method": method} | structure for structure in structures]
        self.write()

    def forget_failures(self, method: str, pairs: Iterable[Pair]) -> None:
        """Drop a method's rows of these pairs that are not "ok"."""
        keys = {(method, *pair.key) for pair in pairs}
        self.pairs = [r for r in self.pairs if r["status"] == "ok" or _key(r) not in keys]

    def write(self) -> None:
        """Write both files, that of the pairs, which is the record, last."""
        write_rows(self.folder / STRUCTURES, STRUCTURE_COLUMNS, self.structures)
        write_rows(self.folder / PAIRS, PAIR_COLUMNS, self.pairs)


def _counted(row: Row) -> Row:
    """A row that was read, with counts as they were before they were written."""
    return row | {c: int(row[c]) for c in _COUNTS if math.isfinite(row[c])}


def _key(row: Row) -> tuple[str, str, str]:
    return row["method"], row["moving"], row["fixed"]


def failure(pair: Pair, status: str, reason: str, labels: str) -> Row:
    """The row of a pair that a method could not do."""
    return {
        "kind": pair.kind,
        "moving": pair.moving.name,
        "fixed": pair.fixed.name,
        "moving_subject": pair.moving.subject,
        "fixed_subject": pair.fixed.subject,
        "status": status,
        "reason": " ".join(reason.split())[:200],
        "labels": labels,
    }
