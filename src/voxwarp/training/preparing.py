"""Prepare scans for training, one by one or in several processes."""

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
from .cache import entries_of, is_valid_entry, recipe_key, write_entry


def prepare_arrays(
    scan: ScanRecord, recipe: Recipe, steps: Preparation, table: Table
) -> tuple[np.ndarray, np.ndarray | None]:
    """Prepare a scan and its label map on the working grid.

    Args:
        scan: the scan.
        recipe: working grid, alignment and intensities.
        steps: steps of preparation.
        table: the structures.

    Returns:
        The image, (X, Y, Z) uint8 with 255 for 1.0, and the structure numbers, (X, Y, Z), or None
        without labels.

    Raises:
        InputError: the scan cannot be read, lies outside the grid, or has no structure.
    """
    loaded = Scan.read(scan.path, labels=scan.labels if table.names else None)
    examination = loaded.examined(recipe, steps)
    intensities = loaded.prepared(recipe, examination).image[0, 0].numpy()
    image = np.rint(255 * intensities).astype(np.uint8)
    if not image.any():
        raise InputError(
            f"image {scan.path}: it is zero everywhere on the working grid; check its header and "
            f"preparation.alignment"
        )
    if loaded.labels is None:
        return image, None
    numbers = replace(loaded.labels, data=table.numbered(loaded.labels.data))
    if not ((numbers.data > 0) & (numbers.data <= len(table.names))).any():
        raise InputError(f"label map {scan.labels}: none of its label values is in data.structures")
    transform = examination.template_to_scan
    return image, resample(numbers, recipe.grid, transform, interpolation="nearest").data


@dataclass(frozen=True, eq=False)
class Job:
    """A scan that is not complete in the cache.

    Args:
        scan: the scan.
        image, labels: files to write; None if they exist.
        recipe, steps, table: how to prepare the scan, see ``prepare_arrays``.
    """

    scan: ScanRecord
    image: Path | None
    labels: Path | None
    recipe: Recipe
    steps: Preparation
    table: Table

    @property
    def size(self) -> int:
        """Size of the files to write, about, in bytes."""
        bytes_per_voxel = (self.image is not None) + (
            self.labels is not None
        ) * self.table.dtype.itemsize
        return bytes_per_voxel * math.prod(self.recipe.grid.shape)

    def run(self, needed: int) -> str | None:
        """Prepare and write the scan; returns the reason if it cannot be prepared."""
        try:
            image, labels = prepare_arrays(self.scan, self.recipe, self.steps, self.table)
        except InputError as error:
            return " ".join(str(error).split())
        for path, array in ((self.image, image), (self.labels, labels)):
            if path is not None and array is not None:
                write_entry(path, array, needed)
        return None


@dataclass(frozen=True)
class PreparationPlan:
    """The work that a preparation has to do.

    Args:
        jobs: scans that are not complete in the cache.
        files: files of the image and the labels (or None) in the cache, by scan.
        errors: reasons why scans cannot be prepared, by scan.
    """

    jobs: list[Job]
    files: dict[ScanRecord, tuple[Path, Path | None]]
    errors: dict[ScanRecord, str]

    @property
    def size(self) -> int:
        """Size of all files to write, about, in bytes."""
        return sum(job.size for job in self.jobs)


def plan_preparation(
    scans: Iterable[ScanRecord], recipe: Recipe, steps: Preparation, table: Table, folder: Path
) -> PreparationPlan:
    """Find out which scans are not in the cache.

    Args:
        scans: the scans.
        recipe, steps, table: how they are prepared, see ``prepare_arrays``.
        folder: folder of the cache.
    """
    key, shape = recipe_key(steps, recipe), recipe.grid.shape
    plan = PreparationPlan([], {}, {})
    for scan in scans:
        try:
            image, labels = plan.files[scan] = entries_of(scan, key, table, folder)
        except InputError as error:
            plan.errors[scan] = str(error)
            continue
        has_image = is_valid_entry(image, shape, np.dtype(np.uint8))
        has_labels = labels is None or is_valid_entry(labels, shape, table.dtype)
        missing = None if has_image else image, None if has_labels else labels
        if not (has_image and has_labels):
            plan.jobs.append(Job(scan, *missing, recipe, steps, table))
    return plan


def run_jobs(
    jobs: Sequence[Job], processes: int, needed: int
) -> Generator[tuple[Job, str | None], None, None]:
    """Run jobs; yields each one when it is done, with the reason if its scan failed.

    Args:
        jobs: the jobs.
        processes: number of processes that run jobs in parallel; 1 is this process itself.
        needed: bytes that all jobs together write.

    Raises:
        InputError: the disk is full, or a process was killed.
    """
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, job.run(needed)
        return
    threads = max(1, torch.get_num_threads() // processes)
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)),
        multiprocessing.get_context("spawn"),
        torch.set_num_threads,
        (threads,),
    )
    try:
        futures = {pool.submit(job.run, needed): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that prepares scans was killed, perhaps because memory ran out; use fewer "
            "processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
