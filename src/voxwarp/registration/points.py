"""Transform points by a registration, as arrays and as files."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._files import check_writable, staging, write_bytes
from .._publish import place
from ..errors import InputError
from .point_files import PointFile, check_bids_frame, read_points
from .result import Registration
from .saved_transform import AnyTransform, SavedTransform, chain_of, one_of_each

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
    chain = chain_of(transforms)
    if not isinstance(transforms, SavedTransform | Registration):  # theirs can be asked for
        for warning in one_of_each(chain.header_warnings):
            _log.warning(warning)
    return (chain.transform if inverse else chain.inverse).map(points)


class MovedPoints(NamedTuple):
    """What became of a file of points.

    Args:
        number: of points that were transformed.
        warnings: reasons to check them, one sentence each.
    """

    number: int
    warnings: list[str]


def apply_to_point_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    transforms: AnyTransform | Sequence[AnyTransform],
    *,
    inverse: bool = False,
    lps: bool = False,
    overwrite: bool = False,
) -> MovedPoints:
    """Transform the points of a file, and write them in the same format; all else stays as it is.

    Points without coordinates (n/a in BIDS) stay without.

    Args:
        source, target: the files to read and to write, see ``point_files``.
        transforms, inverse: see ``apply_to_points``.
        lps: coordinates are in LPS mm in both files, as in ANTs; otherwise in RAS mm, unless the
            file itself says what they are.
        overwrite: whether ``target`` may exist.

    Raises:
        InputError: see ``point_files.read_points``; or ``target`` exists, or its name is that of
            another format.
    """
    source, target = Path(source), Path(target)
    check_writable(target.parent, (target.name,), overwrite=overwrite)
    check_bids_frame(source)
    table = read_points(source, is_lps=lps)
    _check_ending(source, target, table)
    chain = chain_of(transforms)
    moved = apply_to_points(table.points, chain, inverse=inverse)
    with staging(target.parent) as stage:
        write_bytes(stage / target.name, table.write(moved))
        place(stage, target.parent, (target.name,), overwrite=overwrite)
    warnings = [*table.warnings, *one_of_each(chain.header_warnings)]
    if table.missing:
        one = table.missing == 1
        points = "1 point" if one else f"{table.missing} points"
        stayed = "stayed as it was" if one else "stayed as they were"
        warnings.append(f"points {source}: {points} without coordinates (n/a) {stayed}")
    return MovedPoints(len(moved), warnings)


# Names that promise something else than what is written.
_OTHER_ENDINGS = ".csv", ".tsv", ".fcsv", ".json", ".nii", ".nii.gz", ".mgz", ".mat", ".tfm", ".h5"


def _check_ending(source: Path, target: Path, table: PointFile) -> None:
    """Refuse a name of another format; any name without a known ending will do."""
    others = [ending for ending in _OTHER_ENDINGS if ending not in table.endings]
    promised = next((e for e in others if target.name.lower().endswith(e)), None)
    if promised and not source.name.lower().endswith(promised):
        raise InputError(
            f"output {target}: points are written as {table.format}, as they are in {source}; "
            f"give a name such as points{table.endings[0]}"
        )
