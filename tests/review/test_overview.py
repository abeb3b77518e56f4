"""``voxwarp report DIR...``: an overview of results, with outliers first."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest
from browser import Browser, chromium
from scipy import stats
from scipy.spatial.transform import Rotation
from webpages import HOSTILE, Parsed

from voxwarp._layout import METRICS, REPORT, WARPED
from voxwarp.errors import InputError
from voxwarp.review.overview import (
    MEASURES,
    OUTLIER_SCORE,
    Result,
    is_outlier,
    results_in,
    robust_scores,
    write_overview,
)

MEASURE = {measure.key: measure for measure in MEASURES}
ROLES = "moving", "fixed"
PIXEL = "data:image/jpeg;base64,/9j/4AAQSkZJRg=="


@pytest.fixture
def make(tmp_path) -> Callable[..., Path]:
    """Make the folder of a result with given measurements."""

    def folder(name: str, ncc: float = 0.8, report: bool = True, **more: object) -> Path:
        path = tmp_path / name
        path.mkdir(parents=True)
        record = {
            "inputs": {},
            "similarity": {"after": {"local_ncc": ncc, "correlation": 0.9}},
            "jacobian": {"folds": 0, "minimum": 0.1},
            "dice": {"mean": 0.7},
            "seconds": {"network": 1.5, "write": 2.0},
            "preparation": {
                "moving": {"template_to_scan": np.diag([1.1, 1.1, 1.1, 1]).tolist()},
                "fixed": {"template_to_scan": np.diag([-1, 1, 1, 1]).tolist()},
            },
            "warnings": [],
        }
        (path / METRICS).write_text(json.dumps(record | more))
        if report:
            (path / REPORT).write_text(f'<p><img id="thumbnail" src="{PIXEL}" alt="">')
        return path

    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def values(*numbers: float, key: str = "local_ncc") -> list[Result]:
    return [Result(Path(str(i)), {key: x}, ()) for i, x in enumerate(numbers)]


def test_scores_are_distances_from_the_median_in_robust_deviations():
    """SciPy's median and median absolute deviation."""
    numbers = np.random.default_rng(4).normal(0.8, 0.01, 21)
    expected = (numbers - np.median(numbers)) / stats.median_abs_deviation(numbers, scale="normal")
    scores = robust_scores(values(*numbers))
    got = [score["local_ncc"] for score in scores.values()]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_if_most_are_equal_a_minimal_spread_is_assumed():
    """A group of outliers stands out, however large; tiny differences do not."""
    scores = [
        s["folds"] for s in robust_scores(values(*[0] * 10, *[1000] * 3, key="folds")).values()
    ]
    assert scores == [0] * 10 + [1000] * 3
    equal = robust_scores(values(*[5] * 8, key="folds"))
    assert {s["folds"] for s in equal.values()} == {0}
    nearly = robust_scores(values(*[0.8] * 7, 0.801, 0.799))
    assert not any(is_outlier(MEASURE["local_ncc"], s["local_ncc"]) for s in nearly.values())


def test_few_results_have_no_outliers():
    assert all(not s for s in robust_scores(values(0.8, 0.8, 0.8, 0.1)).values())
    assert any(s for s in robust_scores(values(0.8, 0.8, 0.8, 0.8, 0.1)).values())


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("local_ncc", True, False),
        ("dice", True, False),
        ("folds", False, True),
        ("scale", True, True),
        ("seconds", False, False),
    ],
)
def test_outliers_are_on_the_bad_side(key, low, high):
    beyond = OUTLIER_SCORE + 0.1
    assert [is_outlier(MEASURE[key], z) for z in (-beyond, beyond)] == [low, high]
    assert not is_outlier(MEASURE[key], OUTLIER_SCORE - 0.1)


def test_measurements_of_a_result(make):
    result = Result.read(make("a"))
    assert result.values == pytest.approx(
        {
            **{"local_ncc": 0.8, "correlation": 0.9, "dice": 0.7, "folds": 0, "minimum": 0.1},
            **{"scale": 1.1, "seconds": 3.5},
        }
    )


def test_the_affine_scale_is_the_farthest_from_one(make):
    """So a wrong voxel size along one axis is visible."""
    turn = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([1.05, 0.7, 1.3]) @ turn.T
    maps = {"moving": matrix.tolist(), "fixed": np.diag([-1, 1, 1, 1]).tolist()}
    preparation = {role: {"template_to_scan": values} for role, values in maps.items()}
    assert Result.read(make("a", preparation=preparation)).values["scale"] == pytest.approx(0.7)


def test_results_are_found_at_any_depth_once(make, tmp_path):
    for name in ("b/ses-2", "b/ses-1", "a", ".hidden/x"):
        make(name)
    expected = [tmp_path / name for name in ("a", "b/ses-1", "b/ses-2")]
    assert sorted(results_in([tmp_path])) == expected
    assert results_in([tmp_path / "b" / "ses-2", tmp_path / "b"]) == expected[:0:-1]
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "gone"):
        with pytest.raises(InputError, match=wrong):
            results_in([tmp_path / "a", tmp_path / wrong])


def table(page: Path) -> list[tuple[str, str]]:
    """The name and the text of each row."""
    rows = re.findall(r"<tr>(.*?)</tr>", page.read_text(encoding="utf-8"), flags=re.DOTALL)[1:]
    parsed = [Parsed(f"<table><tr>{row}</tr></table>") for row in rows]
    return [
        (next(a["data-value"] or "" for a in p.all("th")), " ".join(p.words.split()))
        for p in parsed
    ]


def test_results_to_check_come_first_with_the_reason(make, tmp_path):
    for i in range(8):
        make(f"sub-{i}", ncc=0.8 + 0.001 * i)
    make("sub-bad", ncc=0.3)
    make("sub-warned", warnings=["look at it"])
    page = write_overview([tmp_path])
    assert page == tmp_path / "index.html"
    rows = table(page)
    assert len(rows) == 10
    assert [name for name, _ in rows[:2]] == ["sub-bad", "sub-warned"]
    words = dict(rows)
    assert "Local NCC 0.300 is an outlier (z = −" in words["sub-bad"]
    assert "look at it" in words["sub-warned"]
    assert "outlier" not in words["sub-3"]
    assert "2 results to check" in page.read_text()


def test_links_lead_to_the_reports(make, tmp_path):
    """With any names, and wherever the page is."""
    names = ["a & b", "100%", "<b>", "javascript:alert(1)", "ü #1?", 'quo"te']
    for name in names:
        make(name)
    make("none", report=False)
    page = write_overview([tmp_path], tmp_path / "pages" / "all.html")
    parsed = Parsed(page.read_text(encoding="utf-8"))
    links = [a["href"] or "" for a in parsed.all("a")]
    assert len(links) == len(names)
    for link in links:
        assert ":" not in link
        assert (page.parent / unquote(link)).resolve().is_file()
    assert "no report" in parsed.words


def test_a_record_that_cannot_be_read_has_a_row(make, tmp_path):
    make("good")
    for name, content in (
        ("cut", '{"inputs": {'),
        ("list", "[]"),
        ("binary", b"\xff\xfe\x00"),
        ("deep", "[" * 100_000),
        ("number", "9" * 5000),
    ):
        folder = tmp_path / name
        folder.mkdir()
        payload = content if isinstance(content, bytes) else content.encode()
        (folder / METRICS).write_bytes(payload)
    make("huge", preparation={r: {"template_to_scan": [[10**400] * 4] * 4} for r in ROLES})
    singular = np.diag([1e150, 1e150, 1e150, 1]).tolist()
    make("far", preparation={role: {"template_to_scan": singular} for role in ROLES})
    make("half", warnings=["\ud800"])
    make("nested", inputs=json.loads('{"a":' * 400 + "1" + "}" * 400))
    make("odd", similarity=[1], jacobian="no", dice=7, seconds={"a": "b"}, preparation=None)
    rows = dict(table(write_overview([tmp_path])))
    unread = {"cut", "list", "binary", "deep", "number"}
    assert rows.keys() == unread | {"good", "huge", "far", "half", "nested", "odd"}
    assert {n for n, words in rows.items() if "record of a registration" in words} == unread
    for name in ("huge", "far", "odd"):
        assert "scale" not in Result.read(tmp_path / name).values


def test_hostile_records_cannot_inject(make, tmp_path, browser):
    make("x", warnings=[HOSTILE], dice={"mean": HOSTILE}, inputs={HOSTILE: HOSTILE})
    bad = make("y")
    (bad / REPORT).write_text(f'<img id="thumbnail" src="data:image/jpeg;base64,{HOSTILE}"')
    page = write_overview([tmp_path])
    parsed = Parsed(page.read_text(encoding="utf-8"))
    assert len(parsed.all("script")) == 1
    assert HOSTILE in parsed.words
    assert all("onerror" not in a for _, a in parsed.elements)
    browser.open(page.as_uri())
    assert browser.driver.title == "2 registrations · voxwarp"


def test_thumbnails(make, tmp_path, phantoms, make_grid):
    """From the report; or of the moved scan; or none."""
    make("reported")
    moved = make("moved", report=False)
    nib.save(phantoms.image(make_grid()), moved / WARPED)
    make("neither", report=False)
    pictures = Parsed(write_overview([tmp_path]).read_text()).all("img")
    sources = {p["alt"]: p["src"] or "" for p in pictures}
    assert sources["Middle slices of reported"] == PIXEL
    assert len(sources["Middle slices of moved"]) > 1000
    assert "Middle slices of neither" not in sources


def test_as_a_command(make, tmp_path, cli, refuses):
    for i in range(3):
        make(f"sub-{i}")
    outcome = cli("report", *sorted(tmp_path.glob("sub-*")))
    assert outcome.code == 0, outcome.err
    assert outcome.out.split() == [str(tmp_path / "index.html")]
    assert cli("report", tmp_path).code == 0  # its own page is replaced
    (tmp_path / "index.html").write_text("somebody's page")
    assert "index.html" in refuses("report", tmp_path)
    assert cli("report", tmp_path, "--overwrite").code == 0
    assert "does not exist" in refuses("report", tmp_path / "gone")


def test_printed_columns_have_headings(make, tmp_path, browser):
    make("a", warnings=["a sentence"])
    browser.open(write_overview([tmp_path]).as_uri())
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.width(718)  # A4, at 96 dots an inch, less its margins
    try:
        assert all(head.text for head in browser.all("thead th"))
        assert browser.run("return document.documentElement.scrollWidth") <= 718
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_columns_sort(make, tmp_path, browser):
    """Numbers are sorted as numbers, blanks come last, and screen readers are informed."""
    for name, ncc in (("sub-2", 0.5), ("sub-10", 0.125), ("sub-1", 0.75)):
        make(name, ncc=ncc, jacobian={"folds": {"sub-2": 9, "sub-10": 10}.get(name)})
    browser.open(write_overview([tmp_path]).as_uri())
    heads = browser.all("thead th")

    def order() -> list[str]:
        return [cell.text for cell in browser.all("tbody th")]

    def click(title: str) -> str:
        (head,) = [h for h in heads if h.text.startswith(title)]
        head.find_element("css selector", "button").click()
        return head.get_attribute("aria-sort")

    assert click("Local NCC") == "ascending"
    assert order() == ["sub-10", "sub-2", "sub-1"]
    assert click("Local NCC") == "descending"
    assert order() == ["sub-1", "sub-2", "sub-10"]
    assert click("Folded") == "ascending"
    assert order() == ["sub-2", "sub-10", "sub-1"]
    assert click("Folded") == "descending"
    assert order() == ["sub-10", "sub-2", "sub-1"]
    assert click("Result") == "ascending"
    assert order() == ["sub-1", "sub-2", "sub-10"]
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [1400, 400])
def test_it_fits_the_window(make, tmp_path, browser, width):
    for i in range(6):
        make(f"sub-{i}", warnings=["of /a/long/path/to/" + 9 * "some_scan" + " a sentence " * 9])
    browser.width(width)
    browser.open(write_overview([tmp_path]).as_uri())
    assert browser.run("return document.documentElement.scrollWidth") <= width
    hidden = "const f = document.querySelector('.wide'); return f.scrollWidth - f.clientWidth"
    assert (browser.run(hidden) > 0) == (width == 400)
