"""The wheel and the source distribution: what is in them, how large they are, what they say."""

import email
import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "voxwarp"
LARGEST = 15e6  # bytes
SCANS = (".nii", ".nii.gz", ".mgz", ".mgh", ".mnc", ".nrrd", ".mha", ".dcm")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source distribution, and a wheel made from it; nothing is fetched."""
    for name in ("build", "hatchling"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install '.[dist]'")
    out = tmp_path_factory.mktemp("dist")
    words = sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)
    done = subprocess.run(words, capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (path,) = built.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def in_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert {name.partition("/")[0] for name in names} == {sdist.name.removesuffix(".tar.gz")}
    return {name.partition("/")[2] for name in names}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_names_say_version_and_that_any_machine_will_do(wheel, sdist, project) -> None:
    assert wheel.name == f"voxwarp-{project['version']}-py3-none-any.whl"
    assert sdist.name == f"voxwarp-{project['version']}.tar.gz"


def test_both_are_small(wheel: Path, sdist: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    assert sdist.stat().st_size < LARGEST


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path, project) -> None:
    about = f"voxwarp-{project['version']}.dist-info"
    expected = {
        f"voxwarp/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"voxwarp/py.typed", "voxwarp/models/default/weights.safetensors"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {name for name in names if not name.startswith(about)} == expected
    assert {name.removeprefix(f"{about}/") for name in names if name.startswith(about)} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt"),
        *(f"licenses/{name}" for name in project["license-files"]),
    }


def test_the_source_distribution_is_what_git_has(in_sdist: set[str]) -> None:
    """Tests, docs and rows, too, and nothing else that lies in the folder."""
    listing = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no clone of the repository")
    ours = {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}
    assert len(ours) > 500
    assert in_sdist - ours == {"PKG-INFO"}
    assert not ours - in_sdist


def test_there_are_no_scans_in_it(in_sdist: set[str]) -> None:
    assert not [name for name in in_sdist if name.lower().endswith(SCANS)]


def test_a_wheel_of_the_source_distribution_has_the_same_files(wheel: Path, built: Path) -> None:
    """``python -m build`` made it from the source distribution; this one is of the tree."""
    out = built / "of-the-tree"
    words = sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, ROOT
    subprocess.run([*map(str, words)], capture_output=True, check=True, cwd=built)
    assert (out / wheel.name).read_bytes() == wheel.read_bytes()


def test_metadata_are_those_of_the_project(metadata: Message, project) -> None:
    assert metadata["Name"] == "voxwarp"
    assert metadata["Version"] == project["version"]
    assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-NC-4.0"
    assert metadata.get_all("License-File") == project["license-files"]
    assert metadata["Summary"] == project["description"]
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["Keywords"].split(",") == sorted(project["keywords"])
    assert metadata.get_all("Classifier") == project["classifiers"]
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert urls == project["urls"]
    assert len(metadata.get_all("Requires-Dist")) >= len(project["dependencies"])
    assert set(metadata.get_all("Provides-Extra")) == project["optional-dependencies"].keys()


def test_the_command_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        text = archive.read(name).decode()
    assert text.split() == ["[console_scripts]", "voxwarp", "=", "voxwarp.cli.main:run_and_exit"]


def test_the_long_description_has_no_dead_links(metadata: Message, in_sdist: set[str]) -> None:
    """Links lead to the web; pages of ours are named, and are in the source distribution."""
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload()
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets
    assert not [target for target in targets if not target.startswith("https://")]
    assert not re.findall(r"<img|src=|href=", text)
    named = set(re.findall(r"\b[\w/.-]+\.(?:md|py|cff)\b", text)) - {"voxwarp.register"}
    assert {"docs/cohort.md", "docs/models.md", "CHANGELOG.md"} <= named
    assert named <= in_sdist
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == readme.count("\n## ")
    assert text.count("```") == readme.count("```")


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [("twine", ["check", "--strict"], "PASSED"), ("check_wheel_contents", [], "OK")],
)
def test_the_usual_checks_pass(
    built: Path, wheel: Path, sdist: Path, module: str, words: list[str], said: str
) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install '.[dist]'")
    files = [wheel, sdist] if module == "twine" else [wheel]
    command = [sys.executable, "-m", module, *words, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(said) == len(files)
