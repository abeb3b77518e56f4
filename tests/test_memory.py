"""The memory that is free, against what the system and its control groups say."""

import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voxwarp import _memory
from voxwarp._memory import free_memory, own_memory


def test_the_memory_that_is_free_is_that_of_the_system() -> None:
    if not Path("/proc/meminfo").exists():
        pytest.skip("no Linux")
    total = 1024 * int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < free_memory() < total


VERSION_1 = "memory.limit_in_bytes", "memory.usage_in_bytes"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch) -> Callable[..., None]:
    """Make control groups: by folder, the limit and what is used, and what of that is cached."""

    def make(own: str, described: dict[str, tuple[str, int, dict[str, int]]]) -> None:
        for name, (limit, used, stat) in described.items():
            folder, is_old = tmp_path / name, name.startswith("memory")
            folder.mkdir(parents=True, exist_ok=True)
            of_limit, of_use = VERSION_1 if is_old else ("memory.max", "memory.current")
            (folder / of_limit).write_text(f"{limit}\n")
            (folder / of_use).write_text(f"{used}\n")
            lines = [f"{key} {value}\n" for key, value in stat.items()]
            (folder / "memory.stat").write_text("".join(lines))
        read = Path.read_text
        texts = {"/proc/self/cgroup": own, "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8 kB\n"}
        monkeypatch.setattr(_memory, "CGROUPS", tmp_path)
        monkeypatch.setattr(
            Path, "read_text", lambda self, *more: texts.get(str(self)) or read(self, *more)
        )

    return make


CACHED = {"anon": 4500, "file": 900, "inactive_file": 300, "active_file": 200, "slab": 7}
CACHED_1 = {"inactive_file": 1, "total_inactive_file": 300, "total_active_file": 200}
FREE_1 = "9223372036854771712", 9, {}  # what no limit looks like


@pytest.mark.parametrize(
    ("own", "described", "expected"),
    [
        ("0::/\n", {".": ("6000", 5000, {"anon": 5000})}, 1000),
        ("0::/\n", {".": ("6000", 5000, CACHED)}, 1500),  # pages of files go when they have to
        ("0::/\n", {".": ("max", 5000, CACHED)}, 8192),
        ("0::/\n", {".": ("900000", 5000, CACHED)}, 8192),  # the machine has less
        ("0::/a/b\n", {"a/b": ("6000", 5000, CACHED), "a": ("max", 7000, {})}, 1500),
        ("0::/a/b\n", {"a/b": ("max", 50, {}), "a": ("3000", 2900, {"active_file": 5})}, 105),
        ("0::/a/b\n", {"a/b": ("6000", 1000, {}), "a": ("3000", 1000, {})}, 2000),
        ("0::/a/b\n", {".": ("700", 100, {})}, 600),  # the path is that of the host
        ("5:memory:/x\n0::/a\n1:cpu:/\n", {"a": ("700", 100, {}), "x": ("5", 1, {})}, 600),
        ("5:memory:/x\n", {".": ("700", 100, {}), "x": ("5", 1, {})}, 600),
        ("0::/../../a\n", {".": ("700", 100, {})}, 600),  # outside the namespace
        # Version 1, which some clusters still have.
        ("4:memory:/j\n0::/\n", {"memory/j": ("6000", 5000, CACHED_1), "memory": FREE_1}, 1500),
        ("4:cpu,memory:/j/s\n", {"memory/j/s": FREE_1, "memory/j": ("700", 100, {})}, 600),
        ("4:memory:/docker/1a\n", {"memory": ("700", 100, CACHED_1)}, 1100),
        ("4:memory:/j\n0::/a\n", {"memory/j": ("700", 100, {}), "a": ("500", 100, {})}, 400),
        ("", {}, 8192),
    ],
)  # fmt: skip
def test_a_container_may_have_less(own, described, expected, groups) -> None:
    groups(own, described)
    assert free_memory() == expected


def test_every_group_around_ours_is_asked(groups) -> None:
    limits = {"a/b": ("6000", 5000, CACHED), "a": ("3000", 2900, {}), ".": ("max", 1, {})}
    groups("0::/a/b\n", {**limits, "other": ("10", 10, {})})
    assert list(_memory._left_by_containers()) == [1500, 100]


def test_the_memory_of_this_process_grows_with_what_it_holds() -> None:
    if not own_memory():
        pytest.skip("no Linux")
    before = own_memory()
    # Not memory that this process had freed before.
    held = mmap.mmap(-1, 200_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    np.frombuffer(held, np.uint8).fill(1)
    assert own_memory() - before == pytest.approx(len(held), rel=0.1)
