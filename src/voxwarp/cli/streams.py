"""Standard output and error of the program: what cannot be printed is lost, but is no error.

A registration that took an hour is not spoiled by a terminal that was closed, a disk that is full
or a name that the terminal cannot show.
"""

import errno
import io
import os
import sys
import time
from typing import Any


def install() -> None:
    """Put streams in the place of ``sys.stdout`` and ``sys.stderr`` that never fail.

    If one of the first three file descriptors was closed, it leads nowhere from now on: otherwise
    the next file to be opened would get its number, and whatever a library prints.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    sys.stdout, sys.stderr = (_lossy(stream) for stream in (sys.stdout, sys.stderr))


def lost() -> OSError | None:
    """Why some of the standard output was lost; None if nothing was."""
    raw = _raw(sys.stdout)
    return raw.error if isinstance(raw, _Lossy) else None


def _lossy(stream: Any) -> io.TextIOWrapper:
    """A stream that writes where the given one does; that is None if it was closed."""
    raw = _Lossy(_raw(stream))
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=getattr(stream, "line_buffering", False) or not _is_buffered(stream),
    )


def _raw(stream: Any) -> Any:
    """What a stream writes to in the end; None of a closed one."""
    buffer: Any = getattr(stream, "buffer", None)
    return buffer.raw if _is_buffered(stream) else buffer


def _is_buffered(stream: Any) -> bool:
    """Whether output is collected before it is written, as without $PYTHONUNBUFFERED."""
    return hasattr(getattr(stream, "buffer", None), "raw")


class _Lossy(io.RawIOBase):
    """Writes as another raw stream does, and keeps the first error instead of raising it."""

    def __init__(self, raw: Any) -> None:
        super().__init__()
        self.raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self.raw and self.raw.isatty())

    def fileno(self) -> int:
        if self.raw is None:
            raise io.UnsupportedOperation("fileno")
        return int(self.raw.fileno())

    def write(self, data: Any) -> int:
        try:
            if self.raw is None:
                raise OSError(errno.EBADF, "it is closed")
            while self.error is None:
                written = self.raw.write(data)
                if written is not None:
                    return int(written)
                time.sleep(0.01)  # a pipe that does not block is full
        except OSError as error:
            self.error = error
        return len(data)
