"""How good a registration of a pair is: every number that an evaluation tells of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.structures import label_values
from ..measures import deformation
from ..measures.overlap import dice, surface_distances
from ..measures.similarity import similarity
from ..preparation.intensity import from_zero, scaled
from ..space.region import bounding_box
from ..space.resample import resample, resample_labels
from ..space.transform import Transform, Warp
from .case import Case
from .landmarks import landmark_error
from .protocol import Protocol, Ranges
from .rows import Row

SMALLEST_REGION = 50  # voxels in both maps; less is noise


@dataclass(frozen=True, eq=False)
class ScoredTransform:
    """What a method found.

    Args:
        transform: points of the fixed scan to the moving scan, RAS mm.
        warp: its deformable part, on the fixed grid.
        inverse: points of the moving scan to the fixed scan, where the method gives them.
    """

    transform: Transform
    warp: Warp
    inverse: Transform | None = None


def measure(
    case: Case, found: ScoredTransform, protocol: Protocol, swapped: Transform | None = None
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
        "moving_subject": pair.moving.subject,
        "fixed_subject": pair.fixed.subject,
        "status": "ok",
    }
    row |= about | _of_field(found.warp, case.brain) | _of_images(case, found.transform)
    row["tre_mm"] = landmark_error(pair, found.transform)
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
    fixed_image, moved_image = (
        torch.from_numpy(scaled(np.where(case.brain, x.data, 0)[box].astype(np.float32), 99.5))
        for x in (from_zero(case.fixed), moved)
    )
    return dict(similarity(moved=moved_image, fixed=fixed_image))


def _of_labels(case: Case, transform: Transform, protocol: Protocol) -> tuple[Row, list[Row]]:
    if case.moving_labels is None or case.fixed_labels is None:
        return {}, []
    fixed, grid = case.fixed_labels, case.fixed.grid
    moved = resample_labels(case.moving_labels, grid, transform, interpolation=protocol.labels).data
    table, each = protocol.structures, dice(moved, fixed.data)
    a, b = (table.numbered(x) for x in (moved, fixed.data))
    overlap = dice(a, b)
    distances = surface_distances(grid.spacing, sorted(overlap), moved=a, fixed=b)
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
