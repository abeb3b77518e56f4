"""Files that are there are whole: written under another name, then renamed, or not at all."""

import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import InputError

_log = logging.getLogger(__name__)


def write_file(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file under a temporary name and rename it; folders are made.

    Raises:
        InputError: the folder cannot be made, is not writable or full.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with new_folder(path.parent):
            try:
                with open(part, "wb") as stream:
                    write(stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(part, path)
            except BaseException:
                _discard(part)
                raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _discard(part: Path) -> None:
    """Remove what was begun; where that fails, what went wrong before is still what to tell."""
    try:
        part.unlink(missing_ok=True)
    except OSError as error:
        _log.info("%s is left behind: %s", part, error.strerror or error)


def write_bytes(path: str | os.PathLike[str], payload: bytes) -> None:
    """``write_file`` for contents that are there already."""
    write_file(path, lambda stream: stream.write(payload))


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden folder inside ``folder`` that is gone afterwards, whatever happens.

    Raises:
        InputError: it cannot be made, or what is done in it raises OSError.
    """
    try:
        with (
            new_folder(folder),
            tempfile.TemporaryDirectory(prefix=".voxwarp-", dir=folder) as stage,
        ):
            yield Path(stage)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def side_by_side(jobs: Iterable[Callable[[], object]]) -> None:
    """Do jobs two at a time: gzip lets go of the interpreter. The first error is raised."""
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def publish(stage: Path, folder: Path, names: Sequence[str]) -> list[Path]:
    """Move files from ``stage`` to ``folder``, the last name last; there it goes first.

    The last one is the record: one that is there belongs to the files beside it. What an
    earlier run wrote is replaced file by file, or removed where this run has none.
    """
    (folder / names[-1]).unlink(missing_ok=True)
    written = []
    for name in names:
        if (stage / name).exists():
            os.replace(stage / name, folder / name)
            written.append(folder / name)
        elif os.path.lexists(folder / name):
            (folder / name).unlink(missing_ok=True)
            _log.info("%s of an earlier run is removed: this one has none", folder / name)
    return written


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; where what follows fails, remove the ones made."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):  # not made, or something else is in it by now
                made.rmdir()
        raise


def check_writable(folder: Path, names: tuple[str, ...] = (), *, overwrite: bool = False) -> None:
    """Make sure, before anything costs time, that files of these names can go into ``folder``.

    Raises:
        InputError: the folder cannot be made or written to, or one of the files exists.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output {folder}: this is a file, a folder is wanted")
        for name in names:
            if (folder / name).is_dir():
                raise InputError(f"output {folder / name}: this is a folder, a file is wanted")
            if (folder / name).exists() and not overwrite:
                raise InputError(
                    f"output {folder / name}: the file exists already; "
                    f"use --overwrite to replace it, or another name"
                )
        there = next(f for f in (folder, *folder.absolute().parents) if f.exists())
        Path(tempfile.mkdtemp(prefix=".voxwarp-", dir=there)).rmdir()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def check_readable(path: Path, what: str) -> None:
    """Make sure that there is a file or folder.

    Raises:
        InputError: there is none, or one may not look.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{what} {path}: no such file or folder") from error
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read: {error.strerror or error}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's contents, in hexadecimal; it is not read as a whole."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def without_ending(name: str) -> str:
    """An image file's name without ``.nii.gz``, ``.mgz`` and the like."""
    for ending in (".gz", ".nii", ".mgz", ".mgh"):
        name = name.removesuffix(ending)
    return name
