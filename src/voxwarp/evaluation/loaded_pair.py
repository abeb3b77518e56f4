"""A pair as it is scored: two scans, their label maps and the fixed brain."""

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
class LoadedPair:
    """The images of a pair.

    Args:
        pair: the pair in the list.
        moving, fixed: the scans.
        moving_labels, fixed_labels: their label maps; None unless both scans have one.
        brain: (X, Y, Z) boolean mask on the fixed grid.
    """

    pair: Pair
    moving: Volume
    fixed: Volume
    moving_labels: Volume | None
    fixed_labels: Volume | None
    brain: np.ndarray


def load_pair(pair: Pair, brain: np.ndarray | None = None) -> LoadedPair:
    """Read the scans and labels of a pair as ``register`` does; the last few scans are cached.

    Args:
        pair: the pair in the list.
        brain: mask on the grid of the fixed scan as it is read; by default all voxels above zero.

    Raises:
        InputError: a file cannot be read, or labels are not on their scan's grid.
    """
    moving, fixed = _read(pair.moving), _read(pair.fixed)
    labelled = moving.labels is not None and fixed.labels is not None
    labels = (moving.labels, fixed.labels) if labelled else (None, None)
    brain = from_zero(fixed.image).data > 0 if brain is None else brain
    return LoadedPair(pair, moving.image, fixed.image, *labels, brain)


def _read(scan: PairScan) -> Scan:
    return _read_version(scan, *(_version(path) for path in (scan.path, scan.labels) if path))


@lru_cache(maxsize=4)
def _read_version(scan: PairScan, *versions: tuple[int, int] | None) -> Scan:
    """The scan; the versions of its files are part of the key, so that changes are noticed."""
    return Scan.read(scan.path, labels=scan.labels)


def _version(path: Path) -> tuple[int, int] | None:
    """Time of the last change and size of a file; None if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def label_values_in(pairs: Sequence[Pair]) -> set[int]:
    """The label values in all label maps of the pairs, without 0."""
    scans = {scan for pair in pairs for scan in (pair.moving, pair.fixed)}
    maps = (_read(scan).labels for scan in sorted(scans, key=lambda s: s.name))
    return set[int]().union(*(label_values(labels.data) for labels in maps if labels is not None))
