"""Time and peak memory of the stages of a computation. Only the standard library is imported."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """A stopwatch for stages; it also measures their peak memory.

    Args:
        memory: measure memory too.
        announce: called with the name of each stage when it starts.

    Attributes:
        seconds: wall-clock time of each stage.
        memory_mb: for each stage, the peak resident memory of the process during the stage,
            10⁶ bytes. On systems that cannot reset the peak (only Linux can), it is the peak so
            far.
    """

    def __init__(
        self, *, memory: bool = True, announce: Callable[[str], object] | None = None
    ) -> None:
        self.seconds: dict[str, float] = {}
        self.memory_mb: dict[str, float] = {}
        self._memory, self._announce = memory, announce
        self._stage, self._since = "", 0.0

    def start(self, stage: str) -> None:
        """End the running stage, if any, and start this one."""
        self.stop()
        if self._memory:
            forget_peak()
        self._stage, self._since = stage, time.perf_counter()
        if self._announce:
            self._announce(stage)

    def stop(self) -> None:
        """End the running stage; a stage that runs several times adds up."""
        if not self._stage:
            return
        elapsed = time.perf_counter() - self._since
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + elapsed
        if self._memory:
            self.memory_mb[self._stage] = max(self.memory_mb.get(self._stage, 0.0), peak_mb())
        self._stage = ""

    def rounded(self) -> dict[str, float]:
        """The seconds rounded to milliseconds, for records."""
        return {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the body of a ``with`` statement as one stage."""
        self.start(name)
        try:
            yield
        finally:
            self.stop()


def peak_mb() -> float:
    """Peak resident memory of this process since ``forget_peak``, 10⁶ bytes."""
    with suppress(OSError, StopIteration, ValueError):
        lines = _STATUS.read_text().splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    import resource  # here, because Windows does not have it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def forget_peak() -> None:
    """Reset the peak that ``peak_mb`` returns, on systems that can do so."""
    with suppress(OSError):
        _CLEAR.write_text("5")  # proc(5): 5 resets the peak resident set size
