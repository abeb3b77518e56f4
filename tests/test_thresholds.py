"""The tables of thresholds in the docs have the values of the code."""

import ast
import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import pytest

from voxwarp.preparation.agreement import FitThresholds

PAGE = (Path(__file__).parents[1] / "docs" / "thresholds.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?:/\d+)?(?![\w])")


class Threshold(NamedTuple):
    """A row: what it is called, its numbers, and ``package/module.py`` and name in the code."""

    name: str
    values: tuple[float, ...]
    module: str
    path: str


def rows() -> list[Threshold]:
    """The rows of all tables."""
    found = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        place = re.fullmatch(r"`([\w/]+)\.py`: `([\w.]+)`", cells[2]) if len(cells) == 5 else None
        if place:
            values = tuple(number(value) for value in NUMBER.findall(cells[1]))
            found.append(Threshold(cells[0], values, place[1].replace("/", "."), place[2]))
    return found


def number(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)


ROWS = rows()


def test_every_row_names_a_place_in_the_code() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    headers = [line for line in lines if line.startswith("| Name |")]
    assert len(ROWS) == len(lines) - len(headers) > 60
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.values for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_value_is_that_of_the_code(row: Threshold) -> None:
    place: Any = import_module(f"voxwarp.{row.module}")
    for name in row.path.split("."):
        place = inspect.getattr_static(place, name)
    function = getattr(place, "func", getattr(place, "fget", None)) or place
    if isinstance(function, FunctionType):
        assert set(row.values) <= literals(function)
    elif row.path == "MEASURES":
        assert row.values == tuple(measure.min_spread for measure in place if measure.bad_side)
    else:
        assert row.values == tuple(np.ravel(place).tolist())


def literals(function: FunctionType) -> set[float]:
    """The numbers in a function and among its defaults."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {float(value) for value in constants if type(value) in (int, float)}


def test_all_thresholds_of_a_good_fit_are_listed() -> None:
    listed = {row.path.partition(".")[2] for row in ROWS if row.path.startswith("FitThresholds.")}
    assert listed == set(FitThresholds.__dataclass_fields__)


def test_a_wrong_value_would_be_found() -> None:
    (row,) = (row for row in ROWS if row.name == "outlier")
    with pytest.raises(AssertionError):
        test_the_value_is_that_of_the_code(row._replace(values=(3.0,)))
    (row,) = (row for row in ROWS if row.name == "uniform border")
    with pytest.raises(AssertionError):
        test_the_value_is_that_of_the_code(row._replace(values=(0.98,)))
