"""A folder of results: one command at a time works in it, and its rows share their settings."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .._files import check_writable
from ..errors import InputError
from .record import finite, read_record
from .result_files import ResultFiles
from .rows import PAIRS, STRUCTURES

LOCK = ".lock"

_log = logging.getLogger(__name__)


@contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """Keep other commands out of a folder of results: each would overwrite the other's rows.

    Raises:
        InputError: another command is using the folder, or it cannot be written.
    """
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"output {out}: another command is writing here; wait for it, or use another folder"
        ) from error
    except (OSError, NotImplementedError) as error:  # a file system without locks
        _log.info("%s cannot be locked (%s); another command would not notice this one", out, error)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows does not remove open files
            (out / LOCK).unlink()
        lock.release()


def open_results(out: Path, name: str, settings: dict[str, Any], *, overwrite: bool) -> ResultFiles:
    """Open the result files of a folder, if its rows were made with the same settings.

    Args:
        out: folder of the results.
        name: file name of the record in it.
        settings: what all rows of a folder must share, as in the record.
        overwrite: delete earlier rows.

    Raises:
        InputError: the folder holds rows made by another command or with other settings, or it
            cannot be written.
    """
    check_writable(out)
    if (out / PAIRS).exists() and not (out / name).exists():
        raise InputError(
            f"output {out}: holds {PAIRS} but no {name}, so another command wrote it; use another "
            "folder"
        )
    if overwrite:
        for file in (PAIRS, STRUCTURES, name):
            (out / file).unlink(missing_ok=True)
    if (out / name).exists():
        before = read_record(out / name)
        changed = [key for key, value in finite(settings).items() if before.get(key) != value]
        if changed:
            raise InputError(
                f"output {out}: holds rows made with different {' and '.join(changed)}; start "
                "again with `overwrite`, or use another folder"
            )
    return ResultFiles.open(out)
