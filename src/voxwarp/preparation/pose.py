"""The pose of a brain: all rotations are tried, so that no start near the answer is needed."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from ..fields import field
from ..space.transform import Affine
from ..space.volume import Volume
from .coarse import Coarse

SPACING = 8.0  # mm; set by hand: hundreds of rotations take about half a second
USUAL = 0.9  # size of an adult's brain along an axis, relative to MNI152; set by hand
# Rotations over the whole sphere, about 20° apart, and around each of the best. Set by hand: all
# 60 poses of benchmarks/robustness.csv are found.
GLOBAL, LOCAL = 600, 40


def upright(*, moving: Volume, fixed: Volume) -> Affine:
    """Return the similarity that aligns centre and volume of two brains, without a rotation.

    Args:
        moving, fixed: skull-stripped, zero outside the brain.

    Returns:
        Maps points of the fixed brain to points of the moving brain, RAS mm.
    """
    return _similarity(
        Rotation.identity(), moving=Coarse.of(moving, SPACING), fixed=Coarse.of(fixed, SPACING)
    )


def search(*, moving: Volume, fixed: Volume, keep: int = 3) -> list[Affine]:
    """Find the similarities that align two brains best, whatever their orientations, best first.

    Rotations spread evenly over all orientations are tried, then finer ones around the best. The
    score is the correlation ratio (Roche et al., MICCAI 1998, doi:10.1007/BFb0056301): the fraction
    of the variance of the moving image that the intensity classes of the fixed image explain. It
    does not depend on the contrast.

    Args:
        moving, fixed: skull-stripped, zero outside the brain.
        keep: how many to return; before the finer search they are at least 30° apart.

    Returns:
        Each maps points of the fixed brain to points of the moving brain, RAS mm.
    """
    f, m = Coarse.of(fixed, SPACING), Coarse.of(moving, SPACING)
    best = _best(_all_rotations(GLOBAL), keep, moving=m, fixed=f, apart=30.0)
    around = Rotation.from_rotvec(_ball(LOCAL, radius=np.radians(15)))
    finer = [_best(rotation * around, 1, moving=m, fixed=f, apart=0.0)[0] for _, rotation in best]
    return [
        _similarity(rotation, moving=m, fixed=f)
        for _, rotation in sorted(finer, key=lambda x: -x[0])
    ]


def shifted(*, moving: Volume, fixed: Volume) -> list[Affine]:
    """Return starts for a moving scan that shows only a part of the brain, without a rotation.

    Its centre and volume are not those of the brain. So the brain is assumed to have the usual
    size, ``USUAL``, and the centre of the scan is placed on different parts of the fixed brain.

    Args:
        moving, fixed: skull-stripped, zero outside the brain.

    Returns:
        Each maps points of the fixed brain to points of the moving brain, RAS mm.
    """
    fixed_centre, _ = Coarse.of(fixed, SPACING).centre_and_volume
    moving_centre, _ = Coarse.of(moving, SPACING).centre_and_volume
    starts = []
    for axis in (2, 1, 0):  # most of these scans are cut above or below
        for shift in (-45.0, -25.0, 25.0, 45.0):
            matrix = np.diag([USUAL, USUAL, USUAL, 1.0])
            matrix[:3, 3] = moving_centre - USUAL * (fixed_centre + shift * np.eye(3)[axis])
            starts.append(Affine(matrix))
    return starts


def rotation_angle(affine: Affine) -> float:
    """Return the angle of the rotation in an affine map (its polar factor), degrees."""
    u, _, vt = np.linalg.svd(affine.matrix[:3, :3])
    return float(np.degrees(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1))))


def _best(
    rotations: Rotation, keep: int, apart: float, *, moving: Coarse, fixed: Coarse
) -> list[tuple[float, Rotation]]:
    """Scores and rotations, best first, at least ``apart`` degrees from each other."""
    scores = _correlation_ratios(rotations, moving=moving, fixed=fixed)
    chosen: list[tuple[float, Rotation]] = []
    for i in scores.argsort(descending=True).tolist():
        gaps = [np.degrees((rotations[i] * r.inv()).magnitude()) for _, r in chosen]
        if all(gap >= apart for gap in gaps):
            chosen.append((float(scores[i]), rotations[i]))
        if len(chosen) == keep:
            break
    return chosen


def _correlation_ratios(rotations: Rotation, *, moving: Coarse, fixed: Coarse) -> torch.Tensor:
    """Var(E[moving | class of fixed]) / Var(moving) for each rotation."""
    member = _classes(fixed.image)  # (classes, voxels)
    columns = []
    for rotation in rotations:
        points = fixed.nodes_in(moving, _similarity(rotation, moving=moving, fixed=fixed))
        columns.append(field.sample(moving.image, points).flatten())
    values = torch.stack(columns, dim=1)  # (voxels, rotations)
    sums, sizes = member @ values, member.sum(dim=1, keepdim=True).clamp(min=1)
    mean = values.mean(dim=0)
    between = (sums.square() / sizes).sum(dim=0) - len(values) * mean.square()
    total = values.square().sum(dim=0) - len(values) * mean.square()
    return between / total.clamp(min=1e-12)


def _classes(image: torch.Tensor, number: int = 8) -> torch.Tensor:
    """Membership (classes, voxels): background, and quantiles of the intensities of the brain."""
    values = image.flatten()
    edges = torch.quantile(values[values > 0], torch.linspace(0, 1, number + 1))[1:-1]
    classes = torch.where(values > 0, 1 + torch.bucketize(values, edges), 0)
    return F.one_hot(classes, number + 1).T.float()


def _similarity(rotation: Rotation, *, moving: Coarse, fixed: Coarse) -> Affine:
    """A rotation, the scale that makes the volumes equal, and the shift of centre to centre."""
    fixed_centre, fixed_volume = fixed.centre_and_volume
    moving_centre, moving_volume = moving.centre_and_volume
    matrix = np.eye(4)
    matrix[:3, :3] = (moving_volume / fixed_volume) ** (1 / 3) * rotation.as_matrix()
    matrix[:3, 3] = moving_centre - matrix[:3, :3] @ fixed_centre
    return Affine(matrix)


def _all_rotations(number: int) -> Rotation:
    """Rotations spread evenly over all orientations (super-Fibonacci spiral, Alexa, CVPR 2022)."""
    s = np.arange(number) + 0.5
    inner, outer = np.sqrt(s / number), np.sqrt(1 - s / number)
    a, b = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288
    spiral = [inner * np.sin(a), inner * np.cos(a), outer * np.sin(b), outer * np.cos(b)]
    return Rotation.from_quat(np.stack(spiral, axis=1))


def _ball(number: int, radius: float) -> np.ndarray:
    """The origin and ``number`` points spread evenly in a ball (Fibonacci spirals by shells)."""
    s = np.arange(number) + 0.5
    height, turn = 1 - 2 * s / number, np.pi * (1 + np.sqrt(5)) * s
    flat = np.sqrt(1 - height**2)
    sphere = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)
    shells = radius * np.cbrt(((np.arange(number) * 7) % number + 0.5) / number)
    return np.vstack([np.zeros(3), sphere * shells[:, None]])
