"""What sums up a cohort while it grows: an overview page, and a table of quality flags."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from .dataset import CohortScan
from .derivatives import record_path, report_path, thumbnail_path
from .job import LOGS

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


@dataclass
class Pages:
    """The overview and the table of a folder of derivatives.

    Args:
        out: the folder.
        space: the name of the space.
    """

    out: Path
    space: str
    _rows: dict[str, tuple[CohortScan, Result, str]] = field(default_factory=dict)
    _next: float = 0.0

    def done(self, scan: CohortScan) -> Mapping[str, Any]:
        """Add the result of a scan, read from its record, or replace it; the record."""
        record = _read(self.out / record_path(scan, self.space))
        warnings = tuple(str(text) for text in record.get("warnings") or ())
        result = Result(
            folder=self.out / record_path(scan, self.space),
            values=values_of(record),
            warnings=warnings,
            name=scan.key,
            report=self.out / report_path(scan),
            picture=self.out / thumbnail_path(scan, self.space),
        )
        self._rows[scan.key] = scan, result, "done"
        return record

    def failed(self, scan: CohortScan, error: str) -> None:
        """Add a scan that failed, or replace it."""
        result = Result(
            folder=self.out / record_path(scan, self.space),
            values={},
            warnings=(f"failed: {error}",),
            name=scan.key,
            report=self.out / crash_path(scan.key),
            picture=self.out / thumbnail_path(scan, self.space),
        )
        self._rows[scan.key] = scan, result, "failed"

    def write_sometimes(self) -> None:
        """Write the pages, unless that was a moment ago."""
        now = time.monotonic()
        if now >= self._next:
            self.write()
            spent = time.monotonic() - now
            self._next = time.monotonic() + max(EVERY, spent / SHARE)

    def write(self) -> list[Path]:
        """Write the pages; the files."""
        results = [result for _, (_, result, _) in sorted(self._rows.items())]
        if not results:
            return []
        write_page(results, self.out / INDEX)
        write_bytes(self.out / QUALITY, self._table().encode())
        return [self.out / INDEX, self.out / QUALITY]

    def flags(self) -> dict[str, list[str]]:
        """By the key of a scan, the names of what should be looked at."""
        results = {key: result for key, (_, result, _) in self._rows.items()}
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
        for key, (scan, result, state) in sorted(self._rows.items()):
            cells = [*names_of(scan), state]
            cells += [number_text(result.values.get(column)) for column in _COLUMNS]
            cells += [str(len(result.warnings)), ",".join(flags[key]) or NOT_KNOWN]
            lines.append("\t".join(cells))
        return "\n".join([*lines, ""])


def names_of(scan: CohortScan) -> list[str]:
    """The columns by which tables of other tools (MRIQC) can be joined: name, person, session."""
    session = scan.name.entities.get("ses")
    return [
        str(scan.name).partition(".")[0],
        f"sub-{scan.subject}",
        NOT_KNOWN if session is None else f"ses-{session}",
    ]


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
