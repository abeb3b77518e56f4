"""The process that one method runs in on one pair: ``python -m voxwarp.benchmark.worker JOB.json``.

It is a process of its own so that a crash, a hang or a leak stays there.
"""

import ctypes
import json
import os
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from ..allocation import keep_freed_memory
from .catalogue import MODEL_METHODS, find_method
from .job import RECORD, Job, Run


def main() -> None:
    """Do the job whose file is named, and leave its record beside the other files.

    A second word is the number of the process that waits for it, and that it shall not outlive.
    """
    if len(sys.argv) > 2:
        _end_with(int(sys.argv[2]))
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    run, record = Run(job), dict[str, Any]()
    try:
        # A process of ours, as the command line is; other tools keep the allocator they know.
        with keep_freed_memory() if job.method in MODEL_METHODS else nullcontext():
            find_method(job.method)(run)
        record = run.record()
    except Exception as error:  # said here, since what tools print may come after the traceback
        record = {"reason": f"{type(error).__name__}: {error}".strip().splitlines()[-1]}
        raise
    finally:
        (job.path / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, however it does; Linux can do that."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the process that wanted this is gone")


if __name__ == "__main__":
    main()
