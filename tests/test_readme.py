"""What README and docs say is there: commands parse, code compiles, names and files exist."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import typer

import voxwarp
from voxwarp.cli.main import app
from voxwarp.layout import METRICS, REGISTERED
from voxwarp.preparation.brain import EXTRACTORS
from voxwarp.preparation.cache import LIMIT
from voxwarp.preparation.preprocess import OUTPUTS, Preprocessed
from voxwarp.preparation.scan import Prepared, prepare
from voxwarp.registration.result import Registration
from voxwarp.space.volume import Volume

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of the blocks of code of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


PYTHON = [text for language, text in blocks(README) if language == "python"]


def shell_commands() -> Iterator[str]:
    for language, text in (block for page in PAGES.values() for block in blocks(page)):
        if language in ("bash", "sh", "console"):
            yield from (line.strip() for line in text.replace("\\\n", " ").splitlines())


VOXWARP = sorted({line for line in shell_commands() if line.startswith("voxwarp")})


def parse(words: list[str]) -> None:
    """Parse a command line as the program does, without running it.

    Raises:
        Exception: typer's complaint, as the user would see it.
    """
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words or command.invoke_without_command, f"{command.name} needs a command's name"
        if not words or words[0].startswith("-"):
            break
        assert words[0] in command.commands, f"no such command: {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


def test_there_is_something_to_check() -> None:
    words = {line.split()[1] for line in VOXWARP}
    assert words >= {"register", "preprocess", "apply", "points", "cache", "models"}
    assert len(PYTHON) >= 3


@pytest.mark.parametrize("line", VOXWARP)
def test_command_parses(line: str) -> None:
    parse(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize(
    "line",
    [
        *("register a.nii -o out --refined", "register a.nii", "resample a.nii", "models import"),
        "register a.nii b.nii -o out --refine 45",
    ],
)
def test_wrong_command_does_not_parse(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected"):
        parse(line.split())


OPTIONS = {x for text in PAGES.values() for x in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_option_exists_somewhere(option: str) -> None:
    theirs = {"--logdir", "--nproc-per-node"}  # tensorboard's, torchrun's
    ours = {"--help"} | theirs | {name for command in commands() for name in option_names(command)}
    assert option in ours


def commands(group: Any = None) -> Iterator[Any]:
    group = group or typer.main.get_command(app)
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


def option_names(command: Any) -> list[str]:
    return [name for option in command.params for name in [*option.opts, *option.secondary_opts]]


# What the examples call the objects that functions return.
RESULTS: dict[str, Any] = {"result": Registration, "prepared": Preprocessed}


@pytest.mark.parametrize("code", PYTHON)
def test_python_uses_names_that_exist(code: str) -> None:
    calls = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("voxwarp"):
            module = import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "voxwarp":
                assert node.attr in voxwarp.__all__
            elif node.value.id in RESULTS:
                of = RESULTS[node.value.id]
                assert node.attr in {*dir(of), *of.__annotations__}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("voxwarp."):
            calls.append((ast.unparse(node.func).removeprefix("voxwarp."), node))
    for name, call in calls:
        keywords = {word.arg: None for word in call.keywords if word.arg}
        inspect.signature(attrgetter(name)(voxwarp)).bind(*call.args, **keywords)


def test_many_scans_are_registered_to_one(
    phantoms, poses, make_grid, tiny_model, quick_affine, monkeypatch, tmp_path
) -> None:
    """The example does what it says; the model is another, and three scans are many."""
    (code,) = (code for code in PYTHON if "Model.load" in code)
    assert len([line for line in code.splitlines() if line]) <= 10
    prepared = []

    def counted(image: Volume, *words: Any) -> Prepared:
        prepared.append(Path(image.name).name)
        return prepare(image, *words)

    monkeypatch.setattr("voxwarp.preparation.scan.prepare", counted)
    monkeypatch.chdir(tmp_path)
    Path("study").mkdir()
    names = [f"sub-{number}" for number in range(3)]
    for number, name in enumerate(names):
        grid = make_grid(spacing=5 + number / 4)
        nib.save(phantoms.image(grid, poses.moving), Path("study") / f"{name}.nii.gz")
    nib.save(phantoms.image(make_grid(spacing=6), poses.fixed), "fixed.nii.gz")
    exec(compile(code.replace('"default"', repr(str(tiny_model))), "README.md", "exec"), {})
    assert sorted(path.name for path in Path("registered").iterdir()) == names
    assert all((Path("registered") / name / METRICS).is_file() for name in names)
    assert sorted(prepared) == ["fixed.nii.gz", *(f"{name}.nii.gz" for name in names)]


@pytest.mark.parametrize(
    ("heading", "outputs"),
    [
        ("What `register` writes", REGISTERED),
        ("`voxwarp preprocess`", OUTPUTS),
    ],
)
def test_output_table_is_what_the_command_writes(heading: str, outputs: tuple[str, ...]) -> None:
    assert first_column(heading) == outputs


def first_column(heading: str) -> tuple[str, ...]:
    """What stands in code at the beginning of the rows of a section's table."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, flags=re.MULTILINE)
    return tuple(cell.strip("`") for cell in cells)


def test_options_of_the_preparation_are_those_of_register() -> None:
    register = next(command for command in commands() if command.name == "register")
    named = re.findall(r"--[\w-]+", " ".join(first_column("Preparation")))
    assert set(named) <= set(option_names(register))
    assert len(named) == len(set(named)) == 9


def test_limits_and_names_in_the_text_are_those_of_the_code() -> None:
    assert f"`$VOXWARP_CACHE_SIZE` MB ({LIMIT / 1e6:.0f} by default)" in README
    assert all(f"`{name}`" in README for name in EXTRACTORS)


def test_the_guide_to_training_ends_with_all_the_knobs(cli) -> None:
    guide = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert guide.rpartition("```text\n")[2] == cli("train", "--knobs").out + "```\n"


@pytest.mark.parametrize(
    ("page", "target"),
    [
        (page, target)
        for page, text in PAGES.items()
        for target in sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", text)))
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_link_leads_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target).exists()
