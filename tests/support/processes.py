"""Processes: whether those that sleep are there or gone, and how much memory a command takes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 300.0  # seconds until a test gives up: a busy machine starts processes slowly


def is_gone(pid: int) -> bool:
    """Whether a process has ended or does before long; a zombie has."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (OSError, IndexError):
            return True
        time.sleep(0.05)
    return False


def pids_of(place: Path, process: subprocess.Popen) -> list[int]:
    """Of a method that sleeps, and of its child, as soon as they are there.

    Raises:
        AssertionError: they do not come, or the process that is to start them has ended.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            return json.loads((place / "pids.json").read_text())
        except (OSError, ValueError):
            time.sleep(0.05)
    raise AssertionError(f"nothing sleeps in {place} (exit code {process.poll()})")


# Not ru_maxrss, which is at least that of the process that starts it: here, of pytest.
_RUN = """
from voxwarp._meter import peak_mb
from voxwarp.cli.main import main
try:
    main()
except SystemExit as ended:
    assert not ended.code
print(peak_mb())
"""


def peak_of(*words: object) -> float:
    """Run ``voxwarp WORD...`` in a process of its own; the most memory that it had, bytes."""
    command = [sys.executable, "-c", _RUN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) * 1e6
