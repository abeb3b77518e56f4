"""Sections from YAML files: what they extend, variables, paths, and values given beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from voxwarp.data.section import Count, IsPath, Positive, Section, WholeNumber
from voxwarp.data.yaml_file import read_section
from voxwarp.errors import InputError


class Rates(Section):
    clip: Positive = 1.0
    batch: Count = 1


class Phase(Section):
    steps: Count
    start: Annotated[str | None, IsPath(unless=lambda word: "/" not in word)] = None


class Names(Section):
    """Of values, or of a table."""

    is_whole = True

    values: list[int] | None = None
    table: Annotated[str | None, IsPath()] = None


class Study(Section):
    folder: Annotated[str | None, IsPath()] = None
    task: str = ""
    seed: WholeNumber = 0
    rates: Rates = Rates()
    names: Names = Names()
    phases: list[Phase] = Field(default=[Phase(steps=1)])
    network: dict[str, Any] = Field(default={"name": "small"})
    costs: dict[str, dict[str, Any]] = Field(default={"ncc": {"weight": 1.0}})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Put a text into a file."""

    def file(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return file


def read(path: Path, *overrides: str) -> Study:
    return read_section(Study, path, overrides)


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        read(path, *overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    assert len(message) < 1000
    return message


# ---------------------------------------------------------------------------------------- Files


def test_values_of_a_file_take_the_place_of_defaults(write) -> None:
    path = write("seed: 7\nrates: {clip: 5e-1}\nphases: [{steps: 3}]\nnames:\ntask: 'no'\n")
    assert read(path) == Study(seed=7, rates=Rates(clip=0.5), phases=[Phase(steps=3)], task="no")


def test_relative_paths_are_from_the_folder_of_their_file(write) -> None:
    path = write(
        "folder: a/../b\nnames: {table: ../t.csv}\n"
        "phases: [{steps: 1, start: m/n}, {steps: 1, start: name}, {steps: 1, start: /abs}]\n"
        "network: {folder: kept}\ntask: x/y\n",
        "sub/config.yaml",
    )
    study = read(path)
    assert study.folder == str(path.parent / "b")
    assert study.names.table == str(path.parents[1] / "t.csv")
    assert [phase.start for phase in study.phases] == [str(path.parent / "m/n"), "name", "/abs"]
    assert (study.network, study.task) == ({"folder": "kept"}, "x/y")


def test_a_variable_is_put_in_or_its_default(write, monkeypatch) -> None:
    path = write("folder: '${HERE_IT_IS}/a${EMPTY_ONE:-b}'\ntask: '${NOT_SET:-}x $HOME'")
    monkeypatch.setenv("HERE_IT_IS", "/data")
    monkeypatch.setenv("EMPTY_ONE", "")
    monkeypatch.delenv("NOT_SET", raising=False)
    study = read(path)
    assert (study.folder, study.task) == ("/data/ab", "x $HOME")
    monkeypatch.delenv("HERE_IT_IS")
    assert "HERE_IT_IS is not set" in refused(path)


def test_home_is_where_a_tilde_says(write, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read(write("folder: ~/scans")).folder == "/home/me/scans"
    assert "folder: ~nobody-of-that-name" in refused(write("folder: ~nobody-of-that-name/scans"))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "gone.yaml")
    assert "directory" in refused(tmp_path)
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b\x08\xff")
    assert "cannot be read" in refused(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "this is not valid YAML: "),
        ("seed: 1\nseed: 2", "this is not valid YAML: line 2: key 'seed' occurs twice"),
        ("- a\n- b", "it must hold keys with values, such as seed: 1"),
        ("", "it must hold keys with values, such as seed: 1"),
        ("just words", "it must hold keys with values, such as seed: 1"),
        ("<<: {seed: 1}", "unknown key '<<'; known are folder, "),
        ("a: " + "[" * 40 + "]" * 40, "lists and dictionaries are nested too deeply"),
        ("rates: {clp: 1}", "unknown key 'rates.clp'; did you mean 'clip'?"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, words: str, write) -> None:
    path = write(text)
    assert refused(path).startswith(f"config {path}: {words}")


# -------------------------------------------------------------------------------------- Extends


def test_a_file_changes_what_it_extends(write) -> None:
    write(
        "folder: scans\nrates: {batch: 3, clip: 2}\nnetwork: {name: large, width: 4}\n"
        "costs: {ncc: {window: 5}, mse: {}}\nnames: {values: [1]}\n",
        "deep/base.yaml",
    )
    write("extends: deep/base.yaml\nrates: {clip: 4}\nphases: [{steps: 9}]\n", "mid.yaml")
    top = write(
        "extends: ../mid.yaml\ncosts: {dice: {}}\nnetwork: {name: small}\n"
        "names: {table: t.csv}\nphases: [{steps: 2}, {steps: 3}]\n",
        "top/top.yaml",
    )
    assert read(top) == Study(
        folder=str(top.parents[1] / "deep" / "scans"),  # of the file that it stands in
        rates=Rates(batch=3, clip=4),
        # Taken over as a whole: arguments of one network do not fit another.
        network={"name": "small"},
        costs={"dice": {}},
        names=Names(table=str(top.parent / "t.csv")),
        phases=[Phase(steps=2), Phase(steps=3)],
    )


def test_files_that_extend_each_other_are_refused(write) -> None:
    write("extends: sub/../b.yaml", "a.yaml")
    b = write("extends: ./c.yaml", "b.yaml")
    write("extends: a.yaml", "c.yaml")
    (b.parent / "sub").mkdir()
    assert "extends itself" in refused(b)
    assert "extends itself" in refused(write("extends: self.yaml", "self.yaml"))


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("gone.yaml", "gone.yaml: No such file"),
        (".", "Is a directory"),
        ("[a.yaml]", "extends must be the path of another file, got ['a.yaml']"),
        ('"a\\0b"', "embedded null"),
        ('""', "Is a directory"),
    ],
)
def test_what_cannot_be_extended_is_refused(base: str, words: str, write) -> None:
    message = refused(write(f"extends: {base}"))
    assert message.startswith("config ")
    assert words in message


# ------------------------------------------------------------------------------------ Overrides


@pytest.fixture
def base(write) -> Path:
    return write(
        "folder: scans\nphases: [{steps: 5}, {steps: 6}]\nnetwork: {name: large, widths: [4, 8]}\n"
        "rates:\n",
        "sub/base.yaml",
    )


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch) -> Path:
    """The working directory."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("seed=7", {"seed": 7}),
        (" seed =3", {"seed": 3}),
        ("rates.clip=1e-4", {"rates": Rates(clip=1e-4)}),
        ("phases.1.steps=9", {"phases": [Phase(steps=5), Phase(steps=9)]}),
        ("phases.0={steps: 1}", {"phases": [Phase(steps=1), Phase(steps=6)]}),
        ("phases=[{steps: 3}]", {"phases": [Phase(steps=3)]}),
        ("network.widths.1=16", {"network": {"name": "large", "widths": [4, 16]}}),
        ("network={name: small}", {"network": {"name": "small"}}),
        ("costs={mse: {}}", {"costs": {"mse": {}}}),
        ("costs.mse.weight=2", {"costs": {"ncc": {"weight": 1.0}, "mse": {"weight": 2}}}),
        (
            "costs.my.module:function.a.b=2",
            {"costs": {"ncc": {"weight": 1.0}, "my.module:function": {"a.b": 2}}},
        ),
        ("task='a = b'", {"task": "a = b"}),
        ("names.values=", {"names": Names()}),
    ],
)
def test_a_value_beside_the_file_takes_the_place_of_its_own(override, change, base) -> None:
    assert read(base, override) == read(base).model_copy(update=change)
    assert Study().costs == {"ncc": {"weight": 1.0}}  # the defaults themselves are not changed


def test_variables_are_put_into_values_beside_the_file(base, monkeypatch) -> None:
    monkeypatch.setenv("WORD_OF_TEST", "from the environment")
    assert read(base, "task=${WORD_OF_TEST}").task == "from the environment"


def test_relative_paths_beside_the_file_are_from_the_working_directory(base, elsewhere) -> None:
    study = read(base, "folder=a", "names.table=../t.csv", "phases.1.start=m/n", "task=x/y")
    assert study.folder == str(elsewhere / "a")
    assert study.names.table == str(elsewhere.parent / "t.csv")
    assert study.phases[1].start == str(elsewhere / "m/n")
    assert study.task == "x/y"
    assert read(base, "phases=[{steps: 1, start: m/n}]").phases[0].start == str(elsewhere / "m/n")
    assert read(base, "costs.ncc.folder=a").costs["ncc"]["folder"] == "a"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("rates.clp=1", "'rates.clp'; did you mean 'clip'"),
        ("phases.2.steps=1", "'2' must be a position in a list of 2, counted from 0"),
        ("phases.-1.steps=1", "'-1' must be a position"),
        ("phases.x=1", "'x' must be a position"),
        (f"phases.{'9' * 5000}.steps=1", "'99999"),
        ("phases.0.steps.x=1", "5 is a single value and has no key 'x'"),
        ("folder.x.y=1", "is a single value and has no key"),
        ("network.widths.0.x=1", "4 is a single value and has no key"),
        ("phases=[1", "not valid YAML"),
        ("task=a = b: 'c'", "task must be a valid string"),
        ("seed=&a [*a]", "not valid YAML"),
        ("seed=\udc80", "not valid YAML"),
        ("a..b=1", "unknown key 'a'"),
        ("extends=other.yaml", "unknown key 'extends'"),
        ("task=${NOT_SET_AT_ALL}", "NOT_SET_AT_ALL is not set"),
        ("seed=" + "[" * 100 + "]" * 100, "lists and dictionaries are nested too deeply"),
    ],
)
def test_wrong_values_beside_the_file_are_refused(override: str, words: str, base: Path) -> None:
    assert words in refused(base, override)
