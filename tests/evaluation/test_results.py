"""Folders of results: how they are merged, and when they are refused."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from voxwarp.errors import InputError
from voxwarp.evaluation.results import Results
from voxwarp.evaluation.rows import PAIR_COLUMNS, STRUCTURE_COLUMNS, Row, write_rows


def pair(method: str = "a", moving: str = "1", fixed: str = "2", **more: Any) -> Row:
    """An "ok" row of a pair; scans are their subjects."""
    subjects = {"moving_subject": moving, "fixed_subject": fixed}
    about = {"kind": "inter", "status": "ok", "labels": "nearest", "timed": "no", "device": "cpu"}
    return {"method": method, "moving": moving, "fixed": fixed, **subjects, **about, **more}


def structure(row: Row, dice: float) -> Row:
    about = {c: row[c] for c in STRUCTURE_COLUMNS if c in ("method", "kind", "moving", "fixed")}
    return {**about, "labels": row["labels"], "structure": "brain_stem", "dice": dice}


def folder(path: Path, *pairs: Row, marked: float = 0.5) -> Path:
    """A folder of results; all its structures have the same Dice, which marks the folder."""
    write_rows(path / "pairs.csv", PAIR_COLUMNS, pairs)
    of_each = [structure(row, marked) for row in pairs if row["status"] == "ok"]
    write_rows(path / "structures.csv", STRUCTURE_COLUMNS, of_each)
    return path


def test_a_timed_run_of_few_pairs_is_merged_with_an_untimed_one_of_all(tmp_path: Path) -> None:
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
    results = Results.load([everything, quiet])
    assert results.methods == ["a", "b", "c", "d"]
    chosen = {(row["method"], row["moving"]): row["dice"] for row in results.pairs}
    assert list(chosen.items()) == [
        (("a", "1"), 0.5),
        (("b", "1"), 0.2),
        (("a", "2"), 0.3),
        (("c", "1"), 0.6),
        (("d", "1"), 0.4),
    ]
    marks = {(row["method"], row["moving"]): row["dice"] for row in results.structures}
    assert marks == {
        ("a", "1"): 0.75,
        ("b", "1"): 0.25,
        ("a", "2"): 0.25,
        ("c", "1"): 0.75,
        ("d", "1"): 0.75,
    }
    # The timed limit of b counts beside its untimed Dice; so does the timed failure of c.
    assert [(row["method"], row["status"]) for row in results.timed] == [
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
        results = Results.load(folders)
        present = [i for i in range(3) if chosen[i]]
        best = max(present, key=lambda i: (worth.get(chosen[i], 0), -i), default=None)
        assert [row["dice"] for row in results.pairs] == ([] if best is None else [best])
        marked = best is not None and chosen[best][0] == "ok"
        assert [row["dice"] for row in results.structures] == ([best] if marked else [])


def test_times_of_two_devices_and_dice_of_one(tmp_path: Path) -> None:
    cpu = folder(tmp_path / "cpu", pair(timed="yes", deform_s=9, dice=0.5))
    gpu = folder(tmp_path / "gpu", pair(timed="yes", deform_s=1, dice=0.6, device="H100"))
    results = Results.load([cpu, gpu])
    assert [row["dice"] for row in results.pairs] == [0.5]
    assert {row["device"]: row["deform_s"] for row in results.timed} == {"cpu": 9, "H100": 1}


def test_labels_of_two_ways_are_kept_apart(tmp_path: Path) -> None:
    rows = pair(dice=0.5, timed="yes"), pair(dice=0.6, labels="linear")
    results = Results.load([folder(tmp_path / "both", *rows)])
    assert results.labels == ["nearest", "linear"]
    for labels, dice, timed in (("nearest", 0.5, 1), ("linear", 0.6, 0)):
        part = results.with_labels(labels)
        assert [row["dice"] for row in part.pairs] == [dice]
        assert [row["labels"] for row in part.structures] == [labels]
        assert len(part.timed) == timed


def test_rows_of_a_method() -> None:
    rows = [pair("a"), pair("a", "2", "1", status="failed"), pair("b"), pair("a", kind="retest")]
    results = Results(rows, [])
    assert results.rows_of("a", "inter") == rows[:1]
    assert results.rows_of("a", "inter", "failed") == rows[1:2]
    assert results.rows_of("a", "inter", None) == rows[:2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            pair(status="done"),
            "row 2, column status: must be one of ok, failed, time limit, got 'done'",
        ),
        (pair(kind="intra"), "row 2, column kind: must be one of inter, retest, got 'intra'"),
        (pair(labels="../up"), "row 2, column labels: must be one of nearest, linear, got '../up'"),
        (pair(timed=""), "row 2, column timed: must be one of yes, no, got ''"),
    ],
)
def test_unknown_values(tmp_path: Path, row: Row, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Results.load([folder(tmp_path, row)])


def test_two_rows_for_a_pair(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"row 4: second row of method 'a' for the pair 1, 2 \(labels"
    ):
        Results.load([folder(tmp_path, pair(), pair("b"), pair())])


def test_a_folder_that_lacks_a_file(tmp_path: Path) -> None:
    (folder(tmp_path, pair()) / "structures.csv").unlink()
    with pytest.raises(InputError, match=r"structures\.csv: no such file"):
        Results.load([tmp_path])


@pytest.mark.parametrize("part", ["structures", "regions", "image", "weights", "settings"])
def test_records_that_contradict_each_other_are_refused(tmp_path: Path, part: str) -> None:
    """Names must mean the same in all merged folders; the way of resampling may differ."""
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
            "methods": {
                "m": {"weights_sha256": "cd", "settings_sha256": "12"},
                f"only {number}": {"weights_sha256": "ef"},
            },
        }
        if part == "image" and number:
            record["inputs"]["x"]["image"]["sha256"] = "other"
        if part == "weights" and number:
            record["methods"]["m"]["weights_sha256"] = "other"
        if part == "settings" and number:
            record["methods"]["m"]["settings_sha256"] = "other"
        (folder / "benchmark.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"{tmp_path / 'b'}: the .*{part}.* differ from those in"):
        Results.load([tmp_path / "a", tmp_path / "b"])
    assert Results.load([tmp_path / "a"]).pairs == []
