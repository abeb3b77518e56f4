"""The runner of benchmarks: processes that fail, runs that are broken off, rows that are right."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import methods
import nibabel as nib
import numpy as np
import pytest
import torch
from brains import CENTER, VALUES, Pose
from scipy import ndimage

from voxwarp.benchmark import baselines
from voxwarp.benchmark import benchmark as runner
from voxwarp.benchmark.baselines import AFFINE, INVERSE, JOB, RECORD, WARP, Job, Run, method_of
from voxwarp.benchmark.benchmark import (
    BENCHMARK,
    USUAL,
    Entry,
    Terms,
    benchmark,
    entries,
    execute,
)
from voxwarp.data.pairs import Pair, read_pairs
from voxwarp.data.structures import Table
from voxwarp.errors import InputError
from voxwarp.evaluation import rows as rows_module
from voxwarp.evaluation.evaluation import write_record
from voxwarp.evaluation.rows import PAIR_COLUMNS, STRUCTURE_COLUMNS, read_rows
from voxwarp.evaluation.scoring import Protocol
from voxwarp.networks.model import Model
from voxwarp.preparation.prepare import Findings
from voxwarp.space.formats import read_affine
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume

POSES = {
    "a": Pose(turn=(-4, 3, 6), zoom=0.97, shift=(2, 5, -3)),
    "b": Pose(turn=(6, -5, -7), zoom=1.05, shift=(-4, 1, 4)),
    "c": Pose(turn=(3, 8, 2), shift=(1, -6, 2)),
}
TIMES = "affine_s", "deform_s", "first_s", "whole_s", "memory_mb"
TERMS = Terms(threads=1, limit=60, alone=False)


def affine_of(pose: Pose) -> Affine:
    """From the template to the scan."""
    matrix = np.eye(4)
    matrix[:3, 3] = pose(np.zeros(3))
    matrix[:3, :3] = (pose(np.eye(3)) - matrix[:3, 3]).T
    return Affine(matrix).inverse()


@pytest.fixture(scope="module")
def cohort(phantoms, make_grid, tmp_path_factory) -> SimpleNamespace:
    """Three small scans with labels and landmarks, and all ordered pairs of them."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    marks = CENTER + rng.uniform(-30, 30, (6, 3))
    for number, (name, pose) in enumerate(POSES.items()):
        grid = make_grid("LPI", (10, 11, 9), turn=(4 * number, 3, -5), room=10)
        nib.save(phantoms.image(grid, pose), folder / f"{name}.nii.gz")
        nib.save(phantoms.labels(grid, pose), folder / f"{name}-labels.nii.gz")
        points = affine_of(pose).map(marks)
        rows = [f"m{i},{x},{y},{z}" for i, (x, y, z) in enumerate(points.tolist())]
        (folder / f"{name}.csv").write_text("\n".join(["name,x,y,z", *rows]) + "\n")
    keys = [(m, f) for m in POSES for f in POSES if m != f]
    return SimpleNamespace(
        folder=folder, pairs=read_pairs(listed(folder / "pairs.csv", keys)), keys=keys
    )


def listed(path: Path, keys: list[tuple[str, str]]) -> Path:
    """A table of pairs."""
    facts = "", "_labels", "_landmarks"
    endings = ".nii.gz", "-labels.nii.gz", ".csv"
    lines = [",".join(side + fact for side in ("moving", "fixed") for fact in facts)]
    lines += [",".join(name + ending for name in key for ending in endings) for key in keys]
    path.write_text("\n".join(lines) + "\n")
    return path


def chosen(cohort: SimpleNamespace, *keys: tuple[str, str]) -> list[Pair]:
    return [pair for pair in cohort.pairs if pair.key in keys]


def both_ways(cohort: SimpleNamespace) -> list[Pair]:
    return chosen(cohort, ("a", "b"), ("b", "a"))


@pytest.fixture(autouse=True)
def known_places(monkeypatch) -> list[str]:
    """Scans are where they are: nothing is sought. The names of those that were asked for."""
    asked = []

    def examine(scan: Volume) -> Findings:
        asked.append(Path(scan.name).name[0])
        return Findings("brain", scan.grid, affine_of(POSES[asked[-1]]))

    monkeypatch.setattr(runner, "examine", examine)
    return asked


@pytest.fixture
def here(monkeypatch) -> None:
    """Methods run in this process: the runner's part is the same, and quick."""

    def run_here(job: Job, *, limit: float, alone: bool) -> dict[str, Any]:
        job.place.mkdir(parents=True, exist_ok=True)
        (job.place / RECORD).unlink(missing_ok=True)
        job.save()
        run = Run(job)
        try:
            method_of(job.method)(run)
            record = {"status": "ok", "reason": ""} | run.record()
        except Exception as error:
            record = {"status": "failed", "reason": str(error)}
        record |= {"process_s": 1.0, "threads": job.threads, "alone": alone}
        write_record(job.place / RECORD, record)
        return record

    monkeypatch.setattr(runner, "execute", run_here)


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    """As the command makes it without a table: every value is a structure."""
    values = VALUES.tolist()
    return Protocol(Table([str(v) for v in values], {v: i for i, v in enumerate(values, 1)}))


Bench = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def bench(cohort: SimpleNamespace, protocol: Protocol, tmp_path: Path) -> Bench:
    """``benchmark`` of user's methods, by their functions' names, into ``tmp_path / "out"``."""

    def run(names: str, pairs: list[Pair] | None = None, **more: Any) -> list[dict[str, Any]]:
        found = [Entry(name, f"methods:{name}") for name in names.split()]
        given = {"protocol": protocol, "terms": TERMS, "out": tmp_path / "out"} | more
        return benchmark(cohort.pairs if pairs is None else pairs, found, **given)

    return run


def count_of(out: Path, method: str) -> list[str]:
    """The runs of a method, in their order."""
    return (out / "transforms" / method / "count.txt").read_text().split()


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def in_file(out: Path) -> list[dict[str, Any]]:
    return read_rows(out / "pairs.csv", PAIR_COLUMNS)


def statuses(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(row["moving"], row["fixed"]): row["status"] for row in rows}


# --------------------------------------------------------------------------- Words for methods


@pytest.fixture
def no_greedy(monkeypatch) -> None:
    def known(name: str) -> str:
        if name == "picsl-greedy":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(baselines, "version", known)


def test_methods_are_understood(no_greedy, tiny_model: Path, tmp_path, monkeypatch):
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path))
    Model.load(tiny_model).save(tmp_path / "shelved")
    monkeypatch.chdir(tiny_model.parent)
    words = ["affine", "greedy", "elastix", "shelved", "vm1-authors", "ours=tiny"]
    words += ["fn=methods:shift", "again=shelved", "shelved+refine", "more=tiny+refine"]
    found, skipped = entries(words)
    assert found == [
        Entry("affine", "affine"),
        Entry("elastix", "elastix"),
        Entry("shelved", "network", str(tmp_path / "shelved")),
        Entry("ours", "network", str(tiny_model)),
        Entry("fn", "methods:shift"),
        Entry("again", "network", str(tmp_path / "shelved")),
        Entry("shelved+refine", "refined", str(tmp_path / "shelved")),
        Entry("more", "refined", str(tiny_model)),
    ]
    assert skipped == {
        "greedy": "picsl-greedy is not installed: pip install 'voxwarp[benchmark]'",
        "vm1-authors": "its weights are not here: vm1-authors=FILE.h5",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gredy", "there is no 'gredy'; there are affine, ants-syn, "),
        ("network", "there is no 'network'"),
        ("refined", "there is no 'refined'"),
        ("gone+refine", "there is no 'gone+refine'"),
        ("x=gone+refine", "'gone'"),
        ("affine affine", "affine is there twice"),
        ("x=methods:shift x=methods:raises", "x is there twice"),
        ("=methods:shift", "a name of its own"),
        ("runs/mine", "a name of its own"),
        ("..=methods:shift", "a name of its own"),
        (".=methods:shift", "a name of its own"),
        ("a/b=methods:shift", "a name of its own"),
        (r"a\b=methods:shift", "a name of its own"),
        (f"{'x' * 200}=methods:shift", "a name of its own"),
        ("greedy=methods:shift", "a name of its own"),
        ("x=methods:gone", "'methods:gone'"),
        ("x=/no/such/folder", "/no/such/folder"),
        ("x=gone.h5", "gone.h5"),
    ],
)
def test_methods_are_refused(words: str, said: str):
    with pytest.raises(InputError) as refusal:
        entries(words.split())
    assert said in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_usual_methods_have_no_hour_long_ones():
    found, skipped = entries(USUAL)
    assert {entry.name for entry in found} | skipped.keys() == {*USUAL}
    assert "ants-syncc" not in USUAL


# ---------------------------------------------------------------------------------- Processes


@pytest.fixture
def job(cohort: SimpleNamespace, tmp_path: Path) -> Callable[..., Job]:
    def make(method: str, **more: Any) -> Job:
        poses = (affine_of(POSES[name]).fixed_to_moving.tolist() for name in "ab")
        paths = (str(cohort.folder / f"{name}.nii.gz") for name in "ab")
        folder = str(tmp_path / "out" / method / "b_to_a")
        return replace(Job(f"methods:{method}", *paths, *poses, folder, 3), **more)

    return make


def recorded(job: Job) -> dict[str, Any]:
    return json.loads((job.place / RECORD).read_text())


def test_surroundings_of_a_method(job, cohort, tmp_path: Path, monkeypatch):
    """Paths from where we are, though the process is in the job's folder; threads; the log."""
    monkeypatch.chdir(cohort.folder)
    its = job("tells", folder=os.path.relpath(tmp_path / "x"), fixed="a.nii.gz", moving="b.nii.gz")
    done = execute(its, limit=60, alone=True)
    assert (done["status"], done["reason"]) == ("ok", "")
    assert done == recorded(its)
    assert (done["threads"], done["alone"], done["device"]) == (3, True, "cpu")
    assert done["process_s"] > done["seconds"]["deform"] >= 0
    told = json.loads((tmp_path / "x" / "told.json").read_text())
    assert Path(told.pop("place")).samefile(tmp_path / "x")
    assert told == {
        "threads": ["3", "3", "3"],
        "there": [True, True],
        "folder": str(tmp_path / "x"),
        "stdin": "",
    }
    assert (tmp_path / "x" / "log.txt").read_text().split("\n")[:2] == ["to stdout", "to stderr"]


@pytest.mark.parametrize(
    ("method", "reason", "logged"),
    [
        ("raises_and_greets", "ITK ERROR: no overlap", "Traceback"),
        ("exits", "no licence found", "no licence found"),
        ("crashes", "ended by signal SIGSEGV", ""),
        ("stops_early", "it ended without an error before it was done", ""),
    ],
)
def test_process_that_fails_says_why(job, method: str, reason: str, logged: str):
    its = job(method)
    done = execute(its, limit=60, alone=False)
    assert (done["status"], done["reason"]) == ("failed", reason)
    assert done == recorded(its)
    assert set(done) == {"status", "reason", "process_s", "threads", "alone"}
    assert logged in (its.place / "log.txt").read_text()


def test_signals_have_names():
    assert runner._signal(signal.SIGKILL).startswith("ended by signal SIGKILL (by the system")
    assert runner._signal(signal.SIGABRT) == "ended by signal SIGABRT"
    assert runner._signal(40) == "ended by signal 40"


def is_gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends before so many seconds are over; a zombie has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (OSError, IndexError):
            return True
        time.sleep(0.05)
    return False


def pids_of(place: Path, seconds: float = 30.0) -> list[int]:
    """Of a method that sleeps, and of its child, as soon as they are there."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return json.loads((place / "pids.json").read_text())
        except (OSError, ValueError):
            time.sleep(0.05)
    raise AssertionError(f"nothing sleeps in {place}")


def test_time_limit_ends_a_process_and_its_child(job):
    its = job("sleeps")
    began = time.perf_counter()
    done = execute(its, limit=4.5, alone=False)
    assert 4.5 <= time.perf_counter() - began < 12
    assert (done["status"], done["reason"]) == ("time limit", "stopped after 4.5 s")
    assert 4.5 <= done["process_s"] < 10
    assert done == recorded(its)
    for pid in pids_of(its.place, 0.1):
        assert is_gone(pid)


def test_files_of_an_earlier_run_are_not_taken_for_its_own(job):
    its = job("inverse_at_first")
    for has_inverse in (True, False):
        assert execute(its, limit=60, alone=False)["status"] == "ok"
        assert (its.place / INVERSE).exists() == has_inverse
        assert (its.place / WARP).exists()
    assert (its.place.parent / "count.txt").exists(), "what is beside its folder stays"


def test_modules_are_found_where_we_find_them(job, tmp_path: Path, monkeypatch):
    """A user's file in the current folder, which is on the path as ''."""
    (tmp_path / "mine_alone.py").write_text(
        "import methods\ndef run(run):\n    methods.tells(run)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    its = replace(job("tells"), method="mine_alone:run")
    assert execute(its, limit=60, alone=False)["status"] == "ok"
    assert "PYTHONPATH" not in os.environ


# --------------------------------------------------------------------------------------- Rows


def test_numbers_of_a_known_transform(here, bench: Bench, cohort, protocol, tmp_path: Path):
    """x ↦ A(x + s): landmarks, inverse, consistency and overlap in closed form."""
    rows = bench("shift", terms=replace(TERMS, keep=True))
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert sorted((row["moving"], row["fixed"]) for row in rows) == sorted(cohort.keys)
    shift = np.array(methods.SHIFT)
    for row in rows:
        moving, fixed = (affine_of(POSES[row[side]]) for side in ("moving", "fixed"))
        start, back = moving.after(fixed.inverse()), fixed.after(moving.inverse())
        linear = start.fixed_to_moving[:3, :3]
        # Landmarks agree under A alone, so that A of the shift is what is left.
        assert row["tre_mm"] == pytest.approx(np.linalg.norm(linear @ shift), rel=1e-4)
        assert row["inverse_error_mm"] == pytest.approx(0, abs=1e-3)
        # There and back, with a shift each way: s + A⁻¹ s, wherever one starts.
        twice = shift + back.fixed_to_moving[:3, :3] @ shift
        assert row["consistency_mm"] == pytest.approx(np.linalg.norm(twice), rel=0.02)
        assert (row["folds"], row["folds_any"], row["minimum_determinant"]) == (0, 0, 1)
        assert row["dice"] == pytest.approx(overlap(cohort.folder, row, start, shift), abs=0.01)
        assert (row["kind"], row["labels"], row["timed"]) == ("inter", "nearest", "no")
        assert (row["threads"], row["device"]) == (1, "cpu")
        place = tmp_path / "out" / "transforms" / "shift" / f"{row['moving']}_to_{row['fixed']}"
        np.testing.assert_allclose(
            read_affine(place / AFFINE).fixed_to_moving, start.fixed_to_moving, atol=1e-6
        )
    assert untimed(rows) == untimed(rounded(rows, in_file(tmp_path / "out")))
    structures = read_rows(tmp_path / "out" / "structures.csv", STRUCTURE_COLUMNS)
    for row in rows:
        own = [
            s["dice"]
            for s in structures
            if (s["moving"], s["fixed"]) == (row["moving"], row["fixed"])
        ]
        assert len(own) == 8
        assert np.mean(own) == pytest.approx(row["dice"], rel=1e-4)


def rounded(rows: list[dict[str, Any]], read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that were read, with the numbers of those that were written where they agree."""
    assert len(read) == len(rows)
    return [
        {
            column: row[column]
            if isinstance(row[column], float)
            and again[column] == pytest.approx(row[column], rel=1e-5, nan_ok=True)
            else again[column]
            for column in again
        }
        for row, again in zip(rows, read, strict=True)
    ]


def overlap(folder: Path, row: dict[str, Any], start: Affine, shift: np.ndarray) -> float:
    """Mean Dice by SciPy: the moving label nearest to A(x + s)."""
    moving, fixed = (nib.load(folder / f"{row[s]}-labels.nii.gz") for s in ("moving", "fixed"))
    voxels = np.stack(np.indices(fixed.shape), -1)
    points = start.map(nib.affines.apply_affine(fixed.affine, voxels) + shift)
    at = nib.affines.apply_affine(np.linalg.inv(moving.affine), points)
    moved = ndimage.map_coordinates(
        np.asarray(moving.dataobj), np.moveaxis(at, -1, 0), order=0, mode="constant"
    )
    still = np.asarray(fixed.dataobj)
    values = set(np.unique(still)) - {0}
    return float(
        np.mean(
            [
                2 * ((moved == v) & (still == v)).sum() / ((moved == v).sum() + (still == v).sum())
                for v in values
            ]
        )
    )


def test_times_are_what_a_user_waits_for(bench: Bench, cohort, tmp_path: Path, monkeypatch):
    """By hand: 1.5 + 2.25 s of affine stage, 10 s of the process, 4 s of them for repeating."""
    terms = replace(TERMS, alone=True)
    for name, seconds in (("a", 1.5), ("b", 2.25)):
        record = {
            "template_to_scan": np.eye(4).tolist(),
            "seconds": seconds,
            "sha256": hashlib.sha256((cohort.folder / f"{name}.nii.gz").read_bytes()).hexdigest(),
            "threads": 1,
            "alone": True,
        }
        write_record(tmp_path / "out" / "scans" / f"{name}.json", record)

    def canned(job: Job, *, limit: float, alone: bool) -> dict[str, Any]:
        assert (limit, alone, job.repeat, job.threads) == (60, True, True, 1)
        job.place.mkdir(parents=True)
        job.save()
        methods.write_shift(Run(job))
        return {
            "status": "ok",
            "reason": "",
            "seconds": {"read": 0.5, "deform": 2.0, "write": 1.0},
            "memory_mb": {"read": 300.0, "deform": 700.0, "write": 900.0},
            "first_s": 3.0,
            "repeated_s": 4.0,
            "process_s": 10.0,
            "threads": 1,
            "alone": True,
            "device": "a GPU",
        }

    monkeypatch.setattr(runner, "execute", canned)
    (row,) = bench("shift", chosen(cohort, ("a", "b")), terms=terms)
    assert row["affine_s"] == 3.75
    assert row["whole_s"] == 3.75 + 10 - 4
    assert (row["deform_s"], row["first_s"], row["memory_mb"]) == (2, 3, 700)
    assert (row["device"], row["timed"]) == ("a GPU", "yes")


def test_affine_stage_has_the_threads_of_the_methods(
    here, bench: Bench, cohort, tmp_path: Path, monkeypatch
):
    """Under other terms its time is taken anew, and the map stays what all rows started from."""
    seen = []
    examine = runner.examine
    monkeypatch.setattr(
        runner, "examine", lambda scan: (seen.append(torch.get_num_threads()), examine(scan))[1]
    )
    pairs, before = both_ways(cohort), torch.get_num_threads()
    bench("quick_shift", pairs, terms=replace(TERMS, threads=2))
    assert seen == [2, 2, 2], "once to warm up, then each scan"
    assert torch.get_num_threads() == before
    bench("shift", pairs, terms=replace(TERMS, threads=2))
    assert len(seen) == 3, "what is known is not sought again"
    place = tmp_path / "out" / "scans" / "a.json"
    first = json.loads(place.read_text())
    elsewhere = affine_of(replace(POSES["a"], shift=(50, 0, 0)))
    monkeypatch.setattr(runner, "examine", lambda scan: Findings("brain", scan.grid, elsewhere))
    bench("leaves_nothing", pairs, terms=replace(TERMS, threads=1, alone=True))
    second = json.loads(place.read_text())
    assert second["template_to_scan"] == first["template_to_scan"]
    assert (second["threads"], second["alone"]) == (1, True)
    assert second["seconds"] != first["seconds"]


# ------------------------------------------------------------------------- Going on, and again


class BrokenOffError(Exception):
    """The benchmark is."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_broken_off_it_goes_on(here, bench: Bench, cohort, tmp_path: Path, after: int):
    """After a pair, between the two ways of one, wherever: the same rows, nothing run twice."""
    whole = bench("quick_shift shift", out=tmp_path / "whole")
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == after:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        bench("quick_shift shift", progress=stop)
    assert len(in_file(tmp_path / "out")) == after
    again = bench("quick_shift shift", progress=lines.append)
    assert untimed(in_file(tmp_path / "out")) == untimed(in_file(tmp_path / "whole"))
    assert len(again) == len(whole) == 12 == len(lines)
    for name in ("quick_shift", "shift"):
        assert sorted(count_of(tmp_path / "out", name)) == sorted(
            "_to_".join(key) for key in cohort.keys
        )
    assert (tmp_path / "out" / "structures.csv").read_bytes() == (
        tmp_path / "whole" / "structures.csv"
    ).read_bytes()


def test_full_disk_loses_nothing(here, bench: Bench, cohort, tmp_path: Path, monkeypatch):
    """The second row of a pair cannot be written, while its structures could."""
    pairs, calls = both_ways(cohort), []
    whole = bench("quick_shift", pairs, out=tmp_path / "whole")
    write = rows_module.write_bytes

    def full(path: Path, payload: bytes) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise InputError(f"cannot write {path}: No space left on device")
        write(path, payload)

    monkeypatch.setattr(rows_module, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        bench("quick_shift", pairs)
    assert statuses(in_file(tmp_path / "out")) == {("a", "b"): "ok"}
    assert untimed(bench("quick_shift", pairs)[1:]) == untimed(whole[1:])
    for name in ("structures.csv", BENCHMARK):
        assert len((tmp_path / "out" / name).read_text().splitlines()) == len(
            (tmp_path / "whole" / name).read_text().splitlines()
        )
    assert count_of(tmp_path / "out", "quick_shift") == ["a_to_b", "b_to_a"]


def test_rows_are_told_as_they_come(here, bench: Bench, cohort):
    lines: list[str] = []
    bench("quick_shift raises", chosen(cohort, ("a", "b")), progress=lines.append)
    assert lines[0].startswith("quick_shift: a -> b: Dice 0.")
    assert lines[1] == "raises: a -> b: failed (itkFilter.cxx:12: ITK ERROR: no overlap)"


def test_failure_of_a_pair_is_a_row_and_the_others_go_on(
    here, bench: Bench, cohort, tmp_path: Path
):
    rows = bench("half_file_one_way")
    assert statuses(rows) == {key: "failed" if key[0] == "b" else "ok" for key in cohort.keys}
    for row in rows:
        if row["status"] != "ok":
            assert WARP in row["reason"]
            assert np.isnan(row["dice"])
            assert np.isnan(row["whole_s"])
    structures = read_rows(tmp_path / "out" / "structures.csv", STRUCTURE_COLUMNS)
    assert {s["moving"] for s in structures} == {"a", "c"}
    # The way back is of no use where it failed, and that is no failure of the way there.
    by_pair = {(row["moving"], row["fixed"]): row["consistency_mm"] for row in rows}
    assert np.isnan(by_pair["a", "b"])
    assert by_pair["a", "c"] > 0


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("leaves_nan", f"transform {WARP}: some displacements are NaN or infinite"),
        ("leaves_nothing", f"transform {WARP}: no such file or folder"),
        ("half_file", f"transform {WARP}: not an image that can be read"),
    ],
)
def test_files_of_no_use_are_a_failure(
    here, bench: Bench, cohort, tmp_path: Path, method: str, reason: str
):
    (row,) = bench(method, chosen(cohort, ("a", "b")))
    assert row["status"] == "failed"
    assert row["reason"].startswith(reason)
    record = json.loads((tmp_path / "out/transforms" / method / "a_to_b" / RECORD).read_text())
    assert (record["status"], record["reason"]) == ("failed", row["reason"])


@pytest.mark.parametrize("keep", [True, False])
def test_retry_runs_what_failed_and_nothing_else(
    here, bench: Bench, cohort, tmp_path: Path, keep: bool
):
    terms, ab = replace(TERMS, keep=keep), chosen(cohort, ("a", "b"))
    three = chosen(cohort, ("a", "b"), ("a", "c"), ("c", "b"))
    assert [row["status"] for row in bench("raises_once half_file", three, terms=terms)] == [
        "failed"
    ] * 6
    bench("raises_once half_file", three, terms=terms)
    assert len(count_of(tmp_path / "out", "raises_once")) == 3, "failures stand"
    rows = bench("raises_once half_file", ab, terms=terms, retry=True)
    assert len(rows) == 6, "rows of other pairs stay"
    assert count_of(tmp_path / "out", "raises_once")[3:] == ["a_to_b"]
    assert count_of(tmp_path / "out", "half_file")[3:] == ["a_to_b"]
    done = {(r["method"], r["moving"], r["fixed"]) for r in rows if r["status"] == "ok"}
    assert done == {("raises_once", "a", "b")}
    bench("raises_once", three, terms=terms, retry=True)
    assert count_of(tmp_path / "out", "raises_once")[4:] == ["a_to_c", "c_to_b"]


def test_large_files_are_removed_unless_kept(here, bench: Bench, cohort, tmp_path: Path):
    for keep in (False, True):
        out = tmp_path / f"keep {keep}"
        bench("shift", both_ways(cohort), out=out, terms=replace(TERMS, keep=keep))
        for name in ("a_to_b", "b_to_a"):
            left = {path.name for path in (out / "transforms" / "shift" / name).iterdir()}
            assert {RECORD, JOB, AFFINE} <= left
            images = {WARP, INVERSE, "Warped.nii.gz"}
            assert left & images == (images if keep else set())


def test_kept_transforms_are_measured_again(here, bench: Bench, cohort, tmp_path: Path):
    """Where rows are gone, or are not wanted; but not those of another start."""
    out, pairs = tmp_path / "out", both_ways(cohort)
    keep = replace(TERMS, keep=True)
    first = bench("shift", pairs, terms=keep)
    for path in (out / "pairs.csv", out / "structures.csv"):
        path.unlink()
    assert untimed(bench("shift", pairs, terms=keep)) == untimed(first)
    assert untimed(bench("shift", pairs, terms=keep, overwrite=True)) == untimed(first)
    assert len(count_of(out, "shift")) == 2
    place = json.loads((out / "scans" / "a.json").read_text())
    place["template_to_scan"][0][3] += 3
    write_record(out / "scans" / "a.json", place)
    again = bench("shift", pairs, terms=keep, overwrite=True)
    assert len(count_of(out, "shift")) == 4
    assert again[0]["tre_mm"] != pytest.approx(first[0]["tre_mm"], rel=1e-3)


def test_overwrite_runs_again_what_failed(here, bench: Bench, cohort, tmp_path: Path):
    pair = chosen(cohort, ("a", "b"))
    assert bench("raises_once", pair)[0]["status"] == "failed"
    (row,) = bench("raises_once", pair, overwrite=True)
    assert row["status"] == "ok"


def test_methods_and_pairs_are_added(here, bench: Bench, cohort, tmp_path: Path):
    out = tmp_path / "out"
    bench("quick_shift", chosen(cohort, ("a", "b")))
    bench("shift", chosen(cohort, ("a", "c")))
    rows = bench("quick_shift", chosen(cohort, ("a", "b"), ("a", "c")))
    assert [(r["method"], r["moving"], r["fixed"]) for r in rows] == [
        ("quick_shift", "a", "b"),
        ("shift", "a", "c"),
        ("quick_shift", "a", "c"),
    ]
    assert count_of(out, "quick_shift") == ["a_to_b", "a_to_c"]
    record = json.loads((out / BENCHMARK).read_text())
    assert record["methods"].keys() == {"quick_shift", "shift"}
    assert record["inputs"].keys() == {"a", "b", "c"}


# ------------------------------------------------------------------------------------ Refusals


def test_rows_of_other_settings_are_refused(here, bench: Bench, cohort, protocol, tmp_path: Path):
    pairs = both_ways(cohort)
    bench("quick_shift", pairs)
    before = (tmp_path / "out" / "pairs.csv").read_bytes()
    with pytest.raises(InputError, match="other protocol: use --overwrite"):
        bench("quick_shift", pairs, protocol=replace(protocol, labels="linear"))
    assert (tmp_path / "out" / "pairs.csv").read_bytes() == before
    linear = replace(protocol, labels="linear")
    again = bench("quick_shift", pairs, protocol=linear, overwrite=True)
    assert [row["labels"] for row in again] == ["linear"] * 2


def test_rows_of_another_scan_or_version_are_refused(
    here, bench: Bench, cohort, tmp_path: Path, monkeypatch
):
    """The name is the same, what it stands for is not: such rows must not be mixed."""
    for path in cohort.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    pairs = read_pairs(tmp_path / "pairs.csv")
    ab = [pair for pair in pairs if pair.key == ("a", "b")]
    found = [Entry("plain", "affine")]
    given = {"protocol": Protocol(Table(["s"], {2: 1})), "terms": TERMS, "out": tmp_path / "out"}
    benchmark(ab, found, **given)
    image = nib.load(tmp_path / "b.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 2, image.affine), tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"its rows of b were made with another image"):
        benchmark(ab, found, **given)
    assert len(benchmark(ab, found, **given, overwrite=True)) == 1

    of_numpy = baselines.METHODS["affine"]._replace(package="numpy")
    monkeypatch.setitem(baselines.METHODS, "affine", of_numpy)
    benchmark(ab, [Entry("other", "affine")], **given)
    monkeypatch.setattr(runner, "version", lambda name: "99.1")
    with pytest.raises(InputError, match=rf"package \(numpy {version('numpy')}; now numpy 99.1\)"):
        benchmark(ab, [Entry("other", "affine")], **given)


def test_rows_of_other_weights_are_refused(
    bench: Bench, cohort, protocol, tiny_model: Path, tmp_path: Path, monkeypatch
):
    """A model that was trained further in its folder; and the record names what was used."""
    folder, ran = tmp_path / "run", []
    model = Model.load(tiny_model)
    model.save(folder)

    def canned(job: Job, *, limit: float, alone: bool) -> dict[str, Any]:
        ran.append(job)
        job.place.mkdir(parents=True, exist_ok=True)
        job.save()
        record = {"status": "failed", "reason": "no", "process_s": 1.0}
        record |= {"threads": job.threads, "alone": alone}
        write_record(job.place / RECORD, record)
        return record

    monkeypatch.setattr(runner, "execute", canned)
    pairs, given = chosen(cohort, ("a", "b")), {"protocol": protocol, "terms": TERMS}
    found, _ = entries([f"mine={folder}"])
    benchmark(pairs, found, tmp_path / "out", **given)
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    record = json.loads((tmp_path / "out" / BENCHMARK).read_text())
    assert record["methods"]["mine"]["weights_sha256"] == digest == ran[0].weights_sha256
    assert record["methods"]["mine"]["weights"] == str(folder)

    first = next(model.network.parameters())
    first.data += 1e-3
    model.save(folder)
    with pytest.raises(InputError, match="its rows of mine were made with another weights"):
        benchmark(pairs, found, tmp_path / "out", **given)
    assert len(ran) == 1
    benchmark(pairs, found, tmp_path / "out", **given, overwrite=True)
    assert len(ran) == 2, "what the old weights did is not taken for the new ones'"


def test_head_is_refused_in_one_sentence(bench: Bench, cohort, monkeypatch):
    monkeypatch.setattr(
        runner, "examine", lambda scan: Findings("head", scan.grid, Affine(np.eye(4)))
    )
    with pytest.raises(InputError, match=r"a\.nii\.gz: this is a head, .*voxwarp preprocess"):
        bench("quick_shift", chosen(cohort, ("a", "b")))


@pytest.mark.parametrize("name", ["../a", "a/b", ".a", "..", "x" * 130, " a", "a\0"])
def test_scan_whose_name_cannot_be_a_files(bench: Bench, cohort, tmp_path: Path, name: str):
    (pair,) = chosen(cohort, ("a", "b"))
    odd = replace(pair, moving=replace(pair.moving, name=name))
    with pytest.raises(InputError, match="cannot be a file's name"):
        bench("quick_shift", [odd])
    assert not (tmp_path / "out").exists()


def test_scans_whose_pairs_would_share_a_folder(bench: Bench, cohort):
    """x to x_to_x, and x_to_x to x: both would be in x_to_x_to_x."""
    there, back = both_ways(cohort)
    x, xx = replace(there.moving, name="x"), replace(there.fixed, name="x_to_x")
    with pytest.raises(InputError, match="one folder"):
        bench("shift", [replace(there, moving=x, fixed=xx), replace(back, moving=xx, fixed=x)])


def test_labels_that_do_not_fit_are_told_before_anything_is_run(
    here, bench: Bench, cohort, tmp_path: Path
):
    (pair,) = chosen(cohort, ("a", "b"))
    for more, said in (
        ({"labels": cohort.folder / "c-labels.nii.gz"}, "grid"),
        ({"landmarks": cohort.folder / "pairs.csv"}, "x, y, z"),
    ):
        with pytest.raises(InputError, match=said):
            bench("quick_shift", [replace(pair, moving=replace(pair.moving, **more))])
    assert not (tmp_path / "out").exists()


def test_second_benchmark_in_a_folder_is_refused(here, bench: Bench, cohort):
    """Each holds all rows in memory: the last to write would drop those of the other."""
    said = []

    def another(line: str) -> None:
        with pytest.raises(InputError, match="another command is at work in it") as refusal:
            bench("shift", both_ways(cohort))
        said.append(refusal)

    rows = bench("quick_shift", chosen(cohort, ("a", "b")), progress=another)
    assert (len(rows), len(said)) == (1, 1)
    assert len(bench("shift", chosen(cohort, ("a", "b")))) == 2


def test_provenance(here, bench: Bench, cohort, protocol, tmp_path: Path):
    benchmark(
        both_ways(cohort),
        [Entry("still", "affine"), Entry("mine", "methods:quick_shift")],
        tmp_path / "out",
        protocol=protocol,
        terms=TERMS,
    )
    record = json.loads((tmp_path / "out" / BENCHMARK).read_text())
    assert record["methods"] == {
        "still": {"what": baselines.affine.__doc__},
        "mine": {"what": methods.quick_shift.__doc__},
    }
    assert record["protocol"]["labels"] == "nearest"
    assert record["versions"]["numpy"] == version("numpy")
    assert record["machine"]["cores"] == os.cpu_count()
    for name in "ab":
        for role, ending in (("image", ".nii.gz"), ("labels", "-labels.nii.gz")):
            path = cohort.folder / f"{name}{ending}"
            assert record["inputs"][name][role] == {
                "path": str(path),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }


def test_peers_are_named_with_their_versions():
    pytest.importorskip("convexAdam")
    told = runner._provenance([], [Entry("convexadam", "convexadam"), Entry("affine", "affine")])
    known = version("convexAdam")
    assert told["versions"]["convexAdam"] == known
    assert told["methods"]["convexadam"]["package"] == f"convexAdam {known}"
    assert "package" not in told["methods"]["affine"]


# ------------------------------------------------------------------------- The command, killed


@pytest.fixture
def command(cohort, tmp_path: Path, bench: Bench) -> list[str]:
    """``voxwarp benchmark`` with a method that hangs once; where the scans lie is known."""
    pairs = listed(cohort.folder / "two.csv", [("a", "b"), ("b", "c")])
    bench("", terms=replace(TERMS, alone=True))
    words = ["benchmark", str(pairs), "-o", str(tmp_path / "out"), "--threads", "1"]
    return [*words, "--methods", "once=methods:waits_once", "--limit", "100"]


# Where the tests run in the background, Ctrl-C is ignored, and by those they start, too.
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_killed_it_leaves_nothing_running_and_goes_on(
    command: list[str], cohort, cli, tmp_path: Path, how: signal.Signals
):
    """Ctrl-C, or the system: nothing is lost but the run that was on."""
    code = f"import sys; sys.path[:] = {sys.path!r}; sys.argv[1:] = {command!r}\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}from voxwarp.cli.main import main; main()"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    place = tmp_path / "out" / "transforms" / "once"
    worker, child = pids_of(place / "b_to_c", 20)
    process.send_signal(how)
    out, err = process.communicate(timeout=20)
    assert "once: a -> b: Dice" in out
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in err
        assert is_gone(child)
    else:
        assert process.returncode == -how
        os.kill(child, signal.SIGKILL)
    assert is_gone(worker)
    assert not (place / "b_to_c" / RECORD).exists()

    outcome = cli(*command)
    assert outcome.code == 0, outcome
    assert "a -> b" not in outcome.out.split("once, inter")[0]
    assert count_of(tmp_path / "out", "once") == ["a_to_b", "b_to_c", "b_to_c"]
    assert statuses(in_file(tmp_path / "out")) == {("a", "b"): "ok", ("b", "c"): "ok"}


# ---------------------------------------------------------------------------- The command line


def test_command(cli, cohort, tmp_path: Path, no_greedy, bench: Bench):
    """Processes, rows, warnings of what is skipped, tables and figures; exit code 3 of failures."""
    pytest.importorskip("matplotlib")
    bench("")
    out, table = tmp_path / "out", listed(cohort.folder / "one.csv", [("a", "b")])
    words = "benchmark", table, "-o", out, "--threads", "1", "--busy"
    outcome = cli(*words, "--methods", "affine, mine=methods:shift,greedy")
    assert outcome.code == 0, outcome.err
    assert outcome.err == (
        "voxwarp: warning: greedy is skipped: picsl-greedy is not installed: "
        "pip install 'voxwarp[benchmark]'\n"
    )
    lines = outcome.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == [
        *("affine", "mine"),
        *("affine, inter", "mine, inter"),
    ]
    assert lines[-1] == str(out / "pairs.csv")
    rows = {row["method"]: row for row in in_file(out)}
    assert rows["affine"]["tre_mm"] == pytest.approx(0, abs=1e-3)
    assert rows["mine"]["tre_mm"] > 1
    assert rows["mine"]["whole_s"] > rows["mine"]["deform_s"] >= 0.02

    broken = cli(*words, "--methods", "x y=methods:crashes,slow=methods:sleeps", "--limit", "3")
    assert (broken.code, broken.err) == (3, "")
    assert "x y: a -> b: failed (ended by signal SIGSEGV)" in broken.out
    assert "slow: a -> b: time limit (stopped after 3 s)" in broken.out
    assert "slow, inter: 0 of 1 pairs" in broken.out

    drawn = cli("figures", out, "-o", tmp_path / "figures", "--reference", "mine")
    assert drawn.code == 0, drawn.err
    files = [Path(line) for line in drawn.out.splitlines()]
    assert files
    assert all(path.stat().st_size for path in files)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "gredy"], "there is no 'gredy'"),
        (["--methods", "affine", "--limit", "0"], "--limit"),
        (["--methods", "affine", "--threads", "-1"], "--threads"),
        (["--methods", "affine", "--regions", "x"], "regions 'x'"),
        (["--methods", "affine", "--structures", "gone.csv"], "gone.csv"),
        (["--methods", "affine", "--kind", "retest"], "there is no pair"),
        (["--methods", "x=methods:gone"], "methods:gone"),
    ],
)
def test_command_is_refused(refuses, cohort, tmp_path: Path, words: list[str], said: str):
    line = refuses("benchmark", cohort.folder / "pairs.csv", "-o", tmp_path / "out", *words)
    assert said in line


def test_command_without_any_method(cli, cohort, tmp_path: Path, no_greedy):
    words = "benchmark", cohort.folder / "pairs.csv", "-o", tmp_path / "out"
    outcome = cli(*words, "--methods", "greedy")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == "voxwarp: error: methods: none of them can be run here"
    assert not (tmp_path / "out").exists()


def test_figures_of_nothing(refuses, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "pairs.csv" in refuses("figures", tmp_path / "empty", "-o", tmp_path / "figures")


def test_help_says_what_can_be_named(cli):
    outcome = cli("benchmark", "--help")
    assert outcome.code == 0
    for word in ("ants-syncc", "NAME=WEIGHTS", "--limit", "--retry", "--keep", "--busy"):
        assert word in outcome.out
    assert cli("figures", "--help").code == 0


# ------------------------------------------------------------------------------- Real peers


@pytest.mark.slow
@pytest.mark.data
def test_greedy_on_two_people(cli, data: Path, tmp_path: Path, monkeypatch):
    """The whole of it: a split of a real data set, the real affine stage, a real peer."""
    pytest.importorskip("picsl_greedy")
    from voxwarp.preparation.prepare import examine

    monkeypatch.setattr(runner, "examine", examine)
    root = data / "oasis-malf"
    words = "benchmark", root / "subjects.csv", "-o", tmp_path / "out", "--kind", "inter"
    more = "--scan", "t1/{id}.nii.gz", "--labels", "labels/{id}.nii.gz", "--first", "1"
    outcome = cli(*words, *more, "--methods", "affine,greedy", "--threads", "1", "--busy")
    assert outcome.code == 0, outcome.err
    rows = {row["method"]: row for row in in_file(tmp_path / "out")}
    for row in rows.values():
        print({c: row[c] for c in ("method", "dice_regions", "inverse_error_mm", "local_ncc")})
    assert rows["greedy"]["dice_regions"] > rows["affine"]["dice_regions"] + 0.1
    assert rows["greedy"]["inverse_error_mm"] < 0.3
    assert rows["affine"]["folds"] == rows["affine"]["folds_any"] == 0
    assert rows["greedy"]["local_ncc"] > rows["affine"]["local_ncc"] + 0.1
