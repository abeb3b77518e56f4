"""Row files: what is written is read, what is wrong is named, folders are joined by a rule."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxwarp.errors import InputError
from voxwarp.evaluation.rows import (
    PAIR_COLUMNS,
    STRUCTURE_COLUMNS,
    WORDS,
    Results,
    Row,
    read_rows,
    to_csv,
    write_rows,
)

COLUMNS = ("method", "dice", "folds")


def pair(method: str = "a", moving: str = "1", fixed: str = "2", **more: Any) -> Row:
    """An "ok" row of a pair; scans are their people."""
    people = {"moving_person": moving, "fixed_person": fixed}
    about = {"kind": "inter", "status": "ok", "labels": "nearest", "timed": "no", "device": "cpu"}
    return {"method": method, "moving": moving, "fixed": fixed, **people, **about, **more}


def structure(row: Row, dice: float) -> Row:
    about = {c: row[c] for c in STRUCTURE_COLUMNS if c in ("method", "kind", "moving", "fixed")}
    return {**about, "labels": row["labels"], "structure": "brain_stem", "dice": dice}


def folder(path: Path, *pairs: Row, marked: float = 0.5) -> Path:
    """A folder of results; all its structures have a Dice that tells it from others."""
    write_rows(path / "pairs.csv", PAIR_COLUMNS, pairs)
    of_each = [structure(row, marked) for row in pairs if row["status"] == "ok"]
    write_rows(path / "structures.csv", STRUCTURE_COLUMNS, of_each)
    return path


# ------------------------------------------------------------------------------------- one file


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
    found = read_rows(path, ("dice", "method"))
    assert [tuple(row) for row in found] == [("dice", "method")] * len(pairs)
    for row, (method, dice) in zip(found, pairs, strict=True):
        assert row["method"] == method
        rounded = float(f"{dice:.6g}")
        assert row["dice"] == rounded or (math.isnan(row["dice"]) and math.isnan(dice))


def test_empty_fields_and_columns_that_nobody_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfnew,folds,method,dice\r\n1,,,0.5\r\n\r\nx, 3 ,m,\r\n")
    first, second = read_rows(path, COLUMNS)
    assert (first["method"], first["dice"]) == ("", 0.5)
    assert math.isnan(first["folds"])
    assert (second["method"], second["folds"]) == ("m", 3.0)
    assert math.isnan(second["dice"])


def test_words_are_the_caller_s_choice(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("people,dice\nall,1\n44,2\n")
    assert [r["people"] for r in read_rows(path, ("people",), words=("people",))] == ["all", "44"]
    with pytest.raises(InputError, match="row 2, column people: 'all', wanted a number"):
        read_rows(path, ("people",))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "no column method, dice, folds"),
        (b"method,dice\na,1\n", "no column folds"),
        (b"method,dice,folds\na,1,2\n\na,0;5,2\n", "row 4, column dice: '0;5', wanted a number"),
        (b"method,dice,folds\na,1,2\na,1\n", "row 3: 2 fields, wanted 3 as in row 1"),
        (b"method,dice,folds\na,1,2,3\n", "row 2: 4 fields, wanted 3"),
        (b"method,dice,folds\n\xff,1,2\n", "a CSV file in UTF-8 is wanted"),
        (b"method,dice,folds\n" + b"a" * 200_000 + b",1,2\n", "a CSV file in UTF-8 is wanted"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, payload: bytes, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(payload)
    with pytest.raises(InputError, match=said) as error:
        read_rows(path, COLUMNS)
    assert str(path) in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows .*absent\.csv: no such file"):
        read_rows(tmp_path / "absent.csv", COLUMNS)
    with pytest.raises(InputError, match="a CSV file in UTF-8 is wanted"):
        read_rows(tmp_path, COLUMNS)


def test_a_column_too_many_is_a_bug_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, COLUMNS, [{"method": "a"}])
    with pytest.raises(ValueError, match="surface"):
        write_rows(path, COLUMNS, [{"method": "b"}, {"surface": 1}])
    assert path.read_bytes() == to_csv(COLUMNS, [{"method": "a"}])


def test_words_are_columns() -> None:
    assert {*PAIR_COLUMNS, *STRUCTURE_COLUMNS} >= WORDS


# --------------------------------------------------------------------------------- many folders


def test_a_quiet_run_of_few_pairs_goes_with_an_unquiet_one_of_all(tmp_path: Path) -> None:
    everything = folder(
        tmp_path / "all",
        pair("a", "1", "2", dice=0.1),
        pair("b", "1", "2", dice=0.2),
        pair("a", "2", "1", dice=0.3),
        pair("c", "1", "2", status="failed", reason="out of memory", timed="yes"),
        marked=0.25,
    )
    quiet = folder(
        tmp_path / "quiet",
        pair("d", "1", "2", dice=0.4, timed="yes"),
        pair("a", "1", "2", dice=0.5, timed="yes"),
        pair("c", "1", "2", dice=0.6),
        pair("b", "1", "2", status="time limit", reason="stopped after 9 s", timed="yes"),
        marked=0.75,
    )
    found = Results.load([everything, quiet])
    assert found.methods == ["a", "b", "c", "d"]
    chosen = {(row["method"], row["moving"]): row["dice"] for row in found.pairs}
    assert list(chosen.items()) == [
        (("a", "1"), 0.5),
        (("b", "1"), 0.2),
        (("a", "2"), 0.3),
        (("c", "1"), 0.6),
        (("d", "1"), 0.4),
    ]
    marks = {(row["method"], row["moving"]): row["dice"] for row in found.structures}
    assert marks == {
        ("a", "1"): 0.75,
        ("b", "1"): 0.25,
        ("a", "2"): 0.25,
        ("c", "1"): 0.75,
        ("d", "1"): 0.75,
    }
    # b's limit stays known beside its Dice; c failed on a quiet machine
    assert [(row["method"], row["status"]) for row in found.timed] == [
        ("c", "failed"),
        ("d", "ok"),
        ("a", "ok"),
        ("b", "time limit"),
    ]


def test_the_rule_by_brute_force(tmp_path: Path) -> None:
    """Every combination of three folders' rows for one pair."""
    states = [("ok", "yes"), ("ok", "no"), ("failed", "yes"), ("time limit", "no"), None]
    worth = {("ok", "yes"): 2, ("ok", "no"): 1}
    for number, chosen in enumerate(itertools.product(states, repeat=3)):
        folders = []
        for i, state in enumerate(chosen):
            rows = [pair(status=state[0], timed=state[1], dice=i)] if state else []
            folders.append(folder(tmp_path / f"{number}-{i}", *rows, marked=i))
        found = Results.load(folders)
        there = [i for i in range(3) if chosen[i]]
        best = max(there, key=lambda i: (worth.get(chosen[i], 0), -i), default=None)
        assert [row["dice"] for row in found.pairs] == ([] if best is None else [best])
        marked = best is not None and chosen[best][0] == "ok"
        assert [row["dice"] for row in found.structures] == ([best] if marked else [])


def test_times_of_two_devices_and_dice_of_one(tmp_path: Path) -> None:
    cpu = folder(tmp_path / "cpu", pair(timed="yes", deform_s=9, dice=0.5))
    gpu = folder(tmp_path / "gpu", pair(timed="yes", deform_s=1, dice=0.6, device="H100"))
    found = Results.load([cpu, gpu])
    assert [row["dice"] for row in found.pairs] == [0.5]
    assert {row["device"]: row["deform_s"] for row in found.timed} == {"cpu": 9, "H100": 1}


def test_labels_of_two_ways_are_kept_apart(tmp_path: Path) -> None:
    rows = pair(dice=0.5, timed="yes"), pair(dice=0.6, labels="linear")
    found = Results.load([folder(tmp_path / "both", *rows)])
    assert found.labels == ["nearest", "linear"]
    for labels, dice, timed in (("nearest", 0.5, 1), ("linear", 0.6, 0)):
        part = found.of(labels)
        assert [row["dice"] for row in part.pairs] == [dice]
        assert [row["labels"] for row in part.structures] == [labels]
        assert len(part.timed) == timed


def test_rows_of_a_method() -> None:
    rows = [pair("a"), pair("a", "2", "1", status="failed"), pair("b"), pair("a", kind="retest")]
    found = Results(rows, [])
    assert found.of_method("a", "inter") == rows[:1]
    assert found.of_method("a", "inter", "failed") == rows[1:2]
    assert found.of_method("a", "inter", None) == rows[:2]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (pair(status="done"), "row 2, column status: 'done', wanted one of ok, failed, time limit"),
        (pair(kind="intra"), "row 2, column kind: 'intra', wanted one of inter, retest"),
        (pair(labels="../up"), "row 2, column labels: '../up', wanted one of nearest, linear"),
        (pair(timed=""), "row 2, column timed: '', wanted one of yes, no"),
    ],
)
def test_words_that_mean_nothing(tmp_path: Path, row: Row, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Results.load([folder(tmp_path, row)])


def test_a_pair_that_is_there_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 4: method 'a' has the pair 1, 2 with nearest labels"):
        Results.load([folder(tmp_path, pair(), pair("b"), pair())])


def test_a_folder_that_lacks_a_file(tmp_path: Path) -> None:
    (folder(tmp_path, pair()) / "structures.csv").unlink()
    with pytest.raises(InputError, match=r"structures\.csv: no such file"):
        Results.load([tmp_path])


@pytest.mark.parametrize("part", ["structures", "regions", "image", "weights"])
def test_records_that_contradict_each_other_are_refused(tmp_path: Path, part: str) -> None:
    """Names mean the same in all folders that are joined; where labels went is not compared."""
    for number, folder in enumerate((tmp_path / "a", tmp_path / "b")):
        folder.mkdir()
        write_rows(folder / "pairs.csv", PAIR_COLUMNS, [])
        write_rows(folder / "structures.csv", STRUCTURE_COLUMNS, [])
        record = {
            "protocol": {
                "structures": ["s", str(number)] if part == "structures" else ["s"],
                "regions": [[1, 2 + number]] if part == "regions" else "all",
                "labels": ("nearest", "linear")[number],
            },
            "inputs": {"x": {"image": {"path": str(number), "sha256": "ab"}, "labels": None}},
            "methods": {"m": {"weights_sha256": "cd"}, f"only {number}": {"weights_sha256": "ef"}},
        }
        if part == "image" and number:
            record["inputs"]["x"]["image"]["sha256"] = "other"
        if part == "weights" and number:
            record["methods"]["m"]["weights_sha256"] = "other"
        (folder / "benchmark.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"{tmp_path / 'b'}: the {part}.* others than in"):
        Results.load([tmp_path / "a", tmp_path / "b"])
    assert Results.load([tmp_path / "a"]).pairs == []
