"""What options mean: the frozen values that commands make of them."""

from collections.abc import Callable
from typing import Any

import pytest
import typer

import voxwarp
from voxwarp.cli.commands import app
from voxwarp.cli.options import DeviceName, refinement_of, runtime_of
from voxwarp.networks.refine import Refinement
from voxwarp.preparation.settings import Preparation
from voxwarp.runtime import Runtime

REGISTER = ["register", "m.nii", "f.nii", "-o", "out"]
Given = dict[str, Any]


@pytest.fixture
def registered_with(cli, monkeypatch, tmp_path) -> Callable[..., Given]:
    """The arguments that a command line makes of ``register``, which does nothing here."""
    asked: Given = {}

    def noted(moving: object, fixed: object, model: object, **options: object) -> None:
        asked.update(options, scans=(str(moving), str(fixed)), model=model)
        raise voxwarp.InputError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("voxwarp.registration.register.register", noted)

    def run(*words: object) -> Given:
        assert cli(*words).err == "voxwarp: error: enough\n"
        return asked

    return run


# Defaults


def test_what_is_left_out_is_left_to_the_values(registered_with):
    asked = registered_with(*REGISTER)
    assert (asked["preparation"], asked["refine"]) == (Preparation(), False)
    assert (asked["model"], asked["smoothness"]) == ("default", None)
    progress = asked["runtime"].progress
    assert asked["runtime"] == Runtime(progress=progress)
    assert callable(progress)
    assert refinement_of(None, None, None) is False
    assert refinement_of(True, None, None) == Refinement()
    assert runtime_of() == Runtime()


def test_defaults_of_options_are_those_of_the_values():
    """Commands cannot ask the values themselves, since that takes PyTorch; this does."""
    defaults: dict[str, object] = {**vars(Preparation()), **vars(Runtime())}
    del defaults["progress"]
    of_benchmark = {"device": DeviceName.cpu, "threads": 0}  # timed on the CPU, on all its cores
    compared = set()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for param in command.params:
            if param.name not in defaults:
                continue
            if name == "benchmark":
                assert param.default == of_benchmark[param.name]
                continue
            assert param.default == defaults[param.name], f"{name} {param.name}"
            compared.add(param.name)
    assert compared == defaults.keys()


def test_help_tells_the_default_of_the_steps():
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in ("register", "evaluate"):
        (steps,) = (p for p in commands[name].params if p.name == "refine_steps")
        assert steps.show_default == f"{Refinement().steps} with --refine"
    assert Refinement().seconds is None


# Preparation and runtime


def test_options_of_the_preparation(registered_with):
    words = "--brain-extract", "yes", "--bias", "--no-affine"
    asked = registered_with(*REGISTER, *words)
    assert asked["preparation"] == Preparation(brain_extract="yes", bias=True, affine=False)
    assert type(asked["preparation"].brain_extract) is str
    asked = registered_with(*REGISTER, "--no-bias", "--affine", "--brain-extract", "auto")
    assert asked["preparation"] == Preparation(bias=False)


def test_options_of_the_runtime(registered_with):
    asked = registered_with(*REGISTER, "--no-cache", "--device", "cpu", "--threads", "3")
    runtime = asked["runtime"]
    assert (runtime.device, runtime.cache, runtime.threads) == ("cpu", False, 3)
    assert type(runtime.device) is str
    assert runtime_of(device=DeviceName.cuda) == Runtime("cuda")


def test_smoothness_is_passed_on(registered_with):
    assert registered_with(*REGISTER, "--refine", "--smoothness", "1.5")["smoothness"] == 1.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threads", "0"], "threads"),
        (["--threads", "many"], "--threads"),
        (["--device", "tpu"], "tpu"),
        (["--brain-extract", "maybe"], "maybe"),
        (["--extractor", "nobody:knows"], "nobody:knows"),
        (["--smoothness"], "--smoothness"),
        (["--smoothness", "very"], "--smoothness"),
        (["--refine", "--smoothness", "9"], "smoothness"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_wrong_values(refuses, monkeypatch, tmp_path, words: list[str], said: str):
    monkeypatch.chdir(tmp_path)
    assert said in refuses(*REGISTER, *words)


# Refinement


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--refine"], Refinement()),
        (["--no-refine"], False),
        (["--refine-steps", "5"], Refinement(5)),
        (["--refine-steps=1000"], Refinement(1000)),
        (["--refine", "--refine-steps", "1"], Refinement(1)),
        (["--refine-seconds", "2.5"], Refinement(seconds=2.5)),
        (["--refine-seconds", "2.5", "--refine-steps", "9"], Refinement(9, 2.5)),
        (["--refine", "--strict"], Refinement()),
        (["--refine", "--no-refine"], False),  # the last one counts, as of all options
        (["--no-refine", "--refine"], Refinement()),
        (["--no-refine", "--refine", "--refine-steps", "3"], Refinement(3)),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_steps_and_seconds_ask_for_refinement(registered_with, words, meant):
    asked = registered_with(*REGISTER, *words)
    assert asked["scans"] == ("m.nii", "f.nii")
    assert asked["refine"] == meant


def test_refine_takes_no_word_after_it(registered_with):
    """A scan may follow."""
    asked = registered_with("register", "m.nii", "--refine", "f.nii", "-o", "out")
    assert (asked["scans"], asked["refine"]) == (("m.nii", "f.nii"), Refinement())
    asked = registered_with("register", "--refine", "12", "f.nii", "-o", "out")
    assert asked["scans"] == ("12", "f.nii")


WRONG = [
    (["--refine=5"], "--refine"),
    (["--no-refine=3"], "--no-refine"),
    (["--refine", "5"], "5"),
    (["--refine-steps"], "--refine-steps"),
    (["--refine-steps="], "--refine-steps"),
    (["--refine-steps", "x"], "--refine-steps"),
    (["--refine-steps", "2.5"], "--refine-steps"),
    (["--refine-steps", "0"], "1000"),
    (["--refine-steps=-1"], "-1"),
    (["--refine-steps", "1001"], "1001"),
    (["--refine-seconds", "soon"], "--refine-seconds"),
    (["--refine-seconds", "0"], "--refine-seconds"),
    (["--refine", "--refine-seconds", "nan"], "nan"),
    (["--no-refine", "--refine-steps", "4"], "--no-refine contradicts --refine-steps"),
    (["--refine-seconds", "4", "--no-refine"], "--no-refine contradicts --refine-seconds"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=lambda w: w if w is str else " ".join(w))
@pytest.mark.parametrize("command", ["register", "evaluate"])
def test_wrong_words_of_refinement(
    refuses, monkeypatch, tmp_path_factory, command: str, words: list[str], said: str
):
    folder = tmp_path_factory.mktemp("pairs")
    monkeypatch.chdir(folder)
    (folder / "pairs.csv").write_text("moving,fixed\nm.nii,f.nii\n")
    for name in ("m.nii", "f.nii"):  # the 5 is taken for a third scan, which is not there
        (folder / name).touch()
    structures = folder / "structures.csv"
    structures.write_text("value,structure\n1,a\n")
    evaluate = ["evaluate", "pairs.csv", "-o", "out", "--structures", structures]
    assert said in refuses(*(REGISTER if command == "register" else evaluate), *words)
