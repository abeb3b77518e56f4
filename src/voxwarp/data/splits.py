"""Who is trained on and who is not: subjects, not scans, are put into splits by lots."""

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial

from ..errors import InputError
from .sources import SPLITS, Split

Subject = tuple[str, str]  # data set and name


def drawn_splits(
    subjects: Iterable[Subject], fractions: Mapping[Split, float], seed: int
) -> dict[Subject, Split]:
    """A split for each of the subjects, data set by data set, by lots.

    The lots are drawn from the seed and the names, so no order matters.

    Args:
        subjects: those that have no split.
        fractions: of the subjects of a data set.
        seed: of the lots.
    """
    by_dataset: defaultdict[str, set[Subject]] = defaultdict(set)
    for subject in subjects:
        by_dataset[subject[0]].add(subject)
    splits: dict[Subject, Split] = {}
    for those in by_dataset.values():
        order = iter(sorted(those, key=partial(_lot, seed, "split")))
        for split, size in shares(len(those), fractions).items():
            splits.update(dict.fromkeys(itertools.islice(order, size), split))
    return splits


def shares(number: int, fractions: Mapping[Split, float]) -> dict[Split, int]:
    """How many of so many subjects go into each split: largest remainders get the rest.

    Of three subjects or more, every split with a fraction gets at least one.
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


def first_subjects(subjects: Iterable[Subject], number: int, seed: int) -> set[Subject]:
    """So many of the subjects, the first in an order by lots: fewer are among more.

    Raises:
        InputError: there are not so many.
    """
    everybody = set(subjects)
    if number > len(everybody):
        raise InputError(
            f"data.subjects: {number} are wanted, there are {len(everybody)} to train on"
        )
    return set(sorted(everybody, key=partial(_lot, seed, "people"))[:number])


def _lot(seed: int, purpose: str, subject: Subject) -> str:
    """A number that depends on nothing but the words: not on who else there is."""
    words = "\0".join((str(seed), purpose, *subject))
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()
