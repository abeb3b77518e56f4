"""A user's function by its name, and one sentence for a name that leads nowhere."""

import json
import os.path
from pathlib import Path

import pytest

from voxwarp._named import function_named
from voxwarp.errors import InputError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable module of the user's that cannot be imported yet: it has no text."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / f"of_{tmp_path.name.replace('-', '_')}.py"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("json:dumps", json.dumps),
        ("os.path:join", os.path.join),
        ("json.encoder:JSONEncoder.encode", json.JSONEncoder.encode),
    ],
)
def test_the_function_behind_a_name(name: str, found: object) -> None:
    assert function_named(name, "loss", ["mse"]) is found


@pytest.mark.parametrize(
    "name", ["", "mse2", "json", "json:", ":dumps", ":", "not a module:f", "a..b:f"]
)
def test_the_message_names_what_would_be_valid(name: str) -> None:
    with pytest.raises(InputError) as error:
        function_named(name, "loss", ["mse", "ncc"])
    assert str(error.value) == f"loss must be mse, ncc or module:function, got {name!r}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.at_all:f", "ModuleNotFoundError: No module named 'nowhere'"),
        ("json:gone", "AttributeError"),
        ("json:two words", "ValueError"),
    ],
)
def test_the_message_says_what_is_missing(name: str, said: str) -> None:
    with pytest.raises(InputError, match="it cannot be imported") as error:
        function_named(name, "loss", [])
    assert said in str(error.value)


@pytest.mark.parametrize(
    "text", ["1 / 0", "raise SystemExit(3)", "import nowhere_to_be_found", "("]
)
def test_whatever_a_module_does_when_imported_is_one_sentence(module: Path, text: str) -> None:
    module.write_text(f"{text}\n")
    with pytest.raises(InputError, match="it cannot be imported") as error:
        function_named(f"{module.stem}:f", "extractor", [])
    assert "\n" not in str(error.value)


def test_an_object_that_is_not_callable_is_refused() -> None:
    with pytest.raises(InputError, match="extractor 'math:pi': this is not a function but a float"):
        function_named("math:pi", "extractor", [])
