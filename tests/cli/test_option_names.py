"""The library's messages name parameters, those of the command line the options."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

import voxwarp
from voxwarp.cli.commands import app
from voxwarp.cli.option_names import Option, as_options, options_of, use

PACKAGE = Path(voxwarp.__file__).parent


def commands() -> dict[str, Any]:
    """All commands by their words."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        found |= {
            f"{name} {inner}".strip(): group
            for inner, group in (getattr(command, "commands", None) or {"": command}).items()
        }
    return found


OPTIONS = {words: options_of(command.params) for words, command in commands().items()}


@pytest.fixture(autouse=True)
def _no_command_afterwards() -> Iterator[None]:
    yield
    use({})


TABLE = [
    # Beginnings
    ("register", "fixed_labels must be given", "--fixed-labels must be given"),
    ("register", "fixed_labels x.nii: not an image", "--fixed-labels x.nii: not an image"),
    ("register", "refine must be True or False", "--refine must be True or False"),
    ("register", "threads must be 1 or more, got 0", "--threads must be 1 or more, got 0"),
    ("evaluate", "split must be train or all", "--split must be train or all"),
    ("evaluate", "smoothness: model vm1 ignores it", "--smoothness: model vm1 ignores it"),
    ("register", "smoothness has no effect on vm1", "--smoothness has no effect on vm1"),
    ("register", "model vm1 has no template", "model vm1 has no template"),
    ("apply", "fixed_labels must be given", "fixed_labels must be given"),
    ("cache show", "threads must be 1 or more", "threads must be 1 or more"),
    # Words that are no names of parameters there
    ("register", "labels x.nii: not whole numbers", "labels x.nii: not whole numbers"),
    ("register", "model m: damaged", "model m: damaged"),
    ("register", "transform out: not a folder", "transform out: not a folder"),
    ("register", "the labels must fit", "the labels must fit"),
    ("register", "masks must fit", "masks must fit"),
    # Arguments
    ("register", "moving must be a scan", "moving must be a scan"),
    ("register", "moving scan x.nii: empty", "moving scan x.nii: empty"),
    ("register", "result: leave out `fixed`", "result: leave out --fixed"),
    ("view", "result: give it with `fixed`", "result: give it with --fixed"),
    # In backquotes
    ("register", "no brain: give its `mask`", "no brain: give its --mask"),
    ("register", "`mask` must be an image", "--mask must be an image"),
    ("apply", "no brain: give its `mask`", "no brain: give its mask"),
    ("register", "a file exists; give `overwrite`", "a file exists; give --overwrite"),
    ("train", "`resume` or `overwrite`", "--resume or --overwrite"),
    ("apply", "give a `reference` image", "give a --reference image"),
    ("points", "give a `transform`", "give a --transform"),
    ("preprocess", "`preparation.brain_extract`", "--brain-extract"),
    ("register", 'try `brain_extract="no"`', "try --brain-extract no"),
    ("register", "try `preparation.affine=False`", "try --no-affine"),
    ("register", "try `bias=True`", "try --bias"),
    ("register", "`refine=Refinement(steps=9)`", "--refine"),
    ("register", "`transform='rigid'` needs none", "--transform rigid needs none"),
    ("register", "`overwrite=False`", "--overwrite"),
    (
        "register",
        "use `Scan.read` or `Registration.report`",
        "use Scan.read or Registration.report",
    ),
    ("train", "losses: `ncc` has no `width`", "losses: ncc has no width"),
    ("register", "a lone ` stays", "a lone ` stays"),
    ("register", "", ""),
]


@pytest.mark.parametrize(("command", "message", "printed"), TABLE)
def test_message(command: str, message: str, printed: str):
    use(OPTIONS[command])
    assert as_options(message) == printed


def test_no_command_has_no_options():
    assert as_options("threads must be 1, `mask` too") == "threads must be 1, mask too"


def test_options_are_as_the_command_line_spells_them():
    register = OPTIONS["register"]
    assert register["moving"] == Option("MOVING", is_argument=True)
    assert register["bias"] == Option("--bias", "--no-bias", is_flag=True)
    assert register["strict"] == Option("--strict", None, is_flag=True)
    assert register["out"] == Option("--out")
    assert OPTIONS["apply"]["transform"] == Option("--transform")
    for words, options in OPTIONS.items():
        for name, option in options.items():
            spelled = "--" + name.replace("_", "-")
            assert option.is_argument or option.on == spelled, (words, name)


# In commands


@pytest.fixture
def fails_with(monkeypatch, tmp_path, cli):
    """Run ``register``, which fails with a message; returns what it prints on stderr."""

    def run(message: str) -> str:
        def refuse(*_: object, **__: object) -> None:
            raise voxwarp.InputError(message)

        monkeypatch.setattr("voxwarp.registration.register.register", refuse)
        outcome = cli("register", "m.nii", "-o", tmp_path / "out")
        assert (outcome.code, outcome.out) == (2, "")
        return outcome.err

    return run


def test_errors_name_options(fails_with):
    printed = fails_with("fixed_labels must be an image;\n leave out `preparation.bias`")
    assert printed == "voxwarp: error: --fixed-labels must be an image; leave out --bias\n"


def test_options_of_an_earlier_command_are_forgotten(fails_with, cli, monkeypatch):
    assert "--mask" in fails_with("give a `mask`")
    assert cli("models", "show", "`mask`").err.count("mask") == 1
    assert "--mask" not in cli("`mask`").err


def test_warnings_name_options(cli, monkeypatch, tmp_path):
    class Report:
        counts, structures, problems = {}, [], ["`check` found it", "minutes must be few"]
        bytes_needed, bytes_free, folder = 0, 0, tmp_path
        warnings = ("give `resume`", "device: slow")

    monkeypatch.setattr("voxwarp.training.inspection.check", lambda *_: Report)
    monkeypatch.setattr("voxwarp.training.inspection.check_beforehand", lambda *_: None)
    monkeypatch.setattr("voxwarp.training.config.read_config", lambda *_: FakeSettings)
    monkeypatch.setattr("voxwarp.data.scans.gather", lambda *_: [])
    outcome = cli("train", "my.yaml", "--check")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "voxwarp: warning: give --resume",
        "voxwarp: warning: --device: slow",
        "voxwarp: error: --check found it",
        "voxwarp: error: --minutes must be few",
    ]


class FakeSettings:
    data, seed = None, 0


# All messages


def public_parameters() -> set[str]:
    """Names of the parameters of public functions, and of the fields of public classes."""
    names = set[str]()
    for name in voxwarp.__all__:
        public = getattr(voxwarp, name)
        if is_dataclass(public):
            names |= {field.name for field in fields(public)}
        if callable(public) and public is not voxwarp.InputError:
            names |= set(inspect.signature(public).parameters)
    return names


def input_errors() -> Iterator[tuple[str, str]]:
    """The place and the constant text of every InputError of the library."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
                texts = (
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", "".join(texts)


def test_errors_name_parameters_that_are_options():
    parameters = public_parameters()
    assert {"moving", "fixed_labels", "brain_extract", "threads", "overwrite"} <= parameters
    options = {name for command in OPTIONS.values() for name in command}
    unknown, count = [], 0
    for place, text in input_errors():
        count += 1
        for code in re.findall(r"`([^`]+)`", text):
            name = re.split(r"[=(]", code)[0].rpartition(".")[2]
            if name in parameters and name not in options:
                unknown.append(f"{place}: `{code}`")
    assert count > 150
    assert unknown == []


def test_errors_name_no_options():
    """They are read in Python, too; the command line puts its options in."""
    named = [
        f"{place}: {text}"
        for place, text in input_errors()
        if re.search(r"(?<!\w)--[a-z]", text) and not place.startswith("cli")
    ]
    assert named == []
