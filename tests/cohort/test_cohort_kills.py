"""Cohorts that are killed at random and run again; and the same work on a cluster by hand."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import PATIENCE, is_gone
from small_cohorts import SmallCohort

KILLS = 9

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals"),
]


@pytest.fixture(scope="module")
def cohort(make_cohort) -> SmallCohort:
    return make_cohort(4)


def state(out: Path) -> dict[str, str]:
    """The results, without logs and ledger."""
    found = {}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if path.is_file() and not name.startswith(("logs/", ".voxwarp/ledger")):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def undisturbed(cohort) -> tuple[dict[str, str], float]:
    """The results of a run, and its seconds when kernels are compiled."""
    for name in ("first", "second"):
        begun = time.monotonic()
        done = cohort.run(cohort.folder / name, "participant")
        assert done.returncode == 0, done.stderr
        took = time.monotonic() - begun
    states = [state(cohort.folder / name) for name in ("first", "second")]
    assert states[0] == states[1]
    return states[1], took


@pytest.mark.parametrize("number", range(KILLS))
def test_results_are_those_of_an_undisturbed_run(cohort, undisturbed, tmp_path, number) -> None:
    """A worker, the command alone, or all at once; the second run does what is missing."""
    expected, took = undisturbed
    out, rng = tmp_path / "out", random.Random(number)
    process = subprocess.Popen(
        cohort.command(out, "participant"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=cohort.environment,
    )
    time.sleep(rng.uniform(0.4, 1.0) * took)
    children = []
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        kind = ("worker", "command", "all")[number % 3]
        if kind == "worker" and workers:
            rng.choice(workers).kill()
        elif kind == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    done = cohort.run(out, "participant")
    assert done.returncode == 0, done.stderr
    assert state(out) == expected
    assert all(is_gone(child.pid) for child in children)
    last = cohort.run(out, "participant")
    assert "nothing to do: all 4 results are up to date" in last.stdout


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Path]:
    """The file of a scheduler that was started by hand, with two workers."""
    path = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    commands = [
        [*dask, "scheduler", "--scheduler-file", str(path), "--port", "0", "--no-dashboard"],
        *[
            [
                *(*dask, "worker", "--scheduler-file", str(path), "--nthreads", "1"),
                *("--memory-limit", "0", "--no-dashboard", "--local-directory", str(tmp_path)),
            ]
        ]
        * 2,
    ]
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for command in commands
    ]
    until = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.1)
    yield path
    for process in reversed(processes):
        process.terminate()
        process.wait(PATIENCE)


def test_workers_by_hand_give_the_same_bytes(cohort, undisturbed, scheduler, tmp_path) -> None:
    done = cohort.run(tmp_path / "out", "participant", "--dask-scheduler", scheduler)
    assert done.returncode == 0, done.stderr
    assert state(tmp_path / "out") == undisturbed[0]


def test_a_cluster_that_a_file_describes_gives_the_same_bytes(
    cohort, undisturbed, tmp_path
) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "cluster: distributed.LocalCluster\n"
        "options: {n_workers: 0, threads_per_worker: 1, memory_limit: 0, dashboard_address: null}\n"
        "adapt: {minimum: 1, maximum: 2}\n"
    )
    done = cohort.run(tmp_path / "out", "participant", "--dask-config", tmp_path / "cluster.yaml")
    assert done.returncode == 0, done.stderr
    assert state(tmp_path / "out") == undisturbed[0]
