"""The site of the documentation: it builds, nothing is missing on it, and it can be read."""

import html
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from browser import Browser, chromium
from filelock import FileLock

import voxwarp
from voxwarp.cli.commands import app
from voxwarp.training.config import settings_table

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = typer.main.get_command(app)
COMMANDS = {("voxwarp", name): command for name, command in PROGRAM.commands.items()}
COMMANDS |= {
    (*words, name): inner
    for words, command in tuple(COMMANDS.items())
    for name, inner in getattr(command, "commands", {}).items()
}
PAPER = 717  # CSS pixels between the margins of A4 in Chromium


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> SimpleNamespace:
    """The folder of the built site, and what the build said; all processes share it."""
    for name in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        pytest.importorskip(name, reason=f"the site needs {name}: pip install '.[docs]'")
    folder = tmp_path_factory.getbasetemp()
    folder = folder / "site" if worker_id == "master" else folder.parent / "site"
    said = folder.with_name("said.txt")
    with FileLock(folder.with_name("site.lock")):
        if not said.exists():
            words = (ROOT / "docs" / "site" / "build.py", "--out", folder)
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
            said.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}", encoding="utf-8")
    return SimpleNamespace(folder=folder, said=said.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def entries(site: SimpleNamespace) -> dict[str, dict[str, str]]:
    """By its kind and name, where an entry of the site is: the inventory that Sphinx writes."""
    from sphinx.util.inventory import InventoryFile

    data = (site.folder / "objects.inv").read_bytes()
    found: dict[str, dict[str, str]] = {}
    for kind, of_kind in InventoryFile.loads(data, uri="").data.items():
        found[kind] = {name: entry.uri for name, entry in of_kind.items()}
    return found


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A module of those that build the site."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    return import_module


def text_of(page: Path) -> str:
    """What one reads on a page, in one line."""
    article = page.read_text(encoding="utf-8").partition('role="main"')[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", article)).split())


# --- What is on it -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site: SimpleNamespace) -> None:
    assert site.said == f"0\n{site.folder / 'index.html'}\n"


@pytest.mark.slow
def test_every_link_of_the_readme_leads_to_the_same_on_the_site(site: SimpleNamespace) -> None:
    targets = re.findall(
        r"\]\((?!https?:)([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    article = (site.folder / "readme.html").read_text(encoding="utf-8")
    article = article.partition('role="main"')[2].partition("</article>")[0]
    links = re.findall(r'<(?:a|img)\b[^>]*? (?:href|src)="((?!https?:|#)[^"]+)"', article)
    assert len(links) == len(targets) > 30
    for target, link in zip(targets, links, strict=True):
        path, _, anchor = link.partition("#")
        assert (site.folder / path).is_file(), link
        assert anchor == target.partition("#")[2]
        names = (path.removesuffix(".html"), target.partition("#")[0])
        assert len({Path(name).stem.lower() for name in names}) == 1


@pytest.mark.slow
def test_the_rows_behind_the_numbers_can_be_downloaded(site: SimpleNamespace) -> None:
    page = site.folder / "files/benchmarks/oasis-malf/index.html"
    links = re.findall(r'download[^>]* href="([^"]+)"', page.read_text(encoding="utf-8"))
    files = {Path(link).name: (page.parent / link).read_bytes() for link in links}
    rows = [ROOT / "benchmarks/oasis-malf" / name for name in ("pairs.csv", "structures.csv")]
    assert files == {path.name: path.read_bytes() for path in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", voxwarp.__all__)
def test_every_public_name_has_an_entry(site: SimpleNamespace, entries: Any, name: str) -> None:
    kinds = ("function", "class", "exception", "data")
    (uri,) = (
        found
        for kind in kinds
        if (found := entries.get(f"py:{kind}", {}).get(f"voxwarp.{name}")) is not None
    )
    page, _, anchor = uri.partition("#")
    anchor = anchor.replace("$", f"voxwarp.{name}")
    assert f'id="{anchor}"' in (site.folder / page).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_its_options_and_defaults(
    site: SimpleNamespace, entries: Any, cli: Callable, monkeypatch: Any, words: tuple[str, ...]
) -> None:
    command = COMMANDS[words]
    names = {
        name
        for param in command.params
        if param.param_type_name == "option"
        for name in [*param.opts, *param.secondary_opts]
    }
    program = "-".join(words)
    listed = entries["std:cmdoption"]
    assert not [name for name in names if f"{program}.{name}" not in listed]
    page = text_of(site.folder / f"reference/commands/{words[1]}.html")
    monkeypatch.setenv("COLUMNS", "400")
    shown = cli(*words[1:], "--help").out
    for default in re.findall(r"\[default: (.+?)\]", shown):
        assert f"Default: {default}." in page
    first = " ".join((command.help or "").partition(".")[0].split())
    assert first in page


@pytest.mark.slow
def test_every_setting_has_its_default(site: SimpleNamespace, entries: Any) -> None:
    page = text_of(site.folder / "reference/settings.html")
    settings = list(settings_table())
    assert set(entries["std:confval"]) == {name for name, _, _ in settings}
    for name, default, meaning in settings:
        said = page.split(f" {name}¶ ")[1]
        assert said.lower().startswith(meaning.lower())
        assert not default or said[len(meaning) :].startswith(f". Default: {default}.")


@pytest.mark.slow
def test_the_sidebar_has_every_page_of_the_docs(site: SimpleNamespace) -> None:
    front = (site.folder / "index.html").read_text(encoding="utf-8")
    sidebar = front.partition('class="sidebar-tree"')[2].partition("</div>")[0]
    captions = re.findall(r'class="caption-text">([^<]+)<', sidebar)
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/index.md").read_text("utf-8"), re.MULTILINE)
    assert captions == [heading for heading in headings if heading in captions]
    assert {"Start", "Guides", "Reference", "Project"} <= set(captions)
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).with_suffix(".html").as_posix() for path in docs.rglob("*.md")}
    assert pages - {"index.html"} <= set(re.findall(r'href="([^"#]+)"', sidebar))


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: SimpleNamespace) -> None:
    loading = r"<(?:script|link|img|iframe|source|video)\b[^>]*(?:src|href)=\"(?:\w+:)?//"
    pages = sorted(site.folder.rglob("*.html"))
    assert len(pages) > 50
    assert not [page for page in pages if re.search(loading, page.read_text(encoding="utf-8"))]
    for path in site.folder.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(?:\w+:)?//", path.read_text(encoding="utf-8"))


# --- How it looks ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.mark.slow
def test_no_page_is_wider_than_a_phone_or_than_paper(
    site: SimpleNamespace, browser: Browser
) -> None:
    too_wide = []
    for page in sorted(site.folder.rglob("*.html")):
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})
        browser.width(400)
        browser.open(page.as_uri())
        if browser.run("return document.documentElement.scrollWidth > innerWidth"):
            too_wide.append((page, "phone"))
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        browser.width(PAPER)
        # Tables and code, too, because paper does not scroll.
        if browser.run(
            "return [...document.querySelectorAll('html, table, pre')]"
            ".some(one => one.getBoundingClientRect().right > innerWidth + 1"
            " || one.scrollWidth > one.clientWidth + 1)"
        ):
            too_wide.append((page, "paper"))
    assert not too_wide


@pytest.mark.slow
def test_wide_tables_scroll_in_their_own_box(site: SimpleNamespace, browser: Browser) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})
    browser.width(400)
    browser.open((site.folder / "benchmarks.html").as_uri())
    widest = browser.run(
        "return Math.max(...[...document.querySelectorAll('.table-wrapper')]"
        ".map(box => box.scrollWidth - box.clientWidth))"
    )
    assert widest > 100
    assert browser.run("return document.documentElement.scrollWidth") == 400


@pytest.mark.slow
def test_print_has_the_text_alone(site: SimpleNamespace, browser: Browser) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.width(PAPER)
    browser.open((site.folder / "register.html").as_uri())
    shown = "return [...document.querySelectorAll(arguments[0])].filter(x => x.offsetParent).length"
    around = (".sidebar-drawer", ".toc-drawer", ".mobile-header", ".copybtn", ".related-pages")
    for hidden in around:
        assert browser.run(shown, hidden) == 0, hidden
    assert browser.run(shown, "article h2") > 5
    assert browser.run("return getComputedStyle(document.querySelector('pre')).whiteSpace") == (
        "pre-wrap"
    )


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(
    site: SimpleNamespace, browser: Browser, scheme: str
) -> None:
    """Contrast of the text, links, code and tables, by the formula of WCAG, is 4.5 or more."""
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})
    browser.media(prefers_color_scheme=scheme)
    browser.width(1200)
    browser.open((site.folder / "register.html").as_uri())
    colours = browser.run(
        "const behind = x => { for (; x; x = x.parentElement) {"
        "  const colour = getComputedStyle(x).backgroundColor;"
        "  if (!/, 0\\)$/.test(colour)) return colour } return 'rgb(255, 255, 255)' };"
        "return ['article p', 'article p a', 'td', 'th', 'p code', 'pre', '.sidebar-tree a',"
        "  '.sidebar-tree .caption'].map(x => { const one = document.querySelector(x);"
        "  return [x, getComputedStyle(one).color, behind(one)] })"
    )
    assert len({back for _, _, back in colours}) > 1
    assert (luminance(colours[0][2]) < 0.1) == (scheme == "dark")
    for what, *pair in colours:
        dark, bright = sorted(map(luminance, pair))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, what


def luminance(colour: str) -> float:
    channels = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("refine-seconds", "reference/commands/register.html"),
        ("apply_to_points", "reference/python/apply-and-chain-transforms.html"),
        ("validation.give_up", "reference/settings.html"),
        ("lesion", "other-scans.html"),
    ],
)
def test_search_works_from_a_folder(
    site: SimpleNamespace, browser: Browser, words: str, page: str
) -> None:
    browser.open(f"{(site.folder / 'search.html').as_uri()}?q={words}")
    found = browser.wait(
        lambda: (
            [link.get_attribute("href") for link in browser.all("ul.search li a")]
            if "Search finished" in browser.find("#search-results").text
            or browser.all("ul.search li a")
            else None
        )
    )
    pages = {re.sub(r"[?#].*", "", link) for link in found}
    assert (site.folder / page).as_uri() in pages


# --- How it is made ------------------------------------------------------------------------------


def test_every_public_name_is_in_one_group(module: Callable) -> None:
    names = [name for group in module("api").GROUPS.values() for name in group]
    assert sorted([*names, "__version__"]) == sorted(voxwarp.__all__)


def test_every_command_has_a_guide_that_exists(module: Callable) -> None:
    guides = module("commands").GUIDES
    assert guides.keys() == PROGRAM.commands.keys()
    assert not [name for name in guides.values() if not (ROOT / f"docs/{name}.md").is_file()]


def test_links_lead_to_the_places_of_the_site(module: Callable) -> None:
    stage = module("stage")
    page = ROOT / "docs" / "benchmarks.md"
    text = (
        "[models.md](models.md#licence), [more](../README.md), [rows](../benchmarks/speed),\n"
        "[a](https://a.org), [here](#x) and ![picture](default.png)\n"
        "```bash\n[models.md](models.md)\n```\n"
        "[code](../examples/demo.py), [card](../src/voxwarp/models/any/README.md)\n"
    )
    assert stage._with_links(text, stage._links(page, text)) == (
        "[](/models.md#licence), [more](/readme.md), [rows](/files/benchmarks/speed/index.md),\n"
        "[a](https://a.org), [here](#x) and ![picture](/files/docs/default.png)\n"
        "```bash\n[models.md](models.md)\n```\n"
        "[code](/files/examples/demo.py.md), [card](/models/any.md)\n"
    )


def test_a_link_that_leads_nowhere_is_refused(module: Callable) -> None:
    stage = module("stage")
    page = ROOT / "docs" / "register.md"
    for target in ("nothing.md", "../../outside"):
        with pytest.raises(stage.BrokenLinkError, match=r"docs/register\.md: there is no "):
            stage._links(page, f"See [this]({target}).")


def test_the_index_is_the_sidebar(module: Callable) -> None:
    stage = module("stage")
    cells = "".join(f"| {cell} | more |\n" for cell in stage.GENERATED)
    index = f"# A\n\n## Start\n\n| [](/a/b.md) | x |\n| [C d](/c.md) | y |\n\n## Rest\n\n{cells}"
    contents = stage._with_sidebar(index).partition("```{toctree}")[2]
    assert contents.splitlines()[1:] == [
        *(":hidden:", ":caption: Start", "", "/a/b", "C d </c>", "```", ""),
        *("```{toctree}", ":hidden:", ":caption: Rest", ""),
        *("/reference/python/index", "/reference/commands/index", "/reference/settings", "```"),
    ]


def test_problems_of_built_pages_are_found(module: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">x</a><a href="b.html#not">x</a><a href="c.html">x</a>'
        '<a href="https://else.where">x</a><script src="https://cdn.org/x.js"></script>'
        '<img src="data:image/png;base64,AA"><img src="none.png"><a href="#own" id="own">x</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">x</h1><a href="">x</a>')
    (tmp_path / "a.css").write_text("@import 'https://fonts.org/a'; b {background: url(//x.y/z)}")
    assert module("check").problems(tmp_path) == [
        "a.html: it loads https://cdn.org/x.js",
        "a.html: b.html#not leads nowhere",
        "a.html: c.html leads nowhere",
        "a.html: none.png leads nowhere",
        "a.css: it loads https://fonts.org/a",
        "a.css: it loads //x.y/z",
    ]
