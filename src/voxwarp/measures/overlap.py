"""Overlap of the structures of two label maps: Dice and surface distances."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..space.region import bounding_box


class SurfaceDistance(NamedTuple):
    """Distance between the surfaces of one structure in two label maps, mm.

    Args:
        hausdorff_95: the larger of the two directed 95th percentiles.
        mean: mean over both surfaces together.
    """

    hausdorff_95: float
    mean: float


def dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    """Dice, 2|A∩B| / (|A| + |B|), of every label in either map except 0.

    Args:
        a: integer array of any shape.
        b: integer array of the same shape.

    Returns:
        The Dice by label value.
    """
    labelled = (a != 0) | (b != 0)
    a, b = a[labelled], b[labelled]
    values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    first, second = codes[: a.size], codes[a.size :]
    sizes = np.bincount(first, minlength=len(values)) + np.bincount(second, minlength=len(values))
    shared = np.bincount(first[first == second], minlength=len(values))
    return {
        int(value): float(2 * overlap / size)
        for value, overlap, size in zip(values, shared, sizes, strict=True)
        if value != 0
    }


def surface_distances(
    spacing: Sequence[float],
    numbers: Iterable[int],
    *,
    moved: np.ndarray,
    fixed: np.ndarray,
) -> dict[int, SurfaceDistance]:
    """Symmetric surface distances in mm of the structures of two label maps.

    Surfaces are those of Nikolov et al. (doi:10.2196/26151) and their package surface-distance: a
    surfel in the middle of every block of 2³ voxels that is partly inside and partly outside,
    weighted by its area in marching cubes. A structure that touches the border of the array has a
    surface there. The distance of a surfel is that to the nearest surfel of the other surface.
    ``hausdorff_95`` is the larger of the two directed 95th percentiles, weighted by area. ``mean``
    is over the surfels of both surfaces together: the average symmetric surface distance of
    Heimann et al. (doi:10.1109/TMI.2009.2013851), weighted by area.

    MONAI and MedPy use points without areas instead: the centres of the inner voxels that touch
    the outside by a face. Surfels lie closer together, on both sides of a slanted surface. For a
    ball inside another, the mean is too small by half a voxel; MONAI's is by a quarter. The 95th
    percentiles differ by less than a voxel.

    Args:
        spacing: voxel spacing of both maps, mm.
        numbers: the structures to measure, from 1.
        moved: (X, Y, Z) structure numbers.
        fixed: (X, Y, Z) structure numbers on the same grid.

    Returns:
        The distances by structure number: NaN if only one of the maps has the structure, left out
        if neither has it.

    Raises:
        ValueError: the maps differ in shape.
    """
    from surface_distance import lookup_tables

    if moved.shape != fixed.shape:
        raise ValueError(f"moved must have the shape of fixed, {fixed.shape}, got {moved.shape}")
    areas = lookup_tables.create_table_neighbour_code_to_surface_area([float(s) for s in spacing])
    box = bounding_box((moved != 0) | (fixed != 0))
    moved, fixed = moved[box], fixed[box]
    distances = {}
    for number in numbers:
        masks = moved == number, fixed == number
        present = [bool(mask.any()) for mask in masks]
        if all(present):
            box = bounding_box(masks[0] | masks[1], margin=0)
            distances[number] = _surface_distance(masks[0][box], masks[1][box], spacing, areas)
        elif any(present):
            distances[number] = SurfaceDistance(np.nan, np.nan)
    return distances


def _surface_distance(
    a: np.ndarray, b: np.ndarray, spacing: Sequence[float], areas: np.ndarray
) -> SurfaceDistance:
    """The distance of two masks that are not empty; ``areas`` has mm² by neighbour code.

    This computes what the package surface-distance does. Its own function sorts in Python, which
    takes longer than all of this, and calls functions that SciPy 2 removes.
    """
    codes = _neighbour_codes(a), _neighbour_codes(b)
    surfaces = [(code != 0) & (code != 255) for code in codes]
    to_surface = [ndimage.distance_transform_edt(~s, sampling=spacing) for s in surfaces]
    percentiles, integral, total = [], 0.0, 0.0
    for code, surface, to_other in zip(codes, surfaces, reversed(to_surface), strict=True):
        distance, area = to_other[surface], areas[code[surface]]
        order = np.argsort(distance)
        share = np.cumsum(area[order]) / area.sum()
        percentiles.append(float(distance[order][np.searchsorted(share, 0.95)]))
        integral, total = integral + distance @ area, total + area.sum()
    return SurfaceDistance(max(percentiles), float(integral / total))


def _neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """For every block of 2³ voxels, one bit per voxel, in the package's order; 0 outside."""
    from surface_distance import lookup_tables

    kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    return ndimage.correlate(np.pad(mask, 1).astype(np.uint8), kernel, mode="constant")
