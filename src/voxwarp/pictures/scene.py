"""The data that the pictures show, and the slices that several panels share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import ndimage

from ..space.transform import Affine, Chain, Warp
from ..space.volume import Volume
from .colours import window, windowed
from .contours import brightest_class, enlarged, interpolated, outline
from .slices import PLANES, Mosaic, SampledTransform, Slices, interpolable, values_inside


@dataclass(frozen=True, eq=False)
class Scene:
    """The data of a registration that the pictures show.

    Args:
        fixed, moving: the scans.
        affine, warp: the transform from the fixed to the moving space is x ↦ affine(warp(x)).
        brain: the fixed brain on the fixed grid, (X, Y, Z) boolean.
        masks: the brain masks, given or extracted, of "fixed" and "moving"; None if the scan is a
            skull-stripped brain.
        labels, fixed_labels: label maps on the grids of the moving and the fixed scan, if given.
        lesions: masks of lesions of "moving" and "fixed", on their grids, if given.
    """

    fixed: Volume
    moving: Volume
    affine: Affine
    warp: Warp
    brain: np.ndarray
    masks: Mapping[str, Volume | None]
    labels: Volume | None = None
    fixed_labels: Volume | None = None
    lesions: Mapping[str, Volume | None] = field(default_factory=dict)


class SlicedScene:
    """Slices of a scene through the fixed brain; each mosaic is computed once, when it is needed.

    Args:
        scene: the data.

    Attributes:
        slices: the positions of the slices.
        warp: the scene's warp, evaluated at the pixels.
        transform: from the fixed to the moving space, with this warp.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.slices = Slices.through(scene.fixed.grid, scene.brain)
        self.warp = SampledTransform(scene.warp, self.slices)
        self.transform = Chain([self.warp, scene.affine])

    @cached_property
    def inside(self) -> Mosaic:
        """Whether a pixel is in the fixed brain."""
        brain = Volume(self.scene.brain.astype(np.uint8), self.scene.fixed.grid)
        return {p: m != 0 for p, m in self.slices.sample(brain, interpolation="nearest").items()}

    @cached_property
    def fixed(self) -> Mosaic:
        """The fixed scan, from 0, black, to 1, white."""
        fixed = self.scene.fixed
        values = self.slices.sample(interpolable(fixed), background=fixed.background.value)
        return windowed(values, window(values, self.inside))

    @property
    def moved(self) -> Mosaic:
        """The moving scan after the whole transform, from 0 to 1."""
        return self._moved_and_before[0]

    @property
    def before(self) -> Mosaic:
        """The moving scan after the affine alignment alone, on the scale of ``moved``."""
        return self._moved_and_before[1]

    @cached_property
    def outlines(self) -> Mosaic:
        """1 on the outlines of the fixed brain and of its brightest tissue, at finer pixels."""
        soft = Volume(self.scene.brain.astype(np.float32), self.scene.fixed.grid)
        brain = outline(interpolated(self.slices.sample(soft)), 0.5)
        level = brightest_class(values_inside(self.fixed, self.inside))
        smooth = {p: ndimage.gaussian_filter(m, 0.6) for p, m in self.fixed.items()}
        tissue, inside = outline(interpolated(smooth), level), enlarged(self.inside)
        return {p: (brain[p] | (tissue[p] & inside[p])).astype(np.uint8) for p in PLANES}

    @cached_property
    def _moved_and_before(self) -> tuple[Mosaic, Mosaic]:
        moving, outside = interpolable(self.scene.moving), self.scene.moving.background.value
        moved, before = (
            self.slices.sample(moving, transform, background=outside)
            for transform in (self.transform, self.scene.affine)
        )
        black_and_white = window(moved, self.inside)
        return windowed(moved, black_and_white), windowed(before, black_and_white)
