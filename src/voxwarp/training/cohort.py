"""The scans of a training, prepared once and kept in a cache.

``prepare_cohort`` resamples each scan onto the working grid and keeps it as an array on disk,
which all processes and later runs share.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.counts import count_scans
from ..data.scans import ScanRecord
from ..data.sources import SPLITS, Split
from ..data.structures import Table, structures_of
from ..errors import InputError
from ..preparation.recipe import Recipe
from ..preparation.template import mni152
from .cache import cache_folder, check_space, label_values_of, remove_abandoned
from .config import Config
from .loss_terms import build_terms
from .preparing import plan_preparation, prepare_arrays, run_jobs
from .working_grid import recipe_of

TOLERABLE = 1 / 4  # share of scans that may be left out; set by hand

CountCallback = Callable[[int, int], object]  # number done, total


@dataclass(frozen=True, eq=False)
class Cohort:
    """Prepared scans on one working grid; memory-mapped, so cheap to pass to other processes.

    Args:
        scans: the scans that could be prepared.
        recipe: how they were prepared: working grid, alignment, intensities.
        structures: names of the structures 1..K; K may be 0.
        mirror: number of the structure on the other side, for each number, see ``Table``.
        skipped: reasons why scans were left out, one line each.
        files: files of the image and the labels (or None) in the cache, for each scan.
    """

    scans: list[ScanRecord]
    recipe: Recipe
    structures: list[str]
    mirror: np.ndarray
    skipped: list[str]
    files: list[tuple[Path, Path | None]]

    def image(self, i: int) -> np.ndarray:
        """The image of scan ``i``: (X, Y, Z) uint8, read-only; 255 is 1.0.

        Raises:
            InputError: it is no longer in the cache.
        """
        return self._mapped(self.files[i][0])

    def labels(self, i: int) -> np.ndarray | None:
        """The structure numbers 0..K of scan ``i``, or None: (X, Y, Z) uint8; uint16 if K > 255.

        Raises:
            InputError: they are no longer in the cache.
        """
        path = self.files[i][1]
        return None if path is None else self._mapped(path)

    def is_labelled(self, i: int) -> bool:
        """Whether scan ``i`` has labels."""
        return self.files[i][1] is not None

    def indices(self, split: Split) -> list[int]:
        """Numbers of the scans of a split."""
        return [i for i, scan in enumerate(self.scans) if scan.split == split]

    @property
    def subjects(self) -> list[str]:
        """The subject of each scan, with its data set."""
        return ["/".join(scan.key) for scan in self.scans]

    def _mapped(self, path: Path) -> np.ndarray:
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"prepared scan {path}: the file is missing or damaged; start the training again "
                f"to prepare the scan again"
            ) from error


def prepare_cohort(
    config: Config,
    scans: Sequence[ScanRecord],
    *,
    progress: CountCallback | None = None,
    processes: int = 1,
) -> Cohort:
    """Prepare every scan that is not in the cache yet, and open the cache.

    Each scan is written completely or not at all, so an interrupted preparation continues where
    it was, and several can share the folder. A scan that cannot be prepared is left out.

    Args:
        config: configuration of the training.
        scans: the scans, from ``gather``.
        progress: called after each scan with the number done and the total.
        processes: number of processes that prepare scans in parallel.

    Raises:
        InputError: the disk is full, more than a quarter of the scans cannot be prepared, or
            the remaining scans are too few.
    """
    folder = cache_folder(config)
    table = structures_of(config.data.structures, lambda split: _values_of(split, scans, folder))
    recipe = recipe_of(config, scans)
    todo = plan_preparation(scans, recipe, config.preparation.steps, table, folder)
    jobs, errors = todo.jobs, todo.errors
    check_space(folder, todo.size)
    remove_abandoned(folder)
    with closing(run_jobs(jobs, processes, todo.size)) as results:
        for number, (job, message) in enumerate(results, 1):
            if message:
                errors[job.scan] = message
            if progress:
                progress(number, len(jobs))
    skipped = [f"{scan.where}: {errors[scan]}" for scan in scans if scan in errors]
    if len(skipped) > TOLERABLE * len(scans):
        raise InputError(
            f"data: {len(skipped)} of {len(scans)} scans cannot be prepared, more than a quarter; "
            f"the first one: {skipped[0]}"
        )
    usable = [scan for scan in scans if scan not in errors]
    check_enough(config, usable)
    files = [todo.files[scan] for scan in usable]
    return Cohort(usable, recipe, table.names, table.mirror, skipped, files)


def intensities(image: np.ndarray) -> torch.Tensor:
    """Convert an array of the cache, (X, Y, Z) uint8, to (1, X, Y, Z) float32 in [0, 1]."""
    return torch.from_numpy(image.astype(np.float32)[None] / np.float32(255))


def prepare_atlas(
    config: Config, cohort: Cohort
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Prepare the atlas of an atlas-based training, on the working grid.

    Returns:
        The image, (1, X, Y, Z) in [0, 1], and its structure numbers, (X, Y, Z), or None if it has
        no labels. None in the place of both if the training has no atlas.

    Raises:
        InputError: the atlas cannot be prepared.
    """
    sampling = config.sampling
    if sampling.atlas is None:
        return None
    template = cohort.recipe.template or mni152()
    path = template.path if sampling.atlas == "template" else Path(sampling.atlas)
    labels = Path(sampling.atlas_labels) if sampling.atlas_labels else None
    scan = ScanRecord(path, labels, "atlas", "atlas", "train", "sampling.atlas")
    # Structures that nothing else names have their label values as names.
    table = structures_of(config.data.structures, lambda _: set(map(int, cohort.structures)))
    image, numbers = prepare_arrays(scan, cohort.recipe, config.preparation.steps, table)
    if numbers is not None and numbers.itemsize > 1:  # PyTorch lacks wide unsigned integers
        numbers = numbers.astype(np.int32)
    return (
        intensities(image),
        None if numbers is None else torch.from_numpy(numbers),
    )


def describe_cohort(cohort: Cohort) -> dict[str, Any]:
    """The content of ``data.json``: scans by split, and how they were prepared."""
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for scan in cohort.scans:
        labels = None if scan.labels is None else str(scan.labels)
        about = {"path": str(scan.path), "labels": labels, "licence": scan.licence}
        splits[scan.split].append({**about, "dataset": scan.dataset, "subject": scan.subject})
    return {
        "scans": splits,
        "counts": {
            dataset: {split: asdict(count) for split, count in counts.items()}
            for dataset, counts in count_scans(cohort.scans).items()
        },
        "structures": cohort.structures,
        "skipped": cohort.skipped,
        "lattice": cohort.recipe.grid.described(),
        "alignment": cohort.recipe.alignment_name,
        "percentile": cohort.recipe.percentile,
    }


def bytes_needed(config: Config, scans: Sequence[ScanRecord], table: Table, folder: Path) -> int:
    """Disk space for the scans that are not in the cache yet; missing scans count as 0.

    Args:
        config: configuration of the training.
        scans: the scans, from ``gather``.
        table: the structures.
        folder: folder of the cache.

    Raises:
        InputError: see ``recipe_of``.
    """
    recipe = recipe_of(config, scans)
    return plan_preparation(scans, recipe, config.preparation.steps, table, folder).size


def check_enough(config: Config, scans: Iterable[ScanRecord]) -> None:
    """Make sure that there are enough subjects to draw pairs.

    Raises:
        InputError: too few subjects are in split train, or too few of them have labels.
    """
    train = [scan for scan in scans if scan.split == "train"]
    least = 2 if config.sampling.mode == "pairwise" else 1
    uses_labels = any(n.endswith("labels") for t in build_terms(config.losses) for n in t.inputs)
    if uses_labels and config.sampling.mode == "atlas" and config.sampling.atlas_labels is None:
        raise InputError(
            "losses: a loss compares labels, but the atlas has none; set sampling.atlas_labels"
        )
    labelled = [scan for scan in train if scan.labels]
    for kind, is_needed, group in (
        ("", True, train),
        (" with labels", bool(uses_labels or config.sampling.labelled), labelled),
    ):
        subjects = {scan.key for scan in group}
        if is_needed and len(subjects) < least:
            raise InputError(
                f"data: a training in mode {config.sampling.mode} needs at least {least} train "
                f"subjects{kind}, but there are {len(subjects)}"
            )


def _values_of(split: Split, scans: Iterable[ScanRecord], folder: Path) -> set[int]:
    """The label values of a split."""
    maps = (scan.labels for scan in scans if scan.split == split and scan.labels is not None)
    return set().union(*(label_values_of(labels, folder) for labels in maps))
