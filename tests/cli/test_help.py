"""The help of every command, as it is printed."""

import re
import shlex
from typing import Any

import pytest
import typer

from voxwarp.cli.commands import app

COMMANDS = [
    *([], ["register"], ["preprocess"], ["apply"], ["points"], ["report"], ["view"]),
    *(["train"], ["evaluate"], ["benchmark"], ["figures"], ["cache"], ["models"]),
    *(["cache", name] for name in ("show", "clear")),
    *(["models", name] for name in ("list", "show", "import")),
    ["doctor"],
]
WITHOUT_EXAMPLES = ["cache show", "cache clear", "models list"]  # their groups have them


def plain(text: str) -> str:
    """Without colours and frames."""
    return re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text)


def one_line(text: str) -> str:
    return " ".join(plain(text).split())


@pytest.fixture(params=[80, 120])
def help_of(request, cli, monkeypatch):
    """The help of a command on a terminal of 80 or 120 columns."""

    def run(*words: str) -> str:
        monkeypatch.setenv("COLUMNS", str(request.param))
        outcome = cli(*words, "--help")
        assert (outcome.code, outcome.err) == (0, "")
        assert max(map(len, plain(outcome.out).splitlines())) <= request.param
        return outcome.out

    return run


def command_of(words: list[str]) -> Any:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    return command


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "voxwarp")
def test_help(help_of, words: list[str]):
    shown = help_of(*words)
    assert "Usage: " in shown
    assert not re.search(r"<[a-z]+[>\[]", shown)  # types such as <bool>
    assert "None" not in shown
    assert ("Examples:" in shown) == (" ".join(words) not in WITHOUT_EXAMPLES)
    command = command_of(words)
    joined = one_line(shown)
    if words:
        assert one_line(command.help).partition(".")[0] in joined
    for param in command.params:
        assert (param.help or "").rstrip().endswith("."), param.name
        for name in (*getattr(param, "opts", []), *param.secondary_opts):
            assert name in joined or param.param_type_name == "argument"
        if isinstance(param.show_default, str):
            assert f"[default: {param.show_default}]" in table_text(shown), param.name


def table_text(shown: str) -> str:
    """The texts of the panels, each in one line: the last column of the tables."""
    columns = (re.split(r" {2,}", line.strip("│ ")) for line in shown.splitlines())
    return " ".join(parts[-1].strip() for parts in columns)


def test_defaults_are_printed_as_written(help_of):
    shown = table_text(help_of("register"))
    for default in ("default", "deformable", "auto", "deepbet", "affine", "cache", "report", "0"):
        assert f"[default: {default}]" in shown
    assert "[default: 8 with --refine]" in shown
    assert "[default: bias for heads, no-bias for brains]" in shown


@pytest.mark.parametrize("command", ["apply", "points"])
def test_inverse_of_one_transform_is_printed_as_it_is_typed(help_of, command: str):
    assert "[PATH,1]" in help_of(command)


def test_options_are_in_panels(help_of):
    shown = help_of("register")
    titles = re.findall(r"╭─ ([\w ]+) ─", shown)
    assert titles == [
        *("Arguments", "Inputs", "Transform", "Preparation", "Output", "Computing", "Other")
    ]
    assert re.findall(r"╭─ ([\w, ]+) ─", help_of()) == [
        *("Other", "Register and apply", "Groups of people", "Prepare scans and train"),
        *("Measure and compare", "Models, cache, installation"),
    ]


def examples() -> list[str]:
    lines = []
    for words in COMMANDS:
        _, _, end = (command_of(words).help or "").partition("\n\nExamples:\n")
        lines += [line.strip() for line in end.splitlines()]
    return lines


@pytest.mark.parametrize("line", sorted(set(examples())))
def test_example_parses_and_fits_on_a_line(line: str):
    assert len(line) <= 78
    program, *words = shlex.split(line)
    assert program == "voxwarp"
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


def test_every_command_has_two_examples_or_more():
    for words in COMMANDS:
        _, _, end = (command_of(words).help or "").partition("\n\nExamples:\n")
        assert len(end.splitlines()) >= 2 or " ".join(words) in WITHOUT_EXAMPLES


def test_help_names_the_contract(help_of):
    """Names that users and scripts rely on."""
    promised = {
        "register": "MOVING FIXED --fixed -o --model --labels --fixed-labels --affine --no-affine "
        "--device --seed --overwrite --mask --fixed-mask --brain-extract auto yes no --extractor "
        "--bias --no-bias --cache --no-cache --strict --refine --no-refine --refine-steps "
        "--refine-seconds --smoothness --threads --report --no-report --transform --initial "
        "rigid affine deformable -v --verbose",
        "preprocess": "SCAN -o --labels --mask --conform --no-conform --bias --no-bias "
        "--brain-extract --extractor --affine --no-affine --crop --no-crop --normalise "
        "--no-normalise --cache --no-cache --threads --strict --overwrite",
        "apply": "IMAGE --transform -t --reference -r -o --inverse --interpolation linear nearest "
        "cubic --overwrite",
        "points": "FILE.csv --transform -t -o --inverse --lps --overwrite",
        "evaluate": "PAIRS -o --model --split --kind --scan --labels --structures --regions "
        "--resampling --first --brain-extract --extractor --bias --no-bias --affine --no-affine "
        "--refine --no-refine --refine-steps --refine-seconds --smoothness --device --threads "
        "--cache --no-cache --retry --overwrite",
        "train": "CONFIG.yaml KEY=VALUE -o --check --resume --minutes --device --overwrite "
        "--show-settings",
        "report": "DIR -o --overwrite",
        "view": "OUT --fixed --port --browser --no-browser",
    }
    for command, names in promised.items():
        text = plain(help_of(command))
        assert [name for name in names.split() if name not in text] == []
    text = plain(help_of())
    assert all(words[0] in text for words in COMMANDS if words)
    assert "--version" in text


def test_seed_is_said_to_be_without_effect(help_of):
    assert re.search(r"--seed.*Without effect, because .* random", one_line(help_of("register")))
