"""Memory that is freed is kept for the next volume, where one volume follows the other.

The GNU C library asks the system for each large block and gives it back when it is freed, and the
system clears the pages of each anew: for volumes of tens of megabytes that is a third of the time
of all that voxwarp computes on a processor. What is told to the library holds for the whole
process, so it is for a program of its own to do, as the command line is, and not for a library.
"""

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Parameters of mallopt(3), and their values while memory is kept.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}

# What they are otherwise, which the library does not tell: by what the environment says as the
# process begins; where it says nothing of any, by what the library arrives at by itself once a
# block of more than 32 MB has been freed. It stops adjusting them as soon as one of them is set.
_NAMES = {
    _MMAP_MAX: "mmap_max",
    _MMAP_THRESHOLD: "mmap_threshold",
    _TRIM_THRESHOLD: "trim_threshold",
    _TOP_PAD: "top_pad",
}
_ADJUSTED = {
    _MMAP_MAX: 65536,
    _MMAP_THRESHOLD: 32 << 20,
    _TRIM_THRESHOLD: 64 << 20,
    _TOP_PAD: 128 << 10,
}
_INITIAL = {**_ADJUSTED, _MMAP_THRESHOLD: 128 << 10, _TRIM_THRESHOLD: 128 << 10}
_LARGEST = 2**31 - 1  # mallopt takes an int, the environment a size

_lock = threading.Lock()
_users = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, what is freed stays with the process; at the end it goes back to the system.

    It holds for the whole process, until the last of those that are within has ended: then the
    library's settings are those that the environment asks for, or the library's own. Other C
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
                _set(_usual())
                give_back()


def _usual() -> dict[int, int]:
    """The settings as they are without voxwarp."""
    asked = {parameter: _asked(name) for parameter, name in _NAMES.items()}
    told = {parameter: value for parameter, value in asked.items() if value is not None}
    return {**_INITIAL, **told} if told else _ADJUSTED


def _asked(name: str) -> int | None:
    """What $GLIBC_TUNABLES says of a parameter, or else its own variable."""
    tunables = dict(
        setting.partition("=")[::2] for setting in os.environ.get("GLIBC_TUNABLES", "").split(":")
    )
    own = os.environ.get(f"MALLOC_{name.upper()}_", "")
    try:
        value = int(tunables.get(f"glibc.malloc.{name}", own), 0)
    except ValueError:  # nothing, or what the library takes for nothing
        return None
    return max(-1, min(value, _LARGEST))


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
