"""The lattice that a training works on: what was asked for, or as large as the scans want it."""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from ..data.scans import ScanRecord
from ..errors import InputError
from ..preparation.recipe import WORKING_GRID, Recipe, alignment_named
from ..preparation.template import Template, mni152
from ..space.grid import Grid
from ..space.region import bounding_box, start_and_shape
from ..space.image_file import image_grid
from .config import Config

_log = logging.getLogger(__name__)

MULTIPLE = 16  # voxels: networks halve the lattice several times
LARGEST = 1 << 28  # voxels of a lattice that follows from the scans; a larger one is a mistake


def recipe_of(config: Config, scans: Iterable[ScanRecord]) -> Recipe:
    """How the scans become the network's input; looks at their headers where it has to.

    Raises:
        InputError: the lattice is to be as large as the scans, and none can be read, or they
            want one that is larger than any network takes.
    """
    wanted = config.preparation
    spacing, shape = wanted.spacing, wanted.shape
    paths = [scan.path for scan in scans]
    if config.sampling.atlas not in (None, "template"):
        paths.append(Path(str(config.sampling.atlas)))
    alignment = alignment_named(wanted.alignment)
    if alignment is mni152():
        grid = _mni_lattice(spacing, shape, max(phase.downsample for phase in config.phases))
    elif isinstance(alignment, Template):
        grid = _around_brain(alignment, spacing, shape)
    elif alignment == "centre":
        size = np.array(shape) if shape else _rounded_up(_extents(paths) / spacing)
        grid = _lattice(size, spacing, -(size - 1) / 2 * spacing)
    else:
        low, high = _union(paths)
        least = _voxels((high - low) / spacing)
        size = np.array(shape) if shape else _rounded_up(least)
        # By whole voxels: scans that share a lattice of this spacing are not interpolated.
        grid = _lattice(size, spacing, low + (0.5 - (size - least) // 2) * spacing)
    return Recipe(grid, wanted.percentile, alignment)


def _mni_lattice(spacing: float, shape: Sequence[int] | None, multiple: int) -> Grid:
    """The working grid with voxels of another size or number, around the same point.

    Where no shape is wanted, the sides are multiples of what the phases average over.
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


def _around_brain(template: Template, spacing: float, shape: Sequence[int] | None) -> Grid:
    """A lattice around the middle of a template's brain; where no shape is wanted, it holds it."""
    brain = start_and_shape(bounding_box(template.image.data > 0, margin=0))
    low, high = _reach(template.grid.crop(*brain))
    size = np.array(shape) if shape else _rounded_up((high - low) / spacing)
    return _lattice(size, spacing, (low + high) / 2 - (size - 1) / 2 * spacing)


def _lattice(size: np.ndarray, spacing: float, first: np.ndarray) -> Grid:
    """With axes R, A, S, from the centre of the first voxel on."""
    if math.prod(size.tolist()) > LARGEST:
        raise InputError(
            f"preparation: the scans want a lattice of {'×'.join(map(str, size))} voxels; give "
            f"its shape, or a larger spacing"
        )
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = first
    return Grid(size.tolist(), affine)


def _voxels(extent: np.ndarray) -> np.ndarray:
    """So many that they cover an extent in voxels; headers round to seven digits."""
    return np.maximum(np.ceil(extent - 1e-3).astype(int), 1)


def _rounded_up(extent: np.ndarray) -> np.ndarray:
    return -(-_voxels(extent) // MULTIPLE) * MULTIPLE


def _extents(paths: Iterable[Path]) -> np.ndarray:
    """Of the largest scan along each axis of the world, mm."""
    return np.max([high - low for low, high in _boxes(paths)], axis=0)


def _union(paths: Iterable[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The box that holds all scans, mm."""
    boxes = np.array(_boxes(paths))
    return boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)


def _boxes(paths: Iterable[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """``_reach`` of each scan."""
    boxes = []
    for path in paths:
        try:
            boxes.append(_reach(image_grid(cast(SpatialImage, nib.load(path)), path, "image")))
        except Exception as error:  # it is named by whoever reads it whole
            _log.info("%s does not count for the lattice: %s", path, error)
    if not boxes:
        raise InputError("preparation: none of the scans' headers can be read for the lattice")
    return boxes


def _reach(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """From where to where a grid reaches, outer faces of its voxels, mm."""
    faces = grid.corners() + np.sign(grid.corners() - 0.5) / 2
    corners = grid.to_world(faces)
    return corners.min(axis=0), corners.max(axis=0)
