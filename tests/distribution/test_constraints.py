"""The oldest versions that are allowed are those that are tested."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_oldest_versions_are_those_of_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    text = (ROOT / "constraints-min.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    tested = dict(line.split("==") for line in lines)
    assert list(tested) == sorted(tested, key=str.lower)
    assert tested == dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in wanted)


def test_a_package_has_one_oldest_version() -> None:
    """In all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = {line for extra in (project["dependencies"], *extras) for line in extra}
    names = [re.split("[<>=]", line)[0] for line in wanted]
    assert len(names) == len(set(names))


def test_python_is_the_same_everywhere() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = settings["project"]["requires-python"].removeprefix(">=")
    assert settings["tool"]["mypy"]["python_version"] == oldest
    assert settings["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(f"Python {oldest} or newer") == 1
    assert re.findall(r"Python (\d\.\d+) or newer", readme) == [oldest]
