"""``voxwarp benchmark``: complete, interrupted and refused."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_cohort import OPTIONS, Bench, count_of, in_file, listed, statuses
from odd_headers import TWO, of_two_minds
from processes import PATIENCE, is_gone, pids_of

from voxwarp.benchmark import affine_start
from voxwarp.benchmark.job import RECORD


@pytest.fixture
def command(cohort, tmp_path: Path, bench: Bench) -> list[str]:
    """``voxwarp benchmark`` with a method that hangs once; the scans are aligned already."""
    pairs = listed(cohort.folder / "two.csv", [("a", "b"), ("b", "c")])
    bench("", options=replace(OPTIONS, alone=True))
    command = ["benchmark", str(pairs), "-o", str(tmp_path / "out"), "--threads", "1"]
    return [*command, "--methods", "once=methods:waits_once", "--limit", f"{PATIENCE:g}"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_benchmark_leaves_nothing_running_and_continues(
    command: list[str], cohort, cli, tmp_path: Path, how: signal.Signals
):
    """By Ctrl-C or by the system: only the current run is lost."""
    code = f"import signal, sys; sys.path[:] = {sys.path!r}; sys.argv[1:] = {command!r}\n"
    # Where the tests run in the background, Ctrl-C is ignored, and by those they start, too.
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}from voxwarp.cli.main import main; main()"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    place = tmp_path / "out" / "transforms" / "once"
    worker, child = pids_of(place / "b_to_c", process)
    process.send_signal(how)
    out, err = process.communicate(timeout=PATIENCE)
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


def test_command(cli, cohort, tmp_path: Path, no_greedy, bench: Bench):
    """Processes, rows, warnings about skipped methods, tables and figures; exit code 3."""
    pytest.importorskip("matplotlib")
    bench("")
    out, table = tmp_path / "out", listed(cohort.folder / "one.csv", [("a", "b")])
    command = "benchmark", table, "-o", out, "--threads", "1", "--busy"
    outcome = cli(*command, "--methods", "affine, mine=methods:shift,greedy")
    assert outcome.code == 0, outcome.err
    assert outcome.err == (
        "voxwarp: warning: method greedy is skipped: picsl-greedy is not installed: "
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

    broken = cli(*command, "--methods", "x y=methods:crashes", "--limit", f"{PATIENCE:g}")
    assert (broken.code, broken.err) == (3, "")
    assert "x y: a -> b: failed (ended by signal SIGSEGV)" in broken.out
    slow = cli(*command, "--methods", "slow=methods:sleeps", "--limit", "1")
    assert (slow.code, slow.err) == (3, "")
    assert "slow: a -> b: time limit (stopped after 1 s)" in slow.out
    assert "slow, inter: 0 of 1 pairs" in slow.out

    drawn = cli("figures", out, "-o", tmp_path / "figures", "--reference", "mine")
    assert drawn.code == 0, drawn.err
    files = [Path(line) for line in drawn.out.splitlines()]
    assert files
    assert all(path.stat().st_size for path in files)


def test_what_headers_leave_in_doubt_is_said_once(cli, cohort, tmp_path: Path, bench: Bench):
    """Though the scan is in both pairs."""
    bench("")
    pairs = listed(tmp_path / "two.csv", [("a", "b"), ("b", "a")])
    for name in ("a", "b"):
        for ending in (".nii.gz", "-labels.nii.gz", ".csv"):
            shutil.copy(cohort.folder / f"{name}{ending}", tmp_path)
    of_two_minds(tmp_path / "b.nii.gz", tmp_path / "b.nii.gz")
    out = tmp_path / "out"
    outcome = cli("benchmark", pairs, "-o", out, "--threads", "1", "--methods", "affine", "--busy")
    assert outcome.code == 0, outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"voxwarp: warning: image {tmp_path}/b.nii.gz: ")
    assert TWO in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "gredy"], "unknown method 'gredy'"),
        (["--methods", "affine", "--limit", "0"], "--limit"),
        (["--methods", "affine", "--threads", "-1"], "--threads"),
        (["--methods", "affine", "--regions", "x"], "got 'x'"),
        (["--methods", "affine", "--structures", "gone.csv"], "gone.csv"),
        (["--methods", "affine", "--kind", "retest"], "there is no pair"),
        (["--methods", "x=methods:gone"], "methods:gone"),
    ],
)
def test_command_is_refused(refuses, cohort, tmp_path: Path, options: list[str], message: str):
    line = refuses("benchmark", cohort.folder / "pairs.csv", "-o", tmp_path / "out", *options)
    assert message in line


def test_command_without_any_method(cli, cohort, tmp_path: Path, no_greedy):
    command = "benchmark", cohort.folder / "pairs.csv", "-o", tmp_path / "out"
    outcome = cli(*command, "--methods", "greedy")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == (
        "voxwarp: error: --methods: none of them can run here; the warnings say what is missing"
    )
    assert not (tmp_path / "out").exists()


def test_figures_of_nothing(refuses, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "pairs.csv" in refuses("figures", tmp_path / "empty", "-o", tmp_path / "figures")


def test_help_lists_methods_and_options(cli):
    outcome = cli("benchmark", "--help")
    assert outcome.code == 0
    for word in ("ants-syncc", "NAME=WEIGHTS", "--limit", "--retry", "--keep", "--busy"):
        assert word in outcome.out
    assert cli("figures", "--help").code == 0


@pytest.mark.slow
@pytest.mark.data
def test_greedy_on_two_subjects(cli, data: Path, tmp_path: Path, monkeypatch):
    """End to end: a split of a real data set, the real affine stage, another tool."""
    pytest.importorskip("picsl_greedy")
    from voxwarp.preparation.examination import examine

    monkeypatch.setattr(affine_start, "examine", examine)
    root = data / "oasis-malf"
    command = "benchmark", root / "subjects.csv", "-o", tmp_path / "out", "--kind", "inter"
    more = "--scan", "t1/{id}.nii.gz", "--labels", "labels/{id}.nii.gz", "--first", "1"
    outcome = cli(*command, *more, "--methods", "affine,greedy", "--threads", "1", "--busy")
    assert outcome.code == 0, outcome.err
    rows = {row["method"]: row for row in in_file(tmp_path / "out")}
    for row in rows.values():
        print({c: row[c] for c in ("method", "dice_regions", "inverse_error_mm", "local_ncc")})
    assert rows["greedy"]["dice_regions"] > rows["affine"]["dice_regions"] + 0.1
    assert rows["greedy"]["inverse_error_mm"] < 0.3
    assert rows["affine"]["folds"] == rows["affine"]["folds_any"] == 0
    assert rows["greedy"]["local_ncc"] > rows["affine"]["local_ncc"] + 0.1
