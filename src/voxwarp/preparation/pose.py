"""Which way up a brain lies: every rotation is tried, so no start near the answer is needed."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from ..fields import field
from ..space.transform import Affine
from ..space.volume import Volume
from .coarse import Coarse

SPACING = 8.0  # mm: coarse enough to try hundreds of rotations in half a second
USUAL = 0.9  # edge of an adult's brain over that of MNI152, which is large
GLOBAL, LOCAL = 600, 40  # rotations of the whole sphere (some 20° apart), and around each best one


def upright(*, moving: Volume, fixed: Volume) -> Affine:
    """The similarity that lays one brain on the other as the headers have them.

    Centre on centre, and scaled to one volume.

    Args:
        fixed, moving: brain-extracted, zero outside.

    Returns:
        fixed → moving, RAS mm.
    """
    return _similarity(
        Rotation.identity(), moving=Coarse.of(moving, SPACING), fixed=Coarse.of(fixed, SPACING)
    )


def search(*, moving: Volume, fixed: Volume, keep: int = 3) -> list[Affine]:
    """Similarities that lay ``moving`` on ``fixed``, best first, whatever way it is turned.

    All rotations are tried on a lattice of the sphere of unit quaternions, then finer around the
    best. The score is the correlation ratio (Roche et al., MICCAI 1998, doi:10.1007/BFb0056301):
    how much of the moving image's variance the fixed image's intensity classes explain. It
    favours no contrast.

    Args:
        fixed, moving: brain-extracted, zero outside.
        keep: how many, more than 30° apart, to return.

    Returns:
        fixed → moving, RAS mm.
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
    """Starts for a moving scan that shows a part of the brain, turned as the headers say.

    Neither its centre nor its volume is the brain's: it is taken to be of usual size, ``USUAL``,
    and laid on different parts of the fixed brain.
    """
    (here, _), (there, _) = (Coarse.of(v, SPACING).centre_and_volume for v in (fixed, moving))
    starts = []
    for axis in (2, 1, 0):  # most scans that are cut are cut below or above
        for shift in (-45.0, -25.0, 25.0, 45.0):
            matrix = np.diag([USUAL, USUAL, USUAL, 1.0])
            matrix[:3, 3] = there - USUAL * (here + shift * np.eye(3)[axis])
            starts.append(Affine(matrix))
    return starts


def rotation_angle(affine: Affine) -> float:
    """Angle of the rotation in an affine map (its polar factor), degrees."""
    u, _, vt = np.linalg.svd(affine.matrix[:3, :3])
    return float(np.degrees(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1))))


def _best(
    rotations: Rotation, keep: int, apart: float, *, moving: Coarse, fixed: Coarse
) -> list[tuple[float, Rotation]]:
    """Scores and rotations of the best, best first, at least ``apart`` degrees from each other."""
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
        at = fixed.lattice_in(moving, _similarity(rotation, moving=moving, fixed=fixed))
        columns.append(field.sample(moving.image, at).flatten())
    values = torch.stack(columns, dim=1)  # (voxels, rotations)
    sums, sizes = member @ values, member.sum(dim=1, keepdim=True).clamp(min=1)
    mean = values.mean(dim=0)
    between = (sums.square() / sizes).sum(dim=0) - len(values) * mean.square()
    total = values.square().sum(dim=0) - len(values) * mean.square()
    return between / total.clamp(min=1e-12)


def _classes(image: torch.Tensor, number: int = 8) -> torch.Tensor:
    """Membership (classes, voxels): outside of the brain, and quantiles of its intensities."""
    values = image.flatten()
    edges = torch.quantile(values[values > 0], torch.linspace(0, 1, number + 1))[1:-1]
    which = torch.where(values > 0, 1 + torch.bucketize(values, edges), 0)
    return F.one_hot(which, number + 1).T.float()


def _similarity(rotation: Rotation, *, moving: Coarse, fixed: Coarse) -> Affine:
    (here, volume), (there, other) = fixed.centre_and_volume, moving.centre_and_volume
    matrix = np.eye(4)
    matrix[:3, :3] = (other / volume) ** (1 / 3) * rotation.as_matrix()
    matrix[:3, 3] = there - matrix[:3, :3] @ here
    return Affine(matrix)


def _all_rotations(number: int) -> Rotation:
    """Evenly spread over all rotations (super-Fibonacci spiral, Alexa, CVPR 2022)."""
    s = np.arange(number) + 0.5
    inner, outer = np.sqrt(s / number), np.sqrt(1 - s / number)
    a, b = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288
    spiral = [inner * np.sin(a), inner * np.cos(a), outer * np.sin(b), outer * np.cos(b)]
    return Rotation.from_quat(np.stack(spiral, axis=1))


def _ball(number: int, radius: float) -> np.ndarray:
    """The origin and points (N, 3) evenly spread in a ball (a Fibonacci spiral by shells)."""
    s = np.arange(number) + 0.5
    height, turn = 1 - 2 * s / number, np.pi * (1 + np.sqrt(5)) * s
    flat = np.sqrt(1 - height**2)
    sphere = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)
    shells = radius * np.cbrt(((np.arange(number) * 7) % number + 0.5) / number)
    return np.vstack([np.zeros(3), sphere * shells[:, None]])
