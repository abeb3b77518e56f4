"""How well the structures of two label maps coincide: Dice, distances of their surfaces."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..space.region import bounding_box


class SurfaceDistance(NamedTuple):
    """How far apart the surfaces of one structure in two label maps are, mm.

    Args:
        hausdorff_95: the larger of the two directed 95th percentiles.
        mean: over both surfaces together.
    """

    hausdorff_95: float
    mean: float


def dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    """2|A∩B| / (|A| + |B|) of every label value that is in either map, but 0.

    Args:
        a, b: integer arrays of one shape.
    """
    labelled = (a != 0) | (b != 0)
    a, b = a[labelled], b[labelled]
    values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    first, second = codes[: a.size], codes[a.size :]
    sizes = np.bincount(first, minlength=len(values)) + np.bincount(second, minlength=len(values))
    shared = np.bincount(first[first == second], minlength=len(values))
    return {
        int(value): float(2 * both / size)
        for value, both, size in zip(values, shared, sizes, strict=True)
        if value != 0
    }


def surface_distances(
    spacing: Sequence[float],
    numbers: Iterable[int],
    *,
    moved: np.ndarray,
    fixed: np.ndarray,
) -> dict[int, SurfaceDistance]:
    """Symmetric distances in mm between the surfaces of the structures of two label maps.

    A surface is that of Nikolov et al. (doi:10.2196/26151) and their library surface-distance: a
    surfel at the middle of every block of 2³ voxels that is part inside and part outside, weighted
    by the area that marching cubes gives it. What touches the border of the array has a surface
    there. From each surfel the nearest of the other surface is looked for. ``hausdorff_95`` is
    the larger of the two directed 95th percentiles (by area). ``mean`` is over the surfels of
    both surfaces together: the average symmetric surface distance of Heimann et al.
    (doi:10.1109/TMI.2009.2013851), by area.

    MONAI and MedPy have points at the centres of those voxels inside that touch the outside by a
    face, and no areas. Surfels lie closer together, on both sides of a slanted surface: of balls
    one in the other the mean is short by half a voxel, MONAI's by a quarter. 95th percentiles
    differ less than a voxel.

    Args:
        moved: (X, Y, Z) structure numbers.
        fixed: the same on the same grid.
        spacing: of its voxels, mm.
        numbers: the structures to look at, from 1.

    Returns:
        By number; NaN where one of the maps lacks the structure. What both lack is left out.

    Raises:
        ValueError: the maps are not of one shape.
    """
    from surface_distance import lookup_tables

    if moved.shape != fixed.shape:
        raise ValueError(f"moved must have the shape of fixed, {fixed.shape}, got {moved.shape}")
    areas = lookup_tables.create_table_neighbour_code_to_surface_area([float(s) for s in spacing])
    box = bounding_box((moved != 0) | (fixed != 0))
    moved, fixed = moved[box], fixed[box]
    found = {}
    for number in numbers:
        masks = moved == number, fixed == number
        present = [bool(mask.any()) for mask in masks]
        if all(present):
            box = bounding_box(masks[0] | masks[1], margin=0)
            found[number] = _surface_distance(masks[0][box], masks[1][box], spacing, areas)
        elif any(present):
            found[number] = SurfaceDistance(np.nan, np.nan)
    return found


def _surface_distance(
    a: np.ndarray, b: np.ndarray, spacing: Sequence[float], areas: np.ndarray
) -> SurfaceDistance:
    """Of two masks, neither of them empty; ``areas`` of a surfel in mm² by its neighbour code.

    As the library has it, whose own function sorts as Python does, which takes longer than all
    of this, and calls what SciPy 2 will not have.
    """
    codes = _neighbour_codes(a), _neighbour_codes(b)
    surfaces = [(code != 0) & (code != 255) for code in codes]
    away = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    percentiles, integral, total = [], 0.0, 0.0
    for code, surface, other in zip(codes, surfaces, reversed(away), strict=True):
        distance, area = other[surface], areas[code[surface]]
        order = np.argsort(distance)
        share = np.cumsum(area[order]) / area.sum()
        percentiles.append(float(distance[order][np.searchsorted(share, 0.95)]))
        integral, total = integral + distance @ area, total + area.sum()
    return SurfaceDistance(max(percentiles), float(integral / total))


def _neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """A bit for each voxel of every block of 2³, in the library's order; outside none is set."""
    from surface_distance import lookup_tables

    kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    return ndimage.correlate(np.pad(mask, 1).astype(np.uint8), kernel, mode="constant")
