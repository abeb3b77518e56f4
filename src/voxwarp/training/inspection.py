"""What would go wrong in a training, found before it costs time: ``voxwarp train --check``."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data.counts import Counts, counted
from ..data.scans import ScanRecord
from ..data.sources import Split
from ..data.structures import Table, label_values, structures_of
from ..errors import InputError
from ..files import check_writable
from ..preparation.scan import Scan
from ..space.volume import read_labels, read_series, read_volume
from .cache import cache_folder, check_space, free_space
from .cohort import CountCallback, bytes_needed, check_enough
from .config import Config
from .memory import check_memory
from .start import network_to_start_from
from .working_grid import recipe_of


@dataclass(frozen=True)
class Report:
    """What is found before a training.

    Args:
        problems: what has to be put right, a line each, with the file and its row.
        warnings: what is odd, a line each.
        counts: by data set and split.
        structures: names of those that count.
        bytes_needed: of disk space, for what is not prepared yet.
        bytes_free: of disk space.
        folder: where prepared scans go.
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
    """Decode every file and compare label maps with scans, structures and each other.

    It writes nothing and stops at nothing: all problems are in the report.

    Args:
        config: of the training.
        scans: what ``gather`` found.
        progress: called after each scan with how many are done and there are.
    """
    seen = list(zip(scans, _looks(scans, progress), strict=True))

    def values(split: Split) -> set[int]:
        return set().union(*(look.values or () for scan, look in seen if scan.split == split))

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
    for scan, look in seen:
        problems += look.problems
        warnings += look.warnings
        if table and table.names and look.values is not None:
            _compare(scan, look.values, table, problems, warnings)
    names = table.names if table else []
    return Report(problems, warnings, counted(scans), names, needed, free_space(folder), folder)


def check_beforehand(config: Config, scans: Sequence[ScanRecord], device: torch.device) -> None:
    """Make sure of what can be known before scans are prepared, which takes time.

    Raises:
        InputError: memory will not do, or the weights to start from do not fit.
    """
    if config.start_from:
        network_to_start_from(config)
    # How many structures there are may be known later; the learner looks again.
    structures = int(config.network.get("structures", 0))
    check_memory(config, recipe_of(config, scans).grid.shape, structures, device)


@dataclass
class _Look:
    """What one scan and its label map show; the label values, where they can be read."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    values: set[int] | None = None


def _looks(scans: Sequence[ScanRecord], progress: CountCallback | None) -> list[_Look]:
    looks: list[_Look] = []
    pool = ThreadPoolExecutor(2)  # gzip lets go of the interpreter
    try:
        for look in pool.map(_look, scans):
            looks.append(look)
            if progress:
                progress(len(looks), len(scans))
    finally:
        pool.shutdown(cancel_futures=True)
    return looks


def _look(scan: ScanRecord) -> _Look:
    look, volume = _Look(), None
    try:
        volume = read_volume(scan.path)
        look.warnings.extend(f"{scan.where}: {warning}" for warning in volume.header_warnings)
    except InputError as error:
        look.problems.append(f"{scan.where}: {error}")
    if scan.labels is not None:
        try:
            if volume is None:
                read_series(scan.labels, "label map")
            else:
                look.values = label_values(read_labels(scan.labels, volume).data)
        except InputError as error:
            look.problems.append(f"{scan.where}: {error}")
    return look


def _compare(
    scan: ScanRecord, values: set[int], table: Table, problems: list[str], warnings: list[str]
) -> None:
    """The values of a label map with those that count."""
    missing = table.missing(values)
    which = f"{scan.where}: label map {scan.labels}"
    if len(missing) == len(table.names):
        problems.append(f"{which}: none of its {len(values)} label values is a structure")
    elif missing and scan.split != "test":
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        warnings.append(f"{which}: {len(missing)} structures are not in it ({shown})")


def _attempt(problems: list[str], step: Callable[[], Any], otherwise: Any) -> Any:
    """What a step gives; where the input is wrong, that is noted and ``otherwise`` goes on."""
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
    few = f"data: there are {len(subjects)} subjects in split val: hardly anything can be validated"
    return [] if len(subjects) > 1 else [few]
