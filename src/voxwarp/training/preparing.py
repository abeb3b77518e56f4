"""Scans become what a network is fed: one by one, or by several processes side by side."""

import math
import multiprocessing
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..data.scans import ScanRecord
from ..data.structures import Table
from ..errors import InputError
from ..preparation.recipe import Recipe
from ..preparation.scan import Scan
from ..preparation.settings import Preparation
from ..space.resample import resample
from .cache import decisive_of, entries_of, is_whole, write_entry


def prepared(
    scan: ScanRecord, recipe: Recipe, steps: Preparation, table: Table
) -> tuple[np.ndarray, np.ndarray | None]:
    """A scan on the lattice of a recipe.

    Returns:
        Image (X, Y, Z) uint8, 255 for 1.0, and the numbers of structures there, if it has labels.

    Raises:
        InputError: it cannot be read, is not on the lattice, or shows no structure.
    """
    read = Scan.read(scan.path, labels=scan.labels if table.names else None)
    found = read.examined(recipe, steps)
    intensities = read.prepared(recipe, found).image[0, 0].numpy()
    image = np.rint(255 * intensities).astype(np.uint8)
    if not image.any():
        raise InputError(f"image {scan.path}: it is zero all over the lattice")
    if read.labels is None:
        return image, None
    numbers = replace(read.labels, data=table.numbered(read.labels.data))
    if not numbers.data.any():
        raise InputError(f"label map {scan.labels}: none of its label values is a structure")
    through = found.template_to_scan
    return image, resample(numbers, recipe.grid, through, interpolation="nearest").data


@dataclass(frozen=True, eq=False)
class Job:
    """A scan of which something is not in the cache.

    Args:
        image, labels: the files that are to be written; None where they are there.
    """

    scan: ScanRecord
    image: Path | None
    labels: Path | None
    recipe: Recipe
    steps: Preparation
    table: Table

    @property
    def size(self) -> int:
        """Bytes, about."""
        a_voxel = (self.image is not None) + (self.labels is not None) * self.table.dtype.itemsize
        return a_voxel * math.prod(self.recipe.grid.shape)

    def do(self, needed: int) -> str | None:
        """Prepare and write; what is wrong with the scan, if it cannot be prepared."""
        try:
            image, labels = prepared(self.scan, self.recipe, self.steps, self.table)
        except InputError as error:
            return " ".join(str(error).split())
        for path, array in ((self.image, image), (self.labels, labels)):
            if path is not None and array is not None:
                write_entry(path, array, needed)
        return None


@dataclass(frozen=True)
class Plan:
    """What is to be prepared, where all goes, and what is wrong with scans that are not there."""

    jobs: list[Job]
    files: dict[ScanRecord, tuple[Path, Path | None]]
    errors: dict[ScanRecord, str]

    @property
    def size(self) -> int:
        """Bytes that are to be written, about."""
        return sum(job.size for job in self.jobs)


def plan(
    scans: Iterable[ScanRecord], recipe: Recipe, steps: Preparation, table: Table, folder: Path
) -> Plan:
    """What of the scans is not in the cache.

    Args:
        recipe, steps, table: what they are prepared into.
        folder: of the cache.
    """
    decisive, shape = decisive_of(steps, recipe), recipe.grid.shape
    made = Plan([], {}, {})
    for scan in scans:
        try:
            image, labels = made.files[scan] = entries_of(scan, decisive, table, folder)
        except InputError as error:
            made.errors[scan] = str(error)
            continue
        has_image = is_whole(image, shape, np.dtype(np.uint8))
        has_labels = labels is None or is_whole(labels, shape, table.dtype)
        wanted = None if has_image else image, None if has_labels else labels
        if not (has_image and has_labels):
            made.jobs.append(Job(scan, *wanted, recipe, steps, table))
    return made


def run_jobs(
    jobs: Sequence[Job], processes: int, needed: int
) -> Generator[tuple[Job, str | None], None, None]:
    """Each job when it is done, with what is wrong with its scan.

    Args:
        processes: that do jobs side by side; with one, it is this one.
        needed: bytes that all jobs together write.

    Raises:
        InputError: the disk is full, or a process was killed.
    """
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, job.do(needed)
        return
    threads = max(1, torch.get_num_threads() // processes)
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)),
        multiprocessing.get_context("spawn"),
        torch.set_num_threads,
        (threads,),
    )
    try:
        futures = {pool.submit(job.do, needed): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that prepared scans was killed: if the memory is full, use fewer processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
