"""What is to be done, and why."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from voxwarp.cohort.bids_names import BidsName
from voxwarp.cohort.dataset import CohortScan
from voxwarp.cohort.derivatives import record_path
from voxwarp.cohort.ledger import Entry, Ledger
from voxwarp.cohort.plan import plan
from voxwarp.cohort.settings import CohortSettings, common_basis
from voxwarp.networks.installed import find

SCAN = CohortScan(
    "sub-1", BidsName({"sub": "1"}, "T1w", ".nii.gz"), Path("x.nii.gz"), Path("sub-1/anat")
)
BASIS = {
    "version": {"voxwarp": "1"},
    "template": {"space": "X"},
    "model": {"weights": "a"},
    "settings": {"refine": False, "bias": None},
    "inputs": {"T1w": "hash"},
}


@pytest.fixture
def done(tmp_path: Path) -> Entry:
    (tmp_path / "f").write_bytes(b"123")
    return Entry("sub-1", "done", basis=BASIS, outputs={"f": 3})


def reason(out: Path, entry: Entry | None, basis=BASIS) -> str:
    entries = {} if entry is None else {entry.key: entry}
    (task,) = plan([(SCAN, basis)], out, "X", entries)
    return task.reason


def test_what_is_there_is_not_done_again(tmp_path, done) -> None:
    assert reason(tmp_path, done) == ""


@pytest.mark.parametrize(
    ("topic", "value", "said"),
    [
        ("version", {"voxwarp": "2"}, "another version of voxwarp (1 -> 2)"),
        ("template", {"space": "X", "image": "b"}, "another template"),
        ("model", {"weights": "b"}, "another model"),
        ("settings", {"refine": True, "bias": None}, "settings changed (refine: False -> True)"),
        ("inputs", {"T1w": "other"}, "T1w has changed"),
        ("inputs", {"T1w": "hash", "dseg": "b"}, "dseg is new"),
    ],
)
def test_what_follows_from_something_else_is_done_again(
    tmp_path, done, topic: str, value, said: str
) -> None:
    assert reason(tmp_path, done, {**BASIS, topic: value}) == said


def test_an_input_that_is_no_longer_wanted(tmp_path, done) -> None:
    more = replace(done, basis={**BASIS, "inputs": {"T1w": "hash", "T2w": "b"}})
    assert reason(tmp_path, more) == "T2w is no longer wanted"


def test_what_is_not_there_is_done(tmp_path, done) -> None:
    assert reason(tmp_path, None) == "new"
    assert reason(tmp_path, replace(done, state="failed", error="why")) == "failed before: why"
    (tmp_path / "f").write_bytes(b"1")
    assert reason(tmp_path, done) == "f has changed"
    (tmp_path / "f").unlink()
    assert reason(tmp_path, done) == "f is missing"


def test_a_result_that_is_not_in_the_ledger_is_known_by_its_record(tmp_path, done) -> None:
    """As after a kill between the two."""
    path = tmp_path / record_path(SCAN, "X")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cohort": {"basis": BASIS, "outputs": {"f": 3}}}))
    for entry in (None, replace(done, state="failed", error="why")):
        entries = {} if entry is None else {"sub-1": entry}
        (task,) = plan([(SCAN, BASIS)], tmp_path, "X", entries)
        assert (task.reason, task.is_lost) == ("", True)
        assert task.before.outputs == {
            "f": 3,
            record_path(SCAN, "X").as_posix(): path.stat().st_size,
        }
    other = {**BASIS, "inputs": {"T1w": "other"}}
    assert reason(tmp_path, None, other) == "T1w has changed"
    failed = replace(done, state="failed", error="why")
    assert reason(tmp_path, failed, other) == "failed before: why"
    (tmp_path / "f").unlink()
    assert reason(tmp_path, None) == "f is missing"
    path.write_text("{")
    assert reason(tmp_path, None) == "new"


def test_results_follow_from_the_weights_also_where_two_models_share_them(tmp_path) -> None:
    basis = common_basis(CohortSettings(model="fast"), Ledger(tmp_path))["model"]
    expected = {
        "model.json": find("fast") / "model.json",
        "weights.safetensors": find("default") / "weights.safetensors",
        "any/model.json": find("any") / "model.json",
        "any/weights.safetensors": find("any") / "weights.safetensors",
    }
    assert basis == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in expected.items()
    }
