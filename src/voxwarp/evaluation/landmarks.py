"""Points that experts have marked in scans, and how far from each other a transform leaves them."""

import math
from pathlib import Path

import numpy as np

from ..data.pairs import Pair
from ..data.tables import Record, read_table
from ..errors import InputError
from ..measures.deformation import target_registration_errors
from ..space.transform import Transform

Point = tuple[float, float, float]
_AXES = "x", "y", "z"


def landmark_error(pair: Pair, transform: Transform) -> float:
    """Mean target registration error in mm; NaN without landmarks."""
    if pair.moving.landmarks is None or pair.fixed.landmarks is None:
        return math.nan
    fixed, moving = (read_landmarks(s.landmarks) for s in (pair.fixed, pair.moving) if s.landmarks)
    shared = [name for name in fixed if name in moving]
    if not shared:
        raise InputError(
            f"landmarks {pair.moving.landmarks}: none is called as one of {pair.fixed.landmarks}"
        )
    fixed_points, moving_points = (
        np.array([side[name] for name in shared]) for side in (fixed, moving)
    )
    errors = target_registration_errors(transform, moving=moving_points, fixed=fixed_points)
    return float(errors.mean())


def read_landmarks(path: Path) -> dict[str, Point]:
    """Points by name, RAS mm, of a table with columns x, y, z.

    The name is what stands in the first other column, or the row's number, from 1.

    Raises:
        InputError: the file cannot be read, has no such columns, a name twice or no numbers.
    """
    records, columns = read_table(path)
    if missing := [axis for axis in _AXES if axis not in columns]:
        raise InputError(f"landmarks {path}: there is no column {', '.join(missing)}")
    other = [column for column in columns if column not in _AXES]
    points: dict[str, Point] = {}
    for number, record in enumerate(records, 1):
        name = record.words.get(other[0], "") if other else str(number)
        if not name:
            raise InputError(f"{record.where}: it has no {other[0]}, in landmarks {path}")
        if name in points:
            raise InputError(f"{record.where}: {name!r} is there already, in landmarks {path}")
        points[name] = _point(record, path)
    return points


def _point(record: Record, path: Path) -> Point:
    try:
        x, y, z = (float(record.words.get(axis, "")) for axis in _AXES)
    except ValueError:
        x = y = z = math.nan
    if not all(map(math.isfinite, (x, y, z))):
        raise InputError(f"{record.where}: x, y, z are wanted, in landmarks {path}")
    return x, y, z
