"""Atomic writing: a file that exists is complete, because it is renamed when it is finished."""

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
    """Write a file under a temporary name, then rename it; missing folders are made.

    Args:
        path: the file.
        write: writes the contents to a binary stream.

    Raises:
        InputError: the folder cannot be made, is not writable, or the disk is full.
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
    """Remove an unfinished file; if that fails, only log it, so that the first error is raised."""
    try:
        part.unlink(missing_ok=True)
    except OSError as error:
        _log.info("cannot remove the unfinished file %s: %s", part, error.strerror or error)


def write_bytes(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write a file as ``write_file`` does, from bytes in memory."""
    write_file(path, lambda stream: stream.write(payload))


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Make a hidden folder inside ``folder`` for a ``with`` statement; it is always removed.

    Raises:
        InputError: the folder cannot be made, or the body of the statement raises OSError.
    """
    try:
        with (
            new_folder(folder),
            tempfile.TemporaryDirectory(prefix=".voxwarp-", dir=folder) as stage,
        ):
            yield Path(stage)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def run_in_parallel(jobs: Iterable[Callable[[], object]]) -> None:
    """Run jobs two at a time, in threads: gzip releases the interpreter lock.

    The error of the first job that fails is raised.
    """
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


def publish(stage: Path, folder: Path, names: Sequence[str]) -> list[Path]:
    """Move finished files from ``stage`` to ``folder``, the record last.

    The old record is removed first and the new one moved last, so that a record always belongs to
    the files beside it. Files of an earlier run are replaced, or removed if this run has none.

    Args:
        stage: folder with the new files.
        folder: the output folder.
        names: all names that a run can write, the record last.

    Returns:
        The files that were written.
    """
    (folder / names[-1]).unlink(missing_ok=True)
    written = []
    for name in names:
        if (stage / name).exists():
            os.replace(stage / name, folder / name)
            written.append(folder / name)
        elif os.path.lexists(folder / name):
            (folder / name).unlink(missing_ok=True)
            _log.info("removed %s: it was of an earlier run, and this run has none", folder / name)
    return written


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; if the ``with`` statement fails, remove the new ones."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):  # it was not made, or it is no longer empty
                made.rmdir()
        raise


def check_writable(folder: Path, names: tuple[str, ...] = (), *, overwrite: bool = False) -> None:
    """Check that files can be written into a folder, before anything takes time.

    Args:
        folder: the output folder; it need not exist.
        names: the files.
        overwrite: whether these files may exist.

    Raises:
        InputError: the folder cannot be made or written to, or one of the files exists.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output {folder}: this is a file, but it must be a folder")
        for name in names:
            if (folder / name).is_dir():
                raise InputError(f"output {folder / name}: this is a folder, but it must be a file")
            if (folder / name).exists() and not overwrite:
                raise InputError(
                    f"output {folder / name}: the file exists already; "
                    f"use `overwrite` to replace it, or choose another path"
                )
        existing = next(f for f in (folder, *folder.absolute().parents) if f.exists())
        Path(tempfile.mkdtemp(prefix=".voxwarp-", dir=existing)).rmdir()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def check_readable(path: Path, what: str) -> None:
    """Check that a file or folder exists.

    Args:
        path: the file or folder.
        what: its role ("moving image"), the first words of messages.

    Raises:
        InputError: it does not exist, or its folder cannot be read.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{what} {path}: no such file or folder") from error
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read: {error.strerror or error}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file in hexadecimal; the file is read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def without_extension(name: str) -> str:
    """The name of an image file without its extension (.nii, .nii.gz, .mgh, .mgz)."""
    for extension in (".gz", ".nii", ".mgz", ".mgh"):
        name = name.removesuffix(extension)
    return name
