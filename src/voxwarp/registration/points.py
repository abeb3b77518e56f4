"""Carry points through a registration, as arrays and as tables."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import write_bytes
from ..space.formats import lps
from .apply import AnyTransform, chain_of


def apply_to_points(
    points: np.ndarray,
    transforms: AnyTransform | Sequence[AnyTransform],
    *,
    inverse: bool = False,
) -> np.ndarray:
    """Carry points of the moving scan to the fixed scan, or back with ``inverse``.

    Points move with the image they are drawn on, as ``apply_to_image`` moves it. (Resampling
    an image takes the map the other way round; that is looked after here.)

    Args:
        points: (N, 3), RAS mm.
        transforms: as in ``apply_to_image``.
        inverse: carry points of the fixed scan to the moving scan.
    """
    chain = chain_of(transforms)
    return (chain.transform if inverse else chain.inverse).map(points)


def apply_to_csv(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    transforms: AnyTransform | Sequence[AnyTransform],
    *,
    inverse: bool = False,
    is_lps: bool = False,
) -> int:
    """Carry the points of a CSV file with columns x, y, z; other columns are kept as they are.

    Args:
        source, target: files to read and to write.
        transforms: as in ``apply_to_image``.
        inverse: as ``apply_to_points``.
        is_lps: the coordinates are in LPS mm, as ANTs has them, in both files; else RAS.

    Returns:
        The number of points.

    Raises:
        InputError: the file is missing, has no such columns, or a value is not a number.
    """
    columns, lines = _read_csv(Path(source))
    named = [column.strip().lower() for column in columns]
    for axis in "xyz":
        if named.count(axis) != 1:
            found = ", ".join(columns) or "an empty file"
            raise InputError(f"points {source}: one column {axis!r} is wanted, found {found}")
    axes = [named.index(axis) for axis in "xyz"]
    rows = [row for _, row in lines]
    numbers = [_numbers(row, axes, f"points {source}: line {n}") for n, row in lines]
    points = np.array(numbers).reshape(-1, 3)
    carried = apply_to_points(lps(points) if is_lps else points, transforms, inverse=inverse)
    for row, point in zip(rows, lps(carried) if is_lps else carried, strict=True):
        for column, value in zip(axes, point, strict=True):
            row[column] = f"{value:.6f}"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    write_bytes(target, out.getvalue().encode())
    return len(lines)


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the rows, each with its line number; blank lines are left out."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            columns = next(reader, [])
            lines = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError as error:
        raise InputError(f"points {path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"points {path}: not a CSV file that can be read ({error})") from error
    uneven = [number for number, row in lines if len(row) != len(columns)]
    if uneven:
        raise InputError(
            f"points {path}: line {uneven[0]} has not the {len(columns)} columns of line 1"
        )
    return columns, lines


def _numbers(row: list[str], axes: list[int], where: str) -> list[float]:
    try:
        values = [float(row[axis]) for axis in axes]
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    if not np.isfinite(values).all():
        raise InputError(f"{where}: coordinates must be finite, got {values}")
    return values
