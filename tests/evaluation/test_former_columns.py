"""Folders of results that earlier versions wrote, with the columns of persons, still work."""

from pathlib import Path

import pytest
from crop_study import TIMES, differing
from result_rows import cohort, save

from voxwarp.errors import InputError
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.rows import PAIR_COLUMNS, read_rows
from voxwarp.evaluation.tables import table

NAMES = {"moving_subject": "moving_person", "fixed_subject": "fixed_person"}


def rename_columns(path: Path) -> None:
    """Give the columns of a file the names that earlier versions wrote."""
    header, rows = path.read_text().split("\n", 1)
    for name, former in NAMES.items():
        assert name in header.split(",")
        header = header.replace(name, former)
    path.write_text(f"{header}\n{rows}")


def test_an_interrupted_evaluation_with_the_former_columns_continues(run, whole, tmp_path, study):
    """With the same rows as one that was not interrupted, and with today's columns."""
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    path = tmp_path / "out" / "pairs.csv"
    rename_columns(path)
    assert [row["moving_subject"] for row in read_rows(path, PAIR_COLUMNS)] == [
        "study/ann",
        "study/bob",
    ]
    assert len(run()) == 6
    assert path.read_text().partition("\n")[0] == ",".join(PAIR_COLUMNS)
    expected = read_rows(whole / "pairs.csv", PAIR_COLUMNS)
    assert differing(read_rows(path, PAIR_COLUMNS), expected) <= TIMES


def test_tables_of_rows_with_the_former_columns(tmp_path):
    results = cohort("affine", "a")
    folder = save(results, tmp_path / "rows")
    expected = table(Results.load([folder]), "inter")
    rename_columns(folder / "pairs.csv")
    assert str(table(Results.load([folder]), "inter")) == str(expected)


def test_messages_name_the_current_column(tmp_path):
    path = save(cohort("a"), tmp_path / "rows") / "pairs.csv"
    path.write_text(path.read_text().replace("moving_subject", "moving_human", 1))
    with pytest.raises(InputError, match="no column moving_subject"):
        Results.load([path.parent])
