"""How many scans, subjects and label maps there are, by data set and split."""

from collections.abc import Iterable
from dataclasses import dataclass

from .scans import ScanRecord
from .sources import SPLITS, Split


@dataclass(frozen=True)
class Counts:
    """Of a split of a data set."""

    scans: int
    subjects: int
    labelled: int


def counted(scans: Iterable[ScanRecord]) -> dict[str, dict[Split, Counts]]:
    """How many scans, subjects and label maps there are, by data set and split."""
    groups: dict[str, dict[Split, list[ScanRecord]]] = {}
    for scan in scans:
        splits = groups.setdefault(scan.dataset, {split: [] for split in SPLITS})
        splits[scan.split].append(scan)
    return {
        dataset: {
            split: Counts(
                len(those),
                len({scan.key for scan in those}),
                sum(scan.labels is not None for scan in those),
            )
            for split, those in splits.items()
        }
        for dataset, splits in groups.items()
    }
