"""Atomic writing: a file that exists is complete, because it is renamed when it is finished."""

import hashlib
import logging
import os
import shlex
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
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
        if os.path.lexists(folder) and not folder.is_dir():
            kind = "file" if folder.exists() else "link to what does not exist"
            raise InputError(f"output {folder}: this is a {kind}, but it must be a folder")
        for name in names:
            if (folder / name).is_dir():
                raise InputError(f"output {folder / name}: this is a folder, but it must be a file")
            if not overwrite:
                check_absent(folder / name)
        existing = next(f for f in (folder, *folder.absolute().parents) if f.exists())
        Path(tempfile.mkdtemp(prefix=".voxwarp-", dir=existing)).rmdir()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def check_absent(path: Path, *, before: bool = True) -> None:
    """Check that nothing is in the place of an output, also no link to what does not exist.

    Args:
        path: the output.
        before: whether this is asked before anything is computed; if not, another command has
            written what is there now.

    Raises:
        InputError: something is there.
    """
    if not os.path.lexists(path):
        return
    if not before:
        state = "another command has written this file in the meantime, and it was left as it is"
    elif path.exists():
        state = "the file exists already"
    else:
        state = f"a link to {os.readlink(path)}, which does not exist, is here already"
    raise InputError(
        f"output {path}: {state}; use `overwrite` to replace it, or choose another path"
    )


def check_readable(path: Path, what: str) -> None:
    """Check that a file or folder exists, with its content.

    Args:
        path: the file or folder.
        what: its role ("moving image"), the first words of messages.

    Raises:
        InputError: it does not exist, its folder cannot be read, or git-annex, DataLad or Git LFS
            has not fetched its content.
    """
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InputError(
                f"{what} {path}: this is a pipe or a device, but it must be a file; save its "
                f"contents in one first"
            )
        if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_POINTER:
            with open(path, "rb") as stream:
                start = stream.read(max(map(len, _POINTERS)))
            for marker, commands in _POINTERS.items():
                if start.startswith(marker):
                    raise InputError(f"{what} {path}: {_not_fetched(path, commands)}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{what} {path}: {_missing(path)}") from error
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read: {error.strerror or error}") from error


_ANNEX = "datalad get {0}, or git annex get {0}"
# How files begin that stand for content elsewhere (git-annex calls its own "unlocked"), and the
# commands that fetch it.
_POINTERS = {
    b"/annex/objects/": _ANNEX,
    b"version https://git-lfs.github.com/spec/": "git lfs pull --include {0}",
}
LARGEST_POINTER = 32768  # bytes; git-annex itself takes no larger file for one


def _not_fetched(path: Path, commands: str) -> str:
    word = shlex.quote(str(path))
    return f"the content of this file was not fetched; get it by: {commands.format(word)}"


def _missing(path: Path) -> str:
    """Why there is no such file: perhaps it is a link, or below one, to what does not exist."""
    link = next((p for p in (path, *path.parents) if p.is_symlink() and not p.exists()), None)
    if link is None:
        return "no such file or folder"
    target = os.readlink(link)
    if "annex/objects" in Path(target).as_posix():
        return _not_fetched(link, _ANNEX)
    return (
        f"{'this' if link == path else link} is a link to {target}, which does not exist; if "
        f"git-annex or DataLad keeps the file, its content was not fetched"
    )


def free_space(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist.

    Raises:
        InputError: the folder cannot be entered.
    """
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        return shutil.disk_usage(existing).free
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be used: {error.strerror or error}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file in hexadecimal; the file is read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


#: The endings of the images that nibabel reads, and those of compressed files.
IMAGE_ENDINGS = (
    *(".nii", ".img", ".hdr", ".mgh", ".mgz", ".mnc", ".rec", ".par", ".brik", ".head", ".gii"),
)
COMPRESSED_ENDINGS = ".gz", ".bz2", ".zst", ".z"


def without_extension(name: str) -> str:
    """The name of an image file without its ending, such as .nii.gz or .MGH, in any case.

    A name that is an ending and nothing else stays as it is.
    """
    stem = name
    for endings in (COMPRESSED_ENDINGS, IMAGE_ENDINGS):
        ending = next((e for e in endings if stem.lower().endswith(e)), "")
        stem = stem[: len(stem) - len(ending)]
    return stem or name
