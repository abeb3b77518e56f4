"""Freed memory is kept while it is wanted, by the system's counts, and given back afterwards."""

import platform
import resource
from pathlib import Path

import pytest
import torch

from voxwarp.allocation import freed_memory_kept, give_back

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told to keep memory"
)
SIZE = 50_000_000  # of float32: 200 MB, more than the library keeps by itself
PAGE = 4096


def pages_fetched() -> int:
    """How many the system gave for some large tensors, one after the other.

    Each is smaller than the one before: for another of the same size the library wants a little
    more, for its alignment, and that little may have been given to others by then.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for tenths in (9, 8, 7, 6):
        torch.zeros(SIZE * tenths // 10)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch may ask for huge ones, of which there are few to count."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")


def test_memory_is_fetched_once_and_given_back() -> None:
    give_back()
    began = resident()
    with freed_memory_kept():
        torch.zeros(SIZE)
        assert resident() - began > 0.9 * 4 * SIZE
        assert pages_fetched() < 100
    assert resident() - began < 0.2 * 4 * SIZE


def test_those_within_do_not_end_it_for_those_around() -> None:
    with freed_memory_kept():
        torch.zeros(SIZE)
        with freed_memory_kept():
            pass
        assert pages_fetched() < 100


def test_it_can_be_given_back_on_the_way() -> None:
    give_back()
    began = resident()
    with freed_memory_kept():
        torch.zeros(SIZE)
        give_back()
        assert resident() - began < 0.2 * 4 * SIZE


def test_an_error_ends_it() -> None:
    give_back()
    began = resident()
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        1 // int(torch.zeros(SIZE).count_nonzero())
    assert resident() - began < 0.2 * 4 * SIZE
