"""Tables in Markdown."""

import re

import pytest
from result_rows import cohort, stopped, timed

from voxwarp.evaluation.captions import speed_caption
from voxwarp.evaluation.markdown import escaped, markdown
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.tables import table
from voxwarp.evaluation.times import speed


def test_markdown_of_a_table(small: Results) -> None:
    rows = table(small, "inter", reference="theirs")
    lines = markdown(rows).splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert all(re.fullmatch(":-+|-+:", cell) for cell in cells[1])
    ours, theirs, slow = (dict(zip(cells[0], row, strict=True)) for row in cells[2:])
    assert ours == {
        "Method": "ours",
        "Pairs": "6 of 6",
        "Dice (sd)": "0.750 (0.105)",
        "Worst pair": "0.600",
        "Difference [95 %]": "+0.100 [+0.100, +0.100]",
        "p": f"{rows[0]['p']:.3f}",
        "Dice, regions": "0.550",
        "HD95, mm": "2.00",
        "Folds, voxels": "2",
        "Folds, %": "<0.001",
        "Deformable, s": "2.50",
        "Whole command, s": "25.0",
        "Memory, MB": "102",
        "Remarks": "–",
    }
    assert theirs["Deformable, s"] == theirs["Memory, MB"] == "–"
    assert slow["Whole command, s"] == "> 1800"
    assert slow["Remarks"] == "1 of 1 stopped at its time limit"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("snake_case stays", "snake_case stays"),
        ("_a_ *b* `c` <d> [e] & ~f~", r"\_a\_ \*b\* \`c\` \<d> \[e\] \& \~f\~"),
        ("two\nlines", "two lines"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markdown_shows_names_as_they_are(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_a_bar_in_a_name_does_not_make_a_column() -> None:
    lines = markdown(table(cohort("a|b"), "inter")).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert r"a\|b" in lines[2]


def test_speed_as_it_is_written() -> None:
    rows = [timed("ours", 0, 2.0, 10.0), stopped("slow_", 0, "1800"), timed("affine", 0, 0.0, 8.0)]
    ratios = speed(Results(rows, []))
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in markdown(ratios).splitlines()]
    assert cells[0] == ["Method", "Pairs", "Device", "Deformable, ×", "Whole command, ×"]
    assert cells[2:] == [
        [r"slow\_", "1", "cpu", "> 900", "> 180"],
    ]
    caption = speed_caption(ratios)
    assert caption.startswith("Time of each method as a multiple of the time of ours: ")
    assert "> n: at least n" in caption
    rows = [rows[0], timed("theirs", 0, 4.0, 10.0)]
    assert "> n" not in speed_caption(speed(Results(rows, [])))
