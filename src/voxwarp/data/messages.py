"""Words for messages about what somebody wrote: on one line, short, with the nearest known word."""

import difflib
from collections.abc import Iterable

LONGEST = 600  # letters of a message
LONGEST_VALUE = 60  # letters of a value in it


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the known one that is like it, or all."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def short(value: object) -> str:
    """A value in a message."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def one_line(message: str) -> str:
    """A message without line breaks, cut where it is too long."""
    line = " ".join(message.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
