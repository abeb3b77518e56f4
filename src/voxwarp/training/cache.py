"""The cache of prepared scans: its folder, the names of its entries, and whether they are valid.

The name of an entry is a hash of everything that determines its content: the scan's file (path,
size, time), the working grid, the settings, the versions. So a changed scan is prepared again,
and several trainings share the cache.
"""

import errno
import hashlib
import inspect
import io
import json
import logging
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .._files import check_readable, free_space, write_bytes
from .._folders import cache_folder as users_cache_folder
from .._json import parse_json
from .._provenance import version_of
from ..data.scans import ScanRecord
from ..data.structures import Table, label_values
from ..errors import InputError
from ..preparation import brain, cache
from ..preparation.recipe import Recipe
from ..preparation.settings import Preparation
from ..space.volume import read_series
from .config import Config

_log = logging.getLogger(__name__)

#: Part of every name: raise it when the preparation of a scan changes.
PREPARATION = 1


def cache_folder(config: Config) -> Path:
    """The folder of the prepared scans.

    Raises:
        InputError: the configuration names no folder, and the user has no cache.
    """
    if config.data.cache is not None:
        return Path(config.data.cache).absolute()
    try:
        return (users_cache_folder() / "training").absolute()
    except InputError as error:
        reason = str(error).partition(";")[0]
        raise InputError(
            f"data.cache: set it to a folder for prepared scans, because {reason}"
        ) from error


def recipe_key(steps: Preparation, recipe: Recipe) -> dict[str, Any]:
    """Everything that determines how a scan is prepared, except the scan itself."""
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
    """The source of a user's own extractor, in place of a version; None for a known one."""
    if extractor in brain.EXTRACTORS:
        return None
    with suppress(OSError, TypeError, KeyError):
        return inspect.getsource(sys.modules[brain.extractor(extractor).__module__])
    return None


def entries_of(
    scan: ScanRecord, key: dict[str, Any], table: Table, folder: Path
) -> tuple[Path, Path | None]:
    """The cache's files for a scan as it is now: of its image and of its labels.

    Args:
        scan: the scan.
        key: see ``recipe_key``.
        table: the structures; without any, labels are not kept.
        folder: folder of the cache.

    Raises:
        InputError: the scan or its label map does not exist.
    """
    check_readable(scan.path, "image")
    about: list[Any] = [_identity(scan.path), key]
    image = folder / f"{_digest(about)}.image.npy"
    if scan.labels is None or not table.names:
        return image, None
    check_readable(scan.labels, "label map")
    about += [_identity(scan.labels), sorted(table.numbers.items()), len(table.names)]
    about += [] if table.ignored is None else [table.ignored]
    return image, folder / f"{_digest(about)}.labels.npy"


def _identity(path: Path) -> list[Any]:
    """Path, size and time of a file, which change with its content."""
    status = path.stat()
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


def _digest(about: Any) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def is_valid_entry(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an entry exists and is an array of this shape and type."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return False
    except Exception as error:  # whatever is wrong, the entry can be written again
        _log.info("cache entry %s is damaged and will be prepared again: %s", path, error)
        return False
    return array.shape == shape and array.dtype == dtype


def write_entry(path: Path, array: np.ndarray, needed: int) -> None:
    """Write an array completely or not at all.

    Args:
        path: file of the entry.
        array: its content.
        needed: bytes of all entries together, for the message if the disk is full.

    Raises:
        InputError: the disk is full, or the folder is not writable.
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
    """Make sure that a folder, which need not exist, has space for this many bytes.

    Raises:
        InputError: there is less space.
    """
    if needed > free_space(folder):
        raise InputError(_no_space(folder, needed))


def _no_space(folder: Path, needed: int) -> str:
    return (
        f"folder {folder}: the prepared scans need {_gigabytes(needed)} of disk space, but only "
        f"{_gigabytes(free_space(folder))} are free; make room or set data.cache to another folder"
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def remove_abandoned(folder: Path) -> None:
    """Remove unfinished files of preparations that were killed."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > cache.ABANDONED:
                part.unlink()
                _log.info("removed %s, left by a preparation that was killed", part)


def label_values_of(labels: Path, folder: Path) -> set[int]:
    """The label values in a file; a note in the cache saves reading it the next time."""
    try:
        check_readable(labels, "label map")
        entry = folder / f"{_digest(_identity(labels))}.values.json"
        with suppress(OSError, ValueError):
            note = parse_json(entry.read_bytes())
            if isinstance(note, list):
                return set(note)
        values = label_values(read_series(labels, "label map").data)
    except InputError:
        return set()  # the preparation of the scan reports the reason
    write_bytes(entry, json.dumps(sorted(values)).encode())
    return values
