"""What README and docs name exists: commands, options, functions, files, links."""

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
from pages import PAGES, ROOT, blocks

import voxwarp
from voxwarp._layout import METRICS, REGISTERED
from voxwarp.cli.cluster_options import OTHER_NAMES
from voxwarp.cli.commands import app
from voxwarp.preparation.brain import EXTRACTORS
from voxwarp.preparation.cache import LIMIT
from voxwarp.preparation.examination import LARGEST_VOXEL
from voxwarp.preparation.preprocess import OUTPUTS, Preprocessed
from voxwarp.preparation.scan import Prepared, prepare
from voxwarp.registration import outputs
from voxwarp.registration.result import Registration
from voxwarp.space.grid import Grid
from voxwarp.space.placement import LARGEST, SMALLEST
from voxwarp.space.volume import Volume

README, PREPARATION = PAGES["README.md"], PAGES["docs/preparation.md"]
REGISTER, TRAINING = PAGES["docs/register.md"], PAGES["docs/training.md"]
PYTHON = [
    block.text for text in PAGES.values() for block in blocks(text) if block.language == "python"
]
LINES = {line for text in PAGES.values() for block in blocks(text) for line in block.commands()}
VOXWARP = sorted(line for line in LINES if line.startswith("voxwarp"))


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
    assert len(PYTHON) >= 10


@pytest.mark.parametrize("line", VOXWARP)
def test_command_parses(line: str) -> None:
    parse(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize(
    "line",
    [
        *("register a.nii -o out --refined", "register a.nii", "resample a.nii", "models import"),
    ],
)
def test_wrong_command_does_not_parse(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected"):
        parse(line.split())


# Options of other tools that the how-to pages name.
OF_OTHER_TOOLS = {
    "antsRegistration": "--initial-moving-transform --metric --convergence --shrink-factors "
    "--smoothing-sigmas --winsorize-image-intensities --restrict-deformation --random-seed",
    "FSL": "--rel --premat --warp --postmat --interp --ref --relout --absout --out --cout --warp1",
    "fMRIPrep": "--output-spaces",
    "FreeSurfer": "--inlta --outitk --initk --outlta --src --trg --mov --dst --lta --targ --inv "
    "--nearest --cubic --seg --temp --reg --label --template --flo --bold --i --o --s",
    "VoxelMorph": "--moving --moved --warp --interp --img-list --model-dir --atlas --image-loss "
    "--lambda --enc --dec --int-steps --int-downsize --bidir --use-probs --kl-lambda --epochs "
    "--steps-per-epoch --lr --batch-size --load-weights --initial-epoch --gpu --multichannel",
}
OPTIONS = {x for text in PAGES.values() for x in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_option_exists_somewhere(option: str) -> None:
    theirs = {"--logdir", "--nproc-per-node"}  # tensorboard's, torchrun's
    theirs |= {"--write-composite-transform"}  # antsRegistration's
    theirs |= set(OTHER_NAMES)  # other BIDS Apps'
    theirs |= {"--lifetime", "--lifetime-stagger", "--memory-limit"}  # dask worker's
    theirs |= {"--install-completion", "--show-completion"}  # typer's
    theirs |= {option for options in OF_OTHER_TOOLS.values() for option in options.split()}
    theirs |= {"--index-url"}  # pip's
    theirs |= {"--head", "--second-head", "--repeats", "--no-amx"}  # benchmarks/speed.py
    theirs |= {"--index-url", "--index", "--torch-backend", "--upgrade", "--no-deps"}  # pip's, uv's
    theirs |= {"--no-index", "--find-links"}
    theirs |= {"--rm", "--user", "--read-only", "--network", "--tmpfs", "--cap-drop"}  # docker's
    theirs |= {"--security-opt", "--cpus", "--cpuset-cpus", "--memory", "--build-arg", "--gpus"}
    theirs |= {"--containall", "--bind", "--nv", "--env"}  # apptainer's
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
    exec(compile(code.replace('"default"', repr(str(tiny_model))), "python.md", "exec"), {})
    assert sorted(path.name for path in Path("registered").iterdir()) == names
    assert all((Path("registered") / name / METRICS).is_file() for name in names)
    assert sorted(prepared) == ["fixed.nii.gz", *(f"{name}.nii.gz" for name in names)]


@pytest.mark.parametrize(
    ("page", "heading", "files"),
    [(REGISTER, "Files", REGISTERED), (PREPARATION, "`voxwarp preprocess`", OUTPUTS)],
    ids=["register", "preprocess"],
)
def test_output_table_is_what_the_command_writes(
    page: str, heading: str, files: tuple[str, ...]
) -> None:
    assert first_column(page, heading) == files


def first_column(page: str, heading: str) -> tuple[str, ...]:
    """What stands in code at the beginning of the rows of a section's table."""
    section = re.split(r"\n##+ ", page.split(f"## {heading}\n")[1])[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, flags=re.MULTILINE)
    return tuple(cell.strip("`") for cell in cells)


def test_the_outputs_that_can_be_chosen_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (`[^|]+`) \|$", REGISTER, flags=re.MULTILINE)
    named = {name: tuple(file.strip("`") for file in files.split(", ")) for name, files in rows}
    assert named == outputs.OUTPUTS


def options_of(name: str) -> set[str]:
    return set(option_names(next(command for command in commands() if command.name == name)))


def test_options_of_the_preparation_are_those_of_register() -> None:
    named = re.findall(r"--[\w-]+", " ".join(first_column(PREPARATION, "Options")))
    assert set(named) <= options_of("register")
    assert len(named) == len(set(named)) == 9


def test_every_option_of_register_is_on_its_page() -> None:
    named = set(re.findall(r"--[\w-]+", " ".join(first_column(REGISTER, "Options"))))
    known = {name for name in options_of("register") if name.startswith("--")} - {"--out"}
    assert named <= known
    assert all(name.startswith("--no-") for name in known - named)


def test_limits_and_names_in_the_text_are_those_of_the_code() -> None:
    assert f"`$VOXWARP_CACHE_SIZE` MB ({LIMIT / 1e6:.0f} by default)" in PREPARATION
    assert all(f"`{name}`" in PREPARATION for name in EXTRACTORS)
    unusual = PAGES["docs/unusual-files.md"]
    assert f"below {SMALLEST:g} mm or above {LARGEST / 1000:g} m" in unusual
    assert f"larger than {LARGEST_VOXEL:g} mm" in unusual
    matches = inspect.signature(Grid.matches).parameters["tolerance"].default
    assert f"more than {100 * matches:g} % of a voxel" in unusual


def test_the_guide_to_training_ends_with_all_settings(cli) -> None:
    assert TRAINING.rpartition("```text\n")[2] == cli("train", "--show-settings").out + "```\n"


def test_readme_is_a_screen_and_a_half() -> None:
    assert len(README.splitlines()) < 170


LINKS = [
    (name, target)
    for name in (*PAGES, "CONTRIBUTING.md", "GOVERNANCE.md", "benchmarks/README.md")
    for target in sorted(
        set(re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / name).read_text(encoding="utf-8")))
    )
]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_link_leads_somewhere(page: str, target: str) -> None:
    name, _, anchor = target.partition("#")
    path = ((ROOT / page).parent / name) if name else ROOT / page
    assert path.exists()
    assert not anchor or anchor in anchors(path.read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


TESTED = re.findall(r"^\|.*\| `(tests/.+?)` \|$", PAGES["docs/unusual-files.md"], re.MULTILINE)


def test_every_row_about_unusual_files_names_its_test() -> None:
    rows = [x for x in PAGES["docs/unusual-files.md"].splitlines() if x.startswith("| ")]
    headers = [row for row in rows if row.startswith("| What the file is like")]
    assert len(TESTED) == len(rows) - len(headers) > 20


@pytest.mark.parametrize("test", sorted(set(TESTED)))
def test_the_test_about_unusual_files_exists(test: str) -> None:
    path, _, name = test.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(def {name}\(|{name}, )", text, re.MULTILINE)


def linked(name: str) -> set[str]:
    """The pages that a page links to."""
    found = re.findall(r"\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)", PAGES[name])
    paths = ((ROOT / name).parent / path for path in found)
    return {path.resolve().relative_to(ROOT).as_posix() for path in paths} & PAGES.keys()


def test_every_page_is_within_reach_of_the_readme_and_of_the_index() -> None:
    for start in ("README.md", "docs/index.md"):
        reached, ahead = {start}, [start]
        while ahead:
            new = linked(ahead.pop()) - reached
            reached |= new
            ahead += new
        assert {name for name in PAGES if name.startswith("docs/")} <= reached


def test_the_map_names_modules_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:\w+/)*[a-z_]+(?:\.py|\.md|/))`", text)) | {"tests/support/"}
    bases = ROOT, ROOT / "src" / "voxwarp"
    assert len(paths) > 20
    assert not [path for path in paths if not any((base / path).exists() for base in bases)]
    packages = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert {path.parent.name for path in bases[1].glob("*/__init__.py")} == set(packages)
