"""Many results on one page: numbers to sort by, thumbnails, and which of them to look at first."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from ..errors import InputError
from ..files import check_writable, write_bytes
from ..layout import METRICS, REPORT, WARPED
from ..pictures.pages import NOTHING, is_ours, jpeg, number, page
from ..pictures.report import THUMBNAIL
from ..pictures.thumbnails import middle_slices
from ..registration.record import read_record
from ..space.volume import read_volume

INDEX = "index.html"
FEWEST = 5  # results: of fewer nobody can say what is usual
OUTLYING = 3.5  # robust z-scores: Iglewicz and Hoaglin, How to detect and handle outliers, 1993

_THUMBNAIL = re.compile(
    rb'<img id="%s" src="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)"' % THUMBNAIL.encode()
)
_HEAD = 1 << 20  # bytes of a report in which its thumbnail stands


@dataclass(frozen=True)
class Measure:
    """A number of each result.

    Args:
        key: short name.
        title: of its column.
        digits: decimals.
        bad: on which side outliers are bad; None: they are not looked for.
        least: spread that is taken where results differ less; so little means nothing.
    """

    key: str
    title: str
    digits: int
    bad: Literal["low", "high", "both"] | None = None
    least: float = 0.0


MEASURES = (
    Measure("local_ncc", "Local NCC", 3, "low", 0.005),
    Measure("correlation", "Correlation", 3),
    Measure("dice", "Mean Dice", 3, "low", 0.005),
    Measure("folds", "Folded voxels", 0, "high", 1.0),
    Measure("minimum", "Least det J", 3),
    Measure("scale", "Affine scale", 3, "both", 0.01),
    Measure("seconds", "Seconds", 1),
)


@dataclass(frozen=True)
class Result:
    """What the page tells of one folder.

    Args:
        folder: of the result.
        values: of ``MEASURES``, those that are there.
        warnings: of the registration, or why there is nothing.
    """

    folder: Path
    values: dict[str, float]
    warnings: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> "Result":
        """What is on record; a folder that cannot be read is a result with a warning."""
        try:
            record = read_record(folder)
        except InputError as error:
            return cls(folder, {}, (str(error),))
        warnings = record.get("warnings")
        told = tuple(map(str, warnings)) if isinstance(warnings, list) else ()
        return cls(folder, _values(record), told)


def write_overview(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write an index page of results, those to be looked at first.

    A result is flagged where it has warnings, or where a number is an outlier among the
    others: a robust z-score (distance from the median over 1.4826 times the median absolute
    deviation, or over a least spread where all are nearly alike) beyond 3.5 on the bad side.

    Args:
        folders: of results, or folders that hold such at any depth.
        out: file of the page; by default ``index.html`` in the folder that holds them all.
        overwrite: replace a page that is there, other than one of ours, which always is.

    Returns:
        The page.

    Raises:
        InputError: there is no result, or the page is there or cannot be written.
    """
    found = results_in(folders)
    path = Path(out) if out else _common(folders) / INDEX
    check_writable(path.parent, (path.name,), overwrite=overwrite or is_ours(path))
    results = [Result.read(folder) for folder in found]
    scores = robust_scores(results)
    rows = [_row(result, scores[result.folder], path.parent) for result in results]
    rows.sort(key=lambda row: (-len(row["reasons"]), -row["worst"], row["name"]))
    shown = [m for m in MEASURES if any(m.key in result.values for result in results)]
    written = page(
        "index.html",
        "index.js",
        rows=rows,
        measures=shown,
        flagged=sum(bool(row["reasons"]) for row in rows),
        fewest=FEWEST,
        outlying=OUTLYING,
    )
    write_bytes(path, written.encode())
    return path


def _common(folders: Sequence[str | os.PathLike[str]]) -> Path:
    """The folder that holds all of them; of a result alone, the one it lies in."""
    try:
        root = Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))
    except ValueError as error:  # on two drives
        raise InputError("results: they have no folder in common: name the page (-o)") from error
    return root.parent if (root / METRICS).exists() else root


def results_in(folders: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Folders of results, each once, in the order given; hidden folders are left out.

    Raises:
        InputError: a folder is not there, or holds no result.
    """
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"results {folder}: no such folder")
        inner = [folder] if (folder / METRICS).exists() else _inside(folder)
        if not inner:
            raise InputError(f"results {folder}: no result of a registration ({METRICS}) in it")
        found.update(dict.fromkeys(inner))
    return list(found)


def _inside(folder: Path) -> list[Path]:
    found = []
    for where, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if METRICS in files:
            found.append(Path(where))
    return found


def robust_scores(results: Sequence[Result]) -> dict[Path, dict[str, float]]:
    """Robust z-scores of each result's numbers; of a measure with few numbers, none."""
    scores: dict[Path, dict[str, float]] = {result.folder: {} for result in results}
    for measure in MEASURES:
        having = [result for result in results if measure.key in result.values]
        if measure.bad is None or len(having) < FEWEST:
            continue
        values = np.array([result.values[measure.key] for result in having])
        off = values - np.median(values)
        spread = max(1.4826 * float(np.median(np.abs(off))), measure.least)
        for result, z in zip(having, off / spread, strict=True):
            scores[result.folder][measure.key] = float(z)
    return scores


def is_outlier(measure: Measure, z: float) -> bool:
    """Whether a score is beyond what is usual, on the side that is bad."""
    sides = {"low": z < -OUTLYING, "high": z > OUTLYING, "both": abs(z) > OUTLYING}
    return measure.bad is not None and sides[measure.bad]


def _values(record: dict[str, Any]) -> dict[str, float]:
    after, jacobian = _at(record, "similarity", "after"), _at(record, "jacobian")
    seconds = [_number(value) for value in _mapping(_at(record, "seconds")).values()]
    values = {
        "local_ncc": _number(_at(after, "local_ncc")),
        "correlation": _number(_at(after, "correlation")),
        "dice": _number(_at(record, "dice", "mean")),
        "folds": _number(_at(jacobian, "folds")),
        "minimum": _number(_at(jacobian, "minimum")),
        "scale": _scale(record),
        "seconds": sum(filter(None, seconds)) if seconds else None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _scale(record: dict[str, Any]) -> float | None:
    """How the affine map scales the fixed brain along the axis that it scales most."""
    maps = []
    for role in ("moving", "fixed"):
        with suppress(ValueError, TypeError, OverflowError):
            matrix = np.array(_at(record, "preparation", role, "template_to_scan"), dtype=float)
            if matrix.shape == (4, 4) and np.isfinite(matrix).all():
                maps.append(matrix[:3, :3])
    if len(maps) < 2 or not all(1e-6 < abs(np.linalg.det(part)) < 1e6 for part in maps):
        return None
    scales = np.linalg.svd(maps[0] @ np.linalg.inv(maps[1]), compute_uv=False)
    return float(max(scales, key=lambda scale: abs(np.log(scale))))


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = _mapping(value).get(key)
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return None if number(value) == NOTHING else float(value)


def _row(result: Result, scores: dict[str, float], root: Path) -> dict[str, Any]:
    """A result for the template."""
    cells, reasons, worst = [], list(result.warnings), 0.0
    for measure in MEASURES:
        value, z = result.values.get(measure.key), scores.get(measure.key, 0.0)
        out = is_outlier(measure, z)
        if out:
            worst = max(worst, abs(z))
            shown = number(result.values[measure.key], measure.digits)
            reasons.append(f"{measure.title} {shown} is an outlier (z = {number(z, 1)})")
        cells.append({"key": measure.key, "value": value, "digits": measure.digits, "outlier": out})
    report = result.folder / REPORT
    return {
        "name": _name(result.folder, root),
        "link": _link(report, root) if report.is_file() else "",
        "thumbnail": _thumbnail(result.folder),
        "cells": cells,
        "reasons": reasons,
        "worst": worst,
    }


def _name(path: Path, root: Path) -> str:
    try:
        return os.path.relpath(path, root).replace(os.sep, "/")
    except ValueError:  # on another drive
        return path.absolute().as_posix()


def _link(path: Path, root: Path) -> str:
    """An address relative to the page's folder, which names no scheme."""
    name = _name(path, root)
    return quote(os.fsencode(name)) if not Path(name).is_absolute() else path.absolute().as_uri()


def _thumbnail(folder: Path) -> str:
    """From the report, or else the middle slices of the moved scan; nothing where that fails."""
    with suppress(OSError), open(folder / REPORT, "rb") as stream:
        if found := _THUMBNAIL.search(stream.read(_HEAD)):
            return found[1].decode()
    with suppress(InputError, ValueError):
        return jpeg(middle_slices(read_volume(folder / WARPED)))
    return ""
