"""Processes of methods: their surroundings, how they fail, and how they are stopped."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import PATIENCE, is_gone, pids_of

from voxwarp._layout import INVERSE_WARP, WARP
from voxwarp.benchmark import process
from voxwarp.benchmark.job import RECORD, Job
from voxwarp.benchmark.process import execute


def recorded(job: Job) -> dict[str, Any]:
    return json.loads((job.path / RECORD).read_text())


def test_surroundings_of_a_method(job, cohort, tmp_path: Path, monkeypatch):
    """Paths relative to our folder work in the job's folder; threads and the log are set."""
    monkeypatch.chdir(cohort.folder)
    its = job(
        "reports", folder=os.path.relpath(tmp_path / "x"), fixed="a.nii.gz", moving="b.nii.gz"
    )
    done = execute(its, limit=PATIENCE, alone=True)
    assert (done["status"], done["reason"]) == ("ok", "")
    assert done == recorded(its)
    assert (done["threads"], done["alone"], done["device"]) == (3, True, "cpu")
    assert done["process_s"] > done["seconds"]["deform"] >= 0
    surroundings = json.loads((tmp_path / "x" / "surroundings.json").read_text())
    assert Path(surroundings.pop("path")).samefile(tmp_path / "x")
    assert surroundings == {
        "threads": ["3", "3", "3"],
        "exist": [True, True],
        "folder": str(tmp_path / "x"),
        "stdin": "",
        "python_path": os.environ.get("PYTHONPATH"),
    }
    assert (tmp_path / "x" / "log.txt").read_text().split("\n")[:2] == ["to stdout", "to stderr"]


@pytest.mark.parametrize(
    ("method", "reason", "logged"),
    [
        ("raises_and_greets", "ITK ERROR: no overlap", "Traceback"),
        ("exits", "no licence found", "no licence found"),
        ("crashes", "ended by signal SIGSEGV", ""),
        ("stops_early", "the process ended without an error, but wrote no result", ""),
    ],
)
def test_process_that_fails_says_why(job, method: str, reason: str, logged: str):
    its = job(method)
    done = execute(its, limit=PATIENCE, alone=False)
    assert (done["status"], done["reason"]) == ("failed", reason)
    assert done == recorded(its)
    assert set(done) == {"status", "reason", "process_s", "threads", "alone"}
    assert logged in (its.path / "log.txt").read_text()


def test_signals_have_names():
    assert process._signal(signal.SIGKILL).startswith("ended by signal SIGKILL (the system kills")
    assert process._signal(signal.SIGABRT) == "ended by signal SIGABRT"
    assert process._signal(40) == "ended by signal 40"


def test_time_limit_ends_a_process_and_its_child(job, monkeypatch):
    """Simulated: the limit is reached once both are asleep."""
    its, limits, asleep, wait = job("sleeps"), [], [], subprocess.Popen.wait

    def over(process: subprocess.Popen, timeout: float | None = None) -> int:
        if timeout is None:  # it has been killed
            return wait(process, PATIENCE)
        limits.append(timeout)
        asleep.extend(pids_of(its.path, process))
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", over)
    done = execute(its, limit=4.5, alone=False)
    assert limits == [4.5]
    assert (done["status"], done["reason"]) == ("time limit", "stopped after 4.5 s")
    assert set(done) == {"status", "reason", "process_s", "threads", "alone"}
    assert done == recorded(its)
    assert len(asleep) == 2
    assert all(is_gone(pid) for pid in asleep)


def test_seconds_of_a_process(job, monkeypatch):
    """From its start to its end, by a simulated clock."""
    clock, wait = SimpleNamespace(now=100.0), subprocess.Popen.wait

    def waited(process: subprocess.Popen, timeout: float | None = None) -> int:
        clock.now += 7 * (timeout is not None)
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", waited)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    assert execute(job("exits"), limit=PATIENCE, alone=True)["process_s"] == 7


def test_files_of_an_earlier_run_are_not_taken_for_its_own(job):
    its = job("inverse_at_first")
    for has_inverse in (True, False):
        assert execute(its, limit=PATIENCE, alone=False)["status"] == "ok"
        assert (its.path / INVERSE_WARP).exists() == has_inverse
        assert (its.path / WARP).exists()
    assert (its.path.parent / "count.txt").exists(), "files outside its folder stay"


def test_modules_are_found_where_we_find_them(job, tmp_path: Path, monkeypatch):
    """Also a file in the current folder, which is '' on the path; PYTHONPATH is unchanged."""
    (tmp_path / "mine_alone.py").write_text(
        "import methods\ndef run(run):\n    methods.reports(run)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    its = replace(job("reports"), method="mine_alone:run")
    assert execute(its, limit=PATIENCE, alone=False)["status"] == "ok"
    surroundings = json.loads((its.path / "surroundings.json").read_text())
    assert surroundings["python_path"] == os.environ.get("PYTHONPATH")
