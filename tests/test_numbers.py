"""Every result in README, docs and model cards is that of the committed rows; none is unlisted."""

import json
import re

import pytest
from claims import CLAIMS, ROOT, mean, of_card, pairs

CARDS = ROOT / "src" / "voxwarp" / "models"


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CLAIMS)
def test_numbers_are_those_of_the_rows(name: str) -> None:
    missing = [claim for claim in CLAIMS[name]() if words(claim) not in words(page(name))]
    assert not missing


# A result: a score, or a measured time, distance, memory, share or factor.
RESULT = re.compile(
    r"(?<![\w.])0\.\d{3}\b"
    r"|(?<![\w.^×])\d+(?:\.\d+)? (?:s|mm|GB|MB|minutes|seconds|%|times|points)(?!\w)"
)
# What looks so and is none: settings, sizes and definitions.
SETTINGS = {
    "README.md": {"2 mm"},
    "docs/quick-start.md": set(),
    "docs/tutorials/one-scan.md": set(),
    "docs/tutorials/labels-and-points.md": set(),
    "docs/tutorials/cohort.md": set(),
    "docs/tutorials/template-and-group-map.md": {"1 mm", "2 mm", "8 mm"},
    "docs/tutorials/train-your-own.md": {"1 mm"},
    "docs/tutorials/compare-with-other-tools.md": set(),
    "docs/register.md": {"20 %"},
    "docs/command-line.md": set(),
    "docs/look.md": set(),
    "docs/install.md": set(),
    "docs/how-to/container.md": set(),
    "docs/cohort.md": set(),
    "docs/transforms.md": set(),
    "docs/templates.md": {"1 mm"},
    "docs/morphometry.md": {"10.5 %", "9.5 %", "6 mm", "8 mm", "10 %", "15 mm", "25 mm"},
    "docs/preparation.md": {"1 mm", "255 mm", "6 mm", "2 mm", "1074 MB", "(1074 by default)"},
    "docs/python.md": set(),
    "docs/evaluation.md": set(),
    "docs/models.md": {"1 mm", "2 mm"},
    "docs/method.md": {"0.045", "1 mm", "2 mm", "4 mm"},
    "docs/conventions.md": {"0.1 µm", "1 mm", "2 mm", "6 mm", "8 mm", "10 mm", "12 mm"}
    | {"13 mm", "97 %", "2 %", "5 %", "0.045"},
    "docs/training.md": set(),
    "docs/other-scans.md": {"0.045", "100 mm", "5 mm", "12 mm", "40 mm", "10 mm", "1 mm", "20 %"},
    "docs/unusual-files.md": {"2 mm", "2.5 m", "15 mm", "5 %"},  # see tests/test_docs.py
    "docs/limits.md": set(),
    **{f"docs/how-to/{path.name}": set() for path in (ROOT / "docs" / "how-to").glob("*.md")},
    "docs/how-to/coming-from-freesurfer.md": {"1 mm"},
    "benchmarks/README.md": {"1 mm", "2 mm", "4 mm"},
}


def unlisted(name: str, text: str) -> set[str]:
    """Results on a page that no claim has."""
    for fence in ("```[^`]*?```", r"<!--.*?-->"):
        text = re.sub(fence, " ", text, flags=re.DOTALL)
    text = words(text)
    for claim in CLAIMS.get(name, list)():
        text = text.replace(words(claim), " ")
    return set(RESULT.findall(text)) - SETTINGS[name]


@pytest.mark.parametrize("name", SETTINGS)
def test_no_other_result_is_on_the_page(name: str) -> None:
    assert not unlisted(name, page(name))


def test_a_result_without_a_row_is_found() -> None:
    more = page("README.md") + "\nIt reaches 0.999 in 3 s, or 2.5 mm.\n"
    assert unlisted("README.md", more) == {"0.999", "3 s", "2.5 mm"}


def test_every_page_is_checked() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    # Tables that another test makes, thresholds, and an index.
    others = {"docs/benchmarks.md", "docs/thresholds.md", "docs/index.md"}
    assert names - others == {name for name in SETTINGS if name.startswith("docs/")}


@pytest.mark.parametrize("name", [path.parent.name for path in sorted(CARDS.glob("*/README.md"))])
def test_scores_of_a_card_are_those_of_the_rows(name: str) -> None:
    claims = of_card(name, (CARDS / name / "README.md").read_text(encoding="utf-8"))
    assert claims
    assert [shown for shown, _ in claims] == [computed for _, computed in claims]


@pytest.mark.parametrize("name", ["default", "fast"])
def test_scores_in_the_file_of_a_model_are_those_of_the_rows(name: str) -> None:
    scores = json.loads((CARDS / name / "model.json").read_text())["card"]["scores"]
    assert f"test, {name}" in scores
    for key, about in scores.items():
        split, method = key.replace(" --", "+").split(", ")
        done = pairs(split, method)
        assert about == {
            "pairs": len(done),
            "dice_30": pytest.approx(mean("dice", done), abs=6e-5),
            "dice_regions": pytest.approx(mean("dice_regions", done), abs=6e-5),
            "folded_voxels": pytest.approx(mean("folds_any", done), abs=0.06),
        }
