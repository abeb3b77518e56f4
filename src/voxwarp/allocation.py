"""Memory that is freed is kept for the next volume, where one volume follows the other.

The GNU C library asks the system for each large block and gives it back when it is freed, and the
system clears the pages of each anew: for volumes of tens of megabytes that is a third of the time
of all that voxwarp computes on a processor.
"""

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Parameters of mallopt(3), and their values while memory is kept and afterwards. Afterwards is
# what the library itself arrives at, once a block of more than 32 MB has been freed.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
_USUAL = {
    _MMAP_MAX: 65536,
    _MMAP_THRESHOLD: 32 << 20,
    _TRIM_THRESHOLD: 64 << 20,
    _TOP_PAD: 128 << 10,
}

_lock = threading.Lock()
_users = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, what is freed stays with the process; at the end it goes back to the system.

    It holds for the whole process, until the last of those that are within has ended. Other C
    libraries than GNU's are left as they are.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set(_KEPT)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(_USUAL)
                give_back()


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set(values: dict[int, int]) -> None:
    if library := _glibc():
        for parameter, value in values.items():
            library.mallopt(parameter, value)


def give_back() -> None:
    """What is free to the system. The holes between what is used grow in number otherwise."""
    if library := _glibc():
        library.malloc_trim(0)
