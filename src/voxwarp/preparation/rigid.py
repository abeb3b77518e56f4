"""Rigid registration of two brains by local correlation, from starts that are near."""

from typing import NamedTuple

import numpy as np
import torch

from ..fields import field
from ..fields.losses import local_ncc_map
from ..space.transform import Affine
from ..space.volume import Volume
from .agreement import bright
from .coarse import Coarse

LEVELS = (8.0, 20), (4.0, 15), (2.0, 10)  # spacing in mm, iterations
WINDOW = 3  # voxels, of the local correlation
ARM = 70.0  # mm from a brain's middle to its surface: an angle of 1/ARM moves that by 1 mm


def rigid_part(affine: Affine, centre: np.ndarray) -> Affine:
    """The rotation in an affine map (its polar factor), with the same image of a point.

    Args:
        affine: any affine map of positive determinant.
        centre: the point, RAS mm.
    """
    u, _, vt = np.linalg.svd(affine.matrix[:3, :3])
    matrix = np.eye(4)
    matrix[:3, :3] = u @ vt
    matrix[:3, 3] = affine.map(centre) - matrix[:3, :3] @ centre
    return Affine(matrix)


def register_rigid(*starts: Affine, moving: Volume, fixed: Volume) -> Affine:
    """The rigid map from ``fixed`` to ``moving`` of largest mean squared local correlation.

    Six parameters, a rotation about the middle of the fixed brain and a shift, in mm at the
    brain's surface, by L-BFGS from coarse to fine. The contrasts may differ.

    Args:
        fixed, moving: brains, zero outside, on any grids.
        starts: maps of which one is near the answer; their rigid parts count. The one that leads
            to the largest correlation on the coarsest lattice goes on.

    Returns:
        fixed → moving, RAS mm.
    """
    centre, _ = Coarse.of(fixed, LEVELS[0][0]).centre_and_volume
    (spacing, iterations), *finer = LEVELS
    pair = _Pair.of(fixed, moving, spacing)
    ends = [_improved(rigid_part(start, centre), pair, centre, iterations) for start in starts]
    found = min(ends, key=lambda end: float(pair.loss(torch.from_numpy(end.matrix.copy()))))
    for spacing, iterations in finer:
        found = _improved(found, _Pair.of(fixed, moving, spacing), centre, iterations)
    return found


class _Pair(NamedTuple):
    """Both brains at one spacing, brightest tissue about 1."""

    fixed: Coarse
    moving: Coarse

    @classmethod
    def of(cls, fixed: Volume, moving: Volume, spacing: float) -> "_Pair":
        both = (Coarse.of(volume, spacing) for volume in (fixed, moving))
        return cls(*(Coarse(one.image / bright(one.image), one.grid) for one in both))

    def loss_of(self, affine: Affine) -> float:
        """The loss of a map."""
        return float(self.loss(torch.from_numpy(affine.matrix.copy())))

    def loss(self, motion: torch.Tensor) -> torch.Tensor:
        """Minus the mean squared local correlation in the fixed brain; (4, 4), RAS mm."""
        f, m = self.fixed, self.moving
        before = torch.from_numpy(f.grid.affine.copy())
        after = torch.from_numpy(np.linalg.inv(m.grid.affine))
        matrix = (after @ motion @ before).float()
        lattice = field.identity_grid(f.image.shape[2:], f.image)
        at = (matrix[:3, :3] @ lattice[0].flatten(1) + matrix[:3, 3:]).view_as(lattice)
        local = local_ncc_map(moved=field.sample(m.image, at), fixed=f.image, window=WINDOW)
        seen = (f.image > 0) * m.reaches(at.detach())
        return -(local * seen).sum() / seen.sum().clamp(min=1)


def _improved(start: Affine, pair: _Pair, centre: np.ndarray, iterations: int) -> Affine:
    parameters = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    base = torch.from_numpy(start.matrix.copy())
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=iterations,
        max_eval=iterations + iterations // 4,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-6,
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = pair.loss(base @ _motion(parameters, centre))
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        found = (base @ _motion(parameters, centre)).numpy()
    return Affine(found) if np.isfinite(found).all() else start


def _motion(parameters: torch.Tensor, centre: np.ndarray) -> torch.Tensor:
    """X ↦ exp(ω) (x − c) + c + t, (4, 4): ω · ARM and t in mm."""
    x, y, z = parameters[:3] / ARM
    nought = torch.zeros_like(x)
    skew = torch.stack([nought, -z, y, z, nought, -x, -y, x, nought]).view(3, 3)
    rotation = torch.linalg.matrix_exp(skew)
    c = torch.from_numpy(centre)
    shift = parameters[3:] + c - rotation @ c
    top = torch.cat([rotation, shift[:, None]], dim=1)
    return torch.cat([top, top.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
