"""Jobs of a cluster done here, one by one, without worker processes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from voxwarp.benchmark import run as benchmark
from voxwarp.benchmark.catalogue import find_method
from voxwarp.benchmark.job import RECORD, Job, Run
from voxwarp.cohort.cluster import Cluster
from voxwarp.cohort.outcome import Outcome
from voxwarp.evaluation.record import write_record


class InlineEngine:
    """An engine that sends jobs through JSON, as dask does, and does them in this process."""

    dashboard, workers = "", 1

    def stop(self) -> None:
        """Nothing is in flight between two jobs."""

    def run(self, function: Any, jobs: Any, *, tick: Any, say: Any) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            tick([job.key])
            values = function(json.loads(json.dumps(job.as_json())))
            yield job, Outcome(**{**values, "warnings": tuple(values["warnings"])})


def run_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all clusters do their jobs in this process."""

    @contextmanager
    def running(self: Cluster, resources: Any) -> Iterator[InlineEngine]:
        yield InlineEngine()

    monkeypatch.setattr(Cluster, "running", running)


def run_methods_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a benchmark run its methods in this process: the runner's part is the same, and quick."""

    def run_here(job: Job, *, limit: float, alone: bool) -> dict[str, Any]:
        job.path.mkdir(parents=True, exist_ok=True)
        (job.path / RECORD).unlink(missing_ok=True)
        job.save()
        run = Run(job)
        try:
            find_method(job.method)(run)
            record = {"status": "ok", "reason": ""} | run.record()
        except Exception as error:
            record = {"status": "failed", "reason": str(error)}
        record |= {"process_s": 1.0, "threads": job.threads, "alone": alone}
        write_record(job.path / RECORD, record)
        return record

    monkeypatch.setattr(benchmark, "execute", run_here)
