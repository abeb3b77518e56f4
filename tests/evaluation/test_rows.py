"""Files of rows: what is written can be read, and messages name what is wrong."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxwarp.errors import InputError
from voxwarp.evaluation.rows import (
    PAIR_COLUMNS,
    STRUCTURE_COLUMNS,
    TEXT_COLUMNS,
    read_rows,
    to_csv,
    write_rows,
)

COLUMNS = ("method", "dice", "folds")


def test_bytes_of_a_file(tmp_path: Path) -> None:
    rows = [
        {"method": "a, b", "dice": 0.123456789, "folds": 1234567},
        {"method": "two\nlines", "dice": math.nan},
        {"method": 'says "no"', "dice": np.float32(0.5), "folds": None},
        {"method": "large", "dice": -1234567.0, "folds": np.int64(0)},
    ]
    write_rows(tmp_path / "new" / "rows.csv", COLUMNS, rows)
    assert (tmp_path / "new" / "rows.csv").read_text(encoding="utf-8") == (
        "method,dice,folds\n"
        '"a, b",0.123457,1234567\n'
        "two lines,,\n"
        '"says ""no""",0.5,\n'
        "large,-1.23457e+06,0\n"
    )


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])),
            st.floats(allow_nan=True),
        )
    )
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_rows(path, ("method", "dice"), [{"method": m, "dice": d} for m, d in pairs])
    rows_read = read_rows(path, ("dice", "method"))
    assert [tuple(row) for row in rows_read] == [("dice", "method")] * len(pairs)
    for row, (method, dice) in zip(rows_read, pairs, strict=True):
        assert row["method"] == method
        rounded = float(f"{dice:.6g}")
        assert row["dice"] == rounded or (math.isnan(row["dice"]) and math.isnan(dice))


def test_empty_fields_and_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfnew,folds,method,dice\r\n1,,,0.5\r\n\r\nx, 3 ,m,\r\n")
    first, second = read_rows(path, COLUMNS)
    assert (first["method"], first["dice"]) == ("", 0.5)
    assert math.isnan(first["folds"])
    assert (second["method"], second["folds"]) == ("m", 3.0)
    assert math.isnan(second["dice"])


def test_the_caller_names_the_columns_of_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("subjects,dice\nall,1\n44,2\n")
    assert [r["subjects"] for r in read_rows(path, ("subjects",), text=("subjects",))] == [
        "all",
        "44",
    ]
    with pytest.raises(InputError, match="row 2, column subjects: must be a number, got 'all'"):
        read_rows(path, ("subjects",))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "no column method, dice, folds"),
        (b"method,dice\na,1\n", "no column folds"),
        (
            b"method,dice,folds\na,1,2\n\na,0;5,2\n",
            "row 4, column dice: must be a number, got '0;5'",
        ),
        (b"method,dice,folds\na,1,2\na,1\n", "row 3: has 2 fields, but row 1 has 3"),
        (b"method,dice,folds\na,1,2,3\n", "row 2: has 4 fields, but row 1 has 3"),
        (b"method,dice,folds\n\xff,1,2\n", "not a CSV file in UTF-8"),
        (b"method,dice,folds\n" + b"a" * 200_000 + b",1,2\n", "not a CSV file in UTF-8"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, payload: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(payload)
    with pytest.raises(InputError, match=message) as error:
        read_rows(path, COLUMNS)
    assert str(path) in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows .*absent\.csv: no such file"):
        read_rows(tmp_path / "absent.csv", COLUMNS)
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        read_rows(tmp_path, COLUMNS)


def test_a_column_too_many_is_a_bug_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, COLUMNS, [{"method": "a"}])
    with pytest.raises(ValueError, match="surface"):
        write_rows(path, COLUMNS, [{"method": "b"}, {"surface": 1}])
    assert path.read_bytes() == to_csv(COLUMNS, [{"method": "a"}])


def test_text_columns_are_columns() -> None:
    assert {*PAIR_COLUMNS, *STRUCTURE_COLUMNS} >= TEXT_COLUMNS
