"""The cache of prepared scans: where it is, what an entry is called, and that it is whole.

An entry is named by the hash of all that decides what is in it: the scan's file as it is now, the
lattice, the settings, the versions. So a changed one is made anew, and several trainings share one.
"""

import errno
import hashlib
import inspect
import io
import json
import logging
import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..data.scans import ScanRecord
from ..data.structures import Table, label_values
from ..errors import InputError
from ..files import check_readable, write_bytes
from ..folders import cache_folder as users_cache_folder
from ..preparation import brain, cache
from ..preparation.recipe import Recipe
from ..preparation.settings import Preparation
from ..provenance import version_of
from ..space.volume import read_series
from .config import Config

_log = logging.getLogger(__name__)

#: Part of every key: to be raised when a scan comes to be prepared in another way.
PREPARATION = 1


def cache_folder(config: Config) -> Path:
    """Where prepared scans are kept.

    Raises:
        InputError: the configuration names no folder, and there is no home for it.
    """
    if config.data.cache is not None:
        return Path(config.data.cache).absolute()
    try:
        return (users_cache_folder() / "training").absolute()
    except RuntimeError as error:
        raise InputError("data.cache: there is no home folder, so a folder is wanted") from error


def decisive_of(steps: Preparation, recipe: Recipe) -> dict[str, Any]:
    """All that decides what a scan is prepared into, but the scan."""
    template = recipe.template
    return {
        "preparation": PREPARATION,
        "lattice": recipe.grid.described(),
        "percentile": recipe.percentile,
        "alignment": recipe.alignment_name,
        "template": template and template.identity,
        "examination": template and cache.EXAMINATION,
        "settings": template and asdict(steps),
        "extractor": template and _source_of(steps.extractor),
        "versions": {name: version_of(name) for name in cache.DECISIVE},
    }


def _source_of(extractor: str) -> str | None:
    """The module of a user's own extractor, whose version nobody tells."""
    if extractor in brain.EXTRACTORS:
        return None
    with suppress(OSError, TypeError, KeyError):
        return inspect.getsource(sys.modules[brain.extractor(extractor).__module__])
    return None


def entries_of(
    scan: ScanRecord, decisive: dict[str, Any], table: Table, folder: Path
) -> tuple[Path, Path | None]:
    """The files in the cache that belong to a scan as it is now: of its image and its labels.

    Args:
        decisive: see ``decisive_of``.
        table: the structures; where there are none, labels are not kept.
        folder: of the cache.

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


def is_whole(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an entry is there, and is such an array."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return False
    except Exception as error:  # whatever is wrong with it, it can be made again
        _log.info("%s is damaged and made again: %s", path, error)
        return False
    return array.shape == shape and array.dtype == dtype


def write_entry(path: Path, array: np.ndarray, needed: int) -> None:
    """Write an array whole, or not at all.

    Args:
        needed: bytes that all entries together want, for the message where the disk is full.

    Raises:
        InputError: the disk is full, or the folder not writable.
    """
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


def remove_abandoned(folder: Path) -> None:
    """Remove what preparations left that were killed while they wrote."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > cache.ABANDONED:
                part.unlink()
                _log.info("%s of a preparation that was killed is removed", part)


def label_values_of(labels: Path, folder: Path) -> set[int]:
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
