"""Random changes of a pair: mirroring, motion, bending, intensities.

Each change draws its random numbers even if it is switched off, always in the same order. So a
setting of the augmentation does not affect the other changes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..errors import InputError
from ..fields.field import sample
from ..space.grid import Grid, canonical_axes
from .batch import ATLAS, label_tensor
from .config import Augmentation

# Degrees between left-right and the axis of a flip. Set by hand: a mirror at 10 degrees still
# exchanges the hemispheres.
LARGEST_TILT = 10.0
BIAS_NODES = 4  # along each axis; the bias is linear between them
BENDING_NODES = (6, 7, 8)  # along each axis; the displacement is linear between them


@dataclass(frozen=True)
class WorkingScan:
    """A scan on the working grid.

    Args:
        number: number of the scan in its cohort, or ``ATLAS``.
        image: (1, X, Y, Z) in [0, 1].
        labels: (X, Y, Z) structure numbers, or None.
    """

    number: int
    image: Tensor
    labels: Tensor | None


class Augmenter:
    """The random changes of a configuration, on the working grid.

    The atlas is mirrored together with the scan and not changed otherwise.

    Args:
        augmentation: settings of the changes.
        grid: the working grid.
        mirror: number of the structure on the other side, for each number, see ``Table``.

    Raises:
        InputError: the grid is too oblique for flips.
    """

    def __init__(self, augmentation: Augmentation, grid: Grid, mirror: np.ndarray):
        self._augmentation, self._grid = augmentation, grid
        self._renumbering = label_tensor(mirror, len(mirror))
        self._axis = left_right_axis(grid) if augmentation.flip else 0

    def mirrored(self, scan: WorkingScan) -> WorkingScan:
        """The scan with left and right exchanged, in the image and in the labels."""
        image, labels = scan.image.flip(1 + self._axis), scan.labels
        if labels is not None:
            labels = self._renumbering[labels.flip(self._axis).long()]
        return replace(scan, image=image, labels=labels)

    def jittered(self, scan: WorkingScan, draw: np.random.Generator) -> WorkingScan:
        """The scan after a small random motion and bending; zero outside its field of view."""
        degrees, factors, shift = draw.uniform(-1, 1, (3, 3))
        a = self._augmentation
        if scan.number == ATLAS or not (a.rotation or a.scaling or a.shift or a.bending):
            return scan
        matrix = motion(self._grid, a.rotation * degrees, 1 + a.scaling * factors, a.shift * shift)
        points = _voxels_under(matrix, self._grid.shape)
        if a.bending:
            # Seeded by numbers that are drawn anyway, so that no other draw changes.
            deviates = np.random.default_rng(degrees.view(np.uint64)).normal
            for axis, spacing in enumerate(self._grid.spacing):
                nodes = deviates(scale=a.bending / spacing, size=BENDING_NODES)
                points[0, axis] += torch.from_numpy(_smooth(nodes, self._grid.shape))
        # Clamped because the weights of the interpolation sum to 1 only up to rounding.
        image, labels = sample(scan.image[None], points)[0].clamp_(0, 1), scan.labels
        if labels is not None:
            labels = sample(labels[None, None], points, nearest=True)[0, 0]
        return replace(scan, image=image, labels=labels)

    def recoloured(self, scan: WorkingScan, draw: np.random.Generator) -> Tensor:
        """The image with other intensities, as from another scanner; background stays zero."""
        power, deviation = draw.uniform(-1, 1), draw.random()
        bias, seed = draw.uniform(-1, 1, (BIAS_NODES,) * 3), int(draw.integers(1 << 62))
        a = self._augmentation
        if scan.number == ATLAS or not (a.gamma or a.bias or a.noise):
            return scan.image
        # Powers and exponentials by NumPy: in PyTorch, the last bit depends on the threads.
        image = scan.image.numpy()
        changed = image ** math.exp(a.gamma * power) if a.gamma else image
        if a.bias:
            changed = changed * np.exp(_smooth(a.bias * bias, self._grid.shape))
        if a.noise:
            # A separate generator, so that the number of voxels does not change other draws.
            noise = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
            changed = changed + a.noise * deviation * noise
        return torch.from_numpy(np.where(image > 0, changed.clip(0, 1), np.float32(0)))


def motion(grid: Grid, degrees: np.ndarray, factors: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Build the affine map that scales, rotates and shifts about the middle of a grid.

    Args:
        grid: the grid; the motion is along and about its axes.
        degrees: (3,) rotation about each axis, the first axis first.
        factors: (3,) scale along each axis, before the rotation.
        shift: (3,) mm along each axis, after the rotation.

    Returns:
        (4, 4) matrix from voxel coordinates to voxel coordinates.
    """
    spacing, centre = np.asarray(grid.spacing), (np.asarray(grid.shape) - 1) / 2
    rotation = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * factors
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * spacing / spacing[:, None]
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift / spacing
    return matrix


def _voxels_under(matrix: np.ndarray, shape: Sequence[int]) -> Tensor:
    """The voxels of a grid mapped by a (4, 4) matrix: (1, 3, X, Y, Z)."""
    m = torch.from_numpy(matrix)
    i, j, k = (torch.arange(n, dtype=m.dtype) for n in shape)
    # Sums, because the last bit of a matrix product depends on the number of threads.
    components = [
        (row[0] * i).float()[:, None, None]
        + (row[1] * j).float()[:, None]
        + (row[2] * k + row[3]).float()
        for row in m[:3]
    ]
    return torch.stack(components)[None]


def _smooth(nodes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Interpolate a few nodes from border to border: (X, Y, Z) float32."""
    coarse = torch.from_numpy(nodes.astype(np.float32))[None, None]
    fine = F.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)
    return fine[0, 0].numpy()


def left_right_axis(grid: Grid) -> int:
    """The voxel axis along left-right, in either direction.

    Raises:
        InputError: the grid is too oblique for flips.
    """
    axis = canonical_axes(grid.affine).index(0)
    tilt = math.degrees(math.acos(min(1.0, abs(float(grid.direction[0, axis])))))
    if tilt > LARGEST_TILT:
        raise InputError(
            f"augmentation.flip: the working grid has no left-right axis to mirror along; the "
            f"nearest axis is {tilt:.0f}° off, at most {LARGEST_TILT:.0f}° is allowed; set flip "
            f"to 0"
        )
    return axis
