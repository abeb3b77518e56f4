"""Finished files move to their places together; another command's are not replaced unasked."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ._files import check_absent
from ._lock import alone_in

_log = logging.getLogger(__name__)


def publish(
    stage: Path, folder: Path, names: Sequence[str], *, overwrite: bool = False
) -> list[Path]:
    """Move the files of a result from ``stage`` to ``folder``, the record last.

    The old record is removed first and the new one moved last, so that a record always belongs to
    the files beside it. Files of an earlier run are replaced, or removed if this run has none.

    Args:
        stage: folder with the new files.
        folder: the output folder.
        names: all names that a run can write, the record last.
        overwrite: whether files of these names may be there.

    Returns:
        The files that were written.

    Raises:
        InputError: one of the files is there now, and ``overwrite`` is false.
    """
    written = []
    with _moving_to(folder, names, overwrite):
        (folder / names[-1]).unlink(missing_ok=True)
        for name in names:
            path = folder / name
            if (stage / name).exists():
                os.replace(stage / name, path)
                written.append(path)
            elif os.path.lexists(path):
                path.unlink(missing_ok=True)
                _log.info("removed %s: it was of an earlier run, and this run has none", path)
    return written


def place(stage: Path, folder: Path, names: Sequence[str], *, overwrite: bool = False) -> None:
    """Move files that are results on their own from ``stage`` to ``folder``.

    Args:
        stage: folder with the files.
        folder: the output folder.
        names: of the files.
        overwrite: whether files of these names may be there.

    Raises:
        InputError: one of the files is there now, and ``overwrite`` is false.
    """
    with _moving_to(folder, names, overwrite):
        for name in names:
            os.replace(stage / name, folder / name)


@contextmanager
def _moving_to(folder: Path, names: Sequence[str], overwrite: bool) -> Iterator[None]:
    """Within, no other command moves files to a folder, and Ctrl-C waits."""
    with _interrupts_deferred(), alone_in(folder):
        for name in () if overwrite else names:
            check_absent(folder / name, before=False)
        yield


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Let Ctrl-C wait until the ``with`` statement has ended; other threads do not get it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []
    before: Any = signal.signal(signal.SIGINT, lambda *about: arrived.append(about))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if arrived and callable(before):
        before(*arrived[0])
