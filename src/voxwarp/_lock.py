"""One command at a time in a folder: as long as it runs, or while it moves its files there."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ._files import check_writable, new_folder
from .errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"

_log = logging.getLogger(__name__)


@contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """Keep other commands out of a folder of results: each would overwrite the other's files.

    Raises:
        InputError: another command is using the folder, or it cannot be written.
    """
    check_writable(out)
    with new_folder(out):
        lock = _acquired(out)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows does not remove open files
                (out / LOCK).unlink()
            lock.release()


def check_ours(out: Path, *marks: str) -> None:
    """Refuse a folder that holds something, unless a file in it says that it is a command's own.

    Args:
        out: the folder; it need not exist.
        marks: files of the command, relative to it; one of them is enough.

    Raises:
        InputError: it holds something else.
    """
    if not out.is_dir() or any((out / mark).exists() for mark in marks):
        return
    if found := next((path for path in sorted(out.iterdir()) if path.name != LOCK), None):
        raise InputError(
            f"output {out}: it holds files of something else ({found.name}); choose an empty or a "
            f"new folder"
        )


def _acquired(out: Path) -> FileLock:
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"output {out}: another command is writing here; wait for it, or use another folder"
        ) from error
    except (OSError, NotImplementedError) as error:  # a file system without locks
        _log.info("%s cannot be locked (%s); another command would not notice this one", out, error)
    return lock


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let other commands wait that move files to a folder, as long as a ``with`` statement lasts.

    Where the system or the file system has no locks, they do not wait.
    """
    with locked(folder / WAITING):
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let other processes wait that lock the same file, as long as a ``with`` statement lasts.

    The file is made and removed; where a process was killed, it stays, but locks nobody out. Where
    the system or the file system has no locks, the others do not wait.

    Args:
        path: the file.
    """
    file = _locked(path)
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                path.unlink()
            os.close(file)


def remove_abandoned(path: Path) -> None:
    """Remove the file of a lock that nobody holds, as after a kill."""
    if fcntl is None:
        return
    with suppress(OSError):
        file = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()  # while it is held: whoever waits for it makes a new one
        finally:
            os.close(file)


#: The lock. It stays where a command was killed while it moved its files.
WAITING = ".voxwarp-lock"


def _locked(path: Path) -> int | None:
    """The file of a lock, held until it is closed; None if there are no locks."""
    while fcntl is not None:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had the lock before has removed its file: it may be another one now.
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.info("%s cannot be locked (%s)", path, error)
            os.close(file)
            path.unlink(missing_ok=True)
            return None
        os.close(file)
    return None
