"""How commands tell what they do: -h, --quiet, --json, NO_COLOR, completion of shells."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from brains import OTHER, UPRIGHT, make_grid

from voxwarp.cli.commands import app


@pytest.fixture
def pair(tmp_path: Path, phantoms, monkeypatch) -> Path:
    phantoms.image(make_grid(spacing=5), OTHER).to_filename(tmp_path / "moving.nii.gz")
    phantoms.image(make_grid(spacing=4.5), UPRIGHT).to_filename(tmp_path / "fixed.nii.gz")
    (tmp_path / "points.csv").write_text("x,y,z\n0,0,0\n1,2,3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def register(pair: Path, tiny_model: Path, quick_affine: None, cli):
    def run(*more: str):
        words = ("moving.nii.gz", "fixed.nii.gz", "-o", "out", "--model", tiny_model)
        return cli("register", *words, *more)

    return run


def every_command() -> list[list[str]]:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    within = [[name, sub] for name, c in commands.items() for sub in getattr(c, "commands", {})]
    return [[], *([name] for name in commands), *within]


@pytest.mark.parametrize("words", every_command(), ids=lambda words: " ".join(words) or "voxwarp")
def test_h_is_help(cli, words):
    short, long = cli(*words, "-h"), cli(*words, "--help")
    assert (short.code, short.err) == (0, "")
    assert short.out == long.out != ""


def test_quiet_prints_nothing_but_warnings(register, pair):
    outcome = register("--quiet")
    assert outcome.code == 0
    assert outcome.out == ""
    warnings = json.loads((pair / "out" / "metrics.json").read_text())["warnings"]
    assert len(outcome.err.splitlines()) == len(warnings)
    assert all(line.startswith("voxwarp: warning: ") for line in outcome.err.splitlines())


def test_quiet_does_not_hide_errors(refuses):
    assert "no-such.nii.gz" in refuses("register", "no-such.nii.gz", "-o", "out", "--quiet")


def test_quiet_and_verbose_exclude_each_other(refuses):
    line = refuses("figures", "-o", "out", "--quiet", "--verbose")
    assert "--verbose and --quiet exclude each other" in line


def test_json_of_register_is_that_of_the_files(register, pair):
    outcome = register("--json")
    assert outcome.code == 0
    record = json.loads(outcome.out)
    metrics = json.loads((pair / "out" / "metrics.json").read_text())
    assert sorted(record["files"]) == sorted(f"out/{p.name}" for p in (pair / "out").iterdir())
    assert record["folds"] == metrics["jacobian"]["folds"]
    assert record["local_ncc"]["after"] == metrics["similarity"]["after"]["local_ncc"]
    assert record["warnings"] == metrics["warnings"]
    assert record["mean_dice"] is None


def test_json_of_several_scans(pair, tiny_model, quick_affine, cli):
    (pair / "other.nii.gz").write_bytes((pair / "moving.nii.gz").read_bytes())
    (pair / "broken.nii.gz").write_bytes(b"no image")
    scans = ("moving.nii.gz", "other.nii.gz", "broken.nii.gz")
    more = ("--fixed", "fixed.nii.gz", "-o", "all", "--model", tiny_model, "--json")
    outcome = cli("register", *scans, *more)
    assert outcome.code == 2
    by_scan = {one["scan"]: one for one in json.loads(outcome.out)["scans"]}
    assert set(by_scan) == set(scans)
    assert by_scan["moving.nii.gz"]["error"] is None
    assert by_scan["moving.nii.gz"]["folds"] == 0
    assert "broken.nii.gz" in by_scan["broken.nii.gz"]["error"]


def test_json_of_what_follows_a_registration(register, pair, cli):
    register("--quiet")
    moved = json.loads(cli("apply", "moving.nii.gz", "-t", "out", "-o", "m.nii", "--json").out)
    assert moved["files"] == [{"path": "m.nii", "interpolation": "linear"}]
    points = json.loads(cli("points", "points.csv", "-t", "out", "-o", "p.csv", "--json").out)
    assert points == {"file": "p.csv", "points": 2, "warnings": []}
    page = json.loads(cli("report", "out", "-o", "index.html", "--json").out)
    assert Path(page["page"]).name == "index.html"


def test_json_of_preprocess(pair, quick_affine, cli):
    words = ("preprocess", "moving.nii.gz", "missing.nii.gz", "-o", "prep", "--brain-extract", "no")
    outcome = cli(*words, "--json")
    assert outcome.code == 2
    done, failed = json.loads(outcome.out)["scans"]
    assert (done["scan"], done["error"], done["seen_as"]) == ("moving.nii.gz", None, "brain")
    assert all(Path(file).is_file() for file in done["files"])
    assert failed["scan"] == "missing.nii.gz"
    assert failed["error"] in outcome.err


def test_json_of_questions(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / "cache"))
    models = json.loads(cli("models", "list", "--json").out)
    lines = dict(line.split("\t") for line in cli("models", "list").out.splitlines())
    assert models == lines
    cache = json.loads(cli("cache", "show", "--json").out)
    assert (cache["folder"], cache["entries"], cache["size"]) == (str(tmp_path / "cache"), 0, 0)
    settings = json.loads(cli("train", "--show-settings", "--json").out)
    assert {"name", "default", "meaning"} == set(settings[0])
    doctor = json.loads(cli("doctor", "--no-self-test", "--json").out)
    assert doctor["problems"] == []
    assert list(doctor["models"]) == list(models)


def test_an_error_leaves_nothing_on_stdout(refuses):
    refuses("apply", "no-such.nii.gz", "-t", "out", "-o", "m.nii", "--json")


def test_every_command_that_prints_results_has_json():
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    without = {
        name
        for name, command in commands.items()
        if not hasattr(command, "commands")
        and not any("--json" in param.opts for param in command.params)
    }
    assert without == {"view"}  # it serves a page until it is stopped


def test_a_broken_installation_is_said_in_one_line(cli, monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.json").write_text("{")
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path))
    outcome = cli("doctor", "--no-self-test")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("voxwarp: error: 1 problem was found: ")
    assert "problem: " in outcome.out


# ------------------------------------------------------------------------ In processes of their own


def run(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "voxwarp", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


# As the installed program, whose name the scripts of shells contain.
PROGRAM = "import sys; sys.argv[0] = 'voxwarp'; from voxwarp.cli.main import main; main()"
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")  # a foreground colour


def test_no_color_is_respected():
    coloured = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert COLOUR.search(run("--help", **coloured))
    assert not COLOUR.search(run("--help", NO_COLOR="1", **coloured))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("voxwarp re", {"register", "report"}),
        ("voxwarp register --refine-s", {"--refine-steps", "--refine-seconds"}),
        ("voxwarp register --model vm", {"vm1", "vm2"}),
        ("voxwarp register --transform r", {"rigid"}),
        ("voxwarp models s", {"show"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, words, expected):
    line = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    program = [
        "-c",
        "import sys; sys.argv[0] = 'voxwarp'; from voxwarp.cli.main import main; main()",
    ]
    done = subprocess.run(
        [sys.executable, *program],
        env=os.environ | line | {"_VOXWARP_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = set(re.findall(r'(?:^|[("\s])(-{0,2}[a-z][\w-]*)(?="|\t|$)', done.stdout, re.MULTILINE))
    assert expected <= found


def test_the_scripts_for_shells_name_the_program():
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "--show-completion", shell],
            env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "_VOXWARP_COMPLETE" in done.stdout
        assert "voxwarp" in done.stdout
