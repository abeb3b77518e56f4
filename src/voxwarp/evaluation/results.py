"""What is known of some methods on some pairs: folders of rows, joined by a rule."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .record import RECORDS
from .rows import PAIR_COLUMNS, PAIRS, STRUCTURE_COLUMNS, STRUCTURES, Row, numbered_rows, read_rows

_CHOICES = {
    "kind": ("inter", "retest"),
    "status": ("ok", "failed", "time limit"),
    "labels": ("nearest", "linear"),
    "timed": ("yes", "no"),
}


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
    for number, row in numbered_rows(path, PAIR_COLUMNS):
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


def deforms(results: Results, method: str) -> bool:
    """Whether a method does more than the affine stage: some pair takes it more than 0 s."""
    done = [r for r in results.pairs if (r["method"], r["status"]) == (method, "ok")]
    return method != "affine" and not (done and all(row["deform_s"] == 0 for row in done))


def reference_of(results: Results, named: str | None) -> str:
    """The method that others are compared to: the one named, or the first that deforms.

    Raises:
        InputError: there are no rows of it.
    """
    if named is None:
        named = next(iter(sorted(results.methods, key=lambda m: not deforms(results, m))), "")
    check_method(results, named)
    return named


def check_one_way(results: Results) -> None:
    """Make sure that labels were resampled in one way alone, so that Dice compare.

    Raises:
        InputError: there are two.
    """
    if len(results.labels) > 1:
        raise InputError(
            f"labels were resampled in two ways ({' and '.join(results.labels)}), "
            f"whose Dice do not compare: take those of one, Results.of({results.labels[0]!r})"
        )


def check_method(results: Results, method: str) -> None:
    """Make sure that there are rows of a method.

    Raises:
        InputError: there are none.
    """
    if method not in results.methods:
        raise InputError(
            f"method {method!r}: no rows of it; there are {', '.join(results.methods) or 'none'}"
        )
