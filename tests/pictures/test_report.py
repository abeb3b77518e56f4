"""``report.html``: complete, escaped and readable; opened in Chromium."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browser import Browser, chromium
from hypothesis import given, settings
from hypothesis import strategies as st
from webpages import HOSTILE, Parsed

from voxwarp._layout import REPORT
from voxwarp.pictures import pages
from voxwarp.pictures.pages import number
from voxwarp.pictures.report import SCRIPT, report, template_values
from voxwarp.registration.result import Registration


@pytest.fixture(scope="module")
def result(phantoms, poses, unlike_grids, register_quickly, tmp_path_factory) -> Registration:
    """A head and a brain with labels, and with file names that look like markup."""
    folder = tmp_path_factory.mktemp("scans")
    paths = {}
    for role, grid in unlike_grids.items():
        pose = getattr(poses, role)
        paths[role] = folder / f"{role} <b> & 'quoted' \"twice\" ü.nii.gz"
        paths[f"{role}_labels"] = folder / f"{role}_labels.nii.gz"
        nib.save(phantoms.image(grid, pose, np.int16), paths[role])
        nib.save(phantoms.labels(grid, pose), paths[f"{role}_labels"])
    mask = nib.load(paths["moving"])
    filled = (np.asarray(mask.dataobj) > 40).astype(np.uint8)
    nib.save(nib.Nifti1Image(filled, mask.affine), folder / "mask.nii.gz")
    return register_quickly(
        paths["moving"],
        paths["fixed"],
        labels=paths["moving_labels"],
        fixed_labels=paths["fixed_labels"],
        mask=folder / "mask.nii.gz",
    )


@pytest.fixture(scope="module")
def text(result) -> str:
    return report(result.scene, result.metrics, name="<i>sub-01</i>")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def test_it_is_self_contained(text):
    """It has no address except data URIs, and is smaller than 5 MB."""
    assert len(text.encode()) < 5e6
    parsed = Parsed(text)
    assert not parsed.all("link")
    for _, attributes in parsed.elements:
        for name in ("src", "href"):
            if value := attributes.get(name):
                assert value.startswith(("data:image/", "#")), value[:50]
    assert "http" not in re.sub(r"data:[^\"]*", "", text).replace("http-equiv", "")
    assert "@import" not in text
    assert "url(" not in text


def test_only_its_own_script_may_run(text):
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(m["content"] for m in Parsed(text).all("meta") if "http-equiv" in m)
    assert f"script-src 'sha256-{digest}'" in (policy or "")
    assert "default-src 'none'" in (policy or "")


def test_panels_numbers_and_settings_are_in_it(text, result):
    parsed = Parsed(text)
    keys = [a["id"] for a in parsed.all("figure")]
    assert keys == [
        *("comparison", "contours", "labels", "checkerboard", "difference", "grid"),
        *("jacobian", "moving_brain"),
    ]
    for text_part in ("Dice of each label", "Time of each stage", "Settings", "Versions", "Inputs"):
        assert text_part in parsed.words
    for label, value in result.metrics["dice"]["per_label"].items():
        assert str(label) in parsed.words
        assert number(value) in parsed.words
    assert result.metrics["inputs"]["moving"]["sha256"] in parsed.words
    assert parsed.words.index("warning") < parsed.words.index("Fixed and moved")


def test_every_picture_has_an_alternative_text(text):
    """Except overlays, which belong to the picture below them."""
    parsed = Parsed(text)
    pictures = parsed.all("img")
    assert all("alt" in p for p in pictures)
    described = [p["alt"] for p in pictures if p["alt"]]
    assert len(described) >= 3 * 10
    assert len(set(described)) == len(described)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert parsed.all("html")[0]["lang"] == "en"
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    for _, attributes in parsed.elements:
        if named := attributes.get("aria-labelledby"):
            assert named in ids


def test_names_are_escaped(text, result):
    """Markup in names of files and folders is shown as text."""
    parsed = Parsed(text)
    assert Path(result.metrics["inputs"]["moving"]["path"]).name in parsed.words
    assert "<i>sub-01</i>" in parsed.words
    assert not parsed.all("b")
    assert not parsed.all("i")


def hostile(value: object) -> object:
    """A record with markup in place of every text."""
    if isinstance(value, dict):
        return {f"{key}": hostile(inner) for key, inner in value.items()} | {HOSTILE: HOSTILE}
    if isinstance(value, list):
        return [hostile(inner) for inner in value] + [HOSTILE]
    return HOSTILE if isinstance(value, str) else value


def test_a_hostile_record_cannot_inject(result, browser, tmp_path):
    bad = hostile(json.loads(json.dumps(result.metrics)))
    bad["warnings"] = [HOSTILE, 7, None]
    text = report(result.scene, bad, name=HOSTILE)
    parsed = Parsed(text)
    assert HOSTILE in parsed.words
    assert len(parsed.all("script")) == 1
    assert all("onerror" not in a for _, a in parsed.elements)
    path = tmp_path / REPORT
    path.write_text(text, encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.driver.title.endswith("voxwarp")
    assert browser.complaints() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
PARTS = (
    *("versions", "inputs", "model", "settings", "preparation", "grids", "seconds"),
    *("similarity", "dice", "jacobian", "warnings"),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(PARTS), JSON))
def test_any_record_gives_a_page(record):
    """Its parts may be of any type or missing."""
    without_pictures = {"panels": [], "thumbnail": "", "thumbnail_id": "t", "name": ""}
    text = pages.page("report.html", SCRIPT, **without_pictures, **template_values(record))
    Parsed(text)


# In the browser


@pytest.fixture
def opened(browser, text, tmp_path) -> Browser:
    path = tmp_path / "a <report> & 'more' ü.html"
    path.write_text(text, encoding="utf-8")
    browser.width(1400)
    browser.media(prefers_color_scheme="light")
    browser.open(path.as_uri())
    return browser


SHOWN = """
return [...document.querySelectorAll('#comparison .layer')].map(
    layer => Number(getComputedStyle(layer).opacity));
"""


def test_no_complaints_and_all_pictures_are_drawn(opened):
    assert opened.complaints() == []
    sizes = opened.run("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(sizes) > 30
    assert all(sizes)


def test_flicker_by_mouse_key_and_button(opened):
    """One of the three pictures is visible at any time; the radio buttons work without a script."""
    assert opened.run(SHOWN) == [1, 0, 0]
    opened.point_at(opened.find("#comparison .stack"))
    assert opened.run(SHOWN) == [0, 1, 0]
    opened.point_at(opened.find("h1"))
    assert opened.run(SHOWN) == [1, 0, 0]
    opened.press("f")
    assert opened.run(SHOWN) == [0, 1, 0]
    opened.press("f")
    assert opened.run(SHOWN) == [1, 0, 0]
    opened.all("#comparison input")[2].click()
    opened.point_at(opened.find("h1"))
    assert opened.run(SHOWN) == [0, 0, 1]
    button = opened.find("#flicker")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    opened.point_at(opened.find("h1"))
    for expected in ([1, 0, 0], [0, 1, 0], [1, 0, 0]):
        opened.wait(lambda expected=expected: opened.run(SHOWN) == expected)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert opened.complaints() == []


def test_it_flickers_without_scripts(browser, text, tmp_path):
    path = tmp_path / REPORT
    path.write_text(text, encoding="utf-8")
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(path.as_uri())
        browser.point_at(browser.find("h1"))
        before = browser.find("#comparison .stack").screenshot_as_png
        browser.point_at(browser.find("#comparison .stack"))
        assert browser.find("#comparison .stack").screenshot_as_png != before
        assert not browser.find("#flicker").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("width", [1400, 400])
def test_it_fits_the_window(opened, width):
    """Pictures scroll within their frame on a narrow one; the page does not."""
    opened.width(width)
    assert opened.run("return document.documentElement.scrollWidth") <= width
    frames = opened.run(
        "return [...document.querySelectorAll('.scroll')].map(f => f.scrollWidth - f.clientWidth)"
    )
    assert (max(frames) > 0) == (width == 400)


def contrast(colours: list[str]) -> float:
    """WCAG's ratio of two colours of CSS."""
    luminance = []
    for colour in colours:
        parts = np.array([float(x) for x in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        luminance.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(luminance) / min(luminance)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark(opened, scheme):
    opened.media(prefers_color_scheme=scheme)
    back = opened.run("return getComputedStyle(document.body).backgroundColor")
    assert (contrast([back, "rgb(0, 0, 0)"]) > 10) == (scheme == "light")
    for selector in ("body", ".soft", "a", "figcaption", "dt"):
        shown = opened.find(selector)
        colour = opened.run("return getComputedStyle(arguments[0]).color", shown)
        assert contrast([back, colour]) > 4.5, selector
    heading = opened.find(".verdict h2")
    on = opened.run("return getComputedStyle(arguments[0].parentElement).backgroundColor", heading)
    assert contrast([opened.run("return getComputedStyle(arguments[0]).color", heading), on]) > 4.5


def test_print_shows_both_scans(opened):
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert opened.run(SHOWN) == [1, 1, 1]
        assert opened.find("#h-provenance").is_displayed()
        places = opened.run(
            "return [...document.querySelectorAll('#comparison .layer')]"
            ".map(layer => layer.getBoundingClientRect().top)"
        )
        assert places == sorted(set(places))  # one below the other
        assert not opened.find("#flicker").is_displayed()
    finally:
        opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_names_that_are_not_unicode(result):
    """File names on Linux need not be UTF-8."""
    inputs = {"moving": {"path": "/a/m\udcff.nii.gz", "sha256": "0"}, "fixed": None}
    text = report(result.scene, result.metrics | {"inputs": inputs}, name="\ud800")
    assert "m?.nii.gz → the fixed scan" in Parsed(text).words


def test_a_large_report_has_coarser_pictures(result, text, monkeypatch):
    monkeypatch.setattr("voxwarp.pictures.report.MAX_BYTES", len(text) - 1)
    smaller = report(result.scene, result.metrics, name="<i>sub-01</i>")
    assert len(smaller) < len(text)
    assert len(Parsed(smaller).all("img")) == len(Parsed(text).all("img"))
