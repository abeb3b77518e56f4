"""The tables and figures of the benchmark are those of its rows; see also ``test_numbers``."""

import json
from pathlib import Path

import pytest

from voxwarp.evaluation.figures.draw import draw
from voxwarp.evaluation.results import Results

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
ROWS = [BENCHMARKS / "oasis-malf", BENCHMARKS / "oasis-malf-timed"]
FIGURES = BENCHMARKS / "figures"
DOCUMENT = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("figures")
    draw(ROWS, out, learning=BENCHMARKS / "learning.csv", reference="pyramid")
    return out


def test_all_figures_are_there(drawn: Path) -> None:
    assert {path.name for path in drawn.iterdir()} == {path.name for path in FIGURES.iterdir()}


@pytest.mark.parametrize("name", ["table1", "retest", "speed"])
def test_tables_are_those_of_the_rows(drawn: Path, name: str) -> None:
    for ending in (".csv", ".md"):
        assert (drawn / name).with_suffix(ending).read_text() == (FIGURES / name).with_suffix(
            ending
        ).read_text()


@pytest.mark.parametrize("name", ["table1", "retest", "speed"])
def test_the_document_shows_the_table(name: str) -> None:
    table = (FIGURES / f"{name}.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert rows
    assert "\n".join(rows) in DOCUMENT


def test_records_have_relative_paths() -> None:
    """Paths in what is committed are relative: they are no use on another machine otherwise."""
    for folder in (*ROWS, BENCHMARKS / "oasis-malf-val"):
        record = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
        assert record["inputs"]
        paths = [file["path"] for of in record["inputs"].values() for file in of.values()]
        paths += [about.get("weights", "") for about in record["methods"].values()]
        assert not [path for path in paths if Path(path).is_absolute()]


def test_every_method_of_the_rows_is_explained() -> None:
    assert all(f"`{method}`" in DOCUMENT for method in Results.load(ROWS).methods)
