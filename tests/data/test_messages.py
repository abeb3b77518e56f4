"""Words of messages: short, on one line, with the nearest word that is known."""

from voxwarp.data.messages import LONGEST, one_line, short, suggestion


def test_the_nearest_word_is_named_or_all_are() -> None:
    known = {"channels": 1, "steps": 2}
    assert suggestion("chanels", known) == "; did you mean 'channels'?"
    assert suggestion("x", known) == "; known are channels, steps"


def test_a_value_is_shown_in_part() -> None:
    assert short([1, "a"]) == "[1, 'a']"
    assert short("a" * 58) == repr("a" * 58)
    assert short("a" * 59) == "'" + "a" * 56 + "..."
    assert short(10**5000) == "a huge number"


def test_a_message_is_on_one_line() -> None:
    assert one_line(" a\n\tb\u2028c ") == "a b c"
    assert one_line("x" * LONGEST) == "x" * LONGEST
    assert one_line("x" * (LONGEST + 1)) == "x" * LONGEST + " ..."
