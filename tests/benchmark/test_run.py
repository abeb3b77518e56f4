"""The runner of benchmarks: interrupted runs, and correct rows."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import methods
import nibabel as nib
import numpy as np
import pytest
from benchmark_cohort import (
    OPTIONS,
    POSES,
    Bench,
    affine_of,
    both_ways,
    chosen,
    count_of,
    in_file,
    statuses,
    untimed,
)
from scipy import ndimage

from voxwarp._layout import AFFINE, INVERSE_WARP, WARP
from voxwarp.benchmark import run as runner
from voxwarp.benchmark.job import JOB, RECORD, Job, Run
from voxwarp.errors import InputError
from voxwarp.evaluation import rows as rows_module
from voxwarp.evaluation.record import BENCHMARK, write_record
from voxwarp.evaluation.rows import STRUCTURE_COLUMNS, read_rows
from voxwarp.space.formats import read_affine
from voxwarp.space.transform import Affine


def test_numbers_of_a_known_transform(here, bench: Bench, cohort, protocol, tmp_path: Path):
    """x ↦ A(x + s): landmarks, inverse, consistency and overlap in closed form."""
    rows = bench("shift", options=replace(OPTIONS, keep=True))
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert sorted((row["moving"], row["fixed"]) for row in rows) == sorted(cohort.keys)
    shift = np.array(methods.SHIFT)
    for row in rows:
        moving, fixed = (affine_of(POSES[row[side]]) for side in ("moving", "fixed"))
        start, back = moving.after(fixed.inverse()), fixed.after(moving.inverse())
        linear = start.matrix[:3, :3]
        # Landmarks agree under A alone, so the error is A applied to the shift.
        assert row["tre_mm"] == pytest.approx(np.linalg.norm(linear @ shift), rel=1e-4)
        assert row["inverse_error_mm"] == pytest.approx(0, abs=1e-3)
        # There and back, with a shift each way: s + A⁻¹ s at every point.
        twice = shift + back.matrix[:3, :3] @ shift
        assert row["consistency_mm"] == pytest.approx(np.linalg.norm(twice), rel=0.02)
        assert (row["folds"], row["folds_any"], row["minimum_determinant"]) == (0, 0, 1)
        assert row["dice"] == pytest.approx(overlap(cohort.folder, row, start, shift), abs=0.01)
        assert (row["kind"], row["labels"], row["timed"]) == ("inter", "nearest", "no")
        assert (row["threads"], row["device"]) == (1, "cpu")
        place = tmp_path / "out" / "transforms" / "shift" / f"{row['moving']}_to_{row['fixed']}"
        np.testing.assert_allclose(read_affine(place / AFFINE).matrix, start.matrix, atol=1e-6)
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
    options = replace(OPTIONS, alone=True)
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
        job.path.mkdir(parents=True)
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
    (row,) = bench("shift", chosen(cohort, ("a", "b")), options=options)
    assert row["affine_s"] == 3.75
    assert row["whole_s"] == 3.75 + 10 - 4
    assert (row["deform_s"], row["first_s"], row["memory_mb"]) == (2, 3, 700)
    assert (row["device"], row["timed"]) == ("a GPU", "yes")


class InterruptedRunError(Exception):
    """Interrupts a benchmark."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_benchmark_continues(here, bench: Bench, cohort, tmp_path: Path, after: int):
    """After any pair: the same rows in the end, and nothing runs twice."""
    whole = bench("quick_shift shift", out=tmp_path / "whole")
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if len(lines) == after:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
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


def test_progress_has_a_line_for_each_pair(here, bench: Bench, cohort):
    lines: list[str] = []
    bench("quick_shift raises", chosen(cohort, ("a", "b")), progress=lines.append)
    assert lines[0].startswith("quick_shift: a -> b: Dice 0.")
    assert lines[1] == "raises: a -> b: failed (itkFilter.cxx:12: ITK ERROR: no overlap)"


def test_failure_of_a_pair_is_a_row_and_the_others_continue(
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
    # Without the reverse direction a pair has no consistency, but it has not failed.
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
def test_unusable_files_are_a_failure(
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
    options, ab = replace(OPTIONS, keep=keep), chosen(cohort, ("a", "b"))
    three = chosen(cohort, ("a", "b"), ("a", "c"), ("c", "b"))
    assert [row["status"] for row in bench("raises_once half_file", three, options=options)] == [
        "failed"
    ] * 6
    bench("raises_once half_file", three, options=options)
    assert len(count_of(tmp_path / "out", "raises_once")) == 3, "failures stand"
    rows = bench("raises_once half_file", ab, options=options, retry=True)
    assert len(rows) == 6, "rows of other pairs stay"
    assert count_of(tmp_path / "out", "raises_once")[3:] == ["a_to_b"]
    assert count_of(tmp_path / "out", "half_file")[3:] == ["a_to_b"]
    done = {(r["method"], r["moving"], r["fixed"]) for r in rows if r["status"] == "ok"}
    assert done == {("raises_once", "a", "b")}
    bench("raises_once", three, options=options, retry=True)
    assert count_of(tmp_path / "out", "raises_once")[4:] == ["a_to_c", "c_to_b"]


def test_large_files_are_removed_unless_kept(here, bench: Bench, cohort, tmp_path: Path):
    for keep in (False, True):
        out = tmp_path / f"keep {keep}"
        bench("shift", both_ways(cohort), out=out, options=replace(OPTIONS, keep=keep))
        for name in ("a_to_b", "b_to_a"):
            left = {path.name for path in (out / "transforms" / "shift" / name).iterdir()}
            assert {RECORD, JOB, AFFINE} <= left
            images = {WARP, INVERSE_WARP, "Warped.nii.gz"}
            assert left & images == (images if keep else set())


def test_kept_transforms_are_scored_again(here, bench: Bench, cohort, tmp_path: Path):
    """If their rows are missing or overwritten, unless they start from another affine map."""
    out, pairs = tmp_path / "out", both_ways(cohort)
    keep = replace(OPTIONS, keep=True)
    first = bench("shift", pairs, options=keep)
    for path in (out / "pairs.csv", out / "structures.csv"):
        path.unlink()
    assert untimed(bench("shift", pairs, options=keep)) == untimed(first)
    assert untimed(bench("shift", pairs, options=keep, overwrite=True)) == untimed(first)
    assert len(count_of(out, "shift")) == 2
    start = json.loads((out / "scans" / "a.json").read_text())
    start["template_to_scan"][0][3] += 3
    write_record(out / "scans" / "a.json", start)
    again = bench("shift", pairs, options=keep, overwrite=True)
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


def test_rows_of_other_settings_are_refused(here, bench: Bench, cohort, protocol, tmp_path: Path):
    pairs = both_ways(cohort)
    bench("quick_shift", pairs)
    before = (tmp_path / "out" / "pairs.csv").read_bytes()
    with pytest.raises(InputError, match="different protocol; start again with `overwrite`"):
        bench("quick_shift", pairs, protocol=replace(protocol, labels="linear"))
    assert (tmp_path / "out" / "pairs.csv").read_bytes() == before
    linear = replace(protocol, labels="linear")
    again = bench("quick_shift", pairs, protocol=linear, overwrite=True)
    assert [row["labels"] for row in again] == ["linear"] * 2


@pytest.mark.parametrize("name", ["../a", "a/b", ".a", "..", "x" * 130, " a", "a\0"])
def test_scan_whose_name_cannot_be_a_files(bench: Bench, cohort, tmp_path: Path, name: str):
    (pair,) = chosen(cohort, ("a", "b"))
    odd = replace(pair, moving=replace(pair.moving, name=name))
    with pytest.raises(InputError, match="cannot name a folder of results"):
        bench("quick_shift", [odd])
    assert not (tmp_path / "out").exists()


def test_scans_whose_pairs_would_share_a_folder(bench: Bench, cohort):
    """x to x_to_x, and x_to_x to x: both would be in x_to_x_to_x."""
    there, back = both_ways(cohort)
    x, xx = replace(there.moving, name="x"), replace(there.fixed, name="x_to_x")
    with pytest.raises(InputError, match="the same folder"):
        bench("shift", [replace(there, moving=x, fixed=xx), replace(back, moving=xx, fixed=x)])


def test_labels_that_do_not_fit_are_refused_before_anything_runs(
    here, bench: Bench, cohort, tmp_path: Path
):
    (pair,) = chosen(cohort, ("a", "b"))
    for more, said in (
        ({"labels": cohort.folder / "c-labels.nii.gz"}, "grid"),
        ({"landmarks": cohort.folder / "pairs.csv"}, "no column x, y, z"),
    ):
        with pytest.raises(InputError, match=said):
            bench("quick_shift", [replace(pair, moving=replace(pair.moving, **more))])
    assert not (tmp_path / "out").exists()


def test_second_benchmark_in_a_folder_is_refused(here, bench: Bench, cohort):
    """Each keeps all rows in memory, so the last to write would drop the rows of the other."""
    said = []

    def another(line: str) -> None:
        with pytest.raises(InputError, match="another command is writing here") as refusal:
            bench("shift", both_ways(cohort))
        said.append(refusal)

    rows = bench("quick_shift", chosen(cohort, ("a", "b")), progress=another)
    assert (len(rows), len(said)) == (1, 1)
    assert len(bench("shift", chosen(cohort, ("a", "b")))) == 2


def test_rows_with_the_former_columns_are_kept(here, bench: Bench, cohort, tmp_path: Path):
    """Earlier versions wrote the columns moving_person and fixed_person."""
    bench("quick_shift", chosen(cohort, ("a", "b")))
    path = tmp_path / "out" / "pairs.csv"
    before = in_file(tmp_path / "out")
    path.write_text(path.read_text().replace("_subject", "_person"))
    rows = bench("quick_shift", chosen(cohort, ("a", "b"), ("a", "c")))
    assert [(row["moving"], row["fixed"]) for row in rows] == [("a", "b"), ("a", "c")]
    assert in_file(tmp_path / "out")[0] == pytest.approx(before[0], nan_ok=True)
    assert "moving_subject" in path.read_text().partition("\n")[0]
    assert count_of(tmp_path / "out", "quick_shift") == ["a_to_b", "a_to_c"]
