"""The process of a method, started by hand."""

import json
import subprocess
import sys
from pathlib import Path

from phantom_pair import Case

from voxwarp._layout import WARP
from voxwarp.space.formats import read_warp


def test_module_runs_a_job(case: Case, tmp_path: Path):
    """``python -m voxwarp.benchmark.worker JOB.json``, as its documentation has it."""
    path = case.job("voxwarp.benchmark.methods.ours:affine", tmp_path).save()
    done = subprocess.run(
        [sys.executable, "-m", "voxwarp.benchmark.worker", path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    assert set(record["seconds"]) == {"deform", "write"} == set(record["memory_mb"])
    assert 20 < record["memory_mb"]["deform"] < 5000
    assert record["device"] == "cpu"
    assert not read_warp(tmp_path / WARP).displacement.any()
