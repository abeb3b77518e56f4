"""A folder of results: one command at a time in it, and rows of one kind."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import InputError
from ..files import check_writable
from .record import finite, read_record
from .rows import PAIRS, STRUCTURES
from .sheet import Sheet

LOCK = ".lock"

_log = logging.getLogger(__name__)


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keep a second command out of a folder of results: each would write over the other's rows.

    Raises:
        InputError: another one is at work in it, or it cannot be written.
    """
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"output {out}: another command is at work in it") from error
    except (OSError, NotImplementedError) as error:  # a file system without locks
        _log.info("%s cannot be locked (%s): a second command would not be noticed", out, error)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows lets nobody remove what is open
            (out / LOCK).unlink()
        lock.release()


def begin(out: Path, name: str, settings: dict[str, Any], *, overwrite: bool) -> Sheet:
    """The rows that a folder holds, if they were made with the same settings.

    Args:
        out: folder of the results.
        name: of the record in it.
        settings: that rows in one file have to share; as the record has them.
        overwrite: drop the rows that are there.

    Raises:
        InputError: it holds rows that were made otherwise, or cannot be written.
    """
    check_writable(out)
    if (out / PAIRS).exists() and not (out / name).exists():
        raise InputError(f"output {out}: it holds rows of another command: use another folder")
    if overwrite:
        for there in (PAIRS, STRUCTURES, name):
            (out / there).unlink(missing_ok=True)
    if (out / name).exists():
        before = read_record(out / name)
        other = [k for k, v in finite(settings).items() if before.get(k) != v]
        if other:
            raise InputError(
                f"output {out}: its rows were made with other {' and '.join(other)}: use "
                f"--overwrite to begin anew, or another folder"
            )
    return Sheet.open(out)
