"""A pair as it is read: two scans, their label maps and the fixed brain."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..data.pairs import Pair, PairScan
from ..data.structures import label_values
from ..preparation.intensity import from_zero
from ..preparation.scan import Scan
from ..space.volume import Volume


@dataclass(frozen=True, eq=False)
class Case:
    """A pair as it is read.

    Args:
        pair: which.
        moving, fixed: the scans.
        moving_labels, fixed_labels: their label maps, if both have one.
        brain: (X, Y, Z) boolean mask on the fixed grid.
    """

    pair: Pair
    moving: Volume
    fixed: Volume
    moving_labels: Volume | None
    fixed_labels: Volume | None
    brain: np.ndarray


def read_case(pair: Pair, brain: np.ndarray | None = None) -> Case:
    """Read the scans and labels of a pair as ``register`` does; the last few are remembered.

    Args:
        pair: which.
        brain: mask on the grid of the fixed scan as it is read; by default all that is not 0.

    Raises:
        InputError: a file cannot be read, or labels are not on their scan's grid.
    """
    moving, fixed = _read(pair.moving), _read(pair.fixed)
    both = moving.labels is not None and fixed.labels is not None
    labels = (moving.labels, fixed.labels) if both else (None, None)
    brain = from_zero(fixed.image).data > 0 if brain is None else brain
    return Case(pair, moving.image, fixed.image, *labels, brain)


def _read(scan: PairScan) -> Scan:
    return _as_of(scan, *(_changed(path) for path in (scan.path, scan.labels) if path))


@lru_cache(maxsize=4)
def _as_of(scan: PairScan, *changed: tuple[int, int] | None) -> Scan:
    """What was in the files when they were changed last."""
    return Scan.read(scan.path, labels=scan.labels)


def _changed(path: Path) -> tuple[int, int] | None:
    """Time and size by which a file is told from an older one; None of one that is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def values_of(pairs: Sequence[Pair]) -> set[int]:
    """The label values in all label maps of the pairs."""
    scans = {scan for pair in pairs for scan in (pair.moving, pair.fixed)}
    maps = (_read(scan).labels for scan in sorted(scans, key=lambda s: s.name))
    return set[int]().union(*(label_values(labels.data) for labels in maps if labels is not None))
