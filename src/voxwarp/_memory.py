"""How much memory is free. Only the standard library is imported."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Free bytes of the computer within the limits of its control groups; 2⁶² if unknown."""
    free = []
    try:
        text = Path("/proc/meminfo").read_text()
        free.append(1024 * int(text.split("MemAvailable:")[1].split()[0]))
    except (OSError, IndexError, ValueError):
        pass
    return min([*free, *_left_by_containers()], default=1 << 62)


def own_memory() -> int:
    """Bytes of this process in memory; 0 if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _left_by_containers() -> Iterator[int]:
    """Bytes left by the limits of this process's control group and of its parents."""
    try:
        own = Path("/proc/self/cgroup").read_text().split("0::/")[1].split("\n")[0]
    except (OSError, IndexError):
        own = ""
    for group in (CGROUPS / own, *(CGROUPS / own).parents):
        try:
            limit = int((group / "memory.max").read_text())  # "max" without a limit
            used = int((group / "memory.current").read_text())
            fields = (group / "memory.stat").read_text().split()
        except (OSError, ValueError):
            continue
        stat = dict(zip(fields[::2], fields[1::2], strict=False))
        # Cached pages of files are freed as soon as memory is needed.
        cached = sum(int(stat.get(name, 0)) for name in ("inactive_file", "active_file"))
        yield limit - used + cached
