"""The command line around its commands: help, version, what is imported, how commands end."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import SimpleITK as sitk

import voxwarp
from voxwarp.cli.main import run_and_exit
from voxwarp.registration.points import MovedPoints

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
        "voxwarp.registration.saved_transform.load_transform = broken\n"
        f"sys.argv = ['voxwarp', 'apply', 'a.nii', '-t', 'b', '-o', {str(tmp_path / 'c.nii')!r}]\n"
        "from voxwarp.cli.main import main; main()"
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_interruption_is_told_without_a_traceback(cli, monkeypatch, tmp_path):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("voxwarp.registration.saved_transform.load_transform", interrupt)
    outcome = cli("apply", tmp_path / "a.nii", "-t", tmp_path, "-o", tmp_path / "b.nii")
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.strip() == "voxwarp: error: interrupted"


def test_message_of_several_lines_is_put_on_one(cli, monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise voxwarp.InputError("one\ntwo\n   three")

    monkeypatch.setattr("voxwarp.registration.saved_transform.load_transform", refuse)
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

    monkeypatch.setattr("voxwarp.registration.saved_transform.chain_of", logs)
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
        "voxwarp.registration.saved_transform.chain_of",
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
    def carried(*_: object, **__: object) -> MovedPoints:
        assert entered == [True]
        return MovedPoints(3, [])

    monkeypatch.setattr("voxwarp.registration.saved_transform.load_transform", lambda path: None)
    monkeypatch.setattr("voxwarp.registration.points.apply_to_point_file", carried)
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


# Output that cannot be printed


PROGRAM = "from voxwarp.cli.main import run_and_exit; run_and_exit()"


def program(*words: object, code: str = "", **streams: Any) -> subprocess.CompletedProcess:
    """Run the program in a process of its own, with other streams than usual."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'voxwarp'\n{code}\n{PROGRAM}", *words],
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


@contextmanager
def unread() -> Iterator[int]:
    """The end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@contextmanager
def full() -> Iterator[int]:
    """A device that is full."""
    if not Path("/dev/full").exists():
        pytest.skip("no full device")
    with open("/dev/full", "wb") as device:
        yield device.fileno()


@pytest.fixture
def points(tmp_path: Path) -> list[str]:
    """The words of a command that writes a file and prints its name."""
    (tmp_path / "in.csv").write_text("x,y,z\n1,2,3\n")
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "id.tfm"))
    files = (tmp_path / "in.csv", tmp_path / "id.tfm", tmp_path / "out.csv")
    return [f"{word}" for word in ("points", files[0], "-t", files[1], "-o", files[2])]


def test_an_output_that_nobody_reads_is_no_bug(points: list[str]):
    """The file is written, and the exit code as it was earned."""
    with unread() as pipe:
        done = program(*points, stdout=pipe)
        assert (done.returncode, done.stderr) == (0, "")
        assert Path(points[-1]).read_text().startswith("x,y,z\n1.0")
        for words in (["--version"], ["--help"], ["models", "list"], ["cache"]):
            done = program(*words, stdout=pipe)  # nothing else was to be done
            assert (done.returncode, done.stderr) == (120, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_cannot_be_written_is_told(points: list[str], monkeypatch, unbuffered: str):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    said = "voxwarp: warning: what this command prints was lost: No space left on device\n"
    with full() as device:
        done = program(*points, stdout=device)
        assert (done.returncode, done.stderr) == (0, said)
        assert Path(points[-1]).exists()
        done = program("models", "list", stdout=device)
        assert (done.returncode, done.stderr) == (120, said)
        done = program("points", stderr=device)
        assert (done.returncode, done.stdout) == (2, "")


CLOSED = "import os; os.close(1); sys.stdout = sys.__stdout__ = None"


def test_closed_output_is_meant(points: list[str]):
    done = program(*points, code=CLOSED)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(points[-1]).read_text().startswith("x,y,z\n1.0")
    done = program("--version", code=CLOSED)
    assert (done.returncode, done.stderr.count("\n")) == (120, 1)


def test_no_file_gets_the_number_of_a_closed_stream():
    """Otherwise what a library prints would be in the middle of an image."""
    code = "import os; os.close(1); os.close(2); sys.stdout = sys.stderr = None\n"
    code += "from voxwarp.cli import streams; streams.install()\n"
    code += "sys.exit(open('/dev/null').fileno() if sys.stdout.write('x') == 1 else 1)"
    assert program(code=code).returncode > 2


def test_names_that_the_terminal_cannot_show_are_no_error(points: list[str], monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    points[-1] = points[-1].replace("out.csv", "→.csv")
    done = program(*points)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2192.csv  (1 point)" in done.stdout
    assert Path(points[-1]).exists()


# Ctrl-C


INTERRUPTED = "voxwarp: error: interrupted\n"


def test_ctrl_c_while_the_program_is_imported_is_one_line():
    for package in ("voxwarp.cli", "voxwarp.cli.main"):
        code = f"import signal, {package}; signal.raise_signal(signal.SIGINT)"
        done = program(code=code)
        assert done.returncode in (130, -signal.SIGINT)
        assert done.stderr == INTERRUPTED


def interrupted_in(code: str) -> None:
    """Run the program with ``code`` as what its command does; it must end as interrupted."""
    before = "import signal, time, types, voxwarp.cli.commands as commands\n"
    done = program(code=f"{before}def run():\n{indent(code, '    ')}\ncommands.run = run")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", INTERRUPTED)


def test_ctrl_c_in_a_command():
    interrupted_in("signal.raise_signal(signal.SIGINT); print('lost')")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer")
def test_ctrl_c_in_a_callback_of_the_compiler_comes_later():
    """LLVM would wait for ever if it got an exception."""
    interrupted_in(
        "llvm = types.ModuleType('llvmlite.binding')\n"
        "exec('def callback(): raise_signal(SIGINT); done.append(1)', vars(llvm))\n"
        "done, vars(llvm)['raise_signal'] = [], signal.raise_signal\n"
        "vars(llvm)['SIGINT'], vars(llvm)['done'] = signal.SIGINT, done\n"
        "llvm.callback()\n"
        "assert done\n"
        "time.sleep(10); print('lost')"
    )


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer")
def test_ctrl_c_where_python_ignores_errors_comes_again():
    """As in a finaliser: Python would print a traceback and go on."""
    interrupted_in(
        "class Finalised:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "Finalised()\n"
        "time.sleep(10); print('lost')"
    )


def test_ctrl_c_is_ignored_in_the_background():
    """As shells start programs there."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code += "from voxwarp.cli import interruption; interruption.install()\n"
    code += "signal.raise_signal(signal.SIGINT)"
    assert program("--version", code=code).returncode == 0
