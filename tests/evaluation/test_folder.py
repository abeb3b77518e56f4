"""A folder of results: one command at a time, rows of one kind."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from voxwarp.errors import InputError
from voxwarp.evaluation.folder import LOCK, alone_in, begin
from voxwarp.evaluation.record import write_record

#: A command that is at work in a folder until its input ends, or it is killed.
AT_WORK = """
import sys
from pathlib import Path
from voxwarp.evaluation.folder import alone_in
with alone_in(Path(sys.argv[1])):
    print("at work", flush=True)
    sys.stdin.read()
"""


def at_work_in(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", AT_WORK, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"at work\n"
    return process


def test_one_at_a_time(tmp_path):
    """Also in one process; afterwards the folder is as it was, however the command ended."""
    folder = tmp_path / "new" / "results"
    with alone_in(folder):
        with pytest.raises(InputError, match=rf"{folder}: another command is at work in it"):
            alone_in(folder).__enter__()
        with alone_in(tmp_path / "other"):  # which is nobody's
            pass
        with pytest.raises(InputError, match="another command"):  # it still is
            alone_in(folder).__enter__()
    assert [*folder.iterdir()] == []
    with pytest.raises(ZeroDivisionError), alone_in(folder):
        raise ZeroDivisionError
    assert [*folder.iterdir()] == []
    with alone_in(folder):
        pass


@pytest.mark.parametrize("killed", [False, True])
def test_another_process_is_at_work(tmp_path, killed):
    """Until it ends; one that was killed does not lock its folder for ever."""
    with at_work_in(tmp_path) as process:
        with pytest.raises(InputError, match="another command is at work in it"):
            alone_in(tmp_path).__enter__()
        if killed:
            process.kill()
    assert (tmp_path / LOCK).exists() == killed
    with alone_in(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    """Some network drives have none: then nobody is kept out, and the log says so."""

    def none(lock: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", none)
    with caplog.at_level("INFO"), alone_in(tmp_path), alone_in(tmp_path):
        pass
    assert caplog.text.count(f"{tmp_path} cannot be locked ([Errno 37] No locks available)") == 2
    assert [*tmp_path.iterdir()] == []


def test_begin_compares_settings(tmp_path):
    settings = {"a": [1, (2, math.nan)], "b": {"c": 1}}
    assert begin(tmp_path / "new", "r.json", settings, overwrite=False).pairs == []
    write_record(tmp_path / "r.json", settings | {"more": 1})
    assert begin(tmp_path, "r.json", settings, overwrite=False).pairs == []
    with pytest.raises(InputError, match="made with other a and b:"):
        begin(tmp_path, "r.json", {"a": 1, "b": 2, "more": 1}, overwrite=False)
