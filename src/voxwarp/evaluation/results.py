"""The results of methods on pairs, merged from the rows of several folders."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._files import check_readable
from .._json import read_json
from ..errors import InputError
from .record import RECORDS
from .rows import PAIR_COLUMNS, PAIRS, STRUCTURE_COLUMNS, STRUCTURES, Row, numbered_rows, read_rows

_CHOICES = {
    "kind": ("inter", "retest"),
    "status": ("ok", "failed", "time limit"),
    "labels": ("nearest", "linear"),
    "timed": ("yes", "no"),
}
_FILES = {"labels": "label map"}  # what messages call the files of a record


@dataclass
class Results:
    """The results of methods on pairs.

    Args:
        pairs: rows with ``PAIR_COLUMNS``; one per method, pair and way of resampling labels.
        structures: rows with ``STRUCTURE_COLUMNS`` that belong to ``pairs``.
        timed: the rows whose times count; by default the timed rows of ``pairs``. A pair can
            have several: one on the CPU and one on a GPU.
    """

    pairs: list[Row]
    structures: list[Row]
    timed: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.timed = self.timed or [row for row in self.pairs if row["timed"] == "yes"]

    @classmethod
    def load(cls, folders: Sequence[str | os.PathLike[str]]) -> "Results":
        """Read folders of results and merge them.

        One row is kept for each method, pair and way of resampling labels: a timed "ok" row
        rather than an untimed one, an untimed "ok" row rather than a failed one, and otherwise
        the one from the folder named first. So a timed run of few pairs can be combined with an
        untimed run of all pairs. Rows of structures come from the folder of the pair's row. Times
        come from all timed rows, one per device.

        Raises:
            InputError: a folder lacks a file, a file has the wrong format or two rows for the
                same method, pair and way of resampling, or the records of two folders differ in
                the structures, scans or weights of the same name.
        """
        _check_records([Path(folder) for folder in folders])
        chosen: dict[tuple, tuple[int, Row]] = {}
        timed: dict[tuple, Row] = {}
        structures: list[dict[tuple, list[Row]]] = []
        for number, folder in enumerate(folders):
            for row in _pairs_of(Path(folder) / PAIRS):
                key = _key(row)
                if key not in chosen or _worth(row) > _worth(chosen[key][1]):
                    chosen[key] = number, row  # a replaced row keeps its place in the order
                timing = (*key, row["device"])
                better = timing not in timed or _worth(row) > _worth(timed[timing])
                if row["timed"] == "yes" and better:
                    timed[timing] = row
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

    def with_labels(self, labels: str) -> "Results":
        """The rows whose labels were resampled in this way, "nearest" or "linear"."""
        return Results(
            *(
                [row for row in rows if row["labels"] == labels]
                for rows in (self.pairs, self.structures, self.timed)
            )
        )

    def rows_of(self, method: str, kind: str, status: str | None = "ok") -> list[Row]:
        """Rows of a method for one kind of pair and one status; None: any status."""
        return [
            row
            for row in self.pairs
            if (row["method"], row["kind"]) == (method, kind) and status in (None, row["status"])
        ]


def _check_records(folders: Sequence[Path]) -> None:
    """Check that a name means the same in all folders, as far as their records say."""
    known: dict[str, tuple[Path, Any]] = {}
    for folder in folders:
        for name, value in _facts(folder):
            first, before = known.setdefault(name, (folder, value))
            if before != value:
                raise InputError(
                    f"rows {folder}: the {name} differ from those in {first}, so the rows cannot "
                    "be compared; draw figures of the two folders separately"
                )


def _facts(folder: Path) -> Iterator[tuple[str, Any]]:
    """What must agree between folders, by name: structures, regions, files and weights."""
    for path in (folder / name for name in RECORDS):
        if os.path.lexists(path):
            check_readable(path, "record")
        try:
            record = read_json(path) if path.exists() else {}
            for part in ("structures", "regions"):
                if "protocol" in record:
                    yield part, record["protocol"][part]
            for name, files in record.get("inputs", {}).items():
                for role, file in files.items():
                    if file and file["sha256"]:
                        yield f"contents of the {_FILES.get(role, role)} of {name}", file["sha256"]
            methods = record.get("methods", {})
            if "model" in record:
                methods = {record["model"]["name"]: record["model"]}
            for name, about in methods.items():
                for part in ("weights", "settings"):
                    if f"{part}_sha256" in about:
                        yield f"{part} of {name}", about[f"{part}_sha256"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"record {path}: not a record of voxwarp ({error!r}); was it changed by hand?"
            ) from error


def _pairs_of(path: Path) -> Iterator[Row]:
    seen = set()
    for number, row in numbered_rows(path, PAIR_COLUMNS):
        for column, choices in _CHOICES.items():
            if row[column] not in choices:
                raise InputError(
                    f"rows {path}, row {number}, column {column}: must be one of "
                    f"{', '.join(choices)}, got {row[column]!r}"
                )
        key = _key(row)
        if key in seen:
            raise InputError(
                f"rows {path}, row {number}: second row of method {row['method']!r} for the pair "
                f"{row['moving']}, {row['fixed']} (labels {row['labels']}); remove one of them"
            )
        seen.add(key)
        yield row


def _key(row: Row) -> tuple[str, ...]:
    return row["method"], row["moving"], row["fixed"], row["labels"]


def _worth(row: Row) -> int:
    return (row["status"] == "ok") * (2 if row["timed"] == "yes" else 1)


def deforms(results: Results, method: str) -> bool:
    """Whether a method deforms; the affine stage alone takes 0 s in the deformable stage."""
    done = [r for r in results.pairs if (r["method"], r["status"]) == (method, "ok")]
    return method != "affine" and not (done and all(row["deform_s"] == 0 for row in done))


def reference_of(results: Results, named: str | None) -> str:
    """The method that others are compared with: the one named, or else the first that deforms.

    Raises:
        InputError: it has no rows.
    """
    if named is None:
        named = next(iter(sorted(results.methods, key=lambda m: not deforms(results, m))), "")
    check_method(results, named)
    return named


def check_one_resampling(results: Results) -> None:
    """Check that all labels were resampled in the same way; otherwise Dice is not comparable.

    Raises:
        InputError: they were resampled in two ways.
    """
    if len(results.labels) > 1:
        raise InputError(
            f"rows: labels were resampled in two ways ({' and '.join(results.labels)}), so Dice is "
            f"not comparable; choose one with Results.with_labels({results.labels[0]!r})"
        )


def check_method(results: Results, method: str) -> None:
    """Check that a method has rows.

    Raises:
        InputError: it has none.
    """
    if method not in results.methods:
        raise InputError(
            f"method {method!r}: has no rows; the methods with rows are: "
            f"{', '.join(results.methods) or 'none'}"
        )
