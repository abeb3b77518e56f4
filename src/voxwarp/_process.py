"""The process of a command: when it began, and what it does. Only Python itself is imported."""

import os
import time
from contextlib import suppress
from pathlib import Path

_STAT = Path("/proc/self/stat")
_IMPORTED = time.monotonic()
_of_command = False
_only_prints = True


def belongs_to_command() -> None:
    """Say that this process was started for one command, all of whose time is the command's."""
    global _of_command
    _of_command = True


def has_other_results() -> None:
    """Say that this process does more than to print an answer, such as writing files."""
    global _only_prints
    _only_prints = False


def only_prints() -> bool:
    """Whether nothing but what is printed is a result of this process."""
    return _only_prints


def seconds_since_start() -> float | None:
    """Seconds since this process was started; None unless it belongs to a command.

    Linux says when that was, to a hundredth of a second. On other systems, it is the time since
    this module was imported, the first of the command line; the interpreter's start is missing.
    """
    if not _of_command:
        return None
    imported = time.monotonic() - _IMPORTED
    with suppress(OSError, ValueError, IndexError, AttributeError):  # the last: not Linux
        # proc(5): the 22nd value; the second, the name in parentheses, may hold spaces.
        ticks = int(_STAT.read_text().rpartition(")")[2].split()[19])
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return max(since_boot - ticks / os.sysconf("SC_CLK_TCK"), imported)
    return imported
