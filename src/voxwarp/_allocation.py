"""Keep freed memory for the next volume instead of returning it to the system.

The GNU C library requests each large block from the system and returns it when it is freed, and the
system clears the pages of every new block. For volumes of tens of megabytes, this takes a third of
the time that voxwarp computes on a CPU. The settings hold for the whole process, so only a program
may change them, such as the command line, but not a library.
"""

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Parameters of mallopt(3), and their values while memory is kept: no blocks from mmap, nothing
# returned at the top of the heap, which grows by 64 MB at a time (set by hand).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}

# Their values otherwise, which the library cannot be asked for. If the environment sets one of
# them, the library uses these values and the defaults in _INITIAL. If it sets none, the library
# adjusts them itself and reaches _ADJUSTED once a block of more than 32 MB has been freed.
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
# Bytes of the largest block that a program that shares its freed memory keeps. Set by hand: at 1 mm
# hardly any network has a larger one, while fields of smaller voxels have up to 1 GB.
LARGEST_KEPT = 128 << 20
_LARGEST = 2**31 - 1  # mallopt takes an int, the environment a size

_lock = threading.Lock()
_users = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed memory in the process during a ``with`` statement, then return it to the system.

    This holds for the whole process, and until the last of several such statements ends. Then the
    settings are again those of the environment, or the defaults of the library. Only the GNU C
    library is changed.
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
                _set(_default_settings())
                release_free_memory()


def share_freed_memory() -> None:
    """Let all threads use the memory that any of them has freed; before other threads start.

    Otherwise each thread keeps memory of its own: with three that take turns at large volumes,
    the process had 2.8 GB where 2.0 are enough, and with one pair of scans 1.9 to 2.2 GB where 1.7
    are. Blocks of more than 128 MB are returned to the system nevertheless, because what is
    between them would be lost to others of their size: a pair of scans of 80 million voxels each
    had 1 GB more. The library cannot undo the first, so only a program that is about to end may
    ask for it. A setting in the environment prevails.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "MALLOC_ARENA_MAX" not in os.environ and "glibc.malloc.arena_max" not in tunables:
        _set({_ARENA_MAX: 1})
    library = _glibc()
    if library and library.mallopt(_MMAP_THRESHOLD, LARGEST_KEPT):  # older ones refuse it
        _set({_MMAP_MAX: _ADJUSTED[_MMAP_MAX]})


def _default_settings() -> dict[int, int]:
    """The settings without voxwarp."""
    values = {parameter: _from_environment(name) for parameter, name in _NAMES.items()}
    environment = {parameter: value for parameter, value in values.items() if value is not None}
    return {**_INITIAL, **environment} if environment else _ADJUSTED


def _from_environment(name: str) -> int | None:
    """The value of a parameter in $GLIBC_TUNABLES, else in its own variable, else None."""
    tunables = dict(
        setting.partition("=")[::2] for setting in os.environ.get("GLIBC_TUNABLES", "").split(":")
    )
    variable = os.environ.get(f"MALLOC_{name.upper()}_", "")
    try:
        value = int(tunables.get(f"glibc.malloc.{name}", variable), 0)
    except ValueError:  # not set, or not a number, which the library ignores too
        return None
    return max(-1, min(value, _LARGEST))


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set(values: dict[int, int]) -> None:
    if library := _glibc():
        for parameter, value in values.items():
            library.mallopt(parameter, value)


def release_free_memory() -> None:
    """Return all free memory to the system, so that a long process is not fragmented."""
    if library := _glibc():
        library.malloc_trim(0)
