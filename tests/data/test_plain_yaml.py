"""YAML as simple as JSON: what it says is read as it stands, all else is refused."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voxwarp.data.plain_yaml import dump, dump_inline, parse

WORDS = ["1e-3", "5", "-.5", "yes", "no", "null", "~", "true", "2020-01-01", "0x1f", "1_000",
         "1:30", "", " x", "a: b", "*star", "&and", "#", "ä\u2028\x07", "1e5", "NaN", ".inf",
         "-", "? x", "!!int 1", "a\nb", "'", '"', "[", "{a}"]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_words_that_look_like_something_else_come_back(word: str) -> None:
    for tree in (word, [word], {"key": word}, {"key": {word: [word]}}):
        assert parse(dump(tree)) == tree
        assert parse(f"at: {dump_inline(tree)}") == {"at": tree}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("2E-1", 0.2), ("1.e+1", 10.0), ("-.5", -0.5), (".inf", float("inf")),
        ("5", 5), ("-0", 0), ("007", "007"), ("1_000", "1_000"), ("0x1f", "0x1f"), ("1:30", "1:30"),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("tRue", "tRue"), ("true", True),
        ("False", False),
        ("~", None), ("null", None), ("", None), ("2020-01-01", "2020-01-01"), ("١", "١"),
    ],
)  # fmt: skip
def test_what_is_a_number_and_what_is_a_word(text: str, value: Any) -> None:
    assert parse(f"a: {text}") == {"a": value}
    assert type(parse(f"a: {text}")["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\ndata: {}\nseed: 2", "line 3: key 'seed' occurs twice"),
        ("losses:\n  ncc: {}\n  mse: {}\n  ncc: {}", "line 4: key 'ncc' occurs twice"),
        ("1: 2", "line 1: key 1 must be a string"),
        ("? [a, b]\n: 2", "must be a string"),
        ("null: 2", "must be a string"),
        ("a: [1", "expected"),
        ("a: b: c", "not allowed here"),
        ("\x00", "not allowed"),
        ("a: &x [1]\nb: *x", "line 2: aliases are not allowed"),
        ("a: &x {b: *x}", "line 1: aliases are not allowed"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !!int ''", "index out of range"),
        ("a: !!bool maybe", "maybe"),
        ("a: !!map [a]", "line 1: expected keys with values"),
        ("a: !!binary aGVsbG8=", "could not determine a constructor"),
        ("a: !!set {b, c}", "could not determine a constructor"),
        (f"seed: {'9' * 5000}", "4300"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("--- \na: 1\n---\nb: 2", "single document"),
    ],
)
def test_what_is_no_simple_yaml_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_a_line_does_not_become_terabytes() -> None:
    """Nine aliases of nine aliases of ..., the "billion laughs"."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    tracemalloc.start()
    with pytest.raises(ValueError, match="aliases"):
        parse("\n".join(lines))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


LETTERS = st.text(
    st.sampled_from(" \n\t:-[]{},'\"&*!|>%@`?#~.=<ab01e+_\x00\x85\ufeff\u2028") | st.characters()
)


@settings(deadline=None)
@given(LETTERS)
@example("a: !!float ''")
@example("? ? ? a")
@example("!!map [a]")
@example("!!seq {a: b}")
@example("a: !!null x")
@example("a: =")
@example("%YAML 9.9\n--- a")
@example("\ufeffseed: 1")
def test_any_text_is_refused_or_comes_back(text: str) -> None:
    try:
        tree = parse(text)
    except ValueError:
        return
    assert repr(parse(dump(tree))) == repr(tree)  # NaN is another one each time
