"""Files of points: CSV, TSV (BIDS), and 3D Slicer's .fcsv and .mrk.json, in RAS or LPS mm.

Each is read into a ``PointFile``: points in RAS mm, and a function that writes other points into
the same file, with everything else as it was.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._files import check_readable
from .._json import parse_json, read_json
from ..errors import InputError
from ..space.formats import lps

AXES = "x", "y", "z"
NOT_AVAILABLE = "n/a"  # of BIDS

#: What 3D Slicer's point files are called, and how they end.
FCSV, MARKUPS = ".fcsv", ".mrk.json"


@dataclass(frozen=True)
class PointFile:
    """The points of a file.

    Args:
        points: (N, 3), RAS mm, of the points that have coordinates.
        names: of these points: the label in files of 3D Slicer, else "".
        missing: number of points without coordinates.
        format: what kind of file it is, in words.
        endings: how names of files of this format can end, in lower case.
        write: the contents of the file with other points (N, 3), RAS mm, in place of these.
        warnings: reasons to doubt the coordinates, one sentence each.
    """

    points: np.ndarray
    names: Sequence[str]
    missing: int
    format: str
    endings: tuple[str, ...]
    write: Callable[[np.ndarray], bytes]
    warnings: tuple[str, ...] = ()


def read_points(path: Path, *, is_lps: bool = False) -> PointFile:
    """Read a file of points.

    Args:
        path: CSV or TSV with columns x, y and z, or a point list of 3D Slicer.
        is_lps: coordinates are LPS mm; otherwise RAS mm, unless the file says what they are.

    Raises:
        InputError: the file is missing, is none of these, lacks a column; a coordinate is not a
            finite number; or the file says that its coordinates are not those of ``is_lps``.
    """
    text = _text(path)
    name = path.name.lower()
    if text.lstrip().startswith("{") or name.endswith(".json"):
        return _markups(path, text, is_lps)
    if name.endswith(FCSV) or text.startswith("# Markups fiducial file"):
        return _fcsv(path, text, is_lps)
    return _table(path, text, is_lps)


def is_of_slicer(path: Path) -> bool:
    """Whether the name of a file is that of a point list of 3D Slicer."""
    return path.name.lower().endswith((FCSV, MARKUPS))


def _text(path: Path) -> str:
    check_readable(path, "points")
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"points {path}: cannot be read as a CSV file, TSV file or point list of 3D Slicer "
            f"({error})"
        ) from error


def _turned(points: Sequence[Sequence[float]], is_lps: bool) -> np.ndarray:
    """Points (N, 3) in RAS mm, of points in RAS or LPS mm."""
    array = np.array(points, dtype=np.float64).reshape(-1, 3)
    return lps(array) if is_lps else array


def _frame(path: Path, stated: str, frames: dict[str, bool], is_lps: bool) -> bool:
    """Whether coordinates are LPS by what the file says, which must not be contradicted."""
    if stated.upper() not in frames:
        raise InputError(
            f"points {path}: the file says that its coordinates are {stated!r}, but they must be "
            f"RAS or LPS, in mm"
        )
    if is_lps and not frames[stated.upper()]:
        raise InputError(
            f"points {path}: the file says that its coordinates are RAS, which contradicts `lps`; "
            f"leave it out"
        )
    return frames[stated.upper()]


# -------------------------------------------------------------------------------- Tables


def _table(path: Path, text: str, is_lps: bool) -> PointFile:
    """CSV, or TSV as in BIDS: a header, then a point in each row."""
    header = text.partition("\n")[0]
    is_tabbed = path.suffix.lower() == ".tsv" or ("\t" in header and "," not in header)
    delimiter = "\t" if is_tabbed else ","
    columns, lines = _rows(path, text, delimiter)
    axes = _axes(path, columns)
    rows = [row for _, row in lines]
    places = [_coordinates(row, axes, f"points {path}: line {n}") for n, row in lines]

    def write(points: np.ndarray) -> bytes:
        moved = iter(_turned(points.tolist(), is_lps).tolist())
        filled = [
            row if place is None else _filled(row, axes, next(moved))
            for row, place in zip(rows, places, strict=True)
        ]
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows([columns, *filled])
        return out.getvalue().encode()

    found = [place for place in places if place is not None]
    return PointFile(
        points=_turned(found, is_lps),
        names=[""] * len(found),
        missing=len(places) - len(found),
        format="TSV" if is_tabbed else "CSV",
        endings=(".tsv",) if is_tabbed else (".csv",),
        write=write,
        warnings=() if is_lps else _doubts(path, columns, rows),
    )


def _rows(path: Path, text: str, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows with their line numbers; blank lines are left out."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = next(reader, [])
        lines = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"points {path}: cannot be read as a CSV file ({error})") from error
    for number, row in lines:
        if len(row) != len(columns):
            raise InputError(
                f"points {path}: line {number} has {len(row)} columns, but line 1 has "
                f"{len(columns)}"
            )
    return columns, lines


def _axes(path: Path, columns: Sequence[str]) -> list[int]:
    """The numbers of the columns x, y and z."""
    names = [column.strip().lower() for column in columns]
    for axis in AXES:
        if names.count(axis) != 1:
            header = ", ".join(columns) or "none, because the file is empty"
            raise InputError(
                f"points {path}: must have one column {axis!r}, but its columns are: {header}"
            )
    return [names.index(axis) for axis in AXES]


def _coordinates(row: Sequence[str], axes: Sequence[int], where: str) -> list[float] | None:
    """The coordinates of a row; None if they are all n/a."""
    texts = [row[axis] for axis in axes]
    missing = [text.strip().lower() == NOT_AVAILABLE for text in texts]
    if all(missing):
        return None
    if any(missing):
        raise InputError(f"{where}: coordinates must be numbers, or all of them n/a, got {texts}")
    try:
        values = [float(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{where}: coordinates must be numbers, got {texts}") from error
    if not np.isfinite(values).all():
        raise InputError(f"{where}: coordinates must be finite numbers, got {texts}")
    return values


def _filled(row: Sequence[str], axes: Sequence[int], point: Sequence[float]) -> list[str]:
    """The row with another point."""
    filled = list(row)
    for column, value in zip(axes, point, strict=True):
        filled[column] = f"{value:.6f}"
    return filled


def _doubts(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A warning if this looks like a file of ANTs: x, y, z, and times t that are all zero."""
    names = [column.strip().lower() for column in columns]
    if names[:4] != [*AXES, "t"] or not rows:
        return ()
    try:
        if any(float(row[3]) for row in rows):
            return ()
    except ValueError:
        return ()
    return (
        f"points {path}: the columns x, y, z, t are those of ANTs, whose points are LPS, but the "
        f"coordinates were taken as RAS; if they are LPS, give `lps`",
    )


# --------------------------------------------------------------------------- Electrodes of BIDS

# Names of coordinate systems in BIDS that are no world space of an image: the origin is between
# the ears, and some have x to the front.
_OF_THE_HEAD = {
    *("ctf", "elektaneuromag", "4dbti", "kityokogawa", "chietiitab", "captrak"),
    *("eeglab", "eeglab-hj", "pixels"),
}


def check_bids_frame(path: Path) -> None:
    """Check the coordsystem.json beside an electrodes.tsv of BIDS, if there is one.

    Raises:
        InputError: it says that the coordinates are not in mm, or not in the space of an image.
    """
    prefix = re.fullmatch(r"(.*_)?electrodes\.tsv", path.name, re.IGNORECASE)
    if prefix is None:
        return
    beside = path.with_name(f"{prefix[1] or ''}coordsystem.json")
    try:
        about = read_json(beside)
        stated = {str(key): str(value) for key, value in about.items()}
    except (OSError, ValueError, AttributeError):
        return
    for key, value in stated.items():
        if key.endswith("CoordinateUnits") and value.lower() not in ("mm", NOT_AVAILABLE):
            raise InputError(
                f"points {path}: {beside.name} says that the coordinates are in {value}; convert "
                f"them to mm"
            )
        if key.endswith("CoordinateSystem") and value.lower() in _OF_THE_HEAD:
            raise InputError(
                f"points {path}: {beside.name} says that the coordinates are in the system "
                f"{value}, which is not the space of an image; convert them to the world space of "
                f"the image (RAS mm)"
            )


# ------------------------------------------------------------------------------------ 3D Slicer

_FCSV_FRAMES = {"RAS": False, "0": False, "LPS": True, "1": True}
_FCSV_COLUMNS = ["id", *AXES]
_JSON_FRAMES = {"RAS": False, "LPS": True}
# Markups that consist of points; planes and boxes have axes and sizes, too.
_JSON_TYPES = "Fiducial", "Line", "Angle", "Curve", "ClosedCurve"


def _fcsv(path: Path, text: str, is_lps: bool) -> PointFile:
    """Lines of comma-separated values; comments say what they mean."""
    stated = re.search(r"^#\s*CoordinateSystem\s*=\s*(\S*)", text, re.MULTILINE)
    listed = re.search(r"^#\s*columns\s*=\s*(.*)", text, re.MULTILINE)
    if stated:
        is_lps = _frame(path, stated[1], _FCSV_FRAMES, is_lps)
    columns = [name.strip() for name in listed[1].split(",")] if listed else _FCSV_COLUMNS
    axes, lines = _axes(path, columns), list(io.StringIO(text, newline=""))
    rows = {n: _fields(path, n, line, axes) for n, line in enumerate(lines) if _has_point(line)}
    places = {n: _coordinates(row, axes, f"points {path}: line {n + 1}") for n, row in rows.items()}
    found = {n: place for n, place in places.items() if place is not None}

    def write(points: np.ndarray) -> bytes:
        moved = dict(zip(found, _turned(points.tolist(), is_lps).tolist(), strict=True))
        return "".join(
            _joined(_filled(rows[n], axes, moved[n]), line) if n in moved else line
            for n, line in enumerate(lines)
        ).encode()

    label = columns.index("label") if "label" in columns else 0
    return PointFile(
        points=_turned(list(found.values()), is_lps),
        names=[rows[n][label] if label < len(rows[n]) else "" for n in found],
        missing=len(places) - len(found),
        format="a point list of 3D Slicer (.fcsv)",
        endings=(FCSV,),
        write=write,
    )


def _has_point(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _fields(path: Path, number: int, line: str, axes: Sequence[int]) -> list[str]:
    try:
        (fields,) = csv.reader([line.rstrip("\r\n")], strict=True)
    except csv.Error as error:
        raise InputError(f"points {path}: line {number + 1} cannot be read ({error})") from error
    if len(fields) <= max(axes):
        raise InputError(
            f"points {path}: line {number + 1} has {len(fields)} columns, too few for x, y and z"
        )
    return fields


def _joined(fields: Sequence[str], line: str) -> str:
    """The fields as a line that ends as another one does."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(fields)
    return out.getvalue() + line[len(line.rstrip("\r\n")) :]


def _markups(path: Path, text: str, is_lps: bool) -> PointFile:
    """JSON: lists of control points, each list in its own frame."""
    try:
        document = parse_json(text)
        controls = [c for markup in document["markups"] for c in _controls(path, markup, is_lps)]
        defined = [(point, turn) for point, turn in controls if _is_defined(point)]
        places = [_turned([_position(path, point)], turn)[0] for point, turn in defined]
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"points {path}: this is not a point list of 3D Slicer (.mrk.json): "
            f"{type(error).__name__}, {error}"
        ) from error

    def write(points: np.ndarray) -> bytes:
        for (point, turn), place in zip(defined, points, strict=True):
            (moved,) = _turned([place.tolist()], turn).tolist()
            point["position"] = [round(value, 6) for value in moved]
        return (json.dumps(document, indent=4, ensure_ascii=False) + "\n").encode()

    return PointFile(
        points=np.array(places).reshape(-1, 3),
        names=[str(point.get("label", "")) for point, _ in defined],
        missing=len(controls) - len(defined),
        format="a point list of 3D Slicer (.mrk.json)",
        endings=(MARKUPS, ".json"),
        write=write,
    )


def _controls(path: Path, markup: Any, is_lps: bool) -> list[tuple[Any, bool]]:
    """The control points of one list, and whether they are LPS, as they are by default."""
    if markup["type"] not in _JSON_TYPES:
        raise InputError(
            f"points {path}: the markup {markup['type']!r} is not a list of points; expected one "
            f"of {', '.join(_JSON_TYPES)}"
        )
    units = markup.get("coordinateUnits") or "mm"
    unit = units[0] if isinstance(units, list) else units
    if unit != "mm":
        raise InputError(f"points {path}: the coordinates are in {unit!r}, but must be in mm")
    for measurement in markup.get("measurements") or ():
        measurement.pop("value", None)  # a length or angle of before; 3D Slicer computes it again
    turn = _frame(path, str(markup.get("coordinateSystem", "LPS")), _JSON_FRAMES, is_lps)
    return [(point, turn) for point in markup.get("controlPoints") or ()]


def _is_defined(point: Any) -> bool:
    """Whether a control point has a place: one that is to be set later has none."""
    status = point.get("positionStatus", "defined")
    return point.get("position") is not None and status in ("defined", "preview")


def _position(path: Path, point: Any) -> list[float]:
    position = point["position"]
    if (
        not isinstance(position, list)
        or len(position) != 3
        or not all(_is_number(value) for value in position)
    ):
        raise InputError(
            f"points {path}: the position of {point.get('label') or 'a point'} must be three "
            f"finite numbers, got {json.dumps(position)[:60]}"
        )
    return [float(value) for value in position]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
