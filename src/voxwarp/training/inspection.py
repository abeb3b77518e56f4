"""Find the problems of a training before it starts: ``voxwarp train --check``."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .._files import check_writable, free_space
from ..data.counts import Counts, count_scans
from ..data.scans import ScanRecord
from ..data.sources import Split
from ..data.structures import Table, label_values, structures_of
from ..errors import InputError
from ..preparation.scan import Scan
from ..space.volume import Volume, read_labels, read_series, read_volume
from .cache import cache_folder, check_space
from .cohort import CountCallback, bytes_needed, check_enough
from .config import Config
from .memory import check_memory
from .start import read_start
from .working_grid import recipe_of


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Args:
        problems: errors that must be corrected, one line each, with file and row.
        warnings: findings that may be intended, one line each.
        counts: numbers of scans by data set and split.
        structures: names of the structures.
        bytes_needed: disk space for the scans that are not prepared yet.
        bytes_free: free disk space.
        folder: folder of the prepared scans.
    """

    problems: list[str]
    warnings: list[str]
    counts: dict[str, dict[Split, Counts]]
    structures: list[str]
    bytes_needed: int
    bytes_free: int
    folder: Path


def check(
    config: Config, scans: Sequence[ScanRecord], *, progress: CountCallback | None = None
) -> Report:
    """Read every scan and label map, and check them against each other and the structures.

    Writes nothing, and continues after an error: all problems are in the report.

    Args:
        config: configuration of the training.
        scans: the scans, from ``gather``.
        progress: called after each scan with the number done and the total.
    """
    checked = list(zip(scans, _check_scans(scans, progress), strict=True))

    def values(split: Split) -> set[int]:
        return set().union(
            *(result.values or () for scan, result in checked if scan.split == split)
        )

    problems: list[str] = []
    attempt = partial(_attempt, problems)
    folder = attempt(lambda: cache_folder(config), Path())
    table = attempt(lambda: structures_of(config.data.structures, values), None)
    needed = attempt(lambda: bytes_needed(config, scans, table or Table([], {}), folder), 0)
    for step in (
        lambda: check_writable(folder),
        lambda: check_space(folder, needed),
        lambda: check_enough(config, scans),
        lambda: _check_atlas(config),
    ):
        attempt(step, None)
    warnings = _warnings(scans)
    for scan, result in checked:
        problems += result.problems
        warnings += result.warnings
        if table and table.names and result.values is not None:
            _compare(scan, result.values, table, problems, warnings)
    names = table.names if table else []
    return Report(problems, warnings, count_scans(scans), names, needed, free_space(folder), folder)


def check_beforehand(config: Config, scans: Sequence[ScanRecord], device: torch.device) -> None:
    """Check what can be checked before the scans are prepared, which takes long.

    Raises:
        InputError: the memory is too small, or the weights to start from do not fit.
    """
    if config.start_from:
        read_start(config)
    # The number of structures may not be known yet; ``Learner.begin`` checks again.
    structures = int(config.network.get("structures", 0))
    check_memory(config, recipe_of(config, scans).grid.shape, structures, device)


@dataclass
class _ScanCheck:
    """Findings about one scan and its label map, with the label values if they can be read."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    values: set[int] | None = None

    def note(self, scan: ScanRecord, volume: Volume) -> None:
        """Note what the header of an image of the scan leaves in doubt."""
        self.warnings += [f"{scan.where}: {warning}" for warning in volume.header_warnings]


def _check_scans(scans: Sequence[ScanRecord], progress: CountCallback | None) -> list[_ScanCheck]:
    results: list[_ScanCheck] = []
    pool = ThreadPoolExecutor(2)  # threads help because gzip releases the interpreter's lock
    try:
        for result in pool.map(_check_scan, scans):
            results.append(result)
            if progress:
                progress(len(results), len(scans))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _check_scan(scan: ScanRecord) -> _ScanCheck:
    result, volume = _ScanCheck(), None
    try:
        volume = read_volume(scan.path)
        result.note(scan, volume)
    except InputError as error:
        result.problems.append(f"{scan.where}: {error}")
    if scan.labels is not None:
        try:
            if volume is None:
                read_series(scan.labels, "label map")
            else:
                labels = read_labels(scan.labels, volume)
                result.note(scan, labels)
                result.values = label_values(labels.data)
        except InputError as error:
            result.problems.append(f"{scan.where}: {error}")
    return result


def _compare(
    scan: ScanRecord, values: set[int], table: Table, problems: list[str], warnings: list[str]
) -> None:
    """Compare the values of a label map with the structures."""
    missing = table.missing(values)
    which = f"{scan.where}: label map {scan.labels}"
    if len(missing) == len(table.names):
        problems.append(f"{which}: none of its {len(values)} label values is in data.structures")
    elif missing and scan.split != "test":
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        warnings.append(f"{which}: it lacks {len(missing)} of the structures ({shown})")


def _attempt(problems: list[str], step: Callable[[], Any], otherwise: Any) -> Any:
    """The result of a step; if it fails, note the problem and return ``otherwise``."""
    try:
        return step()
    except InputError as error:
        problems.append(str(error))
        return otherwise


def _check_atlas(config: Config) -> None:
    atlas, labels = config.sampling.atlas, config.sampling.atlas_labels
    if atlas is not None and atlas != "template":
        Scan.read(atlas, labels=labels, role="atlas")


def _warnings(scans: Iterable[ScanRecord]) -> list[str]:
    subjects = {scan.key for scan in scans if scan.split == "val"}
    few = (
        f"data: split val has {len(subjects)} subjects, but validation needs pairs of two; without "
        f"it, the last model counts as the best"
    )
    return [] if len(subjects) > 1 else [few]
