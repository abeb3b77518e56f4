"""Sections: settings have their types, unknown ones are refused by name."""

from typing import Annotated, Any

import pytest
from pydantic import Field

from voxwarp.data.section import (
    BelowOne,
    Count,
    Fraction,
    IsPath,
    NotNegative,
    Positive,
    Section,
    WholeNumber,
    build,
    path_mark,
    section_at,
    section_in,
    section_under,
)
from voxwarp.errors import InputError


class Leaf(Section):
    steps: Count
    name: Annotated[str | None, IsPath(unless=str.isupper)] = None


class Tree(Section):
    leaf: Leaf | None = None
    leaves: Annotated[list[Leaf], Field(min_length=1)] = Field(default=[Leaf(steps=1)])
    weights: dict[str, dict[str, Any]] = Field(default={})
    seed: WholeNumber = 0


def refusal(tree: Any) -> str:
    with pytest.raises(InputError) as caught:
        build(Tree, tree, "config")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_right_becomes_a_section() -> None:
    built = build(Tree, {"leaf": {"steps": 3}, "weights": {"a": {"b": 1}}}, "config")
    assert built == Tree(leaf=Leaf(steps=3), weights={"a": {"b": 1}})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"sede": 1}, "unknown key 'sede'; did you mean 'seed'?"),
        ({"colour": 1}, "unknown key 'colour'; known are leaf, leaves, weights, seed"),
        ({"leaf": {"step": 1, "steps": 2}}, "unknown key 'leaf.step'; did you mean 'steps'?"),
        ({"leaves": [{"steps": 1}, {}]}, "leaves.1.steps is missing"),
        (
            {"leaves": [{"steps": 1}, {"steps": 1, "nam": 2}]},
            "unknown key 'leaves.1.nam'; did you mean 'name'?",
        ),
        ({"leaf": 5}, "leaf must have keys with values, got 5"),
        ({"weights": {"a": 5}}, "weights.a must have keys with values, got 5"),
        ({"weights": []}, "weights must have keys with values, got []"),
        ({"seed": True}, "seed must be a number, got true"),
        ({"leaf": 5, "seed": -1, "b": 3}, "leaf must have keys with values, got 5 (and 2 more)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tree: dict, message: str) -> None:
    assert refusal(tree) == f"config: {message}"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Fraction, [0, 0.5, 1], [-0.1, 1.1, True, "half", float("nan")]),
        (BelowOne, [0, 0.99], [1, -0.1, False]),
        (NotNegative, [0, 1e9], [-1e-9, float("inf"), 10**400, True]),
        (Positive, [1e-9, 3], [0, -1, float("inf"), True]),
        (Count, [1, 2**31 - 1], [0, 2**31, 1.5, True, "x"]),
        (WholeNumber, [0, 2**31 - 1], [-1, 2**31, 0.5, False]),
    ],
)
def test_numbers_have_their_ranges(kind: Any, good: list, bad: list) -> None:
    class One(Section):
        setting: kind

    assert [build(One, {"setting": value}, "it").setting for value in good] == good
    for value in bad:
        with pytest.raises(InputError, match=r"^it: setting must be "):
            build(One, {"setting": value}, "it")


def test_sections_are_found_by_their_keys() -> None:
    assert section_in(Annotated[list[Leaf], None] | None) is Leaf
    assert section_in(dict[str, int]) is None
    assert [section_under(Tree, key) for key in ("leaf", "leaves", "seed", "other")] == [
        *(Leaf, Leaf, None, None),
    ]
    assert section_at(Tree, ["leaves", 0]) is section_at(Tree, ["leaves", "12"]) is Leaf
    assert section_at(Tree, []) is Tree
    assert section_at(Tree, ["weights", "leaf"]) is None


def test_paths_are_found_by_their_marks() -> None:
    mark = path_mark(Leaf, "name")
    assert mark is not None
    assert mark.unless("NAME")
    assert not mark.unless("a/b")
    assert path_mark(Leaf, "steps") is path_mark(Leaf, "other") is path_mark(None, "name") is None
