"""Jobs of a cluster done here, one by one, without worker processes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from voxwarp.cohort.cluster import Cluster
from voxwarp.cohort.outcome import Outcome


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
