"""Pairs to train on: which two scans, and the random changes that they go through.

Pair number n is a function of the seed and of n, not of history: a resumed run sees what an
unbroken one would have, however many processes share the numbers.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..data.sources import Split
from ..errors import InputError
from .augmentation import Augmenter, WorkingScan
from .batch import ATLAS, Sample, label_tensor
from .cohort import Cohort, intensities
from .config import Augmentation, Sampling

ATTEMPTS = 10  # pairs that are drawn before unreadable scans end the training

_UNREADABLE = (OSError, ValueError, EOFError)  # NumPy has the last one for empty files


class PairDataset(Dataset[Sample]):
    """Random pairs, each a function of the seed and of its number alone.

    Every pair has a generator of its own, from which is drawn, in this order: whether labelled
    scans alone are wanted; one subject, a scan of theirs and, pairwise, another subject and a scan
    of theirs, or else the direction, and all of these again as long as a scan cannot be read;
    whether to mirror; the affine changes of the moving, then of the fixed scan; the intensity
    changes of the moving, then of the fixed scan. All of them are drawn also if they are switched
    off, so that no knob of the augmentation changes what another one does.

    Subjects are drawn uniformly, then one of the subject's scans: who was scanned thrice is not
    seen more often. The atlas is mirrored together with the scan, and changes in no other way.

    Args:
        cohort: prepared scans.
        sampling: which pairs.
        augmentation: how they are changed.
        seed: from 0.
        split: whose subjects.
        atlas: image (1, X, Y, Z) in [0, 1] on the lattice, and its labels (X, Y, Z), numbers of
            structures; for mode atlas, which wants it.
        length: how many pairs there are.
        labels: False leaves labels unread, where nothing compares them.

    Raises:
        InputError: fewer subjects than a pair needs, or a lattice too oblique for mirrors.
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
        self._cohort, self._sampling, self._flip = cohort, sampling, augmentation.flip
        self._seed, self._length, self._labels = seed, length, labels
        self._grid = cohort.recipe.grid
        self._atlas = self._checked_atlas(atlas) if atlas else None
        self._subjects, self._labelled = self._of_subjects(split)
        self._changes = Augmenter(augmentation, self._grid, cohort.mirror)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Sample:
        number = int(number)
        if not 0 <= number < self._length:
            raise IndexError(f"there are pairs 0 to {self._length - 1}, got {number}")
        draw = np.random.default_rng((self._seed, number))
        pair, skipped = self._read_pair(draw)
        if draw.random() < self._flip:
            pair = [self._changes.mirrored(scan) for scan in pair]
        moving, fixed = pair = [self._changes.jittered(scan, draw) for scan in pair]
        seen_moving, seen_fixed = (self._changes.recoloured(scan, draw) for scan in pair)
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

    def _of_subjects(self, split: Split) -> tuple[list[list[int]], list[list[int]]]:
        """The scans of each subject of the split, and the labelled ones of those who have any."""
        names, subjects = self._cohort.subjects, dict[str, list[int]]()
        for number in self._cohort.indices(split):
            subjects.setdefault(names[number], []).append(number)
        labelled = [[n for n in own if self._cohort.is_labelled(n)] for own in subjects.values()]
        labelled = [own for own in labelled if own]
        wanted = 1 if self._atlas else 2
        if len(subjects) < wanted:
            raise InputError(
                f"split {split}: {wanted} subjects are wanted, there is {len(subjects)}"
            )
        if self._sampling.labelled:
            if len(labelled) < wanted:
                raise InputError(
                    f"sampling.labelled: {wanted} subjects of split {split} with labelled scans "
                    f"are wanted, there is {len(labelled)}"
                )
            if self._atlas and self._atlas.labels is None:
                raise InputError("sampling.labelled: the atlas has no labels")
        return list(subjects.values()), labelled

    def _read_pair(self, draw: np.random.Generator) -> tuple[list[WorkingScan], list[str]]:
        """A moving and a fixed scan, and what was wrong with those that cannot be read."""
        among = self._labelled if draw.random() < self._sampling.labelled else self._subjects
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

    def _read(self, number: int, with_labels: bool) -> WorkingScan:
        """One scan; InputError if its files in the cache are gone or damaged."""
        if number == ATLAS and self._atlas:
            return WorkingScan(
                ATLAS, self._atlas.image, self._atlas.labels if with_labels else None
            )
        try:
            image = self._on_lattice(self._cohort.image(number))
            found = self._cohort.labels(number) if with_labels else None
            labels = None if found is None else self._on_lattice(found)
        except _UNREADABLE as error:
            raise InputError(f"image {self._cohort.scans[number].path}: {error}") from error
        size = len(self._cohort.mirror)
        return WorkingScan(
            number, intensities(image), None if labels is None else label_tensor(labels, size)
        )

    def _on_lattice(self, array: np.ndarray) -> np.ndarray:
        if array.shape != self._grid.shape:
            raise ValueError(f"{array.shape} voxels, where {self._grid.shape} are wanted")
        return array

    def _checked_atlas(self, atlas: tuple[Tensor, Tensor | None]) -> WorkingScan:
        image, labels = atlas
        if image.shape != (1, *self._grid.shape):
            raise ValueError(f"atlas must be (1, *{self._grid.shape}), got {tuple(image.shape)}")
        if labels is not None:
            labels = label_tensor(self._on_lattice(labels.numpy()), len(self._cohort.mirror))
        return WorkingScan(ATLAS, image.float(), labels)
