"""Draw the pairs of a training: two scans and their random changes.

Pair n depends on the seed and on n alone. So a resumed run gets the same pairs as an
uninterrupted one, with any number of processes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..data.sources import Split
from ..errors import InputError
from .augmentation import Augmenter, WorkingScan
from .batch import ATLAS, Sample, label_tensor
from .cohort import Cohort, intensities
from .config import Augmentation, Sampling, Synthesis
from .synthesis import Synthesiser

ATTEMPTS = 10  # pairs drawn before unreadable scans end the training; set by hand

_UNREADABLE = (OSError, ValueError, EOFError)  # NumPy raises EOFError for empty files


class PairDataset(Dataset[Sample]):
    """Random pairs, each determined by the seed and its number.

    Every pair has its own random generator. The draws are, in this order: (1) whether the pair is
    chosen among labelled scans only; (2) a subject and one of its scans, then another subject and
    one of its scans, or with an atlas the direction; again while a scan cannot be read;
    (3) whether to mirror; (4) the motion of the moving scan, then of the fixed one; (5) the
    intensities of the moving scan, then of the fixed one. All are drawn even if they are switched
    off, so that a setting of the augmentation does not affect the other changes. Images of other
    contrasts have generators of their own.

    A subject is drawn first, uniformly, then one of its scans: subjects with many scans are not
    drawn more often. The atlas is mirrored together with the scan and not changed otherwise.

    Args:
        cohort: prepared scans.
        sampling: settings of the pairs.
        augmentation: settings of the random changes.
        seed: seed, from 0.
        synthesis: settings of images of other contrasts that the network gets; None: none.
        split: split of the subjects.
        atlas: for mode atlas: its image, (1, X, Y, Z) in [0, 1], and its structure numbers,
            (X, Y, Z) or None, on the working grid.
        length: number of pairs.
        labels: whether to read labels; False if no loss compares them.

    Raises:
        InputError: there are too few subjects, or the grid is too oblique for flips.
    """

    def __init__(
        self,
        cohort: Cohort,
        sampling: Sampling,
        augmentation: Augmentation,
        *,
        seed: int,
        synthesis: Synthesis | None = None,
        split: Split = "train",
        atlas: tuple[Tensor, Tensor | None] | None = None,
        length: int = 2**31,
        labels: bool = True,
    ):
        if (sampling.mode == "atlas") != (atlas is not None):
            raise ValueError("atlas must be given in mode atlas, and only there")
        self._cohort, self._sampling, self._flip = cohort, sampling, augmentation.flip
        self._seed, self._length, self._labels = seed, length, labels
        self._grid = cohort.recipe.grid
        self._atlas = self._checked_atlas(atlas) if atlas else None
        self._subjects, self._labelled = self._scans_by_subject(split)
        self._changes = Augmenter(augmentation, self._grid, cohort.mirror)
        self._synthesise = None
        if synthesis and synthesis.share:
            self._synthesise = Synthesiser(
                synthesis, self._grid.spacing, cohort.recipe.percentile, cohort.mirror
            )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Sample:
        number = int(number)
        if not 0 <= number < self._length:
            raise IndexError(f"number must be from 0 to {self._length - 1}, got {number}")
        draw = np.random.default_rng((self._seed, number))
        pair, skipped = self._read_pair(draw)
        if draw.random() < self._flip:
            pair = [self._changes.mirrored(scan) for scan in pair]
        moving, fixed = pair = [self._changes.jittered(scan, draw) for scan in pair]
        shown = [self._other_contrast(scan, number, side) for side, scan in enumerate(pair)]
        moving_input, fixed_input = (self._changes.recoloured(scan, draw) for scan in shown)
        return Sample(
            moving.image,
            fixed.image,
            moving_input,
            fixed_input,
            moving.labels,
            fixed.labels,
            (moving.number, fixed.number),
            skipped,
        )

    def _other_contrast(self, scan: WorkingScan, number: int, side: int) -> WorkingScan:
        """What the network gets to see: the scan, or an image of another contrast."""
        if scan.number == ATLAS or not self._synthesise:
            return scan
        # Zeros at the end of a seed would not count.
        draw = np.random.default_rng((self._seed, number, 1 + side))
        return replace(scan, image=self._synthesise(scan.image, scan.labels, draw))

    def _scans_by_subject(self, split: Split) -> tuple[list[list[int]], list[list[int]]]:
        """The scans of each subject of a split, and the labelled scans of each that has some."""
        names, subjects = self._cohort.subjects, dict[str, list[int]]()
        for number in self._cohort.indices(split):
            subjects.setdefault(names[number], []).append(number)
        labelled = [[n for n in own if self._cohort.is_labelled(n)] for own in subjects.values()]
        labelled = [own for own in labelled if own]
        least = 1 if self._atlas else 2
        if len(subjects) < least:
            raise InputError(
                f"data: split {split} must have at least {least} subjects, but has {len(subjects)}"
            )
        if self._sampling.labelled:
            if len(labelled) < least:
                raise InputError(
                    f"sampling.labelled: split {split} must have at least {least} subjects with "
                    f"labels, but has {len(labelled)}"
                )
            if self._atlas and self._atlas.labels is None:
                raise InputError(
                    "sampling.labelled: the atlas has no labels; set sampling.atlas_labels"
                )
        return list(subjects.values()), labelled

    def _read_pair(self, draw: np.random.Generator) -> tuple[list[WorkingScan], list[str]]:
        """A moving and a fixed scan, with messages about scans that cannot be read."""
        subjects = self._labelled if draw.random() < self._sampling.labelled else self._subjects
        skipped: list[str] = []
        while len(skipped) < ATTEMPTS:
            pair = self._draw_pair(subjects, draw)
            labels = self._labels and all(self._has_labels(number) for number in pair)
            try:
                return [self._read(number, labels) for number in pair], skipped
            except InputError as error:
                skipped.append(str(error))
        raise InputError(f"{ATTEMPTS} pairs in a row cannot be read; the last one: {skipped[-1]}")

    def _draw_pair(
        self, subjects: Sequence[Sequence[int]], draw: np.random.Generator
    ) -> tuple[int, int]:
        """Numbers of the moving and of the fixed scan."""
        first = int(draw.integers(len(subjects)))
        one = int(draw.choice(subjects[first]))
        if self._atlas:
            swap = draw.random() < 0.5 and self._sampling.fixed == "either"
            return (ATLAS, one) if swap else (one, ATLAS)
        other = (first + 1 + int(draw.integers(len(subjects) - 1))) % len(subjects)
        return one, int(draw.choice(subjects[other]))

    def _has_labels(self, number: int) -> bool:
        if number == ATLAS:
            return self._atlas is not None and self._atlas.labels is not None
        return self._cohort.is_labelled(number)

    def _read(self, number: int, with_labels: bool) -> WorkingScan:
        """Read a scan; InputError if its files in the cache are missing or damaged."""
        if number == ATLAS and self._atlas:
            return WorkingScan(
                ATLAS, self._atlas.image, self._atlas.labels if with_labels else None
            )
        try:
            image = self._checked(self._cohort.image(number))
            numbers = self._cohort.labels(number) if with_labels else None
            labels = None if numbers is None else self._checked(numbers)
        except _UNREADABLE as error:
            raise InputError(f"image {self._cohort.scans[number].path}: {error}") from error
        size = len(self._cohort.mirror)
        return WorkingScan(
            number, intensities(image), None if labels is None else label_tensor(labels, size)
        )

    def _checked(self, array: np.ndarray) -> np.ndarray:
        """An array, after a check that it is on the working grid."""
        if array.shape != self._grid.shape:
            raise ValueError(f"it must have {self._grid.shape} voxels, but has {array.shape}")
        return array

    def _checked_atlas(self, atlas: tuple[Tensor, Tensor | None]) -> WorkingScan:
        image, labels = atlas
        if image.shape != (1, *self._grid.shape):
            raise ValueError(
                f"atlas must have shape {(1, *self._grid.shape)}, got {tuple(image.shape)}"
            )
        if labels is not None:
            labels = label_tensor(self._checked(labels.numpy()), len(self._cohort.mirror))
        return WorkingScan(ATLAS, image.float(), labels)
