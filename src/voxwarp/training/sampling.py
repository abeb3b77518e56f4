"""Pairs to train on: which two scans, and the random changes that they go through.

Pair number n is a function of the seed and of n, not of history: a resumed run sees what an
unbroken one would have, however many processes share the numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError
from ..fields.field import sample
from ..space.grid import Grid, canonical_axes
from .config import Augmentation, Sampling, Split
from .cohort import Cohort, intensities

ATLAS = -1  # the atlas in ``names``, where scans have their numbers
ATTEMPTS = 10  # pairs that are drawn before unreadable scans end the training
LARGEST_TILT = 10.0  # degrees from left-right that the axis of a mirror may be
BIAS_NODES = 4  # along each axis, between which the bias is linear

BENDING_NODES = (6, 7, 8)  # along each axis, between which the displacement is linear

_UNREADABLE = (OSError, ValueError, EOFError)  # NumPy has the last one for empty files


@dataclass
class Sample:
    """A pair.

    Args:
        moving, fixed: (1, X, Y, Z) float32 in [0, 1]: what the costs compare.
        seen_moving, seen_fixed: what the network sees: the same with changed intensities, or
            the very same tensors where these do not change.
        moving_labels, fixed_labels: (X, Y, Z) numbers of structures; None unless both have them.
        names: numbers of the two scans; ``ATLAS``.
        skipped: what was wrong with scans that could not be read, in whose place these are.
    """

    moving: Tensor
    fixed: Tensor
    seen_moving: Tensor
    seen_fixed: Tensor
    moving_labels: Tensor | None
    fixed_labels: Tensor | None
    names: tuple[int, int]
    skipped: list[str]


@dataclass
class Batch:
    """Pairs side by side.

    Args:
        moving, fixed, seen_moving, seen_fixed: (B, 1, X, Y, Z), as in ``Sample``.
        labelled: which of the B pairs have labels.
        moving_labels, fixed_labels: (L, X, Y, Z), of these L pairs; None where there are none.
        names, skipped: of all pairs.
    """

    moving: Tensor
    fixed: Tensor
    seen_moving: Tensor
    seen_fixed: Tensor
    labelled: list[int]
    moving_labels: Tensor | None
    fixed_labels: Tensor | None
    names: list[tuple[int, int]]
    skipped: list[str]

    def to(self, device: str | torch.device) -> "Batch":
        """The batch on a device; tensors that are the same stay the same."""
        moving, fixed = self.moving.to(device), self.fixed.to(device)
        same_moving, same_fixed = self.seen_moving is self.moving, self.seen_fixed is self.fixed
        return replace(
            self,
            moving=moving,
            fixed=fixed,
            seen_moving=moving if same_moving else self.seen_moving.to(device),
            seen_fixed=fixed if same_fixed else self.seen_fixed.to(device),
            moving_labels=None if self.moving_labels is None else self.moving_labels.to(device),
            fixed_labels=None if self.fixed_labels is None else self.fixed_labels.to(device),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Pairs side by side; tensors that are the same in all of them stay the same."""
    moving = torch.stack([s.moving for s in samples])
    fixed = torch.stack([s.fixed for s in samples])
    same_moving = all(s.seen_moving is s.moving for s in samples)
    same_fixed = all(s.seen_fixed is s.fixed for s in samples)
    return Batch(
        moving,
        fixed,
        moving if same_moving else torch.stack([s.seen_moving for s in samples]),
        fixed if same_fixed else torch.stack([s.seen_fixed for s in samples]),
        [i for i, s in enumerate(samples) if s.moving_labels is not None],
        _stacked([s.moving_labels for s in samples]),
        _stacked([s.fixed_labels for s in samples]),
        [s.names for s in samples],
        [message for s in samples for message in s.skipped],
    )


def _stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(there) if there else None


@dataclass(frozen=True)
class _Scan:
    """A scan on the lattice: (1, X, Y, Z) in [0, 1], (X, Y, Z) numbers of structures."""

    number: int
    image: Tensor
    labels: Tensor | None


class Pairs(Dataset[Sample]):
    """Random pairs, each a function of the seed and of its number alone.

    Every pair has a generator of its own, from which is drawn, in this order: whether labelled
    scans alone are wanted; one person, a scan of theirs and, pairwise, another person and a scan
    of theirs, or else the direction, and all of these again as long as a scan cannot be read;
    whether to mirror; the affine changes of the moving, then of the fixed scan; the intensity
    changes of the moving, then of the fixed scan. All of them are drawn also if they are switched
    off, so that no knob of the augmentation changes what another one does.

    People are drawn uniformly, then one of the person's scans: who was scanned thrice is not
    seen more often. The atlas is mirrored together with the scan, and changes in no other way.

    Args:
        cohort: prepared scans.
        sampling: which pairs.
        augmentation: how they are changed.
        seed: from 0.
        split: whose people.
        atlas: image (1, X, Y, Z) in [0, 1] on the lattice, and its labels (X, Y, Z), numbers of
            structures; for mode atlas, which wants it.
        length: how many pairs there are.
        labels: False leaves labels unread, where nothing compares them.

    Raises:
        InputError: fewer people than a pair needs, or a lattice too oblique for mirrors.
    """

    def __init__(
        self,
        cohort: Cohort,
        sampling: Sampling,
        augmentation: Augmentation,
        *,
        seed: int,
        split: Split = "train",
        atlas: tuple[Tensor, Tensor | None] | None = None,
        length: int = 2**31,
        labels: bool = True,
    ):
        if (sampling.mode == "atlas") != (atlas is not None):
            raise ValueError("mode atlas wants an atlas, and no other mode does")
        self._cohort, self._sampling, self._augmentation = cohort, sampling, augmentation
        self._seed, self._length, self._labels = seed, length, labels
        self._grid = cohort.recipe.grid
        self._renumbering = label_tensor(cohort.mirror, len(cohort.mirror))
        self._atlas = self._checked_atlas(atlas) if atlas else None
        self._people, self._labelled = self._of_people(split)
        self._axis = _left_right(self._grid) if augmentation.flip else 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Sample:
        number = int(number)
        if not 0 <= number < self._length:
            raise IndexError(f"there are pairs 0 to {self._length - 1}, got {number}")
        draw = np.random.default_rng((self._seed, number))
        pair, skipped = self._read_pair(draw)
        if draw.random() < self._augmentation.flip:
            pair = [self._mirrored(scan) for scan in pair]
        moving, fixed = pair = [self._jittered(scan, draw) for scan in pair]
        seen_moving, seen_fixed = (self._recoloured(scan, draw) for scan in pair)
        return Sample(
            moving.image,
            fixed.image,
            seen_moving,
            seen_fixed,
            moving.labels,
            fixed.labels,
            (moving.number, fixed.number),
            skipped,
        )

    # ------------------------------------------------------------------------- which two scans

    def _of_people(self, split: Split) -> tuple[list[list[int]], list[list[int]]]:
        """The scans of each person of the split, and the labelled ones of those who have any."""
        names, people = self._cohort.people, dict[str, list[int]]()
        for number in self._cohort.indices(split):
            people.setdefault(names[number], []).append(number)
        labelled = [[n for n in own if self._cohort.is_labelled(n)] for own in people.values()]
        labelled = [own for own in labelled if own]
        wanted = 1 if self._atlas else 2
        if len(people) < wanted:
            raise InputError(f"split {split}: {wanted} people are wanted, there is {len(people)}")
        if self._sampling.labelled:
            if len(labelled) < wanted:
                raise InputError(
                    f"sampling.labelled: {wanted} people of split {split} with labelled scans "
                    f"are wanted, there is {len(labelled)}"
                )
            if self._atlas and self._atlas.labels is None:
                raise InputError("sampling.labelled: the atlas has no labels")
        return list(people.values()), labelled

    def _read_pair(self, draw: np.random.Generator) -> tuple[list[_Scan], list[str]]:
        """A moving and a fixed scan, and what was wrong with those that cannot be read."""
        among = self._labelled if draw.random() < self._sampling.labelled else self._people
        skipped: list[str] = []
        while len(skipped) < ATTEMPTS:
            pair = self._drawn(among, draw)
            labels = self._labels and all(self._has_labels(number) for number in pair)
            try:
                return [self._read(number, labels) for number in pair], skipped
            except InputError as error:
                skipped.append(str(error))
        raise InputError(f"{ATTEMPTS} pairs in a row cannot be read, the last: {skipped[-1]}")

    def _drawn(self, among: Sequence[Sequence[int]], draw: np.random.Generator) -> tuple[int, int]:
        """Numbers of the moving and of the fixed scan."""
        first = int(draw.integers(len(among)))
        one = int(draw.choice(among[first]))
        if self._atlas:
            swap = draw.random() < 0.5 and self._sampling.fixed == "either"
            return (ATLAS, one) if swap else (one, ATLAS)
        other = (first + 1 + int(draw.integers(len(among) - 1))) % len(among)
        return one, int(draw.choice(among[other]))

    def _has_labels(self, number: int) -> bool:
        if number == ATLAS:
            return self._atlas is not None and self._atlas.labels is not None
        return self._cohort.is_labelled(number)

    def _read(self, number: int, with_labels: bool) -> _Scan:
        """One scan; InputError if its files in the cache are gone or damaged."""
        if number == ATLAS and self._atlas:
            return _Scan(ATLAS, self._atlas.image, self._atlas.labels if with_labels else None)
        try:
            image = self._on_lattice(self._cohort.image(number))
            found = self._cohort.labels(number) if with_labels else None
            labels = None if found is None else self._on_lattice(found)
        except _UNREADABLE as error:
            raise InputError(f"image {self._cohort.scans[number].path}: {error}") from error
        size = len(self._cohort.mirror)
        return _Scan(
            number, intensities(image), None if labels is None else label_tensor(labels, size)
        )

    def _on_lattice(self, array: np.ndarray) -> np.ndarray:
        if array.shape != self._grid.shape:
            raise ValueError(f"{array.shape} voxels, where {self._grid.shape} are wanted")
        return array

    def _checked_atlas(self, atlas: tuple[Tensor, Tensor | None]) -> _Scan:
        image, labels = atlas
        if image.shape != (1, *self._grid.shape):
            raise ValueError(f"atlas must be (1, *{self._grid.shape}), got {tuple(image.shape)}")
        if labels is not None:
            labels = label_tensor(self._on_lattice(labels.numpy()), len(self._cohort.mirror))
        return _Scan(ATLAS, image.float(), labels)

    # ---------------------------------------------------------------------------- their changes

    def _mirrored(self, scan: _Scan) -> _Scan:
        """Left and right exchanged, in the image, the labels and what the labels are called."""
        image, labels = scan.image.flip(1 + self._axis), scan.labels
        if labels is not None:
            labels = self._renumbering[labels.flip(self._axis).long()]
        return _Scan(scan.number, image, labels)

    def _jittered(self, scan: _Scan, draw: np.random.Generator) -> _Scan:
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
        return _Scan(scan.number, image, labels)

    def _recoloured(self, scan: _Scan, draw: np.random.Generator) -> Tensor:
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


def label_tensor(labels: np.ndarray, size: int) -> Tensor:
    """Numbers of structures in the narrowest type that torch computes with, a copy.

    Args:
        labels: of any integer type; torch can hardly compare the unsigned ones of two bytes.
        size: above all numbers of the cohort, so that the type is the same for all its scans.
    """
    wide = np.int16 if size <= 1 << 15 else np.int32
    return torch.from_numpy(labels.astype(np.uint8 if size <= 1 << 8 else wide))


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
