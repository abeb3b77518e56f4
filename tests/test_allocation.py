"""Freed memory is kept during the statement, by the system's counts, and returned afterwards."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from voxwarp import _allocation
from voxwarp._allocation import keep_freed_memory, release_free_memory

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only the GNU C library can be set to keep memory"
)
SIZE = 50_000_000  # of float32: 200 MB, more than the library keeps by default
PAGE = 4096


def pages_fetched() -> int:
    """How many the system gave for some large tensors, one after the other; the least of eight.

    Each is smaller than the one before: for another of the same size the library wants a little
    more, for its alignment, and that little may have been given to others by then. So may be a
    little in the middle, by another thread of the process: later rounds do without it.
    """

    def fetched() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for tenths in (9, 8, 7, 6):
            torch.zeros(SIZE * tenths // 10)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    return min(fetched() for _ in range(8))


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch may ask for huge ones, of which there are few to count."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")


def test_memory_is_fetched_once_and_given_back() -> None:
    release_free_memory()
    began = resident()
    with keep_freed_memory():
        torch.zeros(SIZE)
        assert resident() - began > 0.9 * 4 * SIZE
        assert pages_fetched() < 100
    assert resident() - began < 0.2 * 4 * SIZE


def test_those_within_do_not_end_it_for_those_around() -> None:
    with keep_freed_memory():
        torch.zeros(SIZE)
        with keep_freed_memory():
            pass
        assert pages_fetched() < 100


def test_it_can_be_given_back_on_the_way() -> None:
    release_free_memory()
    began = resident()
    with keep_freed_memory():
        torch.zeros(SIZE)
        release_free_memory()
        assert resident() - began < 0.2 * 4 * SIZE


def test_an_error_ends_it() -> None:
    release_free_memory()
    began = resident()
    with pytest.raises(ZeroDivisionError), keep_freed_memory():
        1 // int(torch.zeros(SIZE).count_nonzero())
    assert resident() - began < 0.2 * 4 * SIZE


# ------------------------------------------------------------------- What is there is restored

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # as in malloc.h
VARIABLES = [
    *("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"),
    "GLIBC_TUNABLES",
]
INITIAL = {TRIM_THRESHOLD: 2**17, TOP_PAD: 2**17, MMAP_THRESHOLD: 2**17, MMAP_MAX: 65536}
ADJUSTED = {**INITIAL, TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25}


class Recorder:
    """A stand-in for the C library that records the last values."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.trims = 0

    def mallopt(self, parameter: int, value: int) -> None:
        self.values[parameter] = value

    def malloc_trim(self, pad: int) -> None:
        self.trims += 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A recorder, and an environment that says nothing."""
    recorder = Recorder()
    monkeypatch.setattr(_allocation, "_glibc", lambda: recorder)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return recorder


def test_where_the_environment_says_nothing_it_is_what_the_library_arrives_at(
    library: Recorder,
) -> None:
    with keep_freed_memory():
        assert library.values == {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 2**26}
        assert library.trims == 0
    assert library.values == ADJUSTED
    assert library.trims == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"MALLOC_MMAP_MAX_": "12"}, {MMAP_MAX: 12}),
        ({"MALLOC_MMAP_THRESHOLD_": "70000"}, {MMAP_THRESHOLD: 70000}),
        ({"MALLOC_TRIM_THRESHOLD_": "-1"}, {TRIM_THRESHOLD: -1}),
        ({"MALLOC_TOP_PAD_": "0"}, {TOP_PAD: 0}),
        ({"MALLOC_TOP_PAD_": "0x10000"}, {TOP_PAD: 65536}),
        ({"MALLOC_TRIM_THRESHOLD_": "99999999999"}, {TRIM_THRESHOLD: 2**31 - 1}),
        (
            {"MALLOC_TOP_PAD_": "4096", "MALLOC_MMAP_MAX_": "0"},
            {TOP_PAD: 4096, MMAP_MAX: 0},
        ),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=70000"}, {MMAP_THRESHOLD: 70000}),
        (
            {"GLIBC_TUNABLES": "glibc.cpu.x=3:glibc.malloc.top_pad=1:glibc.malloc.mmap_max=2"},
            {TOP_PAD: 1, MMAP_MAX: 2},
        ),
        (
            {"GLIBC_TUNABLES": "glibc.malloc.top_pad=1", "MALLOC_TOP_PAD_": "2"},
            {TOP_PAD: 1},
        ),
    ],
)
def test_what_the_environment_says_is_restored(
    library: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, str],
    expected: dict[int, int],
) -> None:
    """One that is set stops the library from adjusting the others: they are as in the beginning."""
    for variable, value in said.items():
        monkeypatch.setenv(variable, value)
    with keep_freed_memory():
        assert library.values[MMAP_MAX] == 0
    assert library.values == {**INITIAL, **expected}


@pytest.mark.parametrize(
    "said",
    [
        {"MALLOC_TOP_PAD_": ""},
        {"MALLOC_TOP_PAD_": "much"},
        {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"},
        {"GLIBC_TUNABLES": "::nonsense:glibc.malloc.top_pad="},
    ],
)
def test_what_says_nothing_of_it_changes_nothing(
    library: Recorder, monkeypatch: pytest.MonkeyPatch, said: dict[str, str]
) -> None:
    for variable, value in said.items():
        monkeypatch.setenv(variable, value)
    with keep_freed_memory():
        pass
    assert library.values == ADJUSTED


def test_within_another_nothing_is_restored(library: Recorder) -> None:
    with keep_freed_memory():
        with keep_freed_memory():
            pass
        assert library.values[MMAP_MAX] == 0
        assert library.trims == 0


PROBE = """
import ctypes
from voxwarp._allocation import keep_freed_memory

library = ctypes.CDLL(None)
library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]

def by_itself(size):
    # Whether a block is a mapping of its own: the second bit of the size that stands before it.
    # The last of several, because the first may be put where something was freed before.
    blocks = [library.malloc(size) for _ in range(max(1, (8 << 20) // size))]
    before = ctypes.c_size_t.from_address(blocks[-1] - ctypes.sizeof(ctypes.c_size_t)).value
    for block in blocks:
        library.free(block)
    return bool(before & 2)

with keep_freed_memory():
    print(*(by_itself(size << 10) for size in (100, 1000, 100000)))
print(*(by_itself(size << 10) for size in (100, 1000, 100000)))
"""


@pytest.mark.parametrize(
    ("said", "afterwards"),
    [
        ({}, "False False True"),
        ({"MALLOC_MMAP_THRESHOLD_": "65536"}, "True True True"),
        ({"MALLOC_TOP_PAD_": "65536"}, "False True True"),
        ({"MALLOC_MMAP_MAX_": "0"}, "False False False"),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}, "True True True"),
    ],
)
def test_the_c_library_maps_blocks_as_the_environment_says(
    said: dict[str, str], afterwards: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**environment, **said},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["False False False", afterwards]


OF_A_THREAD = f"""
import resource, threading, torch
from voxwarp._allocation import keep_freed_memory, share_freed_memory
def fetched(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with keep_freed_memory():
    share_freed_memory()
    thread = threading.Thread(target=torch.zeros, args=({SIZE} // 2,))
    thread.start()
    thread.join()
    print(fetched({SIZE} // 2 * 9 // 10))
"""


@pytest.mark.parametrize(
    ("variable", "value"),
    [("", ""), ("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=4")],
)
def test_what_a_thread_freed_serves_the_others(variable: str, value: str, monkeypatch) -> None:
    """Unless the environment says how many heaps there are."""
    if variable:
        monkeypatch.setenv(variable, value)
    done = subprocess.run(
        [sys.executable, "-c", OF_A_THREAD], capture_output=True, text=True, check=True
    )
    assert (int(done.stdout) < 1000) == (not variable)


def test_only_the_largest_blocks_are_returned_while_memory_is_shared() -> None:
    code = PROBE.replace("keep_freed_memory\n", "keep_freed_memory, share_freed_memory\n", 1)
    code = code.replace("    print(", "    share_freed_memory()\n    print(", 1)
    code = code.replace("(100, 1000, 100000)", "(100, 100000, 600000)", 1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, afterwards = done.stdout.splitlines()
    assert kept in ("False False True", "False False False")  # older libraries keep all
    assert afterwards == "False False True"
