"""A registration with a known answer: the template, deformed by a formula, and registered back."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..preparation.template import mni152
from ..registration.register import register
from ..runtime import Runtime
from ..space.grid import Grid
from ..space.resample import resample
from ..space.volume import Volume

#: The mean error that is allowed, mm. Set by hand: ``default`` has 0.8, because the average brain
#: is nearly uniform in places, where nothing shows how it was deformed.
LARGEST_ERROR = 1.5
AMPLITUDE = 3.0  # mm, of each component of the deformation; set by hand: a few voxels
WAVELENGTHS = np.array([120.0, 140.0, 130.0])  # mm, along each axis; set by hand
STEP = 6  # voxels between the points at which the error is measured


@dataclass(frozen=True)
class Outcome:
    """How a registration with a known answer came out.

    Args:
        mean_error_mm: mean distance of mapped points of the brain from where they belong.
        error_before_mm: the same without any registration.
        folds: number of folded voxels.
        seconds: that the registration took.
    """

    mean_error_mm: float
    error_before_mm: float
    folds: int
    seconds: float

    @property
    def problem(self) -> str:
        """What is wrong with it, a sentence; empty if nothing is."""
        if not self.mean_error_mm <= LARGEST_ERROR:  # also if it is NaN
            return (
                f"the self-test found a deformation that is off by {self.mean_error_mm:.2f} mm on "
                f"average; up to {LARGEST_ERROR} mm are usual. Install voxwarp anew in a fresh "
                f"environment; if it stays so, please report it"
            )
        if self.folds:
            return f"the self-test found a deformation with {self.folds} folded voxels, expected 0"
        return ""


class KnownMap:
    """The map ψ from the space of the deformed image to that of the template, RAS mm.

    ψ(y) = R y + t + a sin(2π ỹ / λ), where R is a rotation by a few degrees with a little scaling,
    and ỹ has the axes in another order, so that there is shear. It has no folds: the largest
    derivative of the sine is 2π a / λ < 0.2.
    """

    def __init__(self) -> None:
        angle = np.deg2rad(5.0)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        self.matrix, self.shift = turn * 1.04, np.array([3.0, -4.0, 5.0])

    def map(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 3), RAS mm."""
        waves = np.sin(2 * np.pi * np.roll(points, 1, axis=-1) / WAVELENGTHS)
        return points @ self.matrix.T + self.shift + AMPLITUDE * waves

    def map_nodes(self, grid: Grid, first: int, last: int) -> np.ndarray:
        """Map the voxel centres of ``grid`` with first ≤ i < last."""
        return self.map(grid.nodes(first, last))


def run(model: str = "default", *, progress: Callable[[str], None] = lambda stage: None) -> Outcome:
    """Deform the template of MNI152 by a known map, register it back, and measure the error.

    A point x of the template must come back to itself: ψ(φ(x)) = x, where φ is the transform that
    was found, from the template to the deformed image.

    Args:
        model: name of the model.
        progress: called with the name of each stage when it starts.
    """
    template, truth = mni152().image, KnownMap()
    # Coarser than the template, with other axes: a scan of its own.
    affine = np.array(
        [[-1.2, 0, 0, 100.0], [0, 0, 1.2, -130.0], [0, -1.2, 0, 100.0], [0, 0, 0, 1.0]]
    )
    grid = Grid((160, 160, 190), affine)
    moving = resample(Volume(template.data.astype(np.float32), template.grid), grid, truth)
    began = time.monotonic()
    result = register(
        moving.to_nibabel(),
        None,
        model,
        runtime=Runtime(device="cpu", cache=False, progress=progress),
    )
    seconds = time.monotonic() - began
    inside = np.argwhere(template.data[::STEP, ::STEP, ::STEP] > 0) * STEP
    points = template.grid.to_world(inside)
    return Outcome(
        mean_error_mm=_error(truth.map(result.transform.map(points)), points),
        error_before_mm=_error(truth.map(points), points),
        folds=int(result.metrics["jacobian"]["folds"]),
        seconds=seconds,
    )


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected, axis=1).mean())
