"""When the process of a command began: what the system says, or else the first import."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from voxwarp import _process

TICK = 0.01  # seconds, of the system's clock of processes

PROGRAM = """
import time; time.sleep({asleep})
from voxwarp import _process
print(_process.seconds_since_start())
_process.belongs_to_command()
print(_process.seconds_since_start())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process began")
def test_start_of_a_process_comes_before_its_imports() -> None:
    asleep, began = 0.5, time.monotonic()
    code = PROGRAM.format(asleep=asleep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole = time.monotonic() - began
    program, command = done.stdout.split()
    assert program == "None"
    assert asleep <= float(command) <= whole + TICK


@pytest.fixture
def commands_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_process, "_of_command", True)


@pytest.mark.usefixtures("commands_own")
def test_where_the_system_does_not_say_it_is_since_the_import(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(_process, "_IMPORTED", time.monotonic() - 50)
    odd = tmp_path / "odd"
    odd.write_text("7 (a name) S 1")
    for path in (tmp_path / "nowhere", odd):
        monkeypatch.setattr(_process, "_STAT", path)
        assert _process.seconds_since_start() == pytest.approx(50, abs=5)


@pytest.mark.skipif(sys.platform != "linux", reason="a clock of Linux")
@pytest.mark.usefixtures("commands_own")
def test_names_of_processes_may_hold_anything(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(time, "clock_gettime", lambda clock: 1_000_000.0)
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    monkeypatch.setattr(_process, "_IMPORTED", time.monotonic())
    values = ["S", *map(str, range(4, 22)), "99990000", *map(str, range(23, 53))]
    path = tmp_path / "stat"
    path.write_text(f"7 (a) S 1 (b 2) {' '.join(values)}\n")
    monkeypatch.setattr(_process, "_STAT", path)
    assert _process.seconds_since_start() == 100.0
