"""The working grid of a training: as configured, or as large as the scans."""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..data.scans import ScanRecord
from ..errors import InputError
from ..preparation.recipe import WORKING_GRID, Recipe, alignment_named
from ..preparation.template import Template, mni152
from ..space.grid import Grid
from ..space.region import bounding_box, start_and_shape
from ..space.volume import read_placement
from .config import Config

_log = logging.getLogger(__name__)

MULTIPLE = 16  # voxels; sides are multiples, because networks halve the grid up to four times
# Voxels of a grid that follows from the scans. Set by hand: a larger grid is taken for a mistake
# (one image of it has 1 GB).
LARGEST = 1 << 28


def recipe_of(config: Config, scans: Iterable[ScanRecord]) -> Recipe:
    """How the scans become the input of the network; reads their headers if it needs them.

    Args:
        config: configuration of the training.
        scans: the scans, whose extent decides about the grid of some alignments.

    Raises:
        InputError: the grid depends on the scans, and none of them can be read or the grid would
            be too large.
    """
    settings = config.preparation
    spacing, shape = settings.spacing, settings.shape
    paths = [scan.path for scan in scans]
    if config.sampling.atlas not in (None, "template"):
        paths.append(Path(str(config.sampling.atlas)))
    alignment = alignment_named(settings.alignment)
    if alignment is mni152():
        grid = _mni152_grid(spacing, shape, max(phase.downsample for phase in config.phases))
    elif isinstance(alignment, Template):
        grid = _grid_around_brain(alignment, spacing, shape)
    elif alignment == "centre":
        size = np.array(shape) if shape else _rounded_up(_extents(paths) / spacing)
        grid = _aligned_grid(size, spacing, -(size - 1) / 2 * spacing)
    else:
        low, high = _union(paths)
        least = _voxels((high - low) / spacing)
        size = np.array(shape) if shape else _rounded_up(least)
        # Padded by whole voxels, so that scans on one grid of this spacing are not interpolated.
        grid = _aligned_grid(size, spacing, low + (0.5 - (size - least) // 2) * spacing)
    return Recipe(grid, settings.percentile, alignment)


def _mni152_grid(spacing: float, shape: Sequence[int] | None, multiple: int) -> Grid:
    """The working grid of MNI152 with voxels of another size or number, around the same point.

    Without a shape, the sides are multiples of the largest averaging factor of the phases.
    """
    if spacing == 1 and shape is None:
        return WORKING_GRID
    extent = np.asarray(WORKING_GRID.shape) / spacing
    size = np.array(shape) if shape else -(-_voxels(extent) // multiple) * multiple
    affine = WORKING_GRID.affine.copy()
    affine[:3, :3] *= spacing
    middle = WORKING_GRID.to_world((np.asarray(WORKING_GRID.shape) - 1) / 2)
    affine[:3, 3] = middle - affine[:3, :3] @ ((size - 1) / 2)
    return Grid(size.tolist(), affine)


def _grid_around_brain(template: Template, spacing: float, shape: Sequence[int] | None) -> Grid:
    """A grid around the middle of a template's brain; without a shape, it holds the brain."""
    brain = start_and_shape(bounding_box(template.image.data > 0, margin=0))
    low, high = _reach(template.grid.crop(*brain))
    size = np.array(shape) if shape else _rounded_up((high - low) / spacing)
    return _aligned_grid(size, spacing, (low + high) / 2 - (size - 1) / 2 * spacing)


def _aligned_grid(size: np.ndarray, spacing: float, first: np.ndarray) -> Grid:
    """A grid with axes R, A, S; ``first`` is the centre of its first voxel."""
    if math.prod(size.tolist()) > LARGEST:
        raise InputError(
            f"preparation: the scans would need a working grid of {'×'.join(map(str, size))} "
            f"voxels, which is too large; set preparation.shape or a larger preparation.spacing"
        )
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = first
    return Grid(size.tolist(), affine)


def _voxels(extent: np.ndarray) -> np.ndarray:
    """Whole numbers of voxels that cover an extent; 1e-3 allows for rounding in headers."""
    return np.maximum(np.ceil(extent - 1e-3).astype(int), 1)


def _rounded_up(extent: np.ndarray) -> np.ndarray:
    return -(-_voxels(extent) // MULTIPLE) * MULTIPLE


def _extents(paths: Iterable[Path]) -> np.ndarray:
    """The largest extent of the scans along each world axis, mm."""
    return np.max([high - low for low, high in _boxes(paths)], axis=0)


def _union(paths: Iterable[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest world coordinates of all scans, mm."""
    boxes = np.array(_boxes(paths))
    return boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)


def _boxes(paths: Iterable[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """``_reach`` of each scan that can be read."""
    boxes = []
    for path in paths:
        try:
            boxes.append(_reach(read_placement(path).grid))
        except Exception as error:  # reading the whole scan will report it
            _log.info("%s is ignored in the size of the working grid: %s", path, error)
    if not boxes:
        raise InputError(
            "preparation: the size of the working grid depends on the scans, but none of their "
            "headers can be read; set preparation.shape"
        )
    return boxes


def _reach(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest world coordinates of a grid, at the faces of its voxels, mm."""
    faces = grid.corners() + np.sign(grid.corners() - 0.5) / 2
    corners = grid.to_world(faces)
    return corners.min(axis=0), corners.max(axis=0)
