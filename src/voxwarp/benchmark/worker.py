"""Run one method on one pair: ``python -m voxwarp.benchmark.worker JOB.json``.

Each run is a process of its own, so that a crash, a hang or a memory leak affects no other run.
"""

import ctypes
import json
import os
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from .._allocation import keep_freed_memory
from .catalogue import MODEL_METHODS, find_method
from .job import RECORD, Job, Run


def main() -> None:
    """Run the job in the file named on the command line, and write its record.

    An optional second argument is the id of the parent process; the worker ends when it ends.
    """
    if len(sys.argv) > 2:
        _end_with_parent(int(sys.argv[2]))
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    run, record = Run(job), dict[str, Any]()
    try:
        # Our own methods keep freed memory, as the command line does; other tools run unchanged.
        with keep_freed_memory() if job.method in MODEL_METHODS else nullcontext():
            find_method(job.method)(run)
        record = run.record()
    except Exception as error:  # recorded, because tools may print more after the traceback
        record = {"reason": f"{type(error).__name__}: {error}".strip().splitlines()[-1]}
        raise
    finally:
        (job.path / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _end_with_parent(parent: int) -> None:
    """Let the system kill this process when its parent ends; only Linux can do that."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the process that started this run has ended")


if __name__ == "__main__":
    main()
