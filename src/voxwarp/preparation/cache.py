"""The cache of examinations, so that a scan is examined only once with the same settings.

An entry is a small file. Its name is the hash of the scan's voxels and grid, the settings and the
versions of the packages that examine it. Entries are written under a temporary name and renamed, so
several processes can share the folder. When the folder grows beyond its limit, the entries that
were not used for the longest time are removed.
"""

import hashlib
import io
import json
import math
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from .._files import write_bytes
from .._folders import cache_folder
from .._json import parse_json
from .._provenance import version_of
from ..errors import InputError
from ..space.grid import Grid
from ..space.transform import Affine
from ..space.volume import Volume, to_canonical
from .agreement import Agreement
from .brain import EXTRACTORS
from .examination import Examination, Kind, examine
from .settings import DEFAULTS, Preparation
from .template import Template, mni152

#: Part of every key. Raise it when a change of the code changes the results of ``examine``.
EXAMINATION = 3
LIMIT = 1 << 30  # bytes; set by hand; $VOXWARP_CACHE_SIZE (in MB) changes it
ENDING = ".findings.npz"
# Bytes; a mask of 2000³ voxels has as many, at one bit each. Set by hand.
LARGEST_ENTRY = 1 << 30
_KINDS = {kind: kind for kind in get_args(Kind)}
# Packages whose versions can change the results; part of every key.
DECISIVE = "voxwarp", "deepbet", "nilearn", "numpy", "scipy", "SimpleITK", "torch"
ABANDONED = 3600.0  # s until an unfinished entry counts as left by a dead process; set by hand


def limit() -> int:
    """Return the size that the cache may have, bytes.

    Raises:
        InputError: $VOXWARP_CACHE_SIZE is not a number of megabytes.
    """
    megabytes = os.environ.get("VOXWARP_CACHE_SIZE")
    if megabytes is None:
        return LIMIT
    try:
        size = float(megabytes)
    except ValueError:
        size = -1.0
    if not 0 <= size < 1e12:
        raise InputError(
            f"the environment variable VOXWARP_CACHE_SIZE must be a number of megabytes, such as "
            f"1000, got {megabytes!r}"
        )
    return int(size * 1e6)


def examined(
    scan: Volume,
    settings: Preparation = DEFAULTS,
    mask: Volume | None = None,
    template: Template | None = None,
    lesion: Volume | None = None,
    *,
    use: bool = True,
) -> tuple[Examination, bool]:
    """Examine a scan, or return its examination from the cache.

    Args:
        scan, settings, mask, template, lesion: as of ``examination.examine``.
        use: whether to read and write the cache. It is never used with the user's own extractor,
            because its code may change without notice.

    Returns:
        The examination, and whether it is from the cache. A cache that cannot be read or written
        counts as empty.

    Raises:
        InputError: as by ``examination.examine``.
    """
    template = template or mni152()
    if not use or settings.extractor not in EXTRACTORS:
        return examine(scan, settings, mask, template, lesion), False
    size = limit()
    try:
        path = cache_folder() / f"{_key(scan, settings, mask, template, lesion)}{ENDING}"
    except InputError:  # there is no cache, as without a home folder
        return examine(scan, settings, mask, template, lesion), False
    cached = _read(path, scan.name, template)
    if cached is not None:
        return replace(cached, lesion=lesion), True
    examination = examine(scan, settings, mask, template, lesion)
    with suppress(InputError, OSError):
        write_bytes(path, _packed(examination))
        _trim(size)
    return examination, False


@dataclass(frozen=True)
class Contents:
    """How full the cache is: folder, number of entries, their size and its limit, bytes."""

    folder: Path
    entries: int
    size: int
    limit: int


def contents() -> Contents:
    """Return how full the cache is.

    Raises:
        InputError: there is no cache, as without a home folder.
    """
    sizes = [size for _, size, _ in _entries()]
    return Contents(cache_folder(), len(sizes), sum(sizes), limit())


def clear() -> int:
    """Remove all entries.

    Returns:
        How many there were.

    Raises:
        InputError: the folder cannot be changed, or there is no cache.
    """
    number = 0
    try:
        for path, _, _ in list(_entries()):
            path.unlink(missing_ok=True)
            number += 1
        for part in cache_folder().glob(f".*{ENDING}.*.part"):
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"the cache {cache_folder()} cannot be cleared: {reason}") from error
    return number


def _key(
    scan: Volume,
    settings: Preparation,
    mask: Volume | None,
    template: Template,
    lesion: Volume | None,
) -> str:
    digest = hashlib.sha256()
    about = {
        "examination": EXAMINATION,
        "settings": asdict(settings),
        "template": template.identity,
        "versions": [version_of(name) for name in DECISIVE],
        "threads": torch.get_num_threads(),  # the last bits of the results depend on them
    }
    digest.update(json.dumps(about, sort_keys=True).encode())
    # Without a lesion, the key is that of versions that knew none.
    for volume in (scan, mask, *(() if lesion is None else (lesion,))):
        if volume is None:
            digest.update(b"none")
            continue
        volume = to_canonical(volume)  # all 48 ways of storing a scan share an entry
        digest.update(f"{volume.data.dtype.str}{volume.grid.shape}".encode())
        digest.update(volume.grid.affine.tobytes())
        digest.update(np.ascontiguousarray(volume.data).data)
    return digest.hexdigest()


def _packed(examination: Examination) -> bytes:
    """An examination as an .npz file: arrays, and the rest as JSON; without pickles."""
    mask, log_bias = examination.mask, examination.log_bias
    about = {
        "kind": examination.kind,
        "window": examination.conformed_grid.described(),
        "mask": mask and mask.grid.described(),
        "log_bias": log_bias and log_bias.grid.described(),
        "template_to_scan": examination.template_to_scan.matrix.tolist(),
        "agreement": examination.agreement and asdict(examination.agreement),
        "seconds": examination.seconds,
    }
    arrays: dict[str, np.ndarray] = {"about": np.array(json.dumps(about))}
    if mask is not None:
        arrays["mask"] = np.packbits(mask.data != 0)
    if log_bias is not None:
        arrays["log_bias"] = log_bias.data
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _read(path: Path, name: str, template: Template) -> Examination | None:
    """Read an entry, which then counts as used; None if it is missing or damaged."""
    try:
        with np.load(io.BytesIO(_payload(path)), allow_pickle=False) as arrays:
            about = parse_json(str(arrays["about"]))
            mask, log_bias = None, None
            if about["mask"]:
                grid = Grid(**about["mask"])
                bits, voxels = np.unpackbits(arrays["mask"]), math.prod(grid.shape)
                mask = Volume(bits[:voxels].reshape(grid.shape).astype(bool), grid, name)
            if about["log_bias"]:
                log_bias = Volume(arrays["log_bias"], Grid(**about["log_bias"]), name)
        examination = Examination(
            kind=_KINDS[about["kind"]],
            conformed_grid=Grid(**about["window"]),
            template_to_scan=Affine(np.array(about["template_to_scan"])),
            mask=mask,
            log_bias=log_bias,
            agreement=about["agreement"] and Agreement(**about["agreement"]),
            seconds=about["seconds"],
            template=template,
        )
    except Exception:  # whatever the damage, the scan can be examined again
        return None
    with suppress(OSError):
        os.utime(path)
    return examination


def _payload(path: Path) -> bytes:
    """The bytes of an entry.

    Raises:
        OSError: it is missing, or a link, of which voxwarp makes none.
        ValueError: it is larger than an examination can be, or would be when it is unzipped.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as stream:
        payload = stream.read(LARGEST_ENTRY + 1)
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        unzipped = sum(part.file_size for part in archive.infolist())
    if max(len(payload), unzipped) > LARGEST_ENTRY:
        raise ValueError("it is too large")
    return payload


def _entries() -> Iterator[tuple[Path, int, float]]:
    """Path, bytes and time of last use of each entry, without those that vanish meanwhile."""
    for path in sorted(cache_folder().glob(f"*{ENDING}")):
        with suppress(OSError):
            status = path.stat()
            yield path, status.st_size, status.st_mtime


def _trim(limit: int) -> None:
    """Remove the least recently used entries beyond the limit, and parts left by dead processes."""
    entries = sorted(_entries(), key=lambda entry: entry[2])
    excess = sum(size for _, size, _ in entries) - limit
    for path, size, _ in entries:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
    for part in cache_folder().glob(f".*{ENDING}.*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink(missing_ok=True)
