"""What was found in a scan, kept for the next time the same scan comes by.

An entry is a small file named by the hash of the scan's values and place, the settings and the
versions of what examines it. Entries are written whole and renamed, so several processes may
share the folder; the least recently used go when the folder grows over its limit.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..files import write_bytes
from ..folders import cache_folder
from ..provenance import version_of
from ..space.grid import Grid
from ..space.transform import Affine
from ..space.volume import Volume, to_canonical
from .agreement import Agreement
from .brain import EXTRACTORS
from .examination import Examination, examine
from .settings import DEFAULTS, Preparation
from .template import Template, mni152

#: Part of every key: to be raised when ``examine`` comes to find something else.
EXAMINATION = 3
LIMIT = 1 << 30  # bytes, unless $VOXWARP_CACHE_SIZE says otherwise, in MB
ENDING = ".findings.npz"
DECISIVE = "voxwarp", "deepbet", "nilearn", "numpy", "scipy", "SimpleITK", "torch"
ABANDONED = 3600.0  # seconds after which a part that a dead process left is removed


def limit() -> int:
    """Size that the folder may have, bytes.

    Raises:
        InputError: $VOXWARP_CACHE_SIZE is no number of MB.
    """
    given = os.environ.get("VOXWARP_CACHE_SIZE")
    if given is None:
        return LIMIT
    try:
        size = float(given)
    except ValueError:
        size = -1.0
    if not 0 <= size < 1e12:
        raise InputError(f"VOXWARP_CACHE_SIZE {given!r}: a number of MB is wanted")
    return int(size * 1e6)


def examined(
    scan: Volume,
    settings: Preparation = DEFAULTS,
    mask: Volume | None = None,
    template: Template | None = None,
    *,
    use: bool = True,
) -> tuple[Examination, bool]:
    """``examination.examine``, or what it found the last time.

    Args:
        scan, settings, mask, template: see there.
        use: look into the cache and add to it; never done with an extractor of the user's own,
            since nobody tells when that changes.

    Returns:
        The findings, and whether they were in the cache. A cache that cannot be read or
        written is as good as an empty one.

    Raises:
        InputError: see there.
    """
    template = template or mni152()
    if not use or settings.extractor not in EXTRACTORS:
        return examine(scan, settings, mask, template), False
    allowed = limit()
    try:
        path = cache_folder() / f"{_key(scan, settings, mask, template)}{ENDING}"
    except RuntimeError:  # there is no home
        return examine(scan, settings, mask, template), False
    found = _read(path, scan.name, template)
    if found is not None:
        return found, True
    found = examine(scan, settings, mask, template)
    with suppress(InputError, OSError):
        write_bytes(path, _packed(found))
        _trim(allowed)
    return found, False


@dataclass(frozen=True)
class Contents:
    """How full the cache is: entries, bytes, and the bytes that it may have."""

    folder: Path
    entries: int
    size: int
    limit: int


def contents() -> Contents:
    """What the cache holds."""
    sizes = [size for _, size, _ in _entries()]
    return Contents(cache_folder(), len(sizes), sum(sizes), limit())


def clear() -> int:
    """Remove all entries; how many there were."""
    number = 0
    try:
        for path, _, _ in list(_entries()):
            path.unlink(missing_ok=True)
            number += 1
        for part in cache_folder().glob(f".*{ENDING}.*.part"):
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot clear {cache_folder()}: {error.strerror or error}") from error
    return number


def _key(scan: Volume, settings: Preparation, mask: Volume | None, template: Template) -> str:
    digest = hashlib.sha256()
    about = {
        "examination": EXAMINATION,
        "settings": asdict(settings),
        "template": template.identity,
        "versions": [version_of(name) for name in DECISIVE],
        "threads": torch.get_num_threads(),  # the last bits depend on them
    }
    digest.update(json.dumps(about, sort_keys=True).encode())
    for volume in (scan, mask):
        if volume is None:
            digest.update(b"none")
            continue
        volume = to_canonical(volume)  # all 48 ways of storing one scan share an entry
        digest.update(f"{volume.data.dtype.str}{volume.grid.shape}".encode())
        digest.update(volume.grid.affine.tobytes())
        digest.update(np.ascontiguousarray(volume.data).data)
    return digest.hexdigest()


def _packed(found: Examination) -> bytes:
    """Examination as an .npz: arrays, and the rest as JSON; no pickles."""
    about = {
        "kind": found.kind,
        "window": found.window.described(),
        "mask": found.mask and found.mask.grid.described(),
        "log_bias": found.log_bias and found.log_bias.grid.described(),
        "template_to_scan": found.template_to_scan.matrix.tolist(),
        "agreement": found.agreement and asdict(found.agreement),
        "seconds": found.seconds,
    }
    arrays: dict[str, np.ndarray] = {"about": np.array(json.dumps(about))}
    if found.mask is not None:
        arrays["mask"] = np.packbits(found.mask.data != 0)
    if found.log_bias is not None:
        arrays["log_bias"] = found.log_bias.data
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _read(path: Path, name: str, template: Template) -> Examination | None:
    """The entry, which counts as used now; None where there is none that can be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            mask, log_bias = None, None
            if about["mask"]:
                grid = Grid(**about["mask"])
                bits = np.unpackbits(arrays["mask"], count=int(np.prod(grid.shape)))
                mask = Volume(bits.reshape(grid.shape).astype(bool), grid, name)
            if about["log_bias"]:
                log_bias = Volume(arrays["log_bias"], Grid(**about["log_bias"]), name)
        found = Examination(
            kind=about["kind"],
            window=Grid(**about["window"]),
            template_to_scan=Affine(np.array(about["template_to_scan"])),
            mask=mask,
            log_bias=log_bias,
            agreement=about["agreement"] and Agreement(**about["agreement"]),
            seconds=about["seconds"],
            template=template,
        )
    except Exception:  # whatever is wrong with it, the scan can be examined again
        return None
    with suppress(OSError):
        os.utime(path)
    return found


def _entries() -> Iterator[tuple[Path, int, float]]:
    """Path, bytes and time of last use of each entry; those that vanish meanwhile are left out."""
    for path in sorted(cache_folder().glob(f"*{ENDING}")):
        with suppress(OSError):
            status = path.stat()
            yield path, status.st_size, status.st_mtime


def _trim(limit: int) -> None:
    """Remove the least recently used entries beyond the limit, and what dead processes left."""
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
