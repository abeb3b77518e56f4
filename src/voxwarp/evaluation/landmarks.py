"""Points that experts have marked in scans, and how far from each other a transform leaves them."""

import csv
import math
from pathlib import Path

import numpy as np

from ..data.pairs import Pair
from ..errors import InputError
from ..measures.deformation import target_registration_errors
from ..space.transform import Transform


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
    points = (np.array([side[name] for name in shared]) for side in (fixed, moving))
    return float(target_registration_errors(transform, *points).mean())


def read_landmarks(path: Path) -> dict[str, tuple[float, float, float]]:
    """Points by name, RAS mm, of a CSV file with columns x, y, z.

    The name is what stands in the first other column, or the row's number, from 1.

    Raises:
        InputError: the file cannot be read, has no such columns, a name twice or no numbers.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"landmarks {path}: cannot be read ({error})") from error
    points: dict[str, tuple[float, float, float]] = {}
    for number, (line, row) in enumerate(rows, 1):
        name, point = _landmark(row, str(number), f"landmarks {path}, row {line}")
        if name in points:
            raise InputError(f"landmarks {path}, row {line}: {name!r} is there already")
        points[name] = point
    if not points:
        raise InputError(f"landmarks {path}: there are none in it")
    return points


def _landmark(
    row: dict[str, str], number: str, where: str
) -> tuple[str, tuple[float, float, float]]:
    """Its name and place; of a row that is too long or short, csv has None among its items."""
    other = [column for column in row if column not in ("x", "y", "z")]
    name = row[other[0]] if other else number
    try:
        x, y, z = (float(row[axis]) for axis in "xyz")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: x, y, z are wanted") from error
    if None in row or name is None or not all(map(math.isfinite, (x, y, z))):
        raise InputError(f"{where}: x, y, z are wanted, and as many fields as in row 1")
    return name.strip(), (x, y, z)
