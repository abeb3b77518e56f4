"""A folder of results: one command at a time, and rows with the same settings."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from voxwarp._lock import LOCK, lock_folder
from voxwarp.errors import InputError
from voxwarp.evaluation.folder import open_results
from voxwarp.evaluation.record import write_record

#: A command that keeps a folder locked until its input ends, or until it is killed.
LOCKING = """
import sys
from pathlib import Path
from voxwarp._lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def locking(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKING, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    return process


def test_one_at_a_time(tmp_path):
    """Also within one process; afterwards the folder is as before, however the command ended."""
    folder = tmp_path / "new" / "results"
    with lock_folder(folder):
        with pytest.raises(InputError, match=rf"{folder}: another command is writing here"):
            lock_folder(folder).__enter__()
        with lock_folder(tmp_path / "other"):  # not locked
            pass
        with pytest.raises(InputError, match="another command"):  # it still is
            lock_folder(folder).__enter__()
    assert [*folder.iterdir()] == []
    with pytest.raises(ZeroDivisionError), lock_folder(folder):
        raise ZeroDivisionError
    assert [*folder.iterdir()] == []
    with lock_folder(folder):
        pass


@pytest.mark.parametrize("killed", [False, True])
def test_another_process_has_the_lock(tmp_path, killed):
    """Until it ends; a killed process does not lock its folder for ever."""
    with locking(tmp_path) as process:
        with pytest.raises(InputError, match="another command is writing here"):
            lock_folder(tmp_path).__enter__()
        if killed:
            process.kill()
    assert (tmp_path / LOCK).exists() == killed
    with lock_folder(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    """Some network drives have none: then no command is kept out, and the log says so."""

    def none(lock: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", none)
    with caplog.at_level("INFO"), lock_folder(tmp_path), lock_folder(tmp_path):
        pass
    assert caplog.text.count(f"{tmp_path} cannot be locked ([Errno 37] No locks available)") == 2
    assert [*tmp_path.iterdir()] == []


def test_opening_results_compares_settings(tmp_path):
    settings = {"a": [1, (2, math.nan)], "b": {"c": 1}}
    assert open_results(tmp_path / "new", "r.json", settings, overwrite=False).pairs == []
    write_record(tmp_path / "r.json", settings | {"more": 1})
    assert open_results(tmp_path, "r.json", settings, overwrite=False).pairs == []
    with pytest.raises(
        InputError, match="holds rows made with different a and b; start again with `overwrite`"
    ):
        open_results(tmp_path, "r.json", {"a": 1, "b": 2, "more": 1}, overwrite=False)
