"""All files of a comparison, and the same bytes again."""

import csv
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from result_rows import cohort, pair, save

from voxwarp.errors import InputError
from voxwarp.evaluation.figures.boxplots import figure5
from voxwarp.evaluation.figures.dice_against_time import dice_against_time
from voxwarp.evaluation.figures.draw import draw
from voxwarp.evaluation.figures.rescans import rescans
from voxwarp.evaluation.figures.trainings import LEARNING_COLUMNS
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.rows import Row, write_rows
from voxwarp.evaluation.tables import table


def test_two_ways_of_the_labels_do_not_mix() -> None:
    results = cohort("a")
    results.pairs.append(pair("a", "p", "q", labels="linear"))
    for make in (figure5, dice_against_time, rescans):
        with pytest.raises(InputError, match=r"two ways \(nearest and linear\)"):
            make(results)


EVERYTHING = [
    *("table1.csv", "table1.md", "retest.csv", "retest.md", "speed.csv", "speed.md"),
    *("figure5.png", "figure5.svg"),
    *("dice_against_time.png", "dice_against_time.svg", "rescans.png", "rescans.svg"),
    *("smoothness.png", "smoothness.svg", "training_set.png", "training_set.svg"),
    *("learning.png", "learning.svg", "captions.md"),
]


def test_everything_and_the_same_bytes_again(tmp_path: Path, learning: list[Row]) -> None:
    names = "affine", "a|b & <c> $x$", "réf_1"
    folder = save(cohort(*names), tmp_path / "rows")
    source = tmp_path / "learning.csv"
    write_rows(source, LEARNING_COLUMNS, learning)
    files = draw([folder], tmp_path / "one", learning=source, reference="réf_1")
    assert [file.relative_to(tmp_path / "one").as_posix() for file in files] == EVERYTHING
    again = draw([folder], tmp_path / "two", learning=source, reference="réf_1")
    for one, two in zip(files, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    captions = (tmp_path / "one" / "captions.md").read_text(encoding="utf-8")
    items = list(dict.fromkeys(name.partition(".")[0] for name in EVERYTHING[:-1]))
    assert re.findall(r"^\*\*(\w+)\.\*\* ", captions, re.MULTILINE) == items
    for item in ("figure5", "dice_against_time", "rescans"):  # names can be searched for
        tree = ET.fromstring((tmp_path / "one" / f"{item}.svg").read_bytes())
        assert {*names} <= {"".join(node.itertext()) for node in tree.iter() if "text" in node.tag}
    with open(tmp_path / "one" / "table1.csv", newline="", encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    for row, line in zip(written, table(cohort(*names), "inter", reference="réf_1"), strict=True):
        assert row["method"] == line["method"]
        assert float(row["dice"]) == pytest.approx(line["dice"], rel=1e-5)


def test_linear_labels_have_files_of_their_own(tmp_path: Path) -> None:
    one, other = cohort("a"), cohort("a", "b", seed=1, labels="linear")
    both = Results(one.pairs + other.pairs, one.structures + other.structures)
    files = draw([save(both, tmp_path / "rows")], tmp_path / "out", reference="b")
    names = {file.name for file in files}
    assert {"table1.md", "table1-linear.md", "figure5-linear.svg"} <= names
    linear = (tmp_path / "out" / "table1-linear.md").read_text(encoding="utf-8")
    assert "by linear interpolation of each label" in linear
    assert f"{np.mean([row['dice'] for row in other.rows_of('b', 'inter')]):.3f} (" in linear


def test_trainings_alone(tmp_path: Path, learning: list[Row]) -> None:
    source = tmp_path / "learning.csv"
    write_rows(source, LEARNING_COLUMNS, learning)
    files = draw([], tmp_path / "out", learning=source, reference="default")
    assert [file.name for file in files] == EVERYTHING[-7:]


def test_trainings_without_rows_are_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path / "learning.csv", LEARNING_COLUMNS, [])
    folder = save(cohort("a"), tmp_path / "rows")
    files = draw([folder], tmp_path / "out", learning=tmp_path / "learning.csv")
    assert {"table1.md", "figure5.svg"} <= {file.name for file in files}


def test_figures_without_rows_are_left_out(tmp_path: Path) -> None:
    results = cohort("a", timed="no")
    inter = [row for row in results.pairs if row["kind"] == "inter"]
    files = draw([save(Results(inter, []), tmp_path / "rows")], tmp_path / "out")
    assert [file.name for file in files] == ["table1.csv", "table1.md", "captions.md"]


def test_nothing_to_draw(tmp_path: Path) -> None:
    failed = Results([pair("a", "p", "q", status="failed", reason="no memory")], [])
    with pytest.raises(
        InputError, match=r"rows .*rows: nothing to draw, because no pair has the status ok"
    ):
        draw([save(failed, tmp_path / "rows")], tmp_path / "out")
    with pytest.raises(
        InputError, match="rows: nothing to draw; give folders of evaluate or benchmark"
    ):
        draw([], tmp_path / "out")
    write_rows(tmp_path / "learning.csv", LEARNING_COLUMNS, [])
    with pytest.raises(InputError, match=r"rows .*learning\.csv: nothing to draw"):
        draw([], tmp_path / "out", learning=tmp_path / "learning.csv")
    with pytest.raises(InputError, match=r"rows .*rows, .*learning\.csv: nothing to draw"):
        draw([tmp_path / "rows"], tmp_path / "out", learning=tmp_path / "learning.csv")
    with pytest.raises(InputError, match="method 'b': has no rows; the methods with rows are: a"):
        draw([tmp_path / "rows"], tmp_path / "out", reference="b")
    assert not (tmp_path / "out").exists()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    with pytest.raises(
        InputError,
        match=r"figures need matplotlib, which is not installed: pip install 'voxwarp\[bench",
    ):
        draw([save(cohort("a"), tmp_path / "rows")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert table(cohort("a"), "inter")  # numbers need none
