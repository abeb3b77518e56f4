"""Run a method on a pair in a process of its own, and record the outcome."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._meter import Meter
from ..evaluation.record import write_record
from .job import RECORD, Job

LOG = "log.txt"


def execute(job: Job, *, limit: float, alone: bool) -> dict[str, Any]:
    """Run a method on a pair; ``run.json`` in its folder records the outcome, good or bad.

    Args:
        job: the job; its folder is made.
        limit: seconds after which the run is stopped.
        alone: nothing else runs on the machine, so that the times count.

    Returns:
        The contents of run.json: status ("ok", "failed" or "time limit"), reason, seconds, memory.
    """
    job.path.mkdir(parents=True, exist_ok=True)
    (job.path / RECORD).unlink(missing_ok=True)
    remove_images(job.path)  # results of an earlier run, not to be mistaken for those of this one
    path, meter = job.save(), Meter(memory=False)
    with meter.stage("process"):
        code = _exit_code(job, path, limit)
    about = {"process_s": meter.seconds["process"], "threads": job.threads, "alone": alone}
    record = _outcome(job, code, limit) | about
    write_record(job.path / RECORD, record)
    return record


def _exit_code(job: Job, path: Path, limit: float) -> int | None:
    """Run a job in a process; return its exit code, or None if it was stopped."""
    folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    command = [sys.executable, "-u", "-c", _WORKER, str(path), str(os.getpid()), folders]
    with open(job.path / LOG, "wb") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            env=os.environ | _threads(job.threads),
            cwd=job.path,  # elastix writes files into the current folder
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _outcome(job: Job, code: int | None, limit: float) -> dict[str, Any]:
    """Status and reason, and the record that the process wrote."""
    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        record = json.loads((job.path / RECORD).read_text())
    if code is None:
        return {"status": "time limit", "reason": f"stopped after {limit:g} s"}
    if code != 0 or "seconds" not in record:
        reason = record.get("reason") or _failure_reason(job.path / LOG, code)
        return {"status": "failed", "reason": reason}
    return {"status": "ok", "reason": ""} | record


# The process gets our module search path, so that it finds modules in the current folder too. The
# variable PYTHONPATH would also change the interpreters that other tools start.
_WORKER = (
    "import os, sys; sys.path[:] = sys.argv.pop().split(os.pathsep); "
    "from voxwarp.benchmark.worker import main; main()"
)


def _threads(number: int) -> dict[str, str]:
    names = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"
    return dict.fromkeys(names, str(number))


def _end(process: subprocess.Popen) -> None:
    """Stop a process and all processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure_reason(log: Path, code: int) -> str:
    """Why a process failed, in one line: the last line of its log, or the signal that ended it."""
    if code < 0:
        return _signal(-code)
    if code == 0:
        return "the process ended without an error, but wrote no result"
    lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
    return " ".join(lines[-1].split())[:200]


def _signal(number: int) -> str:
    known = {one.value: one.name for one in signal.Signals}
    killed = (
        " (the system kills processes when memory runs out)" if number == signal.SIGKILL else ""
    )
    return f"ended by signal {known.get(number, number)}{killed}"


def remove_images(folder: Path) -> None:
    """Remove images and fields, which are large."""
    for path in folder.glob("*.nii*"):
        path.unlink()
