"""The change between two scans of one person, measured at their midpoint.

Both scans are resampled once, each halfway, so neither is blurred more than the other, which would
look like a change (Reuter et al., doi:10.1016/j.neuroimage.2012.02.084). Each is registered to the
other by the images alone, because what is recognised in either scan differs by more than the
person has changed. Half the difference of the two displacements is the velocity of the change;
swapping the scans turns its sign and changes nothing else.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import expm, logm

from ..fields import field
from ..networks.pair_descent import PairDescent
from ..preparation.examination import Examination
from ..preparation.recipe import Recipe
from ..preparation.rigid import register_rigid
from ..preparation.scan import Scan, prepare
from ..preparation.settings import DEFAULTS, Preparation
from ..space.grid import Grid
from ..space.transform import Affine, Chain, Transform, Warp
from ..space.volume import Volume
from .jacobians import LEAST_DETERMINANT

# Against 1, on a val scan, half the noise elsewhere (benchmarks/templates/growth_settings.csv).
SMOOTHNESS = 2.0


@dataclass(frozen=True, eq=False)
class Change:
    """The change from a first to a second scan of one person.

    Args:
        log_jacobian: logarithm of the change of volume, at the midpoint, on the working grid of the
            model; positive: the region is larger in the second scan.
        to_midpoint: the maps from points of either scan to the working space, RAS mm.
        velocity: of the change, (1, 3, X, Y, Z), voxels of the working grid.
        first_to_second: the rigid map from points of the first scan to points of the second.
    """

    log_jacobian: Volume
    to_midpoint: tuple[Chain, Chain]
    velocity: torch.Tensor
    first_to_second: Affine


def change(
    first: Scan,
    second: Scan,
    recipe: Recipe,
    preparation: Preparation = DEFAULTS,
    *,
    smoothness: float = SMOOTHNESS,
) -> Change:
    """Measure the change between two scans of one person.

    Args:
        first, second: the scans, of one contrast.
        recipe: how they are prepared for the descent.
        preparation: which steps are taken.
        smoothness: factor by which the deformation is smoother than between two persons.

    Raises:
        InputError: a scan cannot be used.
    """
    scans = first, second
    examined = [scan.examined(recipe, preparation) for scan in scans]
    rigid = _symmetric_rigid(scans, examined)
    half = _power(rigid, 0.5)
    placements = half.inverse(), half  # from the midpoint to either scan
    working = _mean_working(placements, examined)
    images = [
        prepare(
            scan.image,
            recipe,
            replace(one, template_to_scan=placement.after(working)),
        )
        for scan, one, placement in zip(scans, examined, placements, strict=True)
    ]
    descent = PairDescent()
    # Between two scans of a person, the similarity grows by so little that each stage would end
    # with its first steps.
    settings = replace(descent.settings.smoother(smoothness), tolerance=-math.inf)
    with torch.inference_mode():
        forth, back = (
            descent.descend(settings, moving=moving.image, fixed=fixed.image).displacement
            for moving, fixed in ((images[1], images[0]), (images[0], images[1]))
        )
    return _change(forth, back, placements, working, rigid, recipe.grid)


@torch.no_grad()
def _change(
    forth: torch.Tensor,
    back: torch.Tensor,
    placements: tuple[Affine, Affine],
    working: Affine,
    rigid: Affine,
    grid: Grid,
) -> Change:
    velocity = (forth - back) / 2
    to_first, to_second = (field.exponentiate(velocity * sign / 2) for sign in (-1, 1))
    logs = [
        field.jacobian_determinant(one).clamp(min=LEAST_DETERMINANT).log()
        for one in (to_first, to_second)
    ]
    logarithm = (logs[1] - logs[0])[0].numpy()
    # The inverse of the flow by v / 2 is that by -v / 2.
    ways = []
    for placement, back_to_middle in zip(placements, (to_second, to_first), strict=True):
        steps: list[Transform] = [
            placement.inverse(),
            working.inverse(),
            Warp.from_voxels(back_to_middle[0], grid),
        ]
        ways.append(Chain(steps))
    return Change(Volume(logarithm, grid), (ways[0], ways[1]), velocity, rigid)


def _symmetric_rigid(scans: tuple[Scan, Scan], examined: list[Examination]) -> Affine:
    """The rigid map from the first to the second scan, the mean of that found in either order."""
    brains = [scan.brain(one) for scan, one in zip(scans, examined, strict=True)]
    to_first, to_second = (one.template_to_scan for one in examined)
    start = to_second.after(to_first.inverse())
    here = Affine(np.eye(4))  # scans of one session are often aligned by their headers
    forth = register_rigid(start, here, moving=brains[1], fixed=brains[0])
    back = register_rigid(start.inverse(), here, moving=brains[0], fixed=brains[1])
    mean = (_log(forth) - _log(back)) / 2
    return Affine(expm(mean))


def _mean_working(placements: tuple[Affine, Affine], examined: list[Examination]) -> Affine:
    """The map from the working space to the midpoint, the mean of those by either scan."""
    ways = [
        placement.inverse().after(one.template_to_scan).matrix
        for placement, one in zip(placements, examined, strict=True)
    ]
    return Affine((ways[0] + ways[1]) / 2)


def _log(affine: Affine) -> np.ndarray:
    return np.real(logm(affine.matrix))


def _power(affine: Affine, exponent: float) -> Affine:
    return Affine(expm(exponent * _log(affine)))
