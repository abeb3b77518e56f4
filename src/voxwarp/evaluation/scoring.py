"""How good a registration of a pair is: every number that an evaluation tells of it."""

import csv
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..data.pairs import Pair, Subject
from ..data.structures import Table, label_values, structures_of
from ..errors import InputError
from ..measures import deformation
from ..measures.overlap import dice, surface_distances
from ..measures.similarity import similarity
from ..preparation.prepare import from_zero, read_scan, scaled
from ..space.region import bounding_box
from ..space.resample import resample, resample_labels
from ..space.transform import Transform, Warp
from ..space.volume import Volume
from ..training.config import Structures
from .rows import Row

SMALLEST_REGION = 50  # voxels in both maps; less is noise

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Protocol:
    """What is counted, and how labels are carried.

    Args:
        structures: over which Dice and distances are averaged.
        regions: label values that Dice-regions is averaged over, where a map has at least
            50 voxels of each; None: all of them.
        labels: how they are resampled: "nearest" neighbour, or "linear", one value at a time.
    """

    structures: Table
    regions: Ranges | None = None
    labels: Literal["nearest", "linear"] = "nearest"

    def described(self) -> dict[str, Any]:
        """For records in JSON."""
        return {
            "structures": self.structures.names,
            "regions": "all" if self.regions is None else [list(r) for r in self.regions],
            "labels": self.labels,
        }


def ranges(text: str) -> Ranges:
    """Label values in words, such as ``4-41,44,47-62``.

    Raises:
        InputError: it is something else.
    """
    parts = [re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", x) for x in text.split(",")]
    found = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    if not all(parts) or any(low > high for low, high in found):
        raise InputError(f"regions {text!r}: label values are wanted, such as 4-41,44,47-62")
    return found


def protocol_of(
    pairs: Sequence[Pair],
    *,
    structures: str | os.PathLike[str] | Structures | None = None,
    regions: str | None = None,
    labels: Literal["nearest", "linear"] = "nearest",
) -> Protocol:
    """A protocol in words.

    Args:
        pairs: whose label values are the structures where none are named.
        structures: path of a CSV table with columns value and structure, or a training's.
        regions: see ``ranges``; None: all label values.
        labels: how they are resampled.

    Raises:
        InputError: one of these is wrong, or a label map cannot be read.
    """
    chosen = None if regions is None else ranges(regions)  # before any map is read
    if not isinstance(structures, Structures):
        structures = Structures(table=None if structures is None else os.fspath(structures))
    return Protocol(structures_of(structures, lambda split: values_of(pairs)), chosen, labels)


@dataclass(frozen=True, eq=False)
class Case:
    """A pair as it is read.

    Args:
        pair: which.
        moving, fixed: the scans.
        moving_labels, fixed_labels: their label maps, if both have one.
        brain: (X, Y, Z) boolean mask on the fixed grid.
    """

    pair: Pair
    moving: Volume
    fixed: Volume
    moving_labels: Volume | None
    fixed_labels: Volume | None
    brain: np.ndarray


@dataclass(frozen=True, eq=False)
class Found:
    """What a method found.

    Args:
        transform: points of the fixed scan to the moving scan, RAS mm.
        warp: its deformable part, on the fixed grid.
        inverse: points of the moving scan to the fixed scan, where the method gives them.
    """

    transform: Transform
    warp: Warp
    inverse: Transform | None = None


def read_case(pair: Pair, brain: np.ndarray | None = None) -> Case:
    """Read the scans and labels of a pair as ``register`` does; the last few are remembered.

    Args:
        pair: which.
        brain: mask on the grid of the fixed scan as it is read; by default all that is not 0.

    Raises:
        InputError: a file cannot be read, or labels are not on their scan's grid.
    """
    (moving, moving_labels), (fixed, fixed_labels) = _read(pair.moving), _read(pair.fixed)
    if moving_labels is None or fixed_labels is None:
        moving_labels = fixed_labels = None
    brain = from_zero(fixed).data > 0 if brain is None else brain
    return Case(pair, moving, fixed, moving_labels, fixed_labels, brain)


def _read(subject: Subject) -> tuple[Volume, Volume | None]:
    return _as_of(subject, *(_changed(path) for path in (subject.path, subject.labels) if path))


@lru_cache(maxsize=4)
def _as_of(subject: Subject, *changed: tuple[int, int] | None) -> tuple[Volume, Volume | None]:
    """What was in the files when they were changed last."""
    image, labels, _ = read_scan(subject.path, "", subject.labels)
    return image, labels


def _changed(path: Path) -> tuple[int, int] | None:
    """Time and size by which a file is told from an older one; None of one that is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def values_of(pairs: Sequence[Pair]) -> set[int]:
    """The label values in all label maps of the pairs."""
    subjects = {subject for pair in pairs for subject in (pair.moving, pair.fixed)}
    maps = (_read(subject)[1] for subject in sorted(subjects, key=lambda s: s.name))
    return set[int]().union(*(label_values(labels.data) for labels in maps if labels is not None))


# -------------------------------------------------------------------------------------- Numbers


def measure(
    case: Case, found: Found, protocol: Protocol, swapped: Transform | None = None
) -> tuple[Row, list[Row]]:
    """All numbers of a registration: of the pair, and of each structure.

    Args:
        case: the pair.
        found: what the method found.
        protocol: what is counted.
        swapped: what it found for the pair the other way round, to compare with.

    Returns:
        Columns of ``rows.PAIR_COLUMNS`` and of ``rows.STRUCTURE_COLUMNS``; times and words about
        the method are for the caller to add.
    """
    pair = case.pair
    about = {"kind": pair.kind, "moving": pair.moving.name, "fixed": pair.fixed.name}
    about |= {"labels": protocol.labels}
    row: Row = {
        "moving_person": pair.moving.person,
        "fixed_person": pair.fixed.person,
        "status": "ok",
    }
    row |= about | _of_field(found.warp, case.brain) | _of_images(case, found.transform)
    row["tre_mm"] = _landmark_error(pair, found.transform)
    for column, back in (("inverse_error_mm", found.inverse), ("consistency_mm", swapped)):
        if back is not None:
            error = deformation.inverse_error(found.transform, back, case.fixed.grid, case.brain)
            row[column] = error["mean"]
    overlap, structures = _of_labels(case, found.transform, protocol)
    return row | overlap, [about | structure for structure in structures]


def _of_field(warp: Warp, brain: np.ndarray) -> Row:
    jacobian = deformation.jacobian_statistics(warp, brain)
    return {
        "folds": jacobian["folds"],
        "folds_percent": jacobian["folds_percent"],
        "folds_any": jacobian["folds_any_difference"],
        "minimum_determinant": jacobian["minimum"],
        "std_log_jacobian": jacobian["std_log"],
        "nondiffeomorphic_percent": deformation.nondiffeomorphic_volume(warp, brain).percent,
    }


def _of_images(case: Case, transform: Transform) -> Row:
    moved = resample(from_zero(case.moving), case.fixed.grid, transform)
    box = bounding_box(case.brain)
    images = (
        torch.from_numpy(scaled(np.where(case.brain, x.data, 0)[box].astype(np.float32), 99.5))
        for x in (from_zero(case.fixed), moved)
    )
    return dict(similarity(*images))


def _of_labels(case: Case, transform: Transform, protocol: Protocol) -> tuple[Row, list[Row]]:
    if case.moving_labels is None or case.fixed_labels is None:
        return {}, []
    fixed, grid = case.fixed_labels, case.fixed.grid
    moved = resample_labels(case.moving_labels, grid, transform, interpolation=protocol.labels).data
    table, each = protocol.structures, dice(moved, fixed.data)
    a, b = (table.numbered(x) for x in (moved, fixed.data))
    overlap = dice(a, b)
    distances = surface_distances(a, b, grid.spacing, sorted(overlap))
    voxel = abs(np.linalg.det(grid.affine[:3, :3])) / 1000  # mL
    sizes = np.bincount(b.ravel(), minlength=len(table.names) + 1) * voxel
    structures: list[Row] = [
        {
            "structure": table.names[number - 1],
            "dice": overlap[number],
            "hd95_mm": distances[number].hausdorff_95,
            "surface_mm": distances[number].mean,
            "fixed_ml": float(sizes[number]),
        }
        for number in sorted(overlap)
    ]
    regions = _large_regions(case.moving_labels.data, fixed.data, protocol.regions)
    means = {c: _mean([s[c] for s in structures]) for c in ("dice", "hd95_mm", "surface_mm")}
    return means | {"dice_regions": _mean([each[value] for value in regions])}, structures


def _large_regions(moving: np.ndarray, fixed: np.ndarray, regions: Ranges | None) -> list[int]:
    """The label values that count, by their voxels before anything is warped."""
    both = label_values(moving) & label_values(fixed)
    if regions is not None:
        both = {v for v in both if any(low <= v <= high for low, high in regions)}
    sizes = [dict(zip(*np.unique(x, return_counts=True), strict=True)) for x in (moving, fixed)]
    return sorted(v for v in both if min(size[v] for size in sizes) >= SMALLEST_REGION)


def _mean(values: Sequence[float]) -> float:
    """Of the numbers among them; NaN of none."""
    there = [value for value in values if not math.isnan(value)]
    return float(np.mean(there)) if there else math.nan


def _landmark_error(pair: Pair, transform: Transform) -> float:
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
    return float(deformation.target_registration_errors(transform, *points).mean())


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
