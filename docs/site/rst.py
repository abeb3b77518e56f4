"""Texts of the package as reStructuredText."""

import re


def escaped(text: str) -> str:
    """Text as it is, without markup."""
    return re.sub(r"([\\*`|_<>])", r"\\\1", text)


def title(text: str, line: str = "=") -> str:
    """A heading."""
    text = escaped(text)
    return f"{text}\n{line * len(text)}\n\n"


def indented(text: str) -> str:
    """The content of a directive."""
    return "".join(f"   {line}\n" if line else "\n" for line in text.splitlines())


def code(text: str, language: str = "bash") -> str:
    """A block of code."""
    return f".. code-block:: {language}\n\n{indented(text)}\n"


def sidebar(entries: list[str]) -> str:
    """A table of contents for the sidebar alone."""
    lines = "".join(f"   {entry}\n" for entry in entries)
    return f".. toctree::\n   :hidden:\n\n{lines}\n"
