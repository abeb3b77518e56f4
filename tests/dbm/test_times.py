"""Times of scans, in years."""

from pathlib import Path

import pytest

from voxwarp.cohort.bids_names import BidsName
from voxwarp.dbm.results import GroupResult, pairs_of
from voxwarp.dbm.times import read_times, years_between
from voxwarp.errors import InputError


def result(session: str) -> GroupResult:
    name = BidsName({"sub": "1", "ses": session}, "T1w", ".nii.gz")
    return GroupResult(f"sub-1_ses-{session}", name, "X", Path("a"), Path("b"))


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(row.replace(" ", "\t") for row in rows))
    return path


@pytest.mark.parametrize(
    ("column", "times", "expected"),
    [
        ("age", ("61.5", "63"), 1.5),
        ("years", ("0", "2.25"), 2.25),
        ("date", ("2020-01-01", "2021-01-01"), 366 / 365.25),
        ("acq_time", ("2020-01-01T10:00:00", "2020-07-01"), 182 / 365.25),
    ],
)
def test_times_are_read(tmp_path, column, times, expected) -> None:
    table = write(
        tmp_path / "t.tsv",
        f"participant_id session_id {column}",
        f"sub-1 ses-a {times[0]}",
        f"1 b {times[1]}",
    )
    found = read_times(table)
    assert years_between(result("a"), result("b"), found) == pytest.approx(expected)
    with pytest.raises(InputError, match="sub-1_ses-a must be later than sub-1_ses-b"):
        years_between(result("b"), result("a"), found)


def test_first_and_last_are_by_time_or_by_the_numbers_in_labels() -> None:
    scans = [result(session) for session in ("1", "10", "2")]
    assert [one.session for one in pairs_of(scans)[0]] == ["1", "10"]
    times = {("1", "1"): 5.0, ("1", "10"): 4.0, ("1", "2"): 3.0}
    assert [one.session for one in pairs_of(scans, times)[0]] == ["2", "1"]


def test_rows_without_a_time_matter_only_if_they_are_needed(tmp_path) -> None:
    table = write(tmp_path / "t.tsv", "participant_id session_id age", "1 a 50", "2 a n/a")
    assert read_times(table) == {("1", "a"): 50.0}
    for text in ("nan", "inf"):
        with pytest.raises(InputError, match="age must be a number"):
            read_times(write(tmp_path / "u.tsv", "participant_id session_id age", f"1 a {text}"))


def test_what_is_missing_is_told(tmp_path) -> None:
    header = "participant_id session_id age"
    table = write(tmp_path / "t.tsv", header, "1 a 50")
    with pytest.raises(InputError, match="no time of sub-1, ses-b"):
        years_between(result("a"), result("b"), read_times(table))
    with pytest.raises(InputError, match="no column one of age, years, date, acq_time"):
        read_times(write(tmp_path / "u.tsv", "participant_id session_id", "1 a"))
    with pytest.raises(InputError, match="no column session_id"):
        read_times(write(tmp_path / "v.tsv", "participant_id age", "1 4"))
    with pytest.raises(InputError, match="age must be a number, got 'old'"):
        read_times(write(tmp_path / "w.tsv", header, "1 a old"))
