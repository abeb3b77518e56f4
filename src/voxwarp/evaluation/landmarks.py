"""Landmarks that experts placed in scans, and the distance at which a transform leaves them."""

import math
from pathlib import Path

import numpy as np

from ..data.pairs import Pair
from ..data.tables import Record, read_table
from ..errors import InputError
from ..measures.deformation import target_registration_errors
from ..registration.point_files import NOT_AVAILABLE, is_of_slicer, read_points
from ..space.transform import Transform

Point = tuple[float, float, float]
_AXES = "x", "y", "z"


def landmark_error(pair: Pair, transform: Transform) -> float:
    """Mean target registration error in mm over the shared landmarks; NaN without landmarks.

    Raises:
        InputError: a file cannot be read, or the two files have no landmark in common.
    """
    if pair.moving.landmarks is None or pair.fixed.landmarks is None:
        return math.nan
    fixed, moving = (read_landmarks(s.landmarks) for s in (pair.fixed, pair.moving) if s.landmarks)
    shared = [name for name in fixed if name in moving]
    if not shared:
        raise InputError(
            f"landmarks {pair.moving.landmarks}: no landmark has the name of one in "
            f"{pair.fixed.landmarks}; give the same landmark the same name in both files"
        )
    fixed_points, moving_points = (
        np.array([points[name] for name in shared]) for points in (fixed, moving)
    )
    errors = target_registration_errors(transform, moving=moving_points, fixed=fixed_points)
    return float(errors.mean())


def read_landmarks(path: Path) -> dict[str, Point]:
    """Read points by name, in RAS mm, from a table with columns x, y, z, or of 3D Slicer.

    The name is the value of the first other column, or the row's number, counted from 1. In files
    of 3D Slicer it is the label. Points that are not available (n/a) are left out.

    Raises:
        InputError: the file cannot be read, lacks a column, repeats a name or has no numbers.
    """
    if is_of_slicer(path):
        return _of_slicer(path)
    records, columns = read_table(path)
    if missing := [axis for axis in _AXES if axis not in columns]:
        raise InputError(
            f"landmarks {path}: no column {', '.join(missing)}; landmarks need x, y and z in RAS mm"
        )
    other = [column for column in columns if column not in _AXES]
    points: dict[str, Point] = {}
    for number, record in enumerate(records, 1):
        if {record.values.get(axis, "").lower() for axis in _AXES} == {NOT_AVAILABLE}:
            continue
        name = record.values.get(other[0], "") if other else str(number)
        if not name:
            raise InputError(f"landmarks {path}: column {other[0]} is empty ({record.where})")
        if name in points:
            raise InputError(f"landmarks {path}: the name {name!r} is used twice ({record.where})")
        points[name] = _point(record, path)
    return points


def _of_slicer(path: Path) -> dict[str, Point]:
    found = read_points(path)
    points: dict[str, Point] = {}
    for name, (x, y, z) in zip(found.names, found.points.tolist(), strict=True):
        if not name or name in points:
            raise InputError(f"landmarks {path}: the label {name!r} is empty or used twice")
        points[name] = x, y, z
    return points


def _point(record: Record, path: Path) -> Point:
    words = [record.values.get(axis, "") for axis in _AXES]
    try:
        x, y, z = map(float, words)
    except ValueError:
        x = y = z = math.nan
    if not all(map(math.isfinite, (x, y, z))):
        raise InputError(
            f"landmarks {path}: x, y and z must be numbers, got {', '.join(map(repr, words))} "
            f"({record.where})"
        )
    return x, y, z
