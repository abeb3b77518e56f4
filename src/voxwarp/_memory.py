"""How much memory is free. Only the standard library is imported."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Free bytes of the computer within the limits of this process; 2⁶² if unknown."""
    free = []
    try:
        text = Path("/proc/meminfo").read_text()
        free.append(1024 * int(text.split("MemAvailable:")[1].split()[0]))
    except (OSError, IndexError, ValueError):
        pass
    return max(0, min([*free, *_left_by_limit(), *_left_by_containers()], default=1 << 62))


def _left_by_limit() -> Iterator[int]:
    """Bytes that this process may still allocate by its own limit (``ulimit -v``)."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield limit - pages * resource.getpagesize()
    except (ImportError, OSError, ValueError, IndexError):  # the first: Windows
        pass


def own_memory() -> int:
    """Bytes of this process in memory without pages of files, which count as free; 0 if unknown."""
    try:
        _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
    except (OSError, IndexError, ValueError):
        return 0
    return (resident - of_files) * os.sysconf("SC_PAGE_SIZE")


# The files of the two versions of control groups: limit, what is used, and the names of what is
# cached in memory.stat (of the group with those inside it).
_FILES = {
    1: (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
    2: ("memory.max", "memory.current", ("inactive_file", "active_file")),
}


def _left_by_containers() -> Iterator[int]:
    """Bytes left by the limits of this process's control groups and of those around them."""
    for version, group in _control_groups():
        limit_file, used_file, caches = _FILES[version]
        try:
            limit = int((group / limit_file).read_text())  # "max" without a limit
            used = int((group / used_file).read_text())
            fields = (group / "memory.stat").read_text().split()
        except (OSError, ValueError):
            continue
        stat = dict(zip(fields[::2], fields[1::2], strict=False))
        # Cached pages of files are freed as soon as memory is needed.
        yield limit - used + sum(int(stat.get(name, 0)) for name in caches)


def _control_groups() -> Iterator[tuple[int, Path]]:
    """Versions and folders of this process's groups and their parents, innermost first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    own = dict.fromkeys(_FILES, "")  # what a container sees at the top may be its own group
    for line in lines:  # such as 4:memory:/docker/1a2b (version 1), 0::/user.slice (version 2)
        number, controllers, path = line.split(":", 2)
        if ".." in path.split("/"):  # a group outside what this process sees
            continue
        if number == "0":
            own[2] = path.strip("/")
        elif "memory" in controllers.split(","):
            own[1] = path.strip("/")
    for version, top in ((1, CGROUPS / "memory"), (2, CGROUPS)):
        group = top / own[version]
        yield version, group
        while group != top:
            yield version, (group := group.parent)
