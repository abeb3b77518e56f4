"""A method on a pair in a process of its own, and what became of it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..evaluation.record import write_record
from ..meter import Meter
from .job import RECORD, Job

LOG = "log.txt"


def execute(job: Job, *, limit: float, alone: bool) -> dict[str, Any]:
    """Run a method on a pair, and leave ``run.json`` in its folder, whatever becomes of it.

    Args:
        job: what is to be done; its folder is made.
        limit: seconds after which it is stopped.
        alone: nothing else is running on the machine, so that its times count.

    Returns:
        What run.json says: status ("ok", "failed", "time limit") and reason, seconds and memory.
    """
    job.place.mkdir(parents=True, exist_ok=True)
    (job.place / RECORD).unlink(missing_ok=True)
    remove_images(job.place)  # of an earlier run, which is not to be taken for what this one finds
    path, meter = job.save(), Meter(memory=False)
    with meter.stage("process"):
        code = _work(job, path, limit)
    about = {"process_s": meter.seconds["process"], "threads": job.threads, "alone": alone}
    record = _outcome(job, code, limit) | about
    write_record(job.place / RECORD, record)
    return record


def _work(job: Job, path: Path, limit: float) -> int | None:
    """The exit code of a process that does a job; None where it was stopped."""
    places = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    words = [sys.executable, "-u", "-c", _WORKER, str(path), str(os.getpid()), places]
    with open(job.place / LOG, "wb") as stream:
        process = subprocess.Popen(
            words,
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            env=os.environ | _threads(job.threads),
            cwd=job.place,  # elastix leaves files where it runs
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _outcome(job: Job, code: int | None, limit: float) -> dict[str, Any]:
    """Status and reason, and what the process said of itself."""
    said: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        said = json.loads((job.place / RECORD).read_text())
    if code is None:
        return {"status": "time limit", "reason": f"stopped after {limit:g} s"}
    if code != 0 or "seconds" not in said:
        reason = said.get("reason") or _last_words(job.place / LOG, code)
        return {"status": "failed", "reason": reason}
    return {"status": "ok", "reason": ""} | said


# Modules are where they are for us, also those of the user in the folder that we are in; in
# PYTHONPATH that would reach the interpreters of other tools.
_WORKER = (
    "import os, sys; sys.path[:] = sys.argv.pop().split(os.pathsep); "
    "from voxwarp.benchmark.worker import main; main()"
)


def _threads(number: int) -> dict[str, str]:
    names = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"
    return dict.fromkeys(names, str(number))


def _end(process: subprocess.Popen) -> None:
    """Stop a process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(log: Path, code: int) -> str:
    """Why a process failed, in one line: the last of its log, or the signal that ended it."""
    if code < 0:
        return _signal(-code)
    if code == 0:
        return "it ended without an error before it was done"
    lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
    return " ".join(lines[-1].split())[:200]


def _signal(number: int) -> str:
    known = {one.value: one.name for one in signal.Signals}
    killed = " (by the system, where memory runs out)" if number == signal.SIGKILL else ""
    return f"ended by signal {known.get(number, number)}{killed}"


def remove_images(folder: Path) -> None:
    """Remove what is large."""
    for path in folder.glob("*.nii*"):
        path.unlink()
