"""Brains for tests, made of the MNI152 template by closed forms: scans, heads, label maps."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxwarp.preparation.template import mni152
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume

# The brain of MNI152 and a margin of about a centimetre: middle and extent, mm, R, A, S.
CENTER = np.array([0.0, -17.0, 5.0])
EXTENT = np.array([160.0, 196.0, 172.0])
# Label values as tools have them: small, FreeSurfer's thousands, more than 15 bits.
VALUES = np.array([2, 7, 17, 53, 1003, 2035, 12144, 40000])

WORLD = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1)}
WORLD["I"] = (0, 0, -1)


def make_grid(
    axes: str = "RAS",
    spacing: float | tuple[float, float, float] = 4.0,
    turn: tuple[float, float, float] = (0, 0, 0),
    shear: float = 0.0,
    room: float = 0.0,
) -> Grid:
    """A grid around the phantom brain.

    Args:
        axes: the world direction of each voxel axis before turning.
        spacing: mm along the voxel axes.
        turn: degrees about R, A and S.
        shear: how much of the second axis is added to the first.
        room: mm on all sides, beyond what a brain needs: a head wants 25, but for the neck.
    """
    steps = np.broadcast_to(np.asarray(spacing, dtype=float), 3)
    columns = np.array([WORLD[letter] for letter in axes], dtype=float).T  # (world, voxel)
    shape = np.ceil(np.abs(columns).T @ (EXTENT + 2 * room) / steps).astype(int) + 1
    columns = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ columns
    columns[:, 0] += shear * columns[:, 1]
    affine = np.eye(4)
    affine[:3, :3] = columns * steps
    affine[:3, 3] = CENTER - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(shape.tolist(), affine)


@dataclass(frozen=True)
class Pose:
    """Another head: phantom(x) = brain(M(x)), M an affine after a smooth displacement, RAS mm."""

    turn: tuple[float, float, float] = (0, 0, 0)
    zoom: float = 1.0
    shift: tuple[float, float, float] = (0, 0, 0)
    bend: float = 0.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        waves = np.sin(np.roll(points, 1, axis=-1) / 23 + np.array([0.3, 1.1, 2.0]))
        matrix = self.zoom * Rotation.from_euler("xyz", self.turn, degrees=True).as_matrix()
        centered = points + self.bend * waves - CENTER
        return centered @ matrix.T + CENTER + np.asarray(self.shift)


UPRIGHT = Pose()
OTHER = Pose(turn=(4, -3, 6), zoom=1.04, shift=(3, -4, 5), bend=3.0)


# What is around the brain, mm away from it at most: fluid, bone, skin and fat; as in T1.
SHELLS = {3.0: 25.0, 8.0: 12.0, 15.0: 230.0}
FLESH = 90.0  # of the neck


class Phantoms:
    """Brains made of the MNI152 template by closed forms, none of voxwarp's interpolation."""

    def __init__(self) -> None:
        image = nib.load(mni152().path)
        data = np.asarray(image.dataobj, dtype=np.float32)
        self.data = ndimage.gaussian_filter(data, 1.2)  # coarse grids sample this
        self.data[ndimage.uniform_filter(data, 5) < 20] = 0
        self.world_to_voxel = np.linalg.inv(image.affine)
        # Distance from the brain, mm, on every second voxel and 40 mm beyond the template.
        self.beyond = 40
        brain = np.pad(self.data > 0, self.beyond)[::2, ::2, ::2]
        self.distance = 2 * ndimage.distance_transform_edt(~brain).astype(np.float32)
        #: Of a box that holds the upright brain, RAS mm.
        self.corners = CENTER + EXTENT / 2 * [*itertools.product((-1, 1), repeat=3)]
        #: The template at 4 mm: the affine stage with it takes a few tenths of a second.
        grid = make_grid().in_space(4)  # MNI152
        self.template = Volume(self.values(grid), grid, "template at 4 mm")

    def stand_in_for_mni152(self, patch: pytest.MonkeyPatch) -> None:
        """The template at 4 mm in the place of MNI152: an affine stage of 0.2 s instead of 2."""
        patch.setitem(mni152().__dict__, "image", self.template)
        patch.setitem(mni152().__dict__, "sha256", "of the template at 4 mm")

    def values(self, grid: Grid, pose: Callable[[np.ndarray], np.ndarray] = UPRIGHT) -> np.ndarray:
        """Intensities from 0 to about 255, float32; ``pose`` leads to the template's space."""
        at = pose(grid.nodes()) @ self.world_to_voxel[:3, :3].T + self.world_to_voxel[:3, 3]
        return ndimage.map_coordinates(self.data, np.moveaxis(at, -1, 0), order=1)

    def moved(self, motion: Affine, spacing: float = 4.0, inverted: bool = False) -> Volume:
        """The upright brain after a motion of space, on an upright grid with room around it.

        ``inverted`` turns bright into dark inside the brain, as in another contrast.
        """
        box = motion.map(self.corners)
        low, high = box.min(axis=0) - 4 * spacing, box.max(axis=0) + 4 * spacing
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = low
        grid = Grid((np.ceil((high - low) / spacing).astype(int) + 1).tolist(), affine)
        values = self.values(grid, motion.inverse().map)
        return Volume(np.where(values > 0, 260 - values, 0) if inverted else values, grid)

    def image(self, grid: Grid, pose: Pose = UPRIGHT, dtype: type = np.float32) -> nib.Nifti1Image:
        """The brain as a scan on ``grid``."""
        return nifti(stored(self.values(grid, pose), dtype), grid)

    def head(
        self, grid: Grid, pose: Pose = UPRIGHT, dtype: type = np.float32, noise: float = 0.0
    ) -> nib.Nifti1Image:
        """A head as a scan on ``grid``; its brain is where ``values(grid, pose)`` are not zero.

        Around it are fluid, bone, skin, and a neck that goes on to the border of the scan.
        ``noise`` is the deviation of what the receiver adds, everywhere, to both its channels.
        """
        brain, points = self.values(grid, pose), pose(grid.nodes())
        at = points @ self.world_to_voxel[:3, :3].T + self.world_to_voxel[:3, 3] + self.beyond
        away = ndimage.map_coordinates(
            self.distance, np.moveaxis(at / 2, -1, 0), order=1, mode="nearest"
        )
        x, y, z = np.moveaxis(points - CENTER, -1, 0)
        neck = ((x / 55) ** 2 + ((y + 15) / 60) ** 2 < 1) & (z < -30)
        values = np.where(neck, FLESH, 0.0)
        for reach, brightness in reversed(SHELLS.items()):
            values = np.where(away < reach, brightness, values)
        values = np.where(brain > 0, brain, values)
        if noise:
            real, imaginary = np.random.default_rng(3).normal(0, noise, (2, *grid.shape))
            values = np.hypot(values + real, imaginary)
        return nifti(stored(values, dtype), grid)

    def labels(self, grid: Grid, pose: Pose = UPRIGHT, dtype: type = np.int32) -> nib.Nifti1Image:
        """The brain's octants, one of ``VALUES`` each, 0 outside."""
        right, front, up = np.moveaxis(pose(grid.nodes()) > CENTER, -1, 0)
        octant = VALUES[4 * right + 2 * front + up]
        return nifti(np.where(self.values(grid, pose) > 40, octant, 0).astype(dtype), grid)


def stored(values: np.ndarray, dtype: type) -> np.ndarray:
    """Intensities of up to about 255 in another type; integers of 16 bits and more are finer."""
    if np.issubdtype(dtype, np.integer):
        values = np.rint(values * (1 if np.dtype(dtype).itemsize == 1 else 4))
    return values.astype(dtype)


def nifti(data: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """An image in memory with both affines in its header."""
    image = nib.Nifti1Image(data, None, dtype=data.dtype)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    return image
