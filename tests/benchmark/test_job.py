"""Jobs: what they write for methods, and how a method is timed."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from phantom_pair import BENT, TURNED, Case, unposed

from voxwarp._layout import AFFINE
from voxwarp.benchmark.job import AFFINE_ELASTIX, AFFINE_TEXT, REPEATS, Job, Run
from voxwarp.space.formats import read_affine


def test_affine_files_of_a_job_are_one_map(case: Case, tmp_path: Path):
    """For ITK, greedy and elastix, from the fixed to the moving scan, by way of the template."""
    case.job("affine", tmp_path).save()
    points = case.brain[:50]
    truth = unposed(replace(BENT, bend=0.0), TURNED(points))
    np.testing.assert_allclose(read_affine(tmp_path / AFFINE).map(points), truth, atol=1e-6)
    matrix = np.loadtxt(tmp_path / AFFINE_TEXT)  # greedy's: 4x4, RAS
    ones = np.column_stack([points, np.ones(len(points))])
    np.testing.assert_allclose((ones @ matrix.T)[:, :3], truth, atol=1e-6)
    assert "AffineTransform" in (tmp_path / AFFINE_ELASTIX).read_text()


def test_saved_job_is_read_from_anywhere(case: Case, tiny_model: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(case.folder)
    monkeypatch.setenv("VOXWARP_MODELS", os.path.relpath(tiny_model.parent))
    (tmp_path / "out").mkdir()
    job = case.job("network", Path(os.path.relpath(tmp_path / "out")), weights="tiny")
    job = replace(job, fixed="fixed.nii.gz", moving="./moving.nii.gz")
    path = job.save()
    monkeypatch.chdir("/")
    read = Job(**json.loads(path.read_text()))
    assert Path(read.fixed).samefile(case.folder / "fixed.nii.gz")
    assert Path(read.moving).samefile(case.folder / "moving.nii.gz")
    assert read.path.samefile(tmp_path / "out")
    assert Path(str(read.weights)).samefile(tiny_model)
    again = replace(
        read, fixed=job.fixed, moving=job.moving, folder=job.folder, weights=job.weights
    )
    assert again == job


def a_run(folder: Path, **more: object) -> Run:
    pose = np.eye(4).tolist()
    return Run(Job("affine", "fixed", "moving", pose, pose, str(folder), 1, **more))


@pytest.mark.parametrize(
    ("first", "repeat", "calls"), [(2.0, True, 1 + REPEATS), (12.0, True, 1), (2.0, False, 1)]
)
def test_quick_stage_is_repeated(monkeypatch, tmp_path, first: float, repeat: bool, calls: int):
    """The first run warms up; the median of the others is the time, and they are left out."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    took = iter([first, 0.5, 3.0, 0.7])
    seen = []

    def stage() -> int:
        clock.now += next(took)
        seen.append(len(seen))
        return seen[-1]

    run = a_run(tmp_path, repeat=repeat)
    assert run.deform(stage) == 0, "the first result is the one that counts"
    assert len(seen) == calls
    record = run.record()
    assert record["first_s"] == pytest.approx(first)
    assert record["seconds"]["deform"] == pytest.approx(0.7 if calls > 1 else first)
    assert record["repeated_s"] == pytest.approx(4.2 if calls > 1 else 0)
