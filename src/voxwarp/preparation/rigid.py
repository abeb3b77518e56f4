"""Rigid registration of two brains by local correlation, from starts near the answer."""

from typing import NamedTuple

import numpy as np
import torch

from ..fields import field
from ..fields.losses import local_ncc_map
from ..space.transform import Affine
from ..space.volume import Volume
from .agreement import bright_level
from .coarse import Coarse
from .optimiser import minimise

LEVELS = (8.0, 20), (4.0, 15), (2.0, 10)  # spacing in mm, iterations; set by hand
WINDOW = 3  # voxels, of the local correlation; set by hand, as in the affine alignment
# From the middle of a brain to its surface, mm: a rotation by 1/ARM moves the surface by 1 mm,
# as a shift by 1 mm does, so the optimiser sees parameters of similar effect.
ARM = 70.0


def rigid_part(affine: Affine, centre: np.ndarray) -> Affine:
    """Reduce an affine map to its rotation (polar factor); a given point is mapped as before.

    Args:
        affine: any affine map of positive determinant.
        centre: the point, RAS mm.
    """
    u, _, vt = np.linalg.svd(affine.matrix[:3, :3])
    matrix = np.eye(4)
    matrix[:3, :3] = u @ vt
    matrix[:3, 3] = affine.map(centre) - matrix[:3, :3] @ centre
    return Affine(matrix)


def register_rigid(
    *starts: Affine,
    moving: Volume,
    fixed: Volume,
    moving_lesion: Volume | None = None,
    fixed_lesion: Volume | None = None,
) -> Affine:
    """Find the rigid map from fixed to moving of largest mean squared local correlation.

    Six parameters, a rotation about the middle of the fixed brain and a shift, both in mm at the
    surface of the brain, are optimised by L-BFGS from coarse to fine. The contrasts may differ.

    Args:
        starts: affine maps, one of them near the answer. Their rigid parts are optimised at 8 mm,
            and the best of the results is refined.
        moving, fixed: skull-stripped, zero outside the brain, on any grids; ``moving`` may be a
            head, because only what lies in the fixed brain counts.
        moving_lesion, fixed_lesion: masks of lesions on their grids, 1 inside, which do not count.

    Returns:
        Maps points of the fixed brain to points of the moving brain, RAS mm.
    """
    volumes = moving, fixed, moving_lesion, fixed_lesion
    centre, _ = Coarse.of(fixed, LEVELS[0][0]).centre_and_volume
    (spacing, iterations), *finer = LEVELS
    pair = _Pair.of(spacing, *volumes)
    results = [_optimised(rigid_part(start, centre), pair, centre, iterations) for start in starts]
    best = min(results, key=lambda affine: float(pair.loss(torch.from_numpy(affine.matrix.copy()))))
    for spacing, iterations in finer:
        pair = _Pair.of(spacing, *volumes)
        best = _optimised(best, pair, centre, iterations)
    return best


class _Pair(NamedTuple):
    """Two brains at one spacing, with bright tissue at about 1."""

    moving: Coarse
    fixed: Coarse
    moving_lesion: Coarse | None
    fixed_lesion: Coarse | None

    @classmethod
    def of(
        cls,
        spacing: float,
        moving: Volume,
        fixed: Volume,
        moving_lesion: Volume | None,
        fixed_lesion: Volume | None,
    ) -> "_Pair":
        images = (Coarse.of(volume, spacing) for volume in (moving, fixed))
        lesions = (x and Coarse.of(x, spacing) for x in (moving_lesion, fixed_lesion))
        bright = (Coarse(one.image / bright_level(one.image), one.grid) for one in images)
        return cls(*bright, *lesions)

    def loss(self, fixed_to_moving: torch.Tensor) -> torch.Tensor:
        """Return minus the mean squared local correlation in the fixed brain.

        Args:
            fixed_to_moving: (4, 4), RAS mm.
        """
        f, m = self.fixed, self.moving
        to_world = torch.from_numpy(f.grid.affine.copy())
        to_voxel = torch.from_numpy(np.linalg.inv(m.grid.affine))
        matrix = (to_voxel @ fixed_to_moving @ to_world).float()
        voxels = field.identity_grid(f.image.shape[2:], f.image)
        points = (matrix[:3, :3] @ voxels[0].flatten(1) + matrix[:3, 3:]).view_as(voxels)
        local_ncc = local_ncc_map(moved=field.sample(m.image, points), fixed=f.image, window=WINDOW)
        counted = (f.image > 0) * m.reaches(points.detach())
        if self.fixed_lesion is not None:
            counted = counted * (self.fixed_lesion.image == 0)
        if self.moving_lesion is not None:
            counted = counted * (field.sample(self.moving_lesion.image, points.detach()) == 0)
        return -(local_ncc * counted).sum() / counted.sum().clamp(min=1)


def _optimised(start: Affine, pair: _Pair, centre: np.ndarray, iterations: int) -> Affine:
    parameters = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    base = torch.from_numpy(start.matrix.copy())

    def loss() -> torch.Tensor:
        return pair.loss(base @ _motion(parameters, centre))

    minimise(loss, parameters, iterations=iterations, tolerance=1e-6)
    with torch.no_grad():
        matrix = (base @ _motion(parameters, centre)).numpy()
    return Affine(matrix) if np.isfinite(matrix).all() else start


def _motion(parameters: torch.Tensor, centre: np.ndarray) -> torch.Tensor:
    """X ↦ exp(ω) (x − c) + c + t as a (4, 4) matrix; the parameters are ω · ARM and t, in mm."""
    x, y, z = parameters[:3] / ARM
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    rotation = torch.linalg.matrix_exp(skew)
    c = torch.from_numpy(centre)
    shift = parameters[3:] + c - rotation @ c
    top = torch.cat([rotation, shift[:, None]], dim=1)
    return torch.cat([top, top.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
