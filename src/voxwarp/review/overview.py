"""An overview page of many results: a table to sort, thumbnails, and which results to check."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from .._files import check_writable, write_bytes
from .._layout import METRICS, REPORT, WARPED
from ..errors import InputError
from ..pictures.pages import DASH, is_generated, jpeg, number, page
from ..pictures.report import THUMBNAIL, recorded_warnings
from ..pictures.thumbnails import middle_slices
from ..registration.record import read_record
from ..space.volume import read_volume

INDEX = "index.html"
MIN_RESULTS = 5  # with fewer results, outliers are not sought; set by hand
# Robust z-score of an outlier: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993.
OUTLIER_SCORE = 3.5

_THUMBNAIL = re.compile(
    rb'<img id="%s" src="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)"' % THUMBNAIL.encode()
)
_HEAD = 1 << 20  # the thumbnail is in the first bytes of a report


@dataclass(frozen=True)
class Measure:
    """A measurement of each result, and how outliers are found.

    Args:
        key: short name.
        title: of the column.
        digits: number of decimals.
        bad_side: the side on which outliers are bad; None means that none are sought.
        min_spread: the spread that is assumed if the results differ less; such small differences
            mean nothing. The values were set by hand.
    """

    key: str
    title: str
    digits: int
    bad_side: Literal["low", "high", "both"] | None = None
    min_spread: float = 0.0


MEASURES = (
    Measure("local_ncc", "Local NCC", 3, "low", 0.005),
    Measure("correlation", "Correlation", 3),
    Measure("dice", "Mean Dice", 3, "low", 0.005),
    Measure("folds", "Folded voxels", 0, "high", 1.0),
    Measure("minimum", "Smallest det J", 3),
    Measure("scale", "Affine scaling", 3, "both", 0.01),
    Measure("mask_overlap", "Overlap of brains", 3, "low", 0.005),
    Measure("seconds", "Seconds", 1),
)


@dataclass(frozen=True)
class Result:
    """The data of one result.

    Args:
        folder: of the result; of a result that shares its folder with others, any path of its own.
        values: the measurements in its record, by ``Measure.key``.
        warnings: of the registration; or the reason why its record cannot be read.
        name: shown; by default the path of the folder.
        report: the page to link to, if it exists; by default the report in the folder.
        picture: file of a small picture; by default that of the report.
    """

    folder: Path
    values: dict[str, float]
    warnings: tuple[str, ...]
    name: str = ""
    report: Path | None = None
    picture: Path | None = None

    @classmethod
    def read(cls, folder: Path) -> "Result":
        """Read a result; one that cannot be read has the reason as its warning."""
        try:
            record = read_record(folder)
        except InputError as error:
            return cls(folder, {}, (str(error),))
        return cls(folder, values_of(record), tuple(recorded_warnings(record)))


def write_overview(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write an overview page of results; those that should be checked come first.

    A result should be checked if it has warnings, or if one of its measurements is an outlier: if
    the robust z-score is beyond 3.5 on the bad side. This is the distance from the median, divided
    by 1.4826 times the median absolute deviation (or by a minimal spread, if that is larger).

    Args:
        folders: results, or folders that contain results at any depth.
        out: file of the page; by default ``index.html`` in the folder that contains all results.
        overwrite: replace a file that voxwarp did not write. Its own pages are always replaced.

    Returns:
        The file of the page.

    Raises:
        InputError: there is no result, or the page exists or cannot be written.
    """
    result_folders = results_in(folders)
    path = Path(out) if out else _common(folders) / INDEX
    check_writable(path.parent, (path.name,), overwrite=overwrite or is_generated(path))
    write_page([Result.read(folder) for folder in result_folders], path)
    return path


def write_page(results: Sequence[Result], path: Path) -> None:
    """Write the overview page of results, those to check first.

    Args:
        results: the results.
        path: file of the page; it is replaced if it exists.
    """
    scores = robust_scores(results)
    rows = [_row(result, scores[result.folder], path.parent) for result in results]
    rows.sort(key=lambda row: (-len(row["reasons"]), -row["worst"], row["name"]))
    shown = [m for m in MEASURES if any(m.key in result.values for result in results)]
    text = page(
        "index.html",
        "index.js",
        images_beside=any(result.picture for result in results),
        rows=rows,
        measures=shown,
        flagged=sum(bool(row["reasons"]) for row in rows),
        min_results=MIN_RESULTS,
        outlier_score=OUTLIER_SCORE,
    )
    write_bytes(path, text.encode())


def _common(folders: Sequence[str | os.PathLike[str]]) -> Path:
    """The folder that contains all results; for a single result, its parent."""
    try:
        root = Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))
    except ValueError as error:  # on two drives
        raise InputError(
            "the results are on different drives: name the file of the page with `out`"
        ) from error
    return root.parent if (root / METRICS).exists() else root


def results_in(folders: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """All results in the folders, each once, in the given order; hidden folders are left out.

    Raises:
        InputError: a folder does not exist, or contains no result.
    """
    results: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"results {folder}: this folder does not exist")
        inner = [folder] if (folder / METRICS).exists() else _inside(folder)
        if not inner:
            raise InputError(
                f"results {folder}: this folder contains no registration (no {METRICS}); give "
                f"folders that register wrote"
            )
        results.update(dict.fromkeys(inner))
    return list(results)


def _inside(folder: Path) -> list[Path]:
    """The results below a folder, at any depth."""
    results = []
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if METRICS in files:
            results.append(Path(place))
    return results


def robust_scores(results: Sequence[Result]) -> dict[Path, dict[str, float]]:
    """Robust z-scores of the measurements; none for a measure that fewer than 5 results have."""
    scores: dict[Path, dict[str, float]] = {result.folder: {} for result in results}
    for measure in MEASURES:
        measured = [result for result in results if measure.key in result.values]
        if measure.bad_side is None or len(measured) < MIN_RESULTS:
            continue
        values = np.array([result.values[measure.key] for result in measured])
        deviations = values - np.median(values)
        spread = max(1.4826 * float(np.median(np.abs(deviations))), measure.min_spread)
        for result, z in zip(measured, deviations / spread, strict=True):
            scores[result.folder][measure.key] = float(z)
    return scores


def is_outlier(measure: Measure, z: float) -> bool:
    """Whether a score is beyond the limit on the bad side."""
    sides = {"low": z < -OUTLIER_SCORE, "high": z > OUTLIER_SCORE, "both": abs(z) > OUTLIER_SCORE}
    return measure.bad_side is not None and sides[measure.bad_side]


def values_of(record: dict[str, Any]) -> dict[str, float]:
    """The measurements in a record, by ``Measure.key``."""
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
        "mask_overlap": _number(_at(record, "quality", "mask_overlap")),
    }
    return {key: value for key, value in values.items() if value is not None}


def _scale(record: dict[str, Any]) -> float | None:
    """The scaling of the affine map along the axis where it differs most from 1."""
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
    """The entry of nested mappings, or None."""
    for key in keys:
        value = _mapping(value).get(key)
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return None if number(value) == DASH else float(value)


def _row(result: Result, scores: dict[str, float], root: Path) -> dict[str, Any]:
    """A result as values for the template."""
    cells, reasons, worst = [], list(result.warnings), 0.0
    for measure in MEASURES:
        value, z = result.values.get(measure.key), scores.get(measure.key, 0.0)
        outlier = is_outlier(measure, z)
        if outlier:
            worst = max(worst, abs(z))
            value_text = number(result.values[measure.key], measure.digits)
            reasons.append(f"{measure.title} {value_text} is an outlier (z = {number(z, 1)})")
        cells.append(
            {"key": measure.key, "value": value, "digits": measure.digits, "outlier": outlier}
        )
    report = result.report or result.folder / REPORT
    return {
        "name": result.name or _name(result.folder, root),
        "link": _link(report, root) if report.is_file() else "",
        "thumbnail": _picture(result, root),
        "cells": cells,
        "reasons": reasons,
        "worst": worst,
    }


def _name(path: Path, root: Path) -> str:
    """The path relative to the page's folder."""
    try:
        return os.path.relpath(path, root).replace(os.sep, "/")
    except ValueError:  # on another drive
        return path.absolute().as_posix()


def _link(path: Path, root: Path) -> str:
    """The address of a file relative to the page's folder, without a scheme."""
    name = _name(path, root)
    return quote(os.fsencode(name)) if not Path(name).is_absolute() else path.absolute().as_uri()


def _picture(result: Result, root: Path) -> str:
    """The address of a small picture, or nothing."""
    if result.picture is None:
        return _thumbnail(result.folder)
    return _link(result.picture, root) if result.picture.is_file() else ""


def _thumbnail(folder: Path) -> str:
    """The picture from the report, or the middle slices of the moved scan, or nothing."""
    with suppress(OSError), open(folder / REPORT, "rb") as stream:
        if match := _THUMBNAIL.search(stream.read(_HEAD)):
            return match[1].decode()
    with suppress(InputError, ValueError):
        return jpeg(middle_slices(read_volume(folder / WARPED)))
    return ""
