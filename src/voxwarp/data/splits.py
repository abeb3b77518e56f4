"""Random splits into train, val and test; of subjects, not of scans."""

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial

from ..errors import InputError
from .sources import SPLITS, Split

SubjectKey = tuple[str, str]  # data set and name


def draw_splits(
    subjects: Iterable[SubjectKey], fractions: Mapping[Split, float], seed: int
) -> dict[SubjectKey, Split]:
    """Draw a split for each subject, separately for each data set.

    The draw depends on the seed and the names alone, not on the order of the subjects.

    Args:
        subjects: subjects without a split.
        fractions: share of the subjects of a data set in each split.
        seed: seed of the draw.
    """
    by_dataset: defaultdict[str, set[SubjectKey]] = defaultdict(set)
    for subject in subjects:
        by_dataset[subject[0]].add(subject)
    splits: dict[SubjectKey, Split] = {}
    for group in by_dataset.values():
        order = iter(sorted(group, key=partial(_lot, seed, "split")))
        for split, size in split_sizes(len(group), fractions).items():
            splits.update(dict.fromkeys(itertools.islice(order, size), split))
    return splits


def split_sizes(number: int, fractions: Mapping[Split, float]) -> dict[Split, int]:
    """Divide a number of subjects among the splits, by largest remainders.

    From three subjects on, every split with a fraction above 0 gets at least one.
    """
    total = sum(fractions.values())
    exact = {split: number * fractions.get(split, 0.0) / total for split in SPLITS}
    sizes = {split: math.floor(exact[split] + 1e-9) for split in SPLITS}
    by_remainder = sorted(SPLITS, key=lambda split: sizes[split] - exact[split])
    for split in by_remainder[: number - sum(sizes.values())]:
        sizes[split] += 1
    for split in SPLITS:
        if number >= 3 and exact[split] > 0 and not sizes[split]:
            sizes[max(SPLITS, key=lambda other: sizes[other])] -= 1
            sizes[split] = 1
    return sizes


def first_subjects(subjects: Iterable[SubjectKey], number: int, seed: int) -> set[SubjectKey]:
    """Draw a number of subjects; a smaller number gives a subset of a larger one.

    Raises:
        InputError: there are fewer subjects.
    """
    available = set(subjects)
    if number > len(available):
        raise InputError(
            f"data.subjects must be at most {len(available)}, the number of train subjects, "
            f"got {number}"
        )
    # The word "people" is part of the draw: another one would choose other subjects.
    return set(sorted(available, key=partial(_lot, seed, "people"))[:number])


def _lot(seed: int, purpose: str, subject: SubjectKey) -> str:
    """A random number that depends on the arguments alone, not on the other subjects."""
    text = "\0".join((str(seed), purpose, *subject))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
