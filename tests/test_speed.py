"""``benchmarks/speed.py``: floors of known work, rows of known runs, what its commands do."""

import argparse
import gzip
import importlib
import os
import resource
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def floors(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("floors")


@pytest.fixture
def speed(floors: ModuleType) -> ModuleType:
    return importlib.import_module("speed")


def test_floor_is_the_longest_of_what_has_to_be_done(floors) -> None:
    rates = floors.Work(moved=10, flops=100, inflated=5, deflated=2, seconds=1)
    for work, expected in (
        (floors.Work(moved=30, flops=200), (3, "moved")),
        (floors.Work(moved=30, flops=400), (4, "flops")),
        (floors.Work(inflated=10, deflated=6), (3, "deflated")),
        (floors.Work(seconds=0.5), (0.5, "seconds")),
        (floors.Work(), (0, "")),
    ):
        assert floors.floor(work, rates) == expected


def test_size_without_compression(floors, tmp_path) -> None:
    payload = bytes(range(256)) * 40
    for name, contents in (("a.nii", payload), ("a.nii.gz", gzip.compress(payload))):
        (tmp_path / name).write_bytes(contents)
        assert floors.uncompressed(tmp_path / name) == len(payload)


def test_operations_of_convolutions_are_those_of_their_shapes(floors) -> None:
    """Each output value takes a product and a sum for each weight of its channel."""
    halved = torch.nn.Conv3d(2, 5, 3, stride=2, padding=1)
    doubled = torch.nn.ConvTranspose3d(5, 4, 2, stride=2)
    volume = torch.zeros(1, 2, 8, 6, 4)
    expected = 2 * 27 * 2 * 5 * (4 * 3 * 2) + 2 * 8 * 5 * 4 * (4 * 3 * 2)
    assert floors.flops(lambda: doubled(halved(volume))) == expected


def test_bytes_of_a_descent(floors) -> None:
    """Ten steps at half the resolution, of a box of 8³ in a grid of 10³, with 3 maps at a quarter.

    At half the resolution the box has 64 voxels.
    """
    steps = 10 * (3 + 2 + 3) * 64
    maps = 10 * 2 * 3 * 8
    expected = 4 * (steps + maps + 3 * 1000)
    assert floors.moved_by_steps(Counter({2: 10}), (8, 8, 8), (10, 10, 10), (3, 4)) == expected


def test_work_of_stages(floors, tmp_path) -> None:
    scan = tmp_path / "moving.nii"
    scan.write_bytes(bytes(700))
    metrics = {
        "grids": {"fixed": {"shape": [10, 10, 10]}, "moving": {"shape": [5, 5, 4]}},
        "inputs": {"moving": {"path": str(scan)}, "fixed": {"template": "MNI152"}, "mask": None},
        "preparation": {"moving": {"seen_as": "head"}, "fixed": {"seen_as": "brain"}},
    }
    core = {"working": [2, 3, 4], "work": {"network": [12, 34, 0, 0, 0]}}
    found = floors.work_of_stages(metrics, 5000, core, imports=1.5, deepbet=99)
    assert found == {
        "start": floors.Work(seconds=1.5),
        "read": floors.Work(inflated=700),
        "prepare": floors.Work(moved=4 * (1000 + 100 + 2 * 24), flops=99),
        "network": floors.Work(12, 34),
        "compose": floors.Work(moved=4 * (3 * 24 + 9 * 1000)),
        "resample": floors.Work(moved=4 * (2 * 1100 + 6000)),
        "measure": floors.Work(moved=4 * 5 * 24),
        "write": floors.Work(deflated=5000),
        "exit": floors.Work(),
    }


def test_exit_is_what_no_other_stage_has(speed, floors) -> None:
    runs = [
        {"seconds": whole, "metrics": {"seconds": {"start": 1.0, "write": write}}}
        for whole, write in ((4.0, 2.0), (6.0, 3.0), (9.0, 2.5))
    ]
    work = {"start": floors.Work(seconds=0.5), "write": floors.Work(), "exit": floors.Work()}
    rows = speed.stage_rows("default", runs, work, floors.Work(1, 1, 1, 1, 1))
    found = [(row["stage"], row["seconds"], row["ratio"]) for row in rows]
    assert found == [("start", 1.0, 2.0), ("write", 2.5, ""), ("exit", 2.0, "")]
    assert [(row["seconds_min"], row["seconds_max"]) for row in rows][1] == (2.0, 3.0)


def test_ratios_compare_registrations_of_the_pair_alone(speed) -> None:
    seconds = {"default": 5.0, "pyramid": 60.0, "apply": 1.0, "greedy": 45.0}
    rows = speed.with_ratios([{"command": n, "seconds": s} for n, s in seconds.items()])
    assert [row["greedy_ratio"] for row in rows] == [9.0, 0.75, "", ""]
    assert {row["antspyx_ratio"] for row in rows} == {""}


def test_memory_and_time_are_those_of_the_process(speed, tmp_path) -> None:
    code = "import time; x = bytearray(800_000_000); x[::4096] = b'1' * len(x[::4096])"
    found = speed.run([[sys.executable, "-c", f"{code}; time.sleep(0.5)"]], os.environ)
    # Until the process has memory of its own, its peak is that of pytest, which starts it.
    pytests = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    assert 800 <= found["peak_mb"] < max(900, 1.1 * pytests)
    assert found["seconds"] >= 0.5
    with pytest.raises(SystemExit, match="no such thing"):
        speed.run([[sys.executable, "-c", "raise SystemExit('no such thing')"]], os.environ)


def test_busy_cores_are_those_of_others(speed, monkeypatch, tmp_path) -> None:
    """Of 4 cores, 1.5 were busy: of 800 ticks 500 passed idle or waiting for a disk."""
    readings = iter(["cpu 100 0 100 400 100 0 0 0 0 0", "cpu 300 0 180 800 200 0 0 20 0 0"])
    monkeypatch.setattr(Path, "read_text", lambda path: next(readings))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert speed.busy_cores(0) == pytest.approx(4 * (1 - 500 / 800))


def test_a_busy_machine_is_refused(speed, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.7, 0.1, 0.1))
    monkeypatch.setattr(sys, "argv", ["speed.py", str(tmp_path), "moving.nii", "fixed.nii"])
    with pytest.raises(SystemExit, match=r"load average is 0\.70"):
        speed.main()
    assert list(tmp_path.iterdir()) == []


def test_heads_are_measured_if_they_are_given(speed, tmp_path) -> None:
    given = {"moving": Path("/m"), "fixed": Path("/f"), "threads": 2}
    for heads, more in (
        ({"head": None, "second_head": None}, set()),
        ({"head": Path("/h"), "second_head": None}, {"head to MNI152"}),
        ({"head": Path("/h"), "second_head": Path("/g")}, {"head to MNI152", "two heads"}),
    ):
        known = speed.commands(argparse.Namespace(**given, **heads), tmp_path)
        ours = known.keys() - {*speed.OTHERS, *speed.PAIRS, speed.IMPORTS}
        assert ours - {"second scan", "apply", "import voxwarp", "voxwarp --help"} == more
    assert "--refine" in known["default --refine"](tmp_path)[-1]


def test_second_scan_finds_the_fixed_scan_examined(
    speed, cli, phantoms, poses, unlike_grids, tiny_model, quick_affine, monkeypatch, tmp_path
) -> None:
    """What runs before leaves one entry in the cache, and registering the pair adds one."""
    given: dict = {"threads": 1, "head": None, "second_head": None}
    for role, grid in unlike_grids.items():
        given[role] = tmp_path / f"{role}.nii.gz"
        nib.save(phantoms.image(grid, getattr(poses, role), np.int16), given[role])
    monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / "cache"))
    entries = []
    words = speed.commands(argparse.Namespace(**given), tmp_path)["second scan"](tmp_path)
    for (_, _, _, *command), more in zip(words, ((), ("--model", tiny_model)), strict=True):
        assert cli(*command, *more).code == 0
        entries.append({path.name for path in (tmp_path / "cache").iterdir()})
    assert [len(names) for names in entries] == [1, 2]
    assert entries[0] < entries[1]
