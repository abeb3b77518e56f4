"""The scans of a training, prepared once into a cache.

``prepare_cohort`` puts each scan on the lattice of the network and keeps it as an array on disk,
which all processes and later runs share.
"""

import errno
import hashlib
import inspect
import io
import json
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage

from ..data.scans import Scan
from ..data.structures import Table, label_values, mirror_of, structures_of
from ..errors import InputError
from ..files import check_readable, write_bytes
from ..networks.model import WORKING_GRID, Recipe
from ..preparation import brain, cache
from ..preparation.prepare import Settings, prepare, read_scan, template_path, unaligned
from ..space.grid import Grid
from ..space.resample import resample
from ..space.volume import Volume, image_grid, read_series
from .config import SPLITS, Config, Split
from .costs import terms

#: Part of every key: to be raised when a scan comes to be prepared in another way.
PREPARATION = 1
MULTIPLE = 16  # voxels: networks halve the lattice several times
LARGEST = 1 << 28  # voxels of a lattice that follows from the scans; a larger one is a mistake
TOLERABLE = 1 / 4  # of the scans may be left out

Progress = Callable[[int, int], object]  # done, of how many


# ------------------------------------------------------------------------------------- Lattice


def recipe_of(config: Config, scans: Iterable[Scan]) -> Recipe:
    """How the scans become the network's input; looks at their headers where it has to.

    Raises:
        InputError: the lattice is to be as large as the scans, and none can be read, or they
            want one that is larger than any network takes.
    """
    wanted = config.preparation
    spacing, shape = wanted.spacing, wanted.shape
    paths = [scan.path for scan in scans]
    if config.sampling.atlas not in (None, "template"):
        paths.append(Path(str(config.sampling.atlas)))
    if wanted.alignment == "mni152":
        grid = _mni_lattice(spacing, shape, max(phase.downsample for phase in config.phases))
    elif wanted.alignment == "centre":
        size = np.array(shape) if shape else _rounded_up(_extents(paths) / spacing)
        grid = _lattice(size, spacing, -(size - 1) / 2 * spacing)
    else:
        low, high = _union(paths)
        least = _voxels((high - low) / spacing)
        size = np.array(shape) if shape else _rounded_up(least)
        # By whole voxels: scans that share a lattice of this spacing are not interpolated.
        grid = _lattice(size, spacing, low + (0.5 - (size - least) // 2) * spacing)
    return Recipe(grid, wanted.percentile, wanted.alignment)


def _mni_lattice(spacing: float, shape: Sequence[int] | None, multiple: int) -> Grid:
    """The working grid with voxels of another size or number, around the same point.

    Where no shape is wanted, the sides are multiples of what the phases average over.
    """
    if spacing == 1 and shape is None:
        return WORKING_GRID
    extent = np.asarray(WORKING_GRID.shape) / spacing
    size = np.array(shape) if shape else -(-_voxels(extent) // multiple) * multiple
    affine = WORKING_GRID.affine.copy()
    affine[:3, :3] *= spacing
    middle = WORKING_GRID.to_world((np.asarray(WORKING_GRID.shape) - 1) / 2)
    affine[:3, 3] = middle - affine[:3, :3] @ ((size - 1) / 2)
    return Grid(size.tolist(), affine)


def _lattice(size: np.ndarray, spacing: float, first: np.ndarray) -> Grid:
    """With axes R, A, S, from the centre of the first voxel on."""
    if math.prod(size.tolist()) > LARGEST:
        raise InputError(
            f"preparation: the scans want a lattice of {'×'.join(map(str, size))} voxels; give "
            f"its shape, or a larger spacing"
        )
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = first
    return Grid(size.tolist(), affine)


def _voxels(extent: np.ndarray) -> np.ndarray:
    """So many that they cover an extent in voxels; headers round to seven digits."""
    return np.maximum(np.ceil(extent - 1e-3).astype(int), 1)


def _rounded_up(extent: np.ndarray) -> np.ndarray:
    return -(-_voxels(extent) // MULTIPLE) * MULTIPLE


def _extents(paths: Iterable[Path]) -> np.ndarray:
    """Of the largest scan along each axis of the world, mm."""
    return np.max([high - low for low, high in _boxes(paths)], axis=0)


def _union(paths: Iterable[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The box that holds all scans, mm."""
    boxes = np.array(_boxes(paths))
    return boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)


def _boxes(paths: Iterable[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """From where to where each scan reaches, outer faces of its voxels, mm."""
    boxes = []
    for path in paths:
        # One that cannot be read is named by whoever reads it whole.
        with suppress(Exception):
            grid = image_grid(cast(SpatialImage, nib.load(path)), path, "image")
            faces = grid.corners() + np.sign(grid.corners() - 0.5) / 2
            corners = grid.to_world(faces)
            boxes.append((corners.min(axis=0), corners.max(axis=0)))
    if not boxes:
        raise InputError("preparation: none of the scans' headers can be read for the lattice")
    return boxes


# --------------------------------------------------------------------------------- Preparation


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

    scans: list[Scan]
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
    def people(self) -> list[str]:
        """Who each scan is of: data set and person."""
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
    scans: Sequence[Scan],
    *,
    progress: Progress | None = None,
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
    plan = _plan(config, scans, recipe, table, folder)
    jobs, errors = plan.jobs, plan.errors
    check_space(folder, plan.size)
    _remove_abandoned(folder)
    with closing(_done(jobs, processes, plan.size)) as results:
        for done, (job, message) in enumerate(results, 1):
            if message:
                errors[job.scan] = message
            if progress:
                progress(done, len(jobs))
    skipped = [f"{scan.where}: {errors[scan]}" for scan in scans if scan in errors]
    if len(skipped) > TOLERABLE * len(scans):
        raise InputError(
            f"{len(skipped)} of {len(scans)} scans cannot be prepared; the first: {skipped[0]}"
        )
    left = [scan for scan in scans if scan not in errors]
    check_enough(config, left)
    files = [plan.files[scan] for scan in left]
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
    path = template_path() if wanted.atlas == "template" else Path(wanted.atlas)
    labels = Path(wanted.atlas_labels) if wanted.atlas_labels else None
    scan = Scan(path, labels, "atlas", "atlas", "train", "sampling.atlas")
    # Where nothing else names them, structures are called by their label values.
    table = structures_of(config.data.structures, lambda _: set(map(int, cohort.structures)))
    image, numbers = _prepared(scan, cohort.recipe, _settings(config), table)
    if numbers is not None and numbers.itemsize > 1:  # PyTorch knows no wide unsigned integers
        numbers = numbers.astype(np.int32)
    return (
        intensities(image),
        None if numbers is None else torch.from_numpy(numbers),
    )


@dataclass(frozen=True)
class Counts:
    """Of a split of a data set."""

    scans: int
    people: int
    labelled: int


def counted(scans: Iterable[Scan]) -> dict[str, dict[Split, Counts]]:
    """How many scans, people and label maps there are, by data set and split."""
    groups: dict[str, dict[Split, list[Scan]]] = {}
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


def described(cohort: Cohort) -> dict[str, Any]:
    """Who was trained on and how the scans were prepared, for records in JSON."""
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for scan in cohort.scans:
        labels = None if scan.labels is None else str(scan.labels)
        about = {"path": str(scan.path), "labels": labels, "licence": scan.licence}
        splits[scan.split].append({**about, "dataset": scan.dataset, "person": scan.person})
    return {
        "scans": splits,
        "counts": {
            dataset: {split: asdict(count) for split, count in counts.items()}
            for dataset, counts in counted(cohort.scans).items()
        },
        "structures": cohort.structures,
        "skipped": cohort.skipped,
        "lattice": cohort.recipe.grid.described(),
        "alignment": cohort.recipe.alignment,
        "percentile": cohort.recipe.percentile,
    }


@dataclass(frozen=True, eq=False)
class _Job:
    """A scan of which something is not in the cache: the files that are to be written."""

    scan: Scan
    image: Path | None
    labels: Path | None
    recipe: Recipe
    settings: Settings
    table: Table

    @property
    def size(self) -> int:
        """Bytes, about."""
        a_voxel = (self.image is not None) + (self.labels is not None) * self.table.dtype.itemsize
        return a_voxel * math.prod(self.recipe.grid.shape)

    def do(self, needed: int) -> str | None:
        """Prepare and write; what is wrong with the scan, if it cannot be prepared."""
        try:
            image, labels = _prepared(self.scan, self.recipe, self.settings, self.table)
        except InputError as error:
            return " ".join(str(error).split())
        for path, array in ((self.image, image), (self.labels, labels)):
            if path is not None and array is not None:
                _write(path, array, needed)
        return None


def _prepared(
    scan: Scan, recipe: Recipe, settings: Settings, table: Table
) -> tuple[np.ndarray, np.ndarray | None]:
    """A scan on the lattice, 255 for 1.0, and the structures there, if it has labels."""
    volume, labels, _ = read_scan(scan.path, "", scan.labels if table.names else None)
    if recipe.alignment == "mni152":
        found = cache.examined(volume, settings)[0]
    else:
        found = unaligned(volume, recipe)
    image = np.rint(255 * prepare(volume, recipe, found).image.numpy()).astype(np.uint8)
    if not image.any():
        raise InputError(f"image {scan.path}: it is zero all over the lattice")
    if labels is None:
        return image, None
    numbers = Volume(table.numbered(labels.data), labels.grid, labels.name)
    if not numbers.data.any():
        raise InputError(f"label map {scan.labels}: none of its label values is a structure")
    through = found.template_to_scan
    return image, resample(numbers, recipe.grid, through, interpolation="nearest").data


@dataclass(frozen=True)
class _Plan:
    """What is to be prepared, where all goes, and what is wrong with scans that are not there."""

    jobs: list[_Job]
    files: dict[Scan, tuple[Path, Path | None]]
    errors: dict[Scan, str]

    @property
    def size(self) -> int:
        """Bytes that are to be written, about."""
        return sum(job.size for job in self.jobs)


def _plan(
    config: Config, scans: Iterable[Scan], recipe: Recipe, table: Table, folder: Path
) -> _Plan:
    decisive, settings, shape = _decisive(config, recipe), _settings(config), recipe.grid.shape
    plan = _Plan([], {}, {})
    for scan in scans:
        try:
            image, labels = plan.files[scan] = _entries(scan, decisive, table, folder)
        except InputError as error:
            plan.errors[scan] = str(error)
            continue
        has_image = _is_whole(image, shape, np.dtype(np.uint8))
        has_labels = labels is None or _is_whole(labels, shape, table.dtype)
        wanted = None if has_image else image, None if has_labels else labels
        if not (has_image and has_labels):
            plan.jobs.append(_Job(scan, *wanted, recipe, settings, table))
    return plan


def _done(
    jobs: Sequence[_Job], processes: int, needed: int
) -> Generator[tuple[_Job, str | None], None, None]:
    """Each job when it is done, with what is wrong with its scan."""
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


def _settings(config: Config) -> Settings:
    wanted = config.preparation
    return Settings(wanted.brain_extract, wanted.extractor, wanted.bias)


def bytes_needed(config: Config, scans: Sequence[Scan], table: Table, folder: Path) -> int:
    """Size of what is not prepared yet; scans that are missing take no space.

    Args:
        config: of the training.
        scans: what ``gather`` found.
        table: the structures.
        folder: of the cache.

    Raises:
        InputError: see ``recipe_of``.
    """
    return _plan(config, scans, recipe_of(config, scans), table, folder).size


def check_enough(config: Config, scans: Iterable[Scan]) -> None:
    """Make sure that pairs can be drawn.

    Raises:
        InputError: too few people are in split train, or too few of them have labels.
    """
    train = [scan for scan in scans if scan.split == "train"]
    least = 2 if config.sampling.mode == "pairwise" else 1
    compared = any(n.endswith("labels") for t in terms(config.costs) for n in t.wants)
    if compared and config.sampling.mode == "atlas" and config.sampling.atlas_labels is None:
        raise InputError("costs: labels are to be compared, and the atlas has none")
    for kind, share, those in (
        ("", 1.0, train),
        ("labelled ", compared or config.sampling.labelled, [s for s in train if s.labels]),
    ):
        people = {scan.key for scan in those}
        if share and len(people) < least:
            raise InputError(
                f"data: {config.sampling.mode} training wants {kind}scans of {least} train "
                f"people or more, there are {len(people)}"
            )


def _values_of(split: Split, scans: Iterable[Scan], folder: Path) -> set[int]:
    maps = (scan.labels for scan in scans if scan.split == split and scan.labels is not None)
    return set().union(*(_kept_values(labels, folder) for labels in maps))


def _kept_values(labels: Path, folder: Path) -> set[int]:
    """The label values in a file, noted in the folder for the next time."""
    try:
        check_readable(labels, "label map")
        entry = folder / f"{_digest(_identity(labels))}.values.json"
        with suppress(OSError, ValueError):
            noted = json.loads(entry.read_bytes())
            if isinstance(noted, list):
                return set(noted)
        values = label_values(read_series(labels, "label map").data)
    except InputError:
        return set()  # whoever prepares the scan says why
    write_bytes(entry, json.dumps(sorted(values)).encode())
    return values


# --------------------------------------------------------------------------------------- Files


def cache_folder(config: Config) -> Path:
    """Where prepared scans are kept.

    Raises:
        InputError: the configuration names no folder, and there is no home for it.
    """
    if config.data.cache is not None:
        return Path(config.data.cache).absolute()
    try:
        return (cache.folder() / "training").absolute()
    except RuntimeError as error:
        raise InputError("data.cache: there is no home folder, so a folder is wanted") from error


def _decisive(config: Config, recipe: Recipe) -> dict[str, Any]:
    """All that decides what a scan is prepared into, but the scan."""
    settings = _settings(config)
    is_examined = recipe.alignment == "mni152"
    return {
        "preparation": PREPARATION,
        "lattice": recipe.grid.described(),
        "percentile": recipe.percentile,
        "alignment": recipe.alignment,
        "examination": cache.EXAMINATION if is_examined else None,
        "settings": asdict(settings) if is_examined else None,
        "extractor": _source_of(settings.extractor) if is_examined else None,
        "versions": {name: cache.version_of(name) for name in cache.DECISIVE},
    }


def _source_of(extractor: str) -> str | None:
    """The module of a user's own extractor, whose version nobody tells."""
    if extractor in brain.EXTRACTORS:
        return None
    with suppress(OSError, TypeError, KeyError):
        return inspect.getsource(sys.modules[brain.extractor(extractor).__module__])
    return None


def _entries(
    scan: Scan, decisive: dict[str, Any], table: Table, folder: Path
) -> tuple[Path, Path | None]:
    """The files in the cache that belong to a scan as it is now.

    Raises:
        InputError: the scan or its label map is not there.
    """
    check_readable(scan.path, "image")
    about: list[Any] = [_identity(scan.path), decisive]
    image = folder / f"{_digest(about)}.image.npy"
    if scan.labels is None or not table.names:
        return image, None
    check_readable(scan.labels, "label map")
    about += [_identity(scan.labels), sorted(table.numbers.items()), len(table.names)]
    return image, folder / f"{_digest(about)}.labels.npy"


def _identity(path: Path) -> list[Any]:
    """A file as it is now: another content has another size or time."""
    status = path.stat()
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


def _digest(about: Any) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _is_whole(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        return array.shape == shape and array.dtype == dtype
    except Exception:  # whatever is wrong with it, it can be made again
        return False


def _write(path: Path, array: np.ndarray, needed: int) -> None:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    try:
        write_bytes(path, stream.getvalue())
    except InputError as error:
        if getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(_no_space(path.parent, needed)) from error
        raise


def check_space(folder: Path, needed: int) -> None:
    """Make sure that so many bytes may be written to a folder, which may not exist.

    Raises:
        InputError: fewer are free.
    """
    if needed > free_space(folder):
        raise InputError(_no_space(folder, needed))


def _no_space(folder: Path, needed: int) -> str:
    return (
        f"folder {folder}: the prepared scans want {_gigabytes(needed)} of disk space, "
        f"{_gigabytes(free_space(folder))} are free; data.cache names another folder"
    )


def free_space(folder: Path) -> int:
    """Bytes that may be written to a folder that may not exist."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _remove_abandoned(folder: Path) -> None:
    """Remove what preparations left that were killed while they wrote."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > cache.ABANDONED:
                part.unlink()
