"""Slices of volumes in the three anatomical planes, joined side by side to mosaics."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from ..fields.field import Padding
from ..space.grid import Grid, canonical_axes
from ..space.region import bounding_box
from ..space.resample import Interpolation, resample
from ..space.transform import Displacement, Transform
from ..space.volume import Volume

#: The axes of each plane, where 0 is right, 1 anterior and 2 superior: to the right of the picture,
#: upwards, and from slice to slice.
PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
# Set by hand.
COLUMNS = 7  # slices per plane, side by side
MOST_PIXELS = 200  # along the longest side of a slice
MARGIN = 12.0  # mm around the region that is shown

Mosaic = dict[str, np.ndarray]  # for each plane (height, width, ...): its slices, left to right


@dataclass(frozen=True)
class Slices:
    """The positions of slices, in the neurological convention (left is left).

    Args:
        grids: the grid of each plane, with axes (to the right, upwards, slice); pixels are square,
            and have the same size in all planes.
    """

    grids: Mapping[str, Grid]

    @classmethod
    def through(cls, grid: Grid, region: np.ndarray, *, columns: int = COLUMNS) -> "Slices":
        """Place evenly spaced slices through a region, along the axes of the grid.

        Args:
            grid: of the volume; it may be oblique.
            region: (X, Y, Z) boolean mask on the grid; if it is empty, the whole grid.
            columns: number of slices per plane; thin regions have fewer.
        """
        order = np.argsort(canonical_axes(grid.affine))
        steps = grid.affine[:3, order]  # one voxel to the right, to the front and up
        steps = steps * np.sign(np.diag(steps))
        along = steps / np.linalg.norm(steps, axis=0)
        low, high = _extent(grid, region, along)
        first, last = _extent(grid, np.ones(grid.shape, bool), along)
        margin = np.minimum(MARGIN, 0.1 * (high - low))
        start, end = np.maximum(low - margin, first), np.minimum(high + margin, last)
        pixel = max(min(grid.spacing), float((end - start).max()) / MOST_PIXELS)
        spacing = np.asarray(grid.spacing)[order]
        grids = {}
        for plane, (u, v, w) in PLANES.items():
            number = max(1, min(columns, int((high - low)[w] / spacing[w] + 1e-3)))
            at = low[w] + (high - low)[w] * (np.arange(number) + 1) / (number + 1)
            affine = np.eye(4)
            apart = at[1] - at[0] if number > 1 else spacing[w]
            affine[:3, :3] = along[:, [u, v, w]] * [pixel, pixel, apart]
            origin = np.zeros(3)
            origin[[u, v, w]] = start[u], start[v], at[0]
            affine[:3, 3] = np.linalg.solve(along.T, origin)
            sides = [int((end - start)[axis] / pixel + 1e-3) + 1 for axis in (u, v)]
            grids[plane] = Grid((max(2, sides[0]), max(2, sides[1]), number), affine)
        return cls(grids)

    @classmethod
    def through_head(cls, volume: Volume, *, columns: int = COLUMNS) -> "Slices":
        """Place slices through a head: through all voxels above a tenth of the bright ones."""
        threshold = 0.1 * float(np.percentile(volume.data[::4, ::4, ::4], 99))
        return cls.through(volume.grid, volume.data > threshold, columns=columns)

    @property
    def columns(self) -> dict[str, int]:
        """Number of slices in each plane."""
        return {plane: grid.shape[2] for plane, grid in self.grids.items()}

    def sample(
        self,
        volume: Volume,
        transform: Transform | None = None,
        *,
        interpolation: Interpolation = "linear",
        padding: Padding = "zeros",
        background: float = 0.0,
        finer: int = 1,
    ) -> Mosaic:
        """Sample a volume on the slices, see ``resample``.

        With ``finer``, each pixel is divided into ``finer``² pixels.
        """
        return {
            plane: side_by_side(
                resample(
                    volume,
                    fine(grid, finer),
                    transform,
                    interpolation=interpolation,
                    padding=padding,
                    background=background,
                ).data
            )
            for plane, grid in self.grids.items()
        }

    def mark(self, points: np.ndarray) -> Mosaic:
        """Mark points (N, 3), RAS mm, with 1 on the nearest slice of each plane, 3 pixels wide."""
        marks = {}
        for plane, pixels in self.grids.items():
            last = np.asarray(pixels.shape) - 1
            at = np.clip(np.rint(pixels.to_voxel(points)), 0, last).astype(int)
            hit = np.zeros(pixels.shape, bool)
            hit[tuple(at.T)] = True
            wide = ndimage.binary_dilation(hit, np.ones((3, 3, 1), bool))
            marks[plane] = side_by_side(wide).astype(np.uint8)
        return marks


class SampledTransform:
    """A transform that is evaluated once at the pixels of slices, for all panels.

    At finer pixels, its displacement is interpolated.

    Args:
        transform: the transform.
        slices: where it is evaluated.
    """

    def __init__(self, transform: Transform, slices: Slices):
        self.transform = transform
        self._displacements = {g: _displacement(transform, g) for g in slices.grids.values()}

    def map(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 3), RAS mm."""
        return self.transform.map(points)

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """Map the pixels of a plane with first <= i < last; the plane may have finer pixels."""
        displacement = self.at_nodes(grid)[:, first:last]
        return grid.nodes(first, last) + np.moveaxis(displacement, 0, -1)

    def at_nodes(self, grid: Grid) -> np.ndarray:
        """The displacement at the pixels of a plane, (3, ...) float32, mm."""
        known = self._displacements
        if grid not in known:
            coarse = next(
                g for g in known if g.shape[0] <= grid.shape[0] and grid == _finer_like(g, grid)
            )
            finer = torch.nn.functional.interpolate(
                torch.from_numpy(known[coarse]).permute(0, 3, 1, 2),
                size=grid.shape[:2],
                mode="bilinear",
                align_corners=False,
            )
            known[grid] = finer.permute(0, 2, 3, 1).contiguous().numpy()
        return known[grid]


def _displacement(transform: Transform, grid: Grid) -> np.ndarray:
    """The displacement of a transform at the voxel centres of a grid, (3, X, Y, Z) float32, mm."""
    if isinstance(transform, Displacement) and (known := transform.at_nodes(grid)) is not None:
        return known
    moved = transform.map_nodes(grid, 0, grid.shape[0])
    return np.ascontiguousarray(np.moveaxis(moved - grid.nodes(), -1, 0), np.float32)


def _finer_like(coarse: Grid, grid: Grid) -> Grid:
    """A plane's grid with as many pixels as another one has."""
    return fine(coarse, grid.shape[0] // coarse.shape[0])


def _extent(grid: Grid, region: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest coordinates of a region's voxels along three directions, mm."""
    box = bounding_box(region, margin=0)
    ends = [[side.start for side in box], [side.stop - 1 for side in box]]
    reach = grid.to_world(np.array(ends, dtype=float)) @ along
    return reach.min(axis=0), reach.max(axis=0)


def fine(grid: Grid, finer: int) -> Grid:
    """A plane's grid with each pixel divided into ``finer``² pixels."""
    if finer == 1:
        return grid
    affine = grid.affine.copy()
    affine[:3, :2] /= finer
    affine[:3, 3] = grid.to_world(np.array([0.5 / finer - 0.5, 0.5 / finer - 0.5, 0]))
    return Grid((grid.shape[0] * finer, grid.shape[1] * finer, grid.shape[2]), affine)


def side_by_side(slices: np.ndarray) -> np.ndarray:
    """Join slices (to the right, upwards, slice) to one picture, whose first row is the top."""
    return np.concatenate(list(np.moveaxis(slices, 2, 0)[:, :, ::-1].transpose(0, 2, 1)), axis=1)


def values_inside(mosaic: Mosaic, inside: Mosaic) -> np.ndarray:
    """The values (N,) of the pixels inside, in all planes."""
    return np.concatenate([mosaic[p][inside[p]] for p in PLANES])


def interpolable(volume: Volume) -> Volume:
    """Convert a volume to a type that can be interpolated, once for all of its pictures."""
    if volume.data.dtype == np.float32:
        return volume
    return Volume(volume.data.astype(np.float32), volume.grid)
