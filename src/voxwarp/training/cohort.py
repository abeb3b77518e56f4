"""The scans of a training, prepared once into a cache.

``prepare_cohort`` puts each scan on the lattice of the network and keeps it as an array on disk,
which all processes and later runs share.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.counts import counted
from ..data.scans import ScanRecord
from ..data.sources import SPLITS, Split
from ..data.structures import Table, mirror_of, structures_of
from ..errors import InputError
from ..preparation.recipe import Recipe
from ..preparation.template import mni152
from .cache import cache_folder, check_space, label_values_of, remove_abandoned
from .config import Config
from .loss_terms import terms
from .preparing import plan, prepared, run_jobs
from .working_grid import recipe_of

TOLERABLE = 1 / 4  # of the scans may be left out

CountCallback = Callable[[int, int], object]  # done, of how many


@dataclass(frozen=True, eq=False)
class Cohort:
    """Prepared scans on one lattice, memory-mapped; cheap to hand to other processes.

    Args:
        scans: those that could be prepared.
        recipe: their lattice and what their intensities mean.
        structures: names of structures 1..K; K may be 0.
        mirror: (K+1,) number of the structure on the other side, see ``mirror_of``.
        skipped: why scans were left out, a line each.
        files: the image and the labels of each scan in the cache.
    """

    scans: list[ScanRecord]
    recipe: Recipe
    structures: list[str]
    mirror: np.ndarray
    skipped: list[str]
    files: list[tuple[Path, Path | None]]

    def image(self, i: int) -> np.ndarray:
        """(X, Y, Z) uint8 of scan ``i``, read-only; 255 is 1.0.

        Raises:
            InputError: it is not in the cache any more.
        """
        return self._mapped(self.files[i][0])

    def labels(self, i: int) -> np.ndarray | None:
        """(X, Y, Z) structure numbers 0..K, uint8, or uint16 where K > 255; None if unlabelled.

        Raises:
            InputError: they are not in the cache any more.
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
        """Who each scan is of: data set and subject."""
        return ["/".join(scan.key) for scan in self.scans]

    def _mapped(self, path: Path) -> np.ndarray:
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"prepared scan {path}: it is gone or damaged; start again to have it made anew"
            ) from error


def prepare_cohort(
    config: Config,
    scans: Sequence[ScanRecord],
    *,
    progress: CountCallback | None = None,
    processes: int = 1,
) -> Cohort:
    """Prepare every scan that is not in the cache yet, and open the cache.

    Each scan is written whole or not at all, so a preparation that was stopped goes on where it
    was, and several may share the folder. A scan that cannot be prepared is left out.

    Args:
        config: of the training.
        scans: what ``gather`` found.
        progress: called after each scan with how many are done and had to be done.
        processes: that prepare scans side by side.

    Raises:
        InputError: the disk is full, more than a quarter of the scans cannot be prepared, or
            what is left does not do for training.
    """
    folder = cache_folder(config)
    table = structures_of(config.data.structures, lambda split: _values_of(split, scans, folder))
    recipe = recipe_of(config, scans)
    planned = plan(scans, recipe, config.preparation.steps, table, folder)
    jobs, errors = planned.jobs, planned.errors
    check_space(folder, planned.size)
    remove_abandoned(folder)
    with closing(run_jobs(jobs, processes, planned.size)) as results:
        for number, (job, message) in enumerate(results, 1):
            if message:
                errors[job.scan] = message
            if progress:
                progress(number, len(jobs))
    skipped = [f"{scan.where}: {errors[scan]}" for scan in scans if scan in errors]
    if len(skipped) > TOLERABLE * len(scans):
        raise InputError(
            f"{len(skipped)} of {len(scans)} scans cannot be prepared; the first: {skipped[0]}"
        )
    left = [scan for scan in scans if scan not in errors]
    check_enough(config, left)
    files = [planned.files[scan] for scan in left]
    return Cohort(left, recipe, table.names, mirror_of(table.names), skipped, files)


def intensities(image: np.ndarray) -> torch.Tensor:
    """(X, Y, Z) bytes of the cache as an image, (1, X, Y, Z) float32 in [0, 1]."""
    return torch.from_numpy(image.astype(np.float32)[None] / np.float32(255))


def prepare_atlas(
    config: Config, cohort: Cohort
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """The atlas of an atlas-based training on the lattice of the cohort.

    Returns:
        Image (1, X, Y, Z) in [0, 1] and structure numbers (X, Y, Z), if it has labels; None where
        pairs are sampled without an atlas.

    Raises:
        InputError: it cannot be prepared.
    """
    wanted = config.sampling
    if wanted.atlas is None:
        return None
    template = cohort.recipe.template or mni152()
    path = template.path if wanted.atlas == "template" else Path(wanted.atlas)
    labels = Path(wanted.atlas_labels) if wanted.atlas_labels else None
    scan = ScanRecord(path, labels, "atlas", "atlas", "train", "sampling.atlas")
    # Where nothing else names them, structures are called by their label values.
    table = structures_of(config.data.structures, lambda _: set(map(int, cohort.structures)))
    image, numbers = prepared(scan, cohort.recipe, config.preparation.steps, table)
    if numbers is not None and numbers.itemsize > 1:  # PyTorch knows no wide unsigned integers
        numbers = numbers.astype(np.int32)
    return (
        intensities(image),
        None if numbers is None else torch.from_numpy(numbers),
    )


def described(cohort: Cohort) -> dict[str, Any]:
    """Who was trained on and how the scans were prepared, for records in JSON."""
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for scan in cohort.scans:
        labels = None if scan.labels is None else str(scan.labels)
        about = {"path": str(scan.path), "labels": labels, "licence": scan.licence}
        splits[scan.split].append({**about, "dataset": scan.dataset, "subject": scan.subject})
    return {
        "scans": splits,
        "counts": {
            dataset: {split: asdict(count) for split, count in counts.items()}
            for dataset, counts in counted(cohort.scans).items()
        },
        "structures": cohort.structures,
        "skipped": cohort.skipped,
        "lattice": cohort.recipe.grid.described(),
        "alignment": cohort.recipe.alignment_name,
        "percentile": cohort.recipe.percentile,
    }


def bytes_needed(config: Config, scans: Sequence[ScanRecord], table: Table, folder: Path) -> int:
    """Size of what is not prepared yet; scans that are missing take no space.

    Args:
        config: of the training.
        scans: what ``gather`` found.
        table: the structures.
        folder: of the cache.

    Raises:
        InputError: see ``recipe_of``.
    """
    return plan(scans, recipe_of(config, scans), config.preparation.steps, table, folder).size


def check_enough(config: Config, scans: Iterable[ScanRecord]) -> None:
    """Make sure that pairs can be drawn.

    Raises:
        InputError: too few subjects are in split train, or too few of them have labels.
    """
    train = [scan for scan in scans if scan.split == "train"]
    least = 2 if config.sampling.mode == "pairwise" else 1
    compared = any(n.endswith("labels") for t in terms(config.losses) for n in t.wants)
    if compared and config.sampling.mode == "atlas" and config.sampling.atlas_labels is None:
        raise InputError("losses: labels are to be compared, and the atlas has none")
    for kind, share, those in (
        ("", 1.0, train),
        ("labelled ", compared or config.sampling.labelled, [s for s in train if s.labels]),
    ):
        subjects = {scan.key for scan in those}
        if share and len(subjects) < least:
            raise InputError(
                f"data: {config.sampling.mode} training wants {kind}scans of {least} train "
                f"subjects or more, there are {len(subjects)}"
            )


def _values_of(split: Split, scans: Iterable[ScanRecord], folder: Path) -> set[int]:
    maps = (scan.labels for scan in scans if scan.split == split and scan.labels is not None)
    return set().union(*(label_values_of(labels, folder) for labels in maps))
