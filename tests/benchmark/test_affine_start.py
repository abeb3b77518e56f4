"""The affine map that all methods start from."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmark_cohort import OPTIONS, POSES, Bench, affine_of, both_ways, chosen

from voxwarp.benchmark import affine_start
from voxwarp.errors import InputError
from voxwarp.preparation.examination import Examination
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume


def test_affine_stage_has_the_threads_of_the_methods(
    here, bench: Bench, cohort, tmp_path: Path, monkeypatch
):
    """Under other conditions it runs again for its time, but the earlier map stays."""
    seen, clock = [], SimpleNamespace(now=100.0, step=2.0)
    examine = affine_start.examine

    def watched(scan: Volume) -> Examination:
        seen.append(torch.get_num_threads())
        clock.now += clock.step
        return examine(scan)

    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    monkeypatch.setattr(affine_start, "examine", watched)
    pairs, before = both_ways(cohort), torch.get_num_threads()
    bench("quick_shift", pairs, options=replace(OPTIONS, threads=2))
    assert seen == [2, 2, 2], "once to warm up, then each scan"
    assert torch.get_num_threads() == before
    bench("shift", pairs, options=replace(OPTIONS, threads=2))
    assert len(seen) == 3, "earlier results are kept"
    path = tmp_path / "out" / "scans" / "a.json"
    first = json.loads(path.read_text())
    elsewhere = affine_of(replace(POSES["a"], shift=(50, 0, 0)))
    examine, clock.step = lambda scan: Examination("brain", scan.grid, elsewhere), 3.0
    bench("leaves_nothing", pairs, options=replace(OPTIONS, threads=1, alone=True))
    second = json.loads(path.read_text())
    assert second["template_to_scan"] == first["template_to_scan"]
    assert (second["threads"], second["alone"]) == (1, True)
    assert (first["seconds"], second["seconds"]) == (2, 3)


def test_head_is_refused_in_one_sentence(bench: Bench, cohort, monkeypatch):
    monkeypatch.setattr(
        affine_start, "examine", lambda scan: Examination("head", scan.grid, Affine(np.eye(4)))
    )
    with pytest.raises(InputError, match=r"a\.nii\.gz: is a head, .*voxwarp preprocess"):
        bench("quick_shift", chosen(cohort, ("a", "b")))
