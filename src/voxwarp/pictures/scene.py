"""What is to be seen of a registration, and the slices of it that several panels show."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from ..space.transform import Affine, Chain, Transform, Warp
from ..space.volume import Volume
from .colours import window, windowed
from .contours import brightest_class, enlarged, interpolated, outline
from .slices import PLANES, Mosaic, Seen, Slices, interpolable, values_inside


@dataclass(frozen=True, eq=False)
class Scene:
    """What is to be seen of a registration.

    Args:
        fixed, moving: the scans.
        affine, warp: the fixed space to the moving space: x ↦ affine(warp(x)).
        brain: (X, Y, Z) boolean, the fixed brain on the fixed grid.
        masks: brains that were extracted or given, by role; None where the scan is a brain.
        labels, fixed_labels: label maps on the scans' grids, if they were given.
    """

    fixed: Volume
    moving: Volume
    affine: Affine
    warp: Warp
    brain: np.ndarray
    masks: Mapping[str, Volume | None]
    labels: Volume | None = None
    fixed_labels: Volume | None = None


class SlicedScene:
    """A scene in slices through the fixed brain; what is asked for is computed once.

    Args:
        scene: what is to be seen.

    Attributes:
        slices: where they lie.
        warp: the scene's, evaluated at their pixels.
        transform: fixed space to moving space, by that warp.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.slices = Slices.through(scene.fixed.grid, scene.brain)
        self.warp = Seen(scene.warp, self.slices)
        self.transform = Chain([self.warp, scene.affine])

    @cached_property
    def inside(self) -> Mosaic:
        """Whether a pixel is in the fixed brain."""
        brain = Volume(self.scene.brain.astype(np.uint8), self.scene.fixed.grid)
        return {p: m != 0 for p, m in self.slices.of(brain, interpolation="nearest").items()}

    @cached_property
    def fixed(self) -> Mosaic:
        """The fixed scan, from 0, black, to 1, white."""
        values = self._read(self.scene.fixed)
        return windowed(values, window(values, self.inside))

    @property
    def moved(self) -> Mosaic:
        """The moving scan after the whole transform, from 0 to 1."""
        return self._moved_and_before[0]

    @property
    def before(self) -> Mosaic:
        """The moving scan after the affine stage alone, on the scale of ``moved``."""
        return self._moved_and_before[1]

    @cached_property
    def outlines(self) -> Mosaic:
        """1 on the outlines of the fixed brain and of its brighter tissue, at finer pixels."""
        soft = Volume(self.scene.brain.astype(np.float32), self.scene.fixed.grid)
        brain = outline(interpolated(self.slices.of(soft)), 0.5)
        level = brightest_class(values_inside(self.fixed, self.inside))
        smooth = {p: ndimage.gaussian_filter(m, 0.6) for p, m in self.fixed.items()}
        tissue, inside = outline(interpolated(smooth), level), enlarged(self.inside)
        return {p: (brain[p] | (tissue[p] & inside[p])).astype(np.uint8) for p in PLANES}

    @cached_property
    def _moved_and_before(self) -> tuple[Mosaic, Mosaic]:
        moved = self._read(self.scene.moving, self.transform)
        before = self._read(self.scene.moving, self.scene.affine)
        shown = window(moved, self.inside)
        return windowed(moved, shown), windowed(before, shown)

    def _read(self, volume: Volume, through: Transform | None = None) -> Mosaic:
        return self.slices.of(interpolable(volume), through)
