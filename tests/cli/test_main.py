"""The command line around its commands: help, version, what is imported, how commands end."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import voxwarp
from voxwarp.cli.main import run_and_exit

HEAVY = ("torch", "scipy", "nibabel", "SimpleITK", "nilearn", "deepbet", "h5py", "pandas")


def python(code: str, **more: str) -> subprocess.CompletedProcess:
    """Run code in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **more}
    )


# Imports


def test_import_is_light():
    done = python(
        f"import voxwarp, sys; assert not set({HEAVY}) & set(sys.modules), sys.modules.keys();"
        "print(voxwarp.__version__)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == version("voxwarp")


@pytest.mark.parametrize("words", [["--help"], ["register", "--help"]], ids=" ".join)
def test_help_is_light(words: list[str]):
    code = (
        f"import sys; sys.argv = ['voxwarp', *{words}]\n"
        "from voxwarp.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        f"heavy = set({HEAVY}) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "register" in done.stdout


# Words of the command line


def test_version(cli):
    outcome = cli("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"voxwarp {version('voxwarp')}\n", "")


@pytest.mark.parametrize("words", [[], ["models"]], ids=["voxwarp", "models"])
def test_no_command_gives_the_help_and_is_wrong(cli, words: list[str]):
    outcome = cli(*words)
    assert (outcome.code, outcome.err) == (2, "")
    assert outcome.out.rstrip() == cli(*words, "--help").out.rstrip()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["regsiter"], "regsiter"),
        (["--no-such-option"], "--no-such-option"),
        (["models", "delete"], "delete"),
        (["cache", "fill"], "fill"),
        (["preprocess"], "SCAN"),
        (["preprocess", "a.nii"], "--out"),
        (["preprocess", "a.nii", "-o", "out", "--fixed-mask", "b.nii"], "--fixed-mask"),
        (["preprocess", "a.nii", "-o", "out", "--brain-extract", "maybe"], "maybe"),
        (["preprocess", "a.nii", "-o", "out", "--threads", "0"], "threads"),
        (["models", "show"], "MODEL"),
        (["models", "import"], "FILE.h5"),
        (["apply"], "IMAGE"),
        (["apply", "a.nii", "-o", "b.nii"], "--transform"),
        (["apply", "a.nii", "-t", "out"], "--out"),
        (["points", "-t", "out", "-o", "b.csv"], "FILE.csv"),
        (["train"], "voxwarp train CONFIG.yaml"),
        (["report"], "DIR"),
        (["view"], "OUT"),
        (["figures"], "--out"),
    ],
)
def test_wrong_words(refuses, monkeypatch, tmp_path, words: list[str], said: str):
    monkeypatch.chdir(tmp_path)
    assert said in refuses(*words)


# How commands end


def test_bug_is_exit_code_1_with_a_traceback(tmp_path):
    """The traceback is for whoever repairs it."""
    done = python(
        "import sys, voxwarp.registration.apply\n"
        "def broken(*_): raise ZeroDivisionError('a bug')\n"
        "voxwarp.registration.apply.load_transform = broken\n"
        f"sys.argv = ['voxwarp', 'apply', 'a.nii', '-t', 'b', '-o', {str(tmp_path / 'c.nii')!r}]\n"
        "from voxwarp.cli.main import main; main()"
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_interruption_is_told_without_a_traceback(cli, monkeypatch, tmp_path):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("voxwarp.registration.apply.load_transform", interrupt)
    outcome = cli("apply", tmp_path / "a.nii", "-t", tmp_path, "-o", tmp_path / "b.nii")
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.strip() == "voxwarp: error: interrupted"


def test_message_of_several_lines_is_put_on_one(cli, monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise voxwarp.InputError("one\ntwo\n   three")

    monkeypatch.setattr("voxwarp.registration.apply.load_transform", refuse)
    outcome = cli("apply", tmp_path / "a.nii", "-t", tmp_path, "-o", tmp_path / "b.nii")
    assert (outcome.code, outcome.err) == (2, "voxwarp: error: one two three\n")


# Log


@pytest.fixture
def logging_command(cli, monkeypatch, tmp_path):
    """A command during which the library logs three messages and fails."""

    def logs(*_: object) -> None:
        log = logging.getLogger("voxwarp._files")
        log.debug("a detail")
        try:
            raise OSError("disk full")
        except OSError:
            log.info("no file", exc_info=True)
        log.warning("leave out `transform`\nhere")
        raise voxwarp.InputError("enough")

    monkeypatch.setattr("voxwarp.registration.apply.chain_of", logs)
    words = "apply", tmp_path / "a.nii", "-t", "b", "-o", tmp_path / "c.nii"
    return lambda *more: cli(*words, *more).err.splitlines()


def test_warnings_of_the_log_are_printed_as_warnings(logging_command):
    assert logging_command() == [
        "voxwarp: warning: leave out --transform here",
        "voxwarp: error: enough",
    ]
    assert len(logging_command()) == 2  # the handler of an earlier command is gone


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_verbose_prints_the_log(logging_command, option: str):
    lines = logging_command(option)
    assert lines[:2] == ["voxwarp: debug: a detail", "voxwarp: info: no file"]
    assert lines[2] == "Traceback (most recent call last):"
    assert lines[-3:] == [
        "OSError: disk full",
        "voxwarp: warning: leave out --transform here",
        "voxwarp: error: enough",
    ]
    assert len(logging_command()) == 2


def test_log_of_other_libraries_is_left_alone(cli, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "voxwarp.registration.apply.chain_of",
        lambda *_: logging.getLogger("nibabel").info("loud") or sys.exit(0),
    )
    words = "apply", tmp_path / "a.nii", "-t", "b", "-o", tmp_path / "c.nii", "--verbose"
    assert cli(*words).err == ""


# Memory


@pytest.fixture
def entered(monkeypatch) -> list[bool]:
    """A note of each time that a command begins to keep the memory it frees, and its end."""
    noted: list[bool] = []

    @contextmanager
    def kept() -> Iterator[None]:
        noted.append(True)
        yield
        noted.append(False)

    monkeypatch.setattr("voxwarp.cli.command.keep_freed_memory", kept)
    return noted


def test_memory_is_kept_while_a_command_runs(cli, entered, monkeypatch, tmp_path):
    def carried(*_: object, **__: object) -> int:
        assert entered == [True]
        return 3

    monkeypatch.setattr("voxwarp.registration.apply.load_transform", lambda path: None)
    monkeypatch.setattr("voxwarp.registration.points.apply_to_csv", carried)
    out = tmp_path / "b.csv"
    outcome = cli("points", tmp_path / "a.csv", "-t", tmp_path, "-o", out)
    assert (outcome.code, outcome.out) == (0, f"{out}  (3 points)\n")
    assert entered == [True, False]


@pytest.mark.parametrize("words", [["--help"], ["register", "--help"], ["register"], ["models"]])
def test_memory_is_not_kept_for_words_alone(cli, entered, words: list[str]):
    cli(*words)
    assert entered == []


# The installed program


def test_installed_script(tmp_path):
    """The console script, from a folder that is not the repository."""
    script = Path(sys.executable).parent / "voxwarp"
    if not script.exists():
        pytest.skip("the console script is not installed beside this Python")
    done = subprocess.run(
        [script, "register", "gone.nii"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "-o" in done.stderr


def test_the_entry_point_runs_main_and_ends_at_once(monkeypatch):
    """With its exit code, all of its output, and what was to be done at the end."""
    (script,) = entry_points(group="console_scripts", name="voxwarp")
    assert script.load() is run_and_exit
    code = "import atexit; atexit.register(print, 'at the end')\n"
    code += "from voxwarp.cli.main import run_and_exit; run_and_exit()"
    for words, expected in (["--version"], 0), (["register"], 2):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv = ['voxwarp', *{words}]\n{code}"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == expected
        assert done.stdout.endswith("at the end\n")
        assert ("voxwarp" in done.stdout) == (expected == 0)
        assert ("voxwarp: error: " in done.stderr) == (expected == 2)


def test_an_output_that_nobody_reads_is_no_bug():
    code = "import sys; sys.argv = ['voxwarp', '--version']\n"
    code += "from voxwarp.cli.main import run_and_exit; run_and_exit()"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.returncode != 0
    assert done.stderr == ""  # no traceback
