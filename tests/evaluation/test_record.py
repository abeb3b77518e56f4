"""Records: valid JSON, unique names of scans, and the machines of earlier rows."""

import json
import math

import numpy as np
import pytest

from voxwarp.data.pairs import Pair, PairScan
from voxwarp.errors import InputError
from voxwarp.evaluation.record import earlier_machines, inputs_of, write_record


def test_records_are_json(tmp_path):
    """NaN and infinity become null, and keys strings."""
    record = {"a": math.nan, 2: [math.inf, (1.5, -math.inf)], "c": {"d": np.float64("nan")}}
    write_record(tmp_path / "r.json", record)
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "2": [None, [1.5, None]],
        "c": {"d": None},
    }


def test_two_scans_with_one_name_are_refused(study):
    """The record is by name, so it would hold only one of them."""
    path = study / "t1" / "p0.nii.gz"
    pairs = [
        Pair(PairScan("a", path), PairScan("b", path)),
        Pair(PairScan("a", study / "t1" / "p1.nii.gz"), PairScan("b", path)),
    ]
    with pytest.raises(InputError, match=r"pairs: two scans, .*have the name 'a'"):
        inputs_of(pairs)


def test_machines_of_earlier_rows():
    """Each except this one, whose unknown values are null in JSON."""
    here = {"processor": "a", "memory_gb": math.nan}
    other = {"processor": "b", "memory_gb": 8.0}
    assert earlier_machines({}, here) == {}
    assert earlier_machines({"machine": {"processor": "a", "memory_gb": None}}, here) == {}
    before = {"machine": other, "earlier_machines": [{"processor": "c"}]}
    assert earlier_machines(before, here) == {"earlier_machines": [{"processor": "c"}, other]}
    back = {"machine": here | {"memory_gb": None}, "earlier_machines": [other]}
    assert earlier_machines(back, here) == {"earlier_machines": [other]}
