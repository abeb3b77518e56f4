"""Score the registration of a pair: every number that an evaluation reports."""

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
from .landmarks import landmark_error
from .loaded_pair import LoadedPair
from .protocol import Protocol, Ranges
from .rows import Row

#: Voxels that a region must have in both maps, before warping, to count in ``dice_regions``; set by
#: hand, because the Dice of smaller regions is mostly noise.
SMALLEST_REGION = 50


@dataclass(frozen=True, eq=False)
class ScoredTransform:
    """The result of a method for one pair.

    Args:
        transform: maps points of the fixed scan to the moving scan, RAS mm.
        warp: its deformable part, on the fixed grid.
        inverse: maps points of the moving scan to the fixed scan, if the method has an inverse.
    """

    transform: Transform
    warp: Warp
    inverse: Transform | None = None


def score_registration(
    loaded: LoadedPair,
    scored: ScoredTransform,
    protocol: Protocol,
    *,
    reverse: Transform | None = None,
) -> tuple[Row, list[Row]]:
    """Score a registration: numbers of the pair, and of each structure.

    Args:
        loaded: the images of the pair.
        scored: the method's result.
        protocol: which structures count, and how labels are resampled.
        reverse: the method's transform for the pair in the other direction (moving and fixed
            exchanged), for the consistency of the two.

    Returns:
        The row of the pair (``rows.PAIR_COLUMNS``) and those of its structures
        (``rows.STRUCTURE_COLUMNS``), without the method's name, times and device.
    """
    pair = loaded.pair
    about = {"kind": pair.kind, "moving": pair.moving.name, "fixed": pair.fixed.name}
    about |= {"labels": protocol.labels}
    row: Row = {
        "moving_subject": pair.moving.subject,
        "fixed_subject": pair.fixed.subject,
        "status": "ok",
    }
    transform, grid = scored.transform, loaded.fixed.grid
    row |= about | _regularity(scored.warp, loaded.brain) | _similarity(loaded, transform)
    row["tre_mm"] = landmark_error(pair, transform)
    for column, back in (("inverse_error_mm", scored.inverse), ("consistency_mm", reverse)):
        if back is not None:
            error = deformation.inverse_error(transform, back, grid, loaded.brain)
            row[column] = error["mean"]
    overlap, structures = _overlap(loaded, transform, protocol)
    return row | overlap, [about | structure for structure in structures]


def _regularity(warp: Warp, brain: np.ndarray) -> Row:
    jacobian = deformation.jacobian_statistics(warp, brain)
    return {
        "folds": jacobian["folds"],
        "folds_percent": jacobian["folds_percent"],
        "folds_any": jacobian["folds_any_difference"],
        "minimum_determinant": jacobian["minimum"],
        "std_log_jacobian": jacobian["std_log"],
        "nondiffeomorphic_percent": deformation.nondiffeomorphic_volume(warp, brain).percent,
    }


def _similarity(loaded: LoadedPair, transform: Transform) -> Row:
    moved = resample(from_zero(loaded.moving), loaded.fixed.grid, transform)
    brain, box = loaded.brain, bounding_box(loaded.brain)
    moved_image, fixed_image = (
        # Intensities scaled to [0, 1] by their 99.5th percentile, as for the networks.
        torch.from_numpy(scaled(np.where(brain, x.data, 0)[box].astype(np.float32), 99.5))
        for x in (moved, from_zero(loaded.fixed))
    )
    return dict(similarity(moved=moved_image, fixed=fixed_image))


def _overlap(loaded: LoadedPair, transform: Transform, protocol: Protocol) -> tuple[Row, list[Row]]:
    moving, fixed, grid = loaded.moving_labels, loaded.fixed_labels, loaded.fixed.grid
    if moving is None or fixed is None:
        return {}, []
    moved = resample_labels(moving, grid, transform, interpolation=protocol.labels).data
    table, of_values = protocol.structures, dice(moved, fixed.data)
    moved_numbers, fixed_numbers = (table.numbered(x) for x in (moved, fixed.data))
    overlap = dice(moved_numbers, fixed_numbers)
    distances = surface_distances(
        grid.spacing, sorted(overlap), moved=moved_numbers, fixed=fixed_numbers
    )
    voxel = abs(np.linalg.det(grid.affine[:3, :3])) / 1000  # mL
    sizes = np.bincount(fixed_numbers.ravel(), minlength=len(table.names) + 1) * voxel
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
    regions = _large_regions(moving.data, fixed.data, protocol.regions)
    means = {c: _mean([s[c] for s in structures]) for c in ("dice", "hd95_mm", "surface_mm")}
    return means | {"dice_regions": _mean([of_values[value] for value in regions])}, structures


def _large_regions(moving: np.ndarray, fixed: np.ndarray, regions: Ranges | None) -> list[int]:
    """The label values that count, by their number of voxels before anything is warped."""
    shared = label_values(moving) & label_values(fixed)
    if regions is not None:
        shared = {v for v in shared if any(low <= v <= high for low, high in regions)}
    sizes = [dict(zip(*np.unique(x, return_counts=True), strict=True)) for x in (moving, fixed)]
    return sorted(v for v in shared if min(size[v] for size in sizes) >= SMALLEST_REGION)


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN if all are."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
