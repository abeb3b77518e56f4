"""What sums up a cohort while it grows: an overview page, and a table of quality flags."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._files import write_bytes
from .._json import read_json
from ..review.overview import (
    INDEX,
    MEASURES,
    Result,
    is_outlier,
    robust_scores,
    values_of,
    write_page,
)
from .bids_names import BidsName
from .derivatives import FIGURES, THUMBNAIL, records
from .job import LOGS
from .ledger import Entry

QUALITY = "quality.tsv"
NOT_KNOWN = "n/a"
LEAST_OVERLAP = 0.9  # Dice of the moved brain and that of the space; set by hand, see the docs
LARGEST_SCALE = 1.4  # of the affine map, along its axis farthest from 1, or its inverse
EVERY = 30.0  # s between two versions of the pages, at least; set by hand
SHARE = 0.05  # of the time that may be spent on them; set by hand

#: The columns of the table that are measurements, and their keys in the overview.
_COLUMNS = ("mask_overlap", "local_ncc", "correlation", "folds", "minimum", "scale")


def crash_path(key: str) -> Path:
    """The file that says why a scan failed, relative to the derivatives."""
    return Path(LOGS, f"{key}_crash.txt")


@dataclass(frozen=True)
class Row:
    """A scan in the pages.

    Args:
        scan: its name in BIDS, its space left out.
        result: its measurements.
        record: of the result; None of a scan that failed.
    """

    scan: BidsName
    result: Result
    record: Path | None

    @property
    def space(self) -> str:
        """The name of the space of the result; empty if it failed."""
        name = None if self.record is None else BidsName.of(self.record)
        return "" if name is None else name.entities.get("space", "")

    @property
    def names(self) -> list[str]:
        """The columns by which tables of other tools (MRIQC) can be joined."""
        session = self.scan.entities.get("ses")
        return [
            str(replace(self.scan, suffix="T1w", extension="")),
            f"sub-{self.scan.entities['sub']}",
            NOT_KNOWN if session is None else f"ses-{session}",
        ]


@dataclass
class Pages:
    """The overview and the table of a folder of derivatives, of all results that are in it.

    Args:
        out: the folder.
        rows: by the key of a scan.
    """

    out: Path
    rows: dict[str, Row] = field(default_factory=dict)
    _next: float = 0.0

    @classmethod
    def of(cls, out: Path, failed: Mapping[str, Entry]) -> "Pages":
        """The pages of a folder as it is.

        Args:
            out: the folder.
            failed: the scans that failed, by key.
        """
        pages = cls(out)
        for path in records(out):
            pages.done(path)
        for key, entry in failed.items():
            if not pages._has_newer(key, entry.at):
                pages.failed(key, entry.name, entry.error)
        return pages

    def _has_newer(self, key: str, at: float) -> bool:
        """Whether there is a result that was written later than that."""
        row = self.rows.get(key)
        return row is not None and row.record is not None and row.record.stat().st_mtime > at

    def done(self, path: Path) -> None:
        """Add a result by its record, or replace it."""
        record, name = _read(path), BidsName.of(path)
        about = record.get("cohort")
        if name is None or not isinstance(about, dict) or not isinstance(about.get("key"), str):
            return
        key = about["key"]
        picture = replace(name, suffix="T1w", extension=".jpg").with_entities(desc=THUMBNAIL)
        person = self.out / f"sub-{name.entities['sub']}"
        result = Result(
            folder=path,
            values=values_of(record),
            warnings=tuple(str(text) for text in record.get("warnings") or ()),
            name=key,
            report=self.out / f"{key}.html",
            picture=person / FIGURES / str(picture),
        )
        scan = name.with_entities(space=None, desc=None)
        self.rows[key] = Row(scan, result, path)

    def failed(self, key: str, name: str, error: str) -> None:
        """Add a scan that failed, or replace its result."""
        crash = self.out / crash_path(key)
        nothing = crash.with_suffix(".jpg")  # no file: a scan that failed has no picture
        result = Result(crash, {}, (f"failed: {error}",), key, crash, nothing)
        scan = BidsName.of(name) or BidsName({"sub": key.removeprefix("sub-")}, "T1w", "")
        self.rows[key] = Row(scan, result, None)

    def write_sometimes(self) -> None:
        """Write the pages, unless that was a moment ago."""
        now = time.monotonic()
        if now >= self._next:
            self.write()
            spent = time.monotonic() - now
            self._next = time.monotonic() + max(EVERY, spent / SHARE)

    def write(self) -> list[Path]:
        """Write the pages; the files."""
        results = [row.result for _, row in sorted(self.rows.items())]
        if not results:
            return []
        write_page(results, self.out / INDEX)
        write_bytes(self.out / QUALITY, self._table().encode())
        return [self.out / INDEX, self.out / QUALITY]

    def flags(self) -> dict[str, list[str]]:
        """By the key of a scan, the names of what should be looked at."""
        results = {key: row.result for key, row in self.rows.items()}
        scores = robust_scores(list(results.values()))
        found = {}
        for key, result in sorted(results.items()):
            own = scores[result.folder]
            outliers = [m.key for m in MEASURES if is_outlier(m, own.get(m.key, 0.0))]
            found[key] = [*_flags(result), *(f"outlier_{name}" for name in outliers)]
        return found

    def _table(self) -> str:
        columns = ["bids_name", "participant_id", "session_id", "state", *_COLUMNS]
        lines, flags = ["\t".join([*columns, "warnings", "flags"])], self.flags()
        for key, row in sorted(self.rows.items()):
            values, state = row.result.values, "failed" if row.record is None else "done"
            cells = [*row.names, state, *(number_text(values.get(name)) for name in _COLUMNS)]
            cells += [str(len(row.result.warnings)), ",".join(flags[key]) or NOT_KNOWN]
            lines.append("\t".join(cells))
        return "\n".join([*lines, ""])


def number_text(value: float | None) -> str:
    """A number in a table."""
    return NOT_KNOWN if value is None or not math.isfinite(value) else f"{value:.6g}"


def _flags(result: Result) -> list[str]:
    values = result.values
    scale = values.get("scale", 1.0)
    found = {
        "failed": not values,
        "mask_overlap": values.get("mask_overlap", 1.0) < LEAST_OVERLAP,
        "folds": values.get("folds", 0.0) > 0,
        "scale": max(scale, 1 / scale if scale > 0 else math.inf) > LARGEST_SCALE,
        "warnings": bool(result.warnings),
    }
    return [name for name, is_set in found.items() if is_set]


def _read(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
