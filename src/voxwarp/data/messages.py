"""Helpers for error messages about user input: on one line, short, with a suggestion."""

import difflib
from collections.abc import Iterable

# Both set by hand: a message fills a few lines of a terminal, a value in it one line at most.
LONGEST = 600  # characters of a message
LONGEST_VALUE = 60  # characters of a value in it


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: a similar known word, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def short(value: object) -> str:
    """A value as a message shows it."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def one_line(message: str) -> str:
    """A message without line breaks, cut off if it is too long."""
    line = " ".join(message.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
