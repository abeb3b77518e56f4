"""Check the pages that Sphinx wrote: no link leads nowhere, and nothing comes from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Where an element names what the browser loads for the page.
_LOADED = {
    *(("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src")),
    ("link", "href"),
}


class Page(HTMLParser):
    """What matters of a page: its anchors, its links, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif (tag, name) in _LOADED and value:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)


def problems(site: Path) -> list[str]:
    """All that is wrong with the pages of a folder, one line each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: it loads {url}" for url in page.loaded if _is_elsewhere(url)]
        for url in (*page.links, *page.loaded):
            if not _is_elsewhere(url) and not _leads_somewhere(url, path, pages):
                found.append(f"{name}: {url} leads nowhere")
    for path in sorted(site.rglob("*.css")):
        loaded = re.findall(r"(?:@import|url\()\s*['\"]?((?:https?:)?//[^'\")]+)", path.read_text())
        found += [f"{path.relative_to(site)}: it loads {url}" for url in loaded]
    return found


def _is_elsewhere(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.scheme or parts.netloc) and parts.scheme != "data"


def _leads_somewhere(url: str, path: Path, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "data":
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return False
    anchor = unquote(parts.fragment)
    return not anchor or target not in pages or anchor in pages[target].anchors
