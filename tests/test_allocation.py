"""Freed memory is kept while it is wanted, by the system's counts, and given back afterwards."""

import platform
import resource
from pathlib import Path

import pytest
import torch

from voxwarp.allocation import freed_memory_kept

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told to keep memory"
)
SIZE = 50_000_000  # of float32: 200 MB, more than the library keeps by itself
PAGE = 4096


def pages_fetched() -> int:
    """How many the system gave for some large tensors, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use(4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def use(times: int) -> None:
    """A tensor that is written, and freed, again and again."""
    for _ in range(times):
        torch.zeros(SIZE)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch may ask for huge ones, of which there are few to count."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")


def test_memory_is_fetched_once_and_given_back() -> None:
    began = resident()
    with freed_memory_kept():
        use(6)  # until there is room for the alignment of one beside what else is there
        assert resident() - began > 0.9 * 4 * SIZE
        assert pages_fetched() < 100
    assert resident() - began < 0.2 * 4 * SIZE


def test_those_within_do_not_end_it_for_those_around() -> None:
    with freed_memory_kept():
        use(6)
        with freed_memory_kept():
            pass
        assert pages_fetched() < 100


def test_an_error_ends_it() -> None:
    began = resident()
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        use(6 // (torch.zeros(SIZE).count_nonzero().item()))
    assert resident() - began < 0.2 * 4 * SIZE
