"""Files are moved to their places together; those of another command are not replaced unasked."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from voxwarp._lock import alone_in
from voxwarp._publish import place, publish
from voxwarp.errors import InputError


def test_published_files_replace_those_of_an_earlier_run_and_what_is_gone_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage, folder = tmp_path / "stage", tmp_path / "out"
    names = ("warped", "labels", "absent", "record")
    for where, files in ((stage, ("warped", "record")), (folder, ("warped", "labels", "record"))):
        where.mkdir()
        for name in files:
            (where / name).write_text(where.name)
    caplog.set_level("INFO")
    assert publish(stage, folder, names, overwrite=True) == [folder / "warped", folder / "record"]
    assert {p.name: p.read_text() for p in folder.iterdir()} == {
        "warped": "stage",
        "record": "stage",
    }
    assert caplog.messages == [
        f"removed {folder / 'labels'}: it was of an earlier run, and this run has none"
    ]


def test_while_files_are_published_there_is_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is there belongs to the files beside it, also where publishing ends half way."""
    stage, folder = tmp_path / "stage", tmp_path / "out"
    for where in (stage, folder):
        where.mkdir()
        for name in ("warped", "record"):
            (where / name).write_text(where.name)

    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        publish(stage, folder, ("warped", "record"), overwrite=True)
    assert not (folder / "record").exists()


NAMES = "warped", "record"
RESULT_FILES = [pytest.param(publish, id="a result"), pytest.param(place, id="files")]


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """Finished files."""
    (tmp_path / "stage").mkdir()
    for name in NAMES:
        (tmp_path / "stage" / name).write_text("new")
    return tmp_path / "stage"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The place for them."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("move", RESULT_FILES)
@pytest.mark.parametrize("theirs", [["warped"], ["record"], ["warped", "record"]], ids="+".join)
def test_what_another_command_wrote_meanwhile_is_left(move, stage, folder, theirs) -> None:
    """It was not there when this command began, so none of the files is moved."""
    for name in theirs:
        (folder / name).write_text("theirs")
    message = f"{folder / theirs[0]}: another command has written this file in the meantime"
    with pytest.raises(InputError, match=message):
        move(stage, folder, NAMES)
    assert contents(folder) == dict.fromkeys(theirs, "theirs")
    assert contents(stage) == dict.fromkeys(NAMES, "new")
    move(stage, folder, NAMES, overwrite=True)
    assert contents(folder) == dict.fromkeys(NAMES, "new")


def test_a_dead_link_is_not_replaced_either(stage, folder) -> None:
    (folder / "warped").symlink_to("/nowhere")
    with pytest.raises(InputError, match="in the meantime"):
        place(stage, folder, NAMES)
    assert (folder / "warped").is_symlink()


#: A command that publishes again and again, and counts how often it could.
PUBLISHING = """
import sys
from pathlib import Path
from voxwarp._publish import publish
from voxwarp.errors import InputError
own, number, done = Path(sys.argv[1]), 0, 0
out = own.parent / "out"
for number in range(200):
    for name in ("a", "b", "record"):
        (own / name).write_text(f"{own.name} {number}")
    try:
        publish(own, out, ("a", "b", "record"), overwrite=sys.argv[2] == "overwrite")
        done += 1
    except InputError:
        pass
print(done)
"""


@pytest.mark.parametrize("mode", ["overwrite", "keep"])
def test_commands_publish_one_after_the_other(folder, mode: str) -> None:
    """Of three at once, the files are all of one; without ``overwrite`` one of all succeeds."""
    running = []
    for number in range(3):
        own = folder.parent / f"own{number}"
        own.mkdir()
        command = [sys.executable, "-c", PUBLISHING, own, mode]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    done = [int(process.communicate()[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum(done) == (600 if mode == "overwrite" else 1)
    assert sorted(contents(folder)) == ["a", "b", "record"]  # and no file of a lock
    assert len(set(contents(folder).values())) == 1


def test_where_nothing_can_be_locked_files_are_moved_nevertheless(
    stage, folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    publish(stage, folder, NAMES)
    assert contents(folder) == dict.fromkeys(NAMES, "new")


def test_the_lock_leaves_nothing(folder) -> None:
    with alone_in(folder):
        pass
    with pytest.raises(ZeroDivisionError), alone_in(folder):
        raise ZeroDivisionError
    assert contents(folder) == {}


def test_ctrl_c_waits_until_the_files_are_moved(stage, folder, monkeypatch) -> None:
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        signal.raise_signal(signal.SIGINT)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(stage, folder, NAMES)
    assert contents(folder) == dict.fromkeys(NAMES, "new")
    with pytest.raises(KeyboardInterrupt):  # as before
        signal.raise_signal(signal.SIGINT)
