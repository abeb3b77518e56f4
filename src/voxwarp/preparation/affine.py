"""Affine registration of brains by local correlation, from any pose and in any contrast."""

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
from .agreement import FitThresholds, agreement, bright_level
from .coarse import Coarse
from .optimiser import minimise


class Level(NamedTuple):
    """Spacing in mm, window of the local correlation in voxels, iterations of L-BFGS."""

    spacing: float
    window: int
    iterations: int


# A window of 72 mm covers the whole brain and aligns it from 40° away (benchmarks/robustness.csv).
# One of 6 mm resolves single folds of the cortex, and gains most overlap of structures
# (benchmarks/affine_pairs.csv). Few iterations are enough, because the parameters are whitened.
COARSE = Level(8.0, 9, 10), Level(8.0, 3, 8), Level(4.0, 3, 8)
FINE = Level(2.0, 3, 4)
DEFAULT_THRESHOLDS = FitThresholds()


def register_affine(
    *,
    moving: Volume,
    fixed: Volume,
    thresholds: FitThresholds = DEFAULT_THRESHOLDS,
    moving_lesion: Volume | None = None,
) -> Affine:
    """Find the affine map from fixed to moving of largest mean squared local correlation.

    It starts with the centres on each other and the orientation of the headers. If the result is
    not certain, all orientations are tried, then shifts, for scans that show a part of the brain.
    Contrasts and headers may differ; nothing is random.

    Args:
        moving, fixed: skull-stripped, zero outside the brain, on any grids.
        thresholds: when a map is so good that no other start is tried.
        moving_lesion: mask of lesions on the grid of ``moving``, 1 inside, which do not count.

    Returns:
        Maps points of the fixed brain to points of the moving brain, RAS mm.

    Raises:
        InputError: a brain has too few voxels to be aligned.
    """
    fewest = 64  # positive voxels of a brain that can be aligned; set by hand
    for volume in (fixed, moving):
        voxels = int((volume.data > 0).sum())
        if voxels < fewest:
            raise InputError(
                f"{volume.name}: the affine alignment needs at least {fewest} positive voxels in "
                f"the brain, found {voxels}; check the scan and its brain mask"
            )
    pair = _Pair(moving, fixed, moving_lesion)
    affine = _from(pose.upright(moving=moving, fixed=fixed), pair)
    for other_starts in (pose.search, pose.shifted):
        if thresholds.is_certain(agreement(affine, moving=moving, fixed=fixed)):
            break
        starts = other_starts(moving=moving, fixed=fixed)
        others = [_from(start, pair) for start in starts]
        affine = max(
            [affine, *others],
            key=lambda a: thresholds.score(agreement(a, moving=moving, fixed=fixed)),
        )
    return _optimised(affine, FINE, pair)


def refined_affine(
    *,
    moving: Volume,
    fixed: Volume,
    start: Affine,
    moving_lesion: Volume | None = None,
    fixed_lesion: Volume | None = None,
) -> Affine:
    """Refine an affine map by the squared local correlation, at 4 and then at 2 mm.

    Args:
        moving, fixed: skull-stripped, zero outside the brain, on any grids.
        start: maps points of the fixed brain to points of the moving brain, RAS mm; at most some
            mm from the answer.
        moving_lesion, fixed_lesion: masks of lesions on the grids of the brains, 1 inside, which do
            not count.
    """
    pair = _Pair(moving, fixed, moving_lesion, fixed_lesion)
    for level in (COARSE[-1], FINE):
        start = _optimised(start, level, pair)
    return start


class _Pair(NamedTuple):
    """Two brains, and the lesions in them that do not count."""

    moving: Volume
    fixed: Volume
    moving_lesion: Volume | None = None
    fixed_lesion: Volume | None = None


def _from(start: Affine, pair: _Pair) -> Affine:
    """The map that a start leads to after all coarse levels."""
    for level in COARSE:
        start = _optimised(start, level, pair)
    return start


def _optimised(start: Affine, level: Level, pair: _Pair) -> Affine:
    """The map near ``start`` of largest mean squared local correlation in the fixed brain.

    Twelve parameters by L-BFGS. They are whitened by the Gauss-Newton matrix of the fixed image
    (its gradients times its coordinates), so that a handful of iterations are enough.
    """
    f, m = Coarse.of(pair.fixed, level.spacing), Coarse.of(pair.moving, level.spacing)
    box = bounding_box((f.image[0, 0] > 0).numpy(), margin=2)
    f = f.cropped(box)
    fixed_image, moving_image = f.image / bright_level(f.image), m.image / bright_level(m.image)
    brain = (f.image > 0).float()
    if pair.fixed_lesion is not None:
        brain *= Coarse.of(pair.fixed_lesion, level.spacing).cropped(box).image == 0
    lesion: torch.Tensor | None = None
    if pair.moving_lesion is not None:
        lesion = Coarse.of(pair.moving_lesion, level.spacing).image
    base = np.linalg.inv(m.grid.affine) @ start.matrix @ f.grid.affine
    matrix = torch.from_numpy(base.astype(np.float32))
    motion = _Motion(fixed_image, brain > 0, level.window)
    parameters = torch.zeros(12, requires_grad=True)

    def loss() -> torch.Tensor:
        points = motion.points(matrix, parameters)
        moved = field.sample(moving_image, points)
        local_ncc = local_ncc_map(moved=moved, fixed=fixed_image, window=level.window)
        counted = brain * m.reaches(points.detach())  # only within the field of view of moving
        if lesion is not None:
            counted = counted * (field.sample(lesion, points.detach()) == 0)
        return -(local_ncc * counted).sum() / counted.sum().clamp(min=1)

    minimise(loss, parameters, iterations=level.iterations, tolerance=1e-5)
    with torch.no_grad():
        result = (matrix.double() @ motion.matrix(parameters.detach()).double()).numpy()
    if not np.isfinite(result).all():
        return start
    return Affine(m.grid.affine @ result @ np.linalg.inv(f.grid.affine))


class _Motion:
    """Small affine motions of a voxel grid, in parameters of about equal effect.

    Args:
        image: (1, 1, X, Y, Z).
        inside: (1, 1, X, Y, Z), the voxels that count.
        window: of the local correlation, voxels.
    """

    def __init__(self, image: torch.Tensor, inside: torch.Tensor, window: int):
        shape = image.shape[2:]
        self._voxels = field.identity_grid(shape, image)
        self._scale = 2 / max(shape)
        self._centre = torch.tensor([(n - 1) / 2 for n in shape])
        unit = (self._voxels[0].flatten(1) - self._centre[:, None]) * self._scale  # in [-1, 1]
        weights = torch.cat([unit, torch.ones_like(unit[:1])])  # (4, voxels)
        slopes = torch.stack(torch.gradient(_locally_normal(image, window)[0, 0])).flatten(1)
        jacobian = (slopes[:, None] * weights[None]).reshape(12, -1)[:, inside.flatten()]
        gram = (jacobian @ jacobian.T / jacobian.shape[1]).double()
        # A little of the identity, so that an image without texture can be factorised too.
        gram += 1e-6 * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(12, dtype=gram.dtype)
        self._whitening = torch.linalg.inv(torch.linalg.cholesky(gram)).T.float()

    def matrix(self, parameters: torch.Tensor) -> torch.Tensor:
        """The motion as a (4, 4) matrix, from voxel coordinates to voxel coordinates."""
        motion = (self._whitening @ parameters).view(3, 4)
        linear = motion[:, :3] * self._scale
        shift = motion[:, 3] - linear @ self._centre
        top = torch.cat([torch.eye(3) + linear, shift[:, None]], dim=1)
        return torch.cat([top, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])

    def points(self, matrix: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Where the motion, and then ``matrix``, map every voxel: (1, 3, X, Y, Z)."""
        m = matrix @ self.matrix(parameters)
        return (m[:3, :3] @ self._voxels[0].flatten(1) + m[:3, 3:]).view_as(self._voxels)


def _locally_normal(image: torch.Tensor, window: int) -> torch.Tensor:
    """The image with a local mean of zero and a local standard deviation of one."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool3d(x, window, stride=1, padding=window // 2)

    centred = image - mean(image)
    return centred / (mean(centred.square()) + 1e-4).sqrt()
