"""Time and peak memory of the stages of a computation. Only the standard library is imported."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """What each stage took.

    Args:
        memory: measure the memory of the stages, too.
        announce: called with the name of each stage as it begins.

    Attributes:
        seconds: by stage, wall clock.
        memory_mb: by stage, the most memory that the process held during it, in 10⁶ bytes, what
            it held before included. Where the system cannot forget earlier peaks (Linux can),
            it is the most so far.
    """

    def __init__(
        self, *, memory: bool = True, announce: Callable[[str], object] | None = None
    ) -> None:
        self.seconds: dict[str, float] = {}
        self.memory_mb: dict[str, float] = {}
        self._memory, self._announce = memory, announce
        self._stage, self._since = "", 0.0

    def start(self, stage: str) -> None:
        """End the stage before, if one is running, and begin this one."""
        self.stop()
        if self._memory:
            forget_peak()
        self._stage, self._since = stage, time.perf_counter()
        if self._announce:
            self._announce(stage)

    def stop(self) -> None:
        """End the running stage; a stage that ran before goes on adding up."""
        if not self._stage:
            return
        took = time.perf_counter() - self._since
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + took
        if self._memory:
            self.memory_mb[self._stage] = max(self.memory_mb.get(self._stage, 0.0), peak_mb())
        self._stage = ""

    def rounded(self) -> dict[str, float]:
        """The seconds to a millisecond, for records."""
        return {stage: round(took, 3) for stage, took in self.seconds.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block is the stage."""
        self.start(name)
        try:
            yield
        finally:
            self.stop()


def peak_mb() -> float:
    """The most memory this process has held since ``forget_peak``, resident, in 10⁶ bytes."""
    with suppress(OSError, StopIteration, ValueError):
        lines = _STATUS.read_text().splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    import resource  # which Windows lacks

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def forget_peak() -> None:
    """Let ``peak_mb`` count from now, where the system can do that."""
    with suppress(OSError):
        _CLEAR.write_text("5")
