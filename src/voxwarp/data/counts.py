"""Numbers of scans, subjects and label maps in each data set and split."""

from collections.abc import Iterable
from dataclasses import dataclass

from .scans import ScanRecord
from .sources import SPLITS, Split


@dataclass(frozen=True)
class Counts:
    """Numbers for one split of one data set.

    Args:
        scans: scans.
        subjects: different subjects.
        labelled: scans with a label map.
    """

    scans: int
    subjects: int
    labelled: int


def count_scans(scans: Iterable[ScanRecord]) -> dict[str, dict[Split, Counts]]:
    """Count scans, subjects and label maps, by data set and split."""
    groups: dict[str, dict[Split, list[ScanRecord]]] = {}
    for scan in scans:
        splits = groups.setdefault(scan.dataset, {split: [] for split in SPLITS})
        splits[scan.split].append(scan)
    return {
        dataset: {
            split: Counts(
                len(group),
                len({scan.key for scan in group}),
                sum(scan.labels is not None for scan in group),
            )
            for split, group in splits.items()
        }
        for dataset, splits in groups.items()
    }
