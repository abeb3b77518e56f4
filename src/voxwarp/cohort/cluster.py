"""Where the jobs of a cohort run: processes of this machine, or the workers of a cluster."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .._files import check_writable
from . import engine


@dataclass(frozen=True)
class Cluster:
    """Where the work is done.

    Args:
        processors: of the embedded cluster, or None for all.
        memory: bytes of the embedded cluster, or None for what is free.
        address: of a scheduler, or None.
        description: file of another cluster, or None.
    """

    processors: int | None = None
    memory: float | None = None
    address: str | None = None
    description: Path | None = None

    def resources(
        self, threads: int, *, need: float, number: int, work: Path | None
    ) -> engine.Resources:
        """As many workers as processors, memory and scans allow.

        The threads of each do not depend on any of these: the last digits of results depend on
        them.

        Args:
            threads: of each worker.
            need: bytes of memory that a worker needs at most.
            number: of jobs.
            work: folder for scratch files, or None.
        """
        from dask.system import CPU_COUNT

        from .._memory import free_memory

        processors = self.processors or CPU_COUNT
        memory = self.memory or free_memory()
        workers = max(1, min(processors // threads, int(memory // need), number))
        scratch = None
        if work is not None:
            scratch = work.absolute() / "dask"
            check_writable(scratch)
            scratch.mkdir(parents=True, exist_ok=True)
        return engine.Resources(workers, threads, scratch)

    def running(self, resources: engine.Resources) -> "AbstractContextManager[engine.Engine]":
        """The engine, until the end of a ``with`` statement.

        Args:
            resources: of the embedded cluster.
        """
        if self.address is not None:
            return engine.at_address(self.address)
        if self.description is not None:
            return engine.described(self.description)
        return engine.embedded(resources)
