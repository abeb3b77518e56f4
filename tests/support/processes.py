"""Processes that sleep: whether they are there, and whether they are gone."""

import json
import os
import subprocess
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
