"""Maps of the logarithm of the Jacobian determinant, and what they do to other maps.

φ maps points of the template to points of a person. Where det Dφ is above 1, its logarithm above 0,
a region of the template is larger in the person.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..measures.deformation import jacobian_determinant
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine, Chain, Warp
from ..space.volume import Volume

# Determinants below it, which only occur outside the brain, count as this; set by hand.
LEAST_DETERMINANT = 0.01
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


@dataclass(frozen=True, eq=False)
class LogJacobians:
    """The logarithms of the Jacobian determinant of a map from the template to a person.

    Args:
        relative: of the deformation alone, the affine map left out; (X, Y, Z) float32 on the grid
            of the template.
        of_affine: of the affine map; one number.
        grid: the grid.
        transform: the map.
    """

    relative: np.ndarray
    of_affine: float
    grid: Grid
    transform: Chain

    @property
    def absolute(self) -> np.ndarray:
        """Of the whole map, the affine map included; (X, Y, Z) float32."""
        return self.relative + np.float32(self.of_affine)


def log_jacobians(steps: Sequence[Affine | Warp], grid: Grid) -> LogJacobians:
    """The logarithms of the Jacobian determinant of a deformation followed by affine maps.

    Args:
        steps: from the template to the person: at most one warp, which comes first, then affine
            maps.
        grid: of the template.

    Raises:
        InputError: there are other steps, or the warp lies on another grid.
    """
    warps = [step for step in steps if isinstance(step, Warp)]
    affines = [step for step in steps if isinstance(step, Affine)]
    if len(warps) > 1 or (warps and steps[0] is not warps[0]):
        raise InputError(
            "transform: Jacobians are computed of one displacement field followed by affine maps, "
            f"found {', '.join(type(step).__name__ for step in steps)}"
        )
    of_affine = sum(float(np.log(abs(np.linalg.det(a.matrix[:3, :3])))) for a in affines)
    relative = np.zeros(grid.shape, np.float32)
    if warps:
        if not warps[0].grid.matches(grid):
            raise InputError("transform: its displacement field is not on the grid of the template")
        whole = tuple(slice(0, n) for n in grid.shape)
        determinant = jacobian_determinant(warps[0], whole)  # type: ignore[arg-type]
        relative = np.log(np.maximum(determinant, LEAST_DETERMINANT)).astype(np.float32)
    return LogJacobians(relative, of_affine, grid, Chain(list(steps)))


def smoothed(values: np.ndarray, fwhm: float, spacing: Sequence[float]) -> np.ndarray:
    """A map smoothed by a Gaussian.

    Args:
        values: (X, Y, Z).
        fwhm: full width at half maximum of the Gaussian, mm.
        spacing: mm.
    """
    sigma = [fwhm / FWHM_PER_SIGMA / size for size in spacing]
    return np.asarray(ndimage.gaussian_filter(values, sigma, truncate=4, mode="nearest"))


def modulated(image: Volume, jacobians: LogJacobians, *, with_affine: bool = True) -> np.ndarray:
    """A map of the person on the template, times the Jacobian determinant.

    So its sum keeps the amount of tissue: the integral over the template is that over the person.

    Args:
        image: a map in the space of the person, such as the probability of grey matter.
        jacobians: of the map from the template to the person.
        with_affine: the amount in the person; if not, as if her brain had the template's size.

    Returns:
        (X, Y, Z) float32 on the grid of the template.
    """
    floats = Volume(image.data.astype(np.float32), image.grid, image.name)
    moved = resample(floats, jacobians.grid, jacobians.transform).data
    logarithm = jacobians.absolute if with_affine else jacobians.relative
    return (moved * np.exp(logarithm)).astype(np.float32)


def label_volumes(
    atlas: np.ndarray, labels: Sequence[int], logarithm: np.ndarray, voxel_ml: float
) -> list[float]:
    """The volumes of regions of the template in the person: the integral of det Dφ over each.

    Args:
        atlas: (X, Y, Z) of whole numbers.
        labels: the regions.
        logarithm: of the determinant, (X, Y, Z).
        voxel_ml: volume of a voxel of the template, ml.

    Returns:
        Millilitres, in the order of the labels; 0 if a label does not occur.
    """
    inside = atlas != 0
    found, numbers = np.unique(atlas[inside], return_inverse=True)
    sums = np.bincount(numbers.ravel(), np.exp(logarithm[inside].astype(np.float64)))
    by_label = dict(zip(found.tolist(), sums.tolist(), strict=True))
    return [by_label.get(label, 0.0) * voxel_ml for label in labels]
