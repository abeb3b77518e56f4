"""Affine registration of brains by local correlation, from any pose, in any contrast."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..fields import field
from ..fields.losses import local_ncc_map
from ..space.region import bounding_box
from ..space.transform import Affine
from ..space.volume import Volume
from . import pose
from .agreement import FitThresholds, agreement, bright
from .coarse import Coarse


class Level(NamedTuple):
    """Spacing in mm, window of the local correlation in voxels, iterations: few do, see below."""

    spacing: float
    window: int
    iterations: int


# A window of 72 mm sees the whole brain and brings it home from 40° away; one of 6 mm sees
# single folds of the cortex, and gains most overlap of structures (benchmarks).
COARSE = Level(8.0, 9, 10), Level(8.0, 3, 8), Level(4.0, 3, 8)
FINE = Level(2.0, 3, 4)
DEFAULT_THRESHOLDS = FitThresholds()


def register_affine(
    *, moving: Volume, fixed: Volume, thresholds: FitThresholds = DEFAULT_THRESHOLDS
) -> Affine:
    """The affine map from ``fixed`` to ``moving`` of largest squared local correlation.

    Starts centre on centre, turned as the headers say. Where that does not end well, every
    orientation is tried; then shifts, for scans that show a part of the brain. Any contrast, any
    two headers; nothing is random.

    Args:
        fixed, moving: brain-extracted volumes, zero outside, on any grids.
        thresholds: when a map is good enough for no other start to be tried.

    Returns:
        fixed → moving, RAS mm.

    Raises:
        InputError: there is nothing to align: hardly any voxels.
    """
    for volume in (fixed, moving):
        if (volume.data > 0).sum() < 64:
            raise InputError(f"{volume.name}: no affine alignment: there is hardly a brain in it")
    affine = _from(pose.upright(moving=moving, fixed=fixed), moving=moving, fixed=fixed)
    for other_starts in (pose.search, pose.shifted):
        if thresholds.is_certain(agreement(affine, moving=moving, fixed=fixed)):
            break
        starts = other_starts(moving=moving, fixed=fixed)
        others = [_from(start, moving=moving, fixed=fixed) for start in starts]
        affine = max(
            [affine, *others],
            key=lambda a: thresholds.score(agreement(a, moving=moving, fixed=fixed)),
        )
    return _by_local_ncc(affine, FINE, moving=moving, fixed=fixed)


def refined_affine(*, moving: Volume, fixed: Volume, start: Affine) -> Affine:
    """The affine map near ``start`` of largest squared local correlation, at 4 and then 2 mm.

    Args:
        fixed, moving: brains, zero outside, on any grids.
        start: fixed → moving, RAS mm, some mm from the answer at most.
    """
    for level in (COARSE[-1], FINE):
        start = _by_local_ncc(start, level, moving=moving, fixed=fixed)
    return start


def _from(start: Affine, *, moving: Volume, fixed: Volume) -> Affine:
    """The map that a start leads to, at 4 mm."""
    for level in COARSE:
        start = _by_local_ncc(start, level, moving=moving, fixed=fixed)
    return start


def _by_local_ncc(start: Affine, level: Level, *, moving: Volume, fixed: Volume) -> Affine:
    """The map near ``start`` of largest mean squared local correlation in the fixed brain.

    Twelve parameters by L-BFGS, whitened by the Gauss-Newton matrix of the fixed image (its
    gradients by its coordinates), so that a handful of iterations do.
    """
    f, m = _cropped(Coarse.of(fixed, level.spacing)), Coarse.of(moving, level.spacing)
    image, other = f.image / bright(f.image), m.image / bright(m.image)
    brain = (f.image > 0).float()
    base = np.linalg.inv(m.grid.affine) @ start.matrix @ f.grid.affine
    matrix = torch.from_numpy(base.astype(np.float32))
    motion = _Motion(image, brain > 0, level.window)
    parameters = torch.zeros(12, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=level.iterations,
        max_eval=level.iterations + level.iterations // 4,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-5,
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        at = motion.points(matrix, parameters)
        local = local_ncc_map(moved=field.sample(other, at), fixed=image, window=level.window)
        seen = brain * m.reaches(at.detach())  # what lies outside the scan says nothing
        loss = -(local * seen).sum() / seen.sum().clamp(min=1)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        found = (matrix.double() @ motion.matrix(parameters.detach()).double()).numpy()
    if not np.isfinite(found).all():
        return start
    return Affine(m.grid.affine @ found @ np.linalg.inv(f.grid.affine))


class _Motion:
    """Small affine motions of a lattice, in parameters that all matter about equally.

    Args:
        image: (1, 1, X, Y, Z).
        inside: voxels of it that count.
        window: of the local correlation, voxels.
    """

    def __init__(self, image: torch.Tensor, inside: torch.Tensor, window: int):
        shape = image.shape[2:]
        self._voxels = field.identity_grid(shape, image)
        self._scale = 2 / max(shape)
        self._centre = torch.tensor([(n - 1) / 2 for n in shape])
        here = (self._voxels[0].flatten(1) - self._centre[:, None]) * self._scale
        weights = torch.cat([here, torch.ones_like(here[:1])])  # (4, voxels)
        slopes = torch.stack(torch.gradient(_locally_normal(image, window)[0, 0])).flatten(1)
        jacobian = (slopes[:, None] * weights[None]).reshape(12, -1)[:, inside.flatten()]
        gram = (jacobian @ jacobian.T / jacobian.shape[1]).double()
        gram += 1e-6 * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(12, dtype=gram.dtype)
        self._whitening = torch.linalg.inv(torch.linalg.cholesky(gram)).T.float()

    def matrix(self, parameters: torch.Tensor) -> torch.Tensor:
        """(4, 4), lattice coordinates to lattice coordinates."""
        motion = (self._whitening @ parameters).view(3, 4)
        linear = motion[:, :3] * self._scale
        shift = motion[:, 3] - linear @ self._centre
        top = torch.cat([torch.eye(3) + linear, shift[:, None]], dim=1)
        return torch.cat([top, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])

    def points(self, matrix: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Where ``matrix`` after the motion sends the lattice: (1, 3, X, Y, Z)."""
        m = matrix @ self.matrix(parameters)
        return (m[:3, :3] @ self._voxels[0].flatten(1) + m[:3, 3:]).view_as(self._voxels)


def _locally_normal(image: torch.Tensor, window: int) -> torch.Tensor:
    """Local mean removed, local standard deviation one."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool3d(x, window, stride=1, padding=window // 2)

    centred = image - mean(image)
    return centred / (mean(centred.square()) + 1e-4).sqrt()


def _cropped(coarse: Coarse) -> Coarse:
    """The block around the brain and two voxels."""
    box = bounding_box((coarse.image[0, 0] > 0).numpy(), margin=2)
    image = coarse.image[:, :, box[0], box[1], box[2]].contiguous()
    return Coarse(image, coarse.grid.crop([part.start for part in box], image.shape[2:]))
