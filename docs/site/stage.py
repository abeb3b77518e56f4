"""Bring the pages of the repository together as Sphinx reads them.

Pages keep their text. Only the links change, because on the site they must lead to what GitHub
shows: from README, CHANGELOG, CONTRIBUTING, the model cards and ``docs/`` every link is followed,
and what it leads to gets its place on the site. A Markdown file is a page; a folder is a page that
lists its files; code is a page that shows it; everything else is a file to download.

The sidebar is the index: each heading of ``docs/index.md`` is a group, and the first column of the
tables below it are its pages. A row whose first cell is one of ``GENERATED`` gets the page that is
generated in its place.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import api
import commands
import settings

ROOT = Path(__file__).resolve().parents[2]
INDEX = "docs/index.md"
CARDS = "src/voxwarp/models"
#: Cells of the index, and the pages that say the same on the site.
GENERATED = {
    "`help(voxwarp)`": "reference/python/index.rst",
    "`voxwarp COMMAND --help`": "reference/commands/index.rst",
    "`voxwarp train --show-settings`": "reference/settings.rst",
}
#: Kinds of code that get a page, and what they are for the highlighting.
CODE = {
    "": "text",
    ".cff": "yaml",
    ".json": "json",
    ".py": "python",
    ".sbatch": "bash",
    ".toml": "toml",
    ".yaml": "yaml",
}
#: Other files that a folder lists; weights, for example, are not.
FILES = {".csv", ".md", ".png", ".svg", ".jpg"}
LARGEST = 1_000_000  # bytes of a file that a folder lists

_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")
_ROW = re.compile(r"^\| (?:\[([^\[\]]*)\]\(/([^()\s#]+)\)|(`[^`|]+`)) \|", re.MULTILINE)


class BrokenLinkError(Exception):
    """A link to something that is not in the repository."""


def stage(folder: Path) -> None:
    """Write all pages into an empty folder.

    Raises:
        BrokenLinkError: a page links to something that does not exist.
    """
    shutil.rmtree(folder, ignore_errors=True)
    pages = dict(_pages(folder))
    for name, text in {**pages, **_generated()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _generated() -> dict[str, str]:
    pages = api.pages() | commands.pages() | settings.pages()
    return {f"reference/{name}": text for name, text in pages.items()}


def _pages(folder: Path) -> Iterator[tuple[str, str]]:
    """The pages of the repository, and those that they lead to; files are copied on the way."""
    ahead = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    ahead += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / CARDS).glob("*/README.md"))
    seen = set(ahead)
    while ahead:
        path = ahead.pop(0)
        text = _text(path)
        if path.is_file() and path.suffix != ".md":
            copy = folder / "files" / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        if text is None:
            continue
        links = _links(path, text)
        new = sorted(set(links.values()) - seen)
        seen.update(new)
        ahead += new
        text = _with_links(text, links)
        yield _place(path), _with_sidebar(text) if path == ROOT / INDEX else text


def _text(path: Path) -> str | None:
    """The Markdown of a page; None for a file to download."""
    if path.is_dir():
        return _listing(path)
    if path.suffix in CODE:
        return _code(path)
    if path.suffix != ".md":
        return None
    text = path.read_text(encoding="utf-8")
    if path == ROOT / "README.md":  # the front page is called voxwarp, too
        return re.sub(r"^# .*$", "# Overview", text, count=1, flags=re.MULTILINE)
    if path == ROOT / "docs/models.md":
        return f"{text}\n```{{toctree}}\n:hidden:\n:glob:\n\nmodels/*\n```\n"
    if path.name != "README.md" or path.parent == ROOT or path.is_relative_to(ROOT / CARDS):
        return text if path.is_relative_to(ROOT / "docs") or path.parent == ROOT else _ORPHAN + text
    return f"{_ORPHAN}{text.rstrip()}\n\n## Files\n\n{_table(path.parent)}"


def _place(path: Path) -> str:
    """Where a page or a file is in the folder that Sphinx reads."""
    name = path.relative_to(ROOT)
    if path.is_dir():
        return f"files/{name}/index.md"
    if path.parent == ROOT and path.suffix == ".md":
        return f"{path.stem.lower()}.md"
    if path.is_relative_to(ROOT / "docs") and path.suffix == ".md":
        return name.relative_to("docs").as_posix()
    if path.name == "README.md":
        is_card = path.is_relative_to(ROOT / CARDS)
        return f"models/{path.parent.name}.md" if is_card else f"files/{name.parent}/index.md"
    return f"files/{name}.md" if path.suffix in CODE else f"files/{name}"


# --- Links -----------------------------------------------------------------------------------


def _links(path: Path, text: str) -> dict[str, Path]:
    """Where the links of a page lead: by their targets without anchors, the files."""
    found = {}
    folder = path if path.is_dir() else path.parent
    for line in _prose(text):
        for _, _, target in _LINK.findall(line):
            name = target.partition("#")[0]
            if name and not re.match(r"[a-z]+:", name):
                found[name] = _file((folder / name).resolve(), path, target)
    return found


def _file(linked: Path, page: Path, target: str) -> Path:
    if not linked.exists() or not linked.is_relative_to(ROOT):
        raise BrokenLinkError(f"{page.relative_to(ROOT)}: there is no {target}")
    readme = linked / "README.md"
    return readme if readme.is_file() and linked != ROOT else linked


def _with_links(text: str, links: dict[str, Path]) -> str:
    """The text of a page with the links of the site."""

    def replaced(match: re.Match[str]) -> str:
        is_picture, words, target = match.groups()
        name, hash_, anchor = target.partition("#")
        if name not in links:
            return match[0]
        if re.fullmatch(r"[\w./-]+\.md", words) and links[name].suffix == ".md":
            words = ""  # Sphinx puts the title of the page or of the section there
        return f"{is_picture}[{words}](/{_place(links[name])}{hash_}{anchor})"

    lines = text.splitlines(keepends=True)
    for number, line in _numbered_prose(text):
        lines[number] = _LINK.sub(replaced, line)
    return "".join(lines)


def _prose(text: str) -> list[str]:
    return [line for _, line in _numbered_prose(text)]


def _numbered_prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a page that are not in a block of code, with their numbers from 0."""
    fence = ""
    for number, line in enumerate(text.splitlines(keepends=True)):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        elif not fence:
            yield number, line


# --- Pages that are made here ------------------------------------------------------------------

_ORPHAN = "---\norphan: true\n---\n\n"  # it need not be in the sidebar
_ASIDE = "---\norphan: true\nnosearch: true\n---\n\n"  # nor in the search


def _listing(folder: Path) -> str:
    return f"{_ASIDE}# {folder.relative_to(ROOT)}\n\n{_above(folder)}{_table(folder)}"


def _above(path: Path) -> str:
    """A link from a folder of rows to the one that it is in."""
    above = path.parent
    is_listed = above.is_relative_to(ROOT / "benchmarks")  # of the code, only some folders are
    return f"In [{above.relative_to(ROOT)}](..)\n\n" if is_listed else ""


def _table(folder: Path) -> str:
    """The files of a folder as a table, with links."""
    rows = ["| File | |", "|---|---|"]
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name)):
        if path.is_dir() and any(map(_is_listed, path.rglob("*"))):
            rows.append(f"| [{path.name}/]({path.name}) | |")
        elif path.is_file() and _is_listed(path) and path.name != "README.md":
            rows.append(f"| [`{path.name}`]({path.name}) | {_size(path)} |")
    return "\n".join(rows) + "\n"


def _is_listed(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    is_hidden = any(part.startswith((".", "__pycache__")) for part in parts)
    is_known = path.suffix in FILES or (path.suffix in CODE and path.suffix != "")
    return path.is_file() and not is_hidden and is_known and path.stat().st_size <= LARGEST


def _size(path: Path) -> str:
    if path.suffix == ".csv":
        rows = path.read_text(encoding="utf-8").count("\n") - 1
        return f"{rows} row{'s' if rows != 1 else ''}"
    return f"{max(1, round(path.stat().st_size / 1000))} kB"


def _code(path: Path) -> str:
    text = path.read_text(encoding="utf-8").rstrip()
    name, language = path.relative_to(ROOT), CODE[path.suffix]
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    download = f"{{download}}`Download </files/{name}>`"
    return f"{_ASIDE}# {name}\n\n{download}\n\n{fence}{language}\n{text}\n{fence}\n"


# --- The sidebar -------------------------------------------------------------------------------


def _with_sidebar(text: str) -> str:
    """The index with generated pages in it, and with a table of contents of each section."""
    for cell, page in GENERATED.items():
        if f"| {cell} |" not in text:
            raise BrokenLinkError(f"{INDEX}: there is no row {cell}")
        text = text.replace(f"| {cell} |", f"| [](/{page}) |")
    contents = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption = section.partition("\n")[0]
        entries = [_entry(words, page) for words, page, _ in _ROW.findall(section)]
        if not entries:
            continue
        lines = ["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```", ""]
        contents.append("\n".join(lines))
    return text.rstrip() + "\n\n" + "\n".join(contents)


def _entry(words: str, page: str) -> str:
    name = re.sub(r"\.(md|rst)$", "", page)
    return f"{words} </{name}>" if words else f"/{name}"
