"""The long description: the README, without links and pictures that lead nowhere outside of it."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

NOTE = "The pages and files that are named here are in the source distribution.\n"

# A picture of the repository with its caption, and a link to a file of it.
_PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+(?:<sub>.*</sub>\n+)?", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:)([^)#]*)(?:#[^)]*)?\)")


def without_relative_links(text: str) -> str:
    """The README for a page of a package index, where only absolute links lead somewhere.

    There is no public address of the repository yet. What stands for a file is replaced by its
    name: ``[Cohorts](docs/cohort.md)`` becomes ``Cohorts (docs/cohort.md)``.
    """

    def plain(link: re.Match[str]) -> str:
        words, path = link.groups()
        return words if not path or path in words else f"{words} ({path})"

    title, _, rest = _PICTURE.sub("", text).partition("\n\n")
    return f"{title}\n\n{NOTE}\n{_LINK.sub(plain, rest)}"


class Readme(MetadataHookInterface):
    """Sets ``readme``, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the long description."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": without_relative_links(text),
        }
