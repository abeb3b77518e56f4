"""Random changes that a pair goes through: mirrors, motion, bending, and other intensities.

Each change takes its random numbers from a generator in the same number and order, whether or not
it is switched on, so that no knob of the augmentation changes what another one does.
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

LARGEST_TILT = 10.0  # degrees from left-right that the axis of a mirror may be
BIAS_NODES = 4  # along each axis, between which the bias is linear
BENDING_NODES = (6, 7, 8)  # along each axis, between which the displacement is linear


@dataclass(frozen=True)
class WorkingScan:
    """A scan on the lattice.

    Args:
        number: of the scan in its cohort, or ``ATLAS``.
        image: (1, X, Y, Z) in [0, 1].
        labels: (X, Y, Z) numbers of structures, if they are wanted.
    """

    number: int
    image: Tensor
    labels: Tensor | None


class Augmenter:
    """The changes that a configuration wants, on a lattice.

    The atlas is mirrored together with a scan, and changes in no other way.

    Args:
        augmentation: how scans are changed.
        grid: the lattice.
        mirror: (K+1,) number of the structure on the other side, see ``mirror_of``.

    Raises:
        InputError: the lattice is too oblique for mirrors.
    """

    def __init__(self, augmentation: Augmentation, grid: Grid, mirror: np.ndarray):
        self._augmentation, self._grid = augmentation, grid
        self._renumbering = label_tensor(mirror, len(mirror))
        self._axis = _left_right(grid) if augmentation.flip else 0

    def mirrored(self, scan: WorkingScan) -> WorkingScan:
        """Left and right exchanged, in the image, the labels and what the labels are called."""
        image, labels = scan.image.flip(1 + self._axis), scan.labels
        if labels is not None:
            labels = self._renumbering[labels.flip(self._axis).long()]
        return replace(scan, image=image, labels=labels)

    def jittered(self, scan: WorkingScan, draw: np.random.Generator) -> WorkingScan:
        """The scan after a small random affine map; zero where that leads outside of it."""
        degrees, factors, shift = draw.uniform(-1, 1, (3, 3))
        a = self._augmentation
        if scan.number == ATLAS or not (a.rotation or a.scaling or a.shift or a.bending):
            return scan
        matrix = motion(self._grid, a.rotation * degrees, 1 + a.scaling * factors, a.shift * shift)
        at = _reached(matrix, self._grid.shape)
        if a.bending:
            # A generator that hangs on draws which are made anyway: no other draw changes.
            deviates = np.random.default_rng(degrees.view(np.uint64)).normal
            for axis, spacing in enumerate(self._grid.spacing):
                nodes = deviates(scale=a.bending / spacing, size=BENDING_NODES)
                at[0, axis] += torch.from_numpy(_smooth(nodes, self._grid.shape))
        # The weights of an interpolation sum to one up to rounding alone.
        image, labels = sample(scan.image[None], at)[0].clamp_(0, 1), scan.labels
        if labels is not None:
            labels = sample(labels[None, None], at, nearest=True)[0, 0]
        return replace(scan, image=image, labels=labels)

    def recoloured(self, scan: WorkingScan, draw: np.random.Generator) -> Tensor:
        """The image as another scanner might have made it; background stays zero."""
        power, deviation = draw.uniform(-1, 1), draw.random()
        bias, seed = draw.uniform(-1, 1, (BIAS_NODES,) * 3), int(draw.integers(1 << 62))
        a = self._augmentation
        if scan.number == ATLAS or not (a.gamma or a.bias or a.noise):
            return scan.image
        # NumPy's powers and exponentials: the last bit of torch's depends on the threads it has.
        image = scan.image.numpy()
        seen = image ** math.exp(a.gamma * power) if a.gamma else image
        if a.bias:
            seen = seen * np.exp(_smooth(a.bias * bias, self._grid.shape))
        if a.noise:
            # A generator of its own: another number of voxels, or none, changes no other draw.
            noise = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
            seen = seen + a.noise * deviation * noise
        return torch.from_numpy(np.where(image > 0, seen.clip(0, 1), np.float32(0)))


def motion(grid: Grid, degrees: np.ndarray, factors: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The affine map that scales, turns and shifts about the middle of a lattice.

    Args:
        grid: the lattice; its axes are those of the motion.
        degrees: (3,) about each axis, the first axis first.
        factors: (3,) along each axis, before the rotation.
        shift: (3,) mm along each axis, after it.

    Returns:
        (4, 4) from voxel coordinates to voxel coordinates.
    """
    spacing, centre = np.asarray(grid.spacing), (np.asarray(grid.shape) - 1) / 2
    turned = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * factors
    matrix = np.eye(4)
    matrix[:3, :3] = turned * spacing / spacing[:, None]
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift / spacing
    return matrix


def _reached(matrix: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Where a (4, 4) matrix sends the voxels of a lattice: (1, 3, X, Y, Z)."""
    m = torch.from_numpy(matrix)
    i, j, k = (torch.arange(n, dtype=m.dtype) for n in shape)
    # Sums and not a product of matrices, whose last bit depends on the number of threads.
    components = [
        (row[0] * i).float()[:, None, None]
        + (row[1] * j).float()[:, None]
        + (row[2] * k + row[3]).float()
        for row in m[:3]
    ]
    return torch.stack(components)[None]


def _smooth(nodes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Values between those of a few nodes from border to border: (X, Y, Z) float32."""
    coarse = torch.from_numpy(nodes.astype(np.float32))[None, None]
    fine = F.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)
    return fine[0, 0].numpy()


def _left_right(grid: Grid) -> int:
    """The voxel axis that runs from left to right, or back."""
    axis = canonical_axes(grid.affine).index(0)
    tilt = math.degrees(math.acos(min(1.0, abs(float(grid.direction[0, axis])))))
    if tilt > LARGEST_TILT:
        raise InputError(
            f"augmentation.flip: no axis of the lattice is within {LARGEST_TILT:.0f}° of "
            f"left-right, the nearest is {tilt:.0f}° off"
        )
    return axis
