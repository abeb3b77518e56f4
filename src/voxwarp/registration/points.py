"""Transform points by a registration, as arrays and as CSV files."""

import csv
import io
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .._files import write_bytes
from ..errors import InputError
from ..space.formats import lps
from .apply import AnyTransform, SavedTransform, chain_of, one_of_each
from .result import Registration

_log = logging.getLogger(__name__)


def apply_to_points(
    points: np.ndarray,
    transforms: AnyTransform | Sequence[AnyTransform],
    *,
    inverse: bool = False,
) -> np.ndarray:
    """Transform points of the moving scan to the fixed scan, or back with ``inverse``.

    A point moves with the image it is drawn on: the same arguments take an image
    (``apply_to_image``) and its points to the same place. (An image is resampled by the map in the
    opposite direction; this function takes care of that.)

    Args:
        points: (N, 3), RAS mm.
        transforms: see ``apply_to_image``.
        inverse: transform points of the fixed scan to the moving scan.

    Returns:
        The points in the other space, (N, 3), RAS mm. What the headers of warps and scans of
        folders that are read here leave in doubt is logged as warnings.

    Raises:
        InputError: a transform cannot be read.

    Example:
        >>> import numpy as np
        >>> import voxwarp
        >>> matrix = np.eye(4)
        >>> matrix[0, 3] = 10.0
        >>> fixed_to_moving = voxwarp.Affine(matrix)
        >>> voxwarp.apply_to_points(np.array([[30.0, 0.0, 0.0]]), fixed_to_moving)
        array([[20.,  0.,  0.]])
    """
    # The warnings of the others can be asked for.
    on_warning = None if isinstance(transforms, SavedTransform | Registration) else _log.warning
    return _moved(points, transforms, inverse, on_warning)


def apply_to_csv(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    transforms: AnyTransform | Sequence[AnyTransform],
    *,
    inverse: bool = False,
    is_lps: bool = False,
    on_warning: Callable[[str], object] = _log.warning,
) -> int:
    """Transform the points of a CSV file with columns x, y and z; other columns stay as they are.

    Args:
        source, target: the files to read and to write.
        transforms, inverse: see ``apply_to_points``.
        is_lps: coordinates are in LPS mm in both files, as in ANTs; otherwise in RAS mm.
        on_warning: is called with what the headers of warps and registered scans leave in doubt;
            by default that is logged.

    Returns:
        The number of points.

    Raises:
        InputError: the file is missing, lacks a column, or a coordinate is not a finite number.
    """
    columns, lines = _read_csv(Path(source))
    names = [column.strip().lower() for column in columns]
    for axis in "xyz":
        if names.count(axis) != 1:
            header = ", ".join(columns) or "none, because the file is empty"
            raise InputError(
                f"points {source}: must have one column {axis!r}, but its columns are: {header}"
            )
    axes = [names.index(axis) for axis in "xyz"]
    rows = [row for _, row in lines]
    numbers = [_numbers(row, axes, f"points {source}: line {n}") for n, row in lines]
    points = np.array(numbers).reshape(-1, 3)
    moved = _moved(lps(points) if is_lps else points, transforms, inverse, on_warning)
    for row, point in zip(rows, lps(moved) if is_lps else moved, strict=True):
        for column, value in zip(axes, point, strict=True):
            row[column] = f"{value:.6f}"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    write_bytes(target, out.getvalue().encode())
    return len(lines)


def _moved(
    points: np.ndarray,
    transforms: AnyTransform | Sequence[AnyTransform],
    inverse: bool,
    on_warning: Callable[[str], object] | None,
) -> np.ndarray:
    chain = chain_of(transforms)
    if on_warning is not None:
        for warning in one_of_each(chain.header_warnings):
            on_warning(warning)
    return (chain.transform if inverse else chain.inverse).map(points)


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows with their line numbers; blank lines are left out."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            columns = next(reader, [])
            lines = [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError as error:
        raise InputError(f"points {path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"points {path}: cannot be read as a CSV file ({error})") from error
    for number, row in lines:
        if len(row) != len(columns):
            raise InputError(
                f"points {path}: line {number} has {len(row)} columns, but line 1 has "
                f"{len(columns)}"
            )
    return columns, lines


def _numbers(row: list[str], axes: list[int], where: str) -> list[float]:
    texts = [row[axis] for axis in axes]
    try:
        values = [float(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{where}: coordinates must be numbers, got {texts}") from error
    if not np.isfinite(values).all():
        raise InputError(f"{where}: coordinates must be finite numbers, got {texts}")
    return values
