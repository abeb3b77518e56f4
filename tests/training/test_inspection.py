"""What is found before a training: all problems, what is odd, and how much there is."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohorts import crop, crop_labels, crops_config, cut, gathered, write_scan
from odd_headers import TWO, of_two_minds

from training import tree_of, write_config
from voxwarp.training import memory
from voxwarp.training.inspection import check


def test_all_is_well(crops):
    config = crops_config(crops)
    calls = []
    report = check(config, gathered(config), progress=lambda *done: calls.append(done))
    assert calls == [(i + 1, 4) for i in range(4)]
    assert report.problems == []
    assert report.warnings == [
        "data: split val has 1 subjects, but validation needs pairs of two; without it, the last "
        "model counts as the best"
    ]
    assert report.structures == ["3", "40", "2035"]
    counts = {
        split: (c.scans, c.subjects, c.labelled) for split, c in report.counts["crops"].items()
    }
    assert counts == {"train": (2, 2, 2), "val": (1, 1, 1), "test": (1, 1, 1)}
    assert report.bytes_needed == 4 * 2 * 16**3
    assert report.bytes_free > 0
    assert not report.folder.exists()


def test_all_problems_are_named(tmp_path):
    """One of each kind, in a table of good scans; each line names the file and the row."""
    shape, folder = (6, 7, 8), tmp_path / "set"
    for i in range(12):
        write_scan(folder / f"t1/{i}.nii.gz", crop(i, shape).astype(np.float32))
        write_scan(folder / f"labels/{i}.nii.gz", crop_labels(i, shape))
    broken = crop(0, shape).astype(np.float32)
    broken[1, 2, 3] = np.nan
    cut(folder / "t1/1.nii.gz")
    write_scan(folder / "t1/2.nii.gz", broken)
    write_scan(folder / "t1/3.nii.gz", np.zeros(shape, np.uint8))
    write_scan(folder / "t1/4.nii.gz", np.ones((*shape, 2), np.uint8))
    (folder / "t1/5.nii.gz").unlink()
    write_scan(folder / "labels/6.nii.gz", crop_labels(6, shape), np.diag([2.0, 1, 1, 1]))
    write_scan(folder / "labels/7.nii.gz", crop_labels(7, shape) + np.float32(0.5))
    write_scan(folder / "labels/8.nii.gz", crop_labels(8, shape, (7, 8)))
    cut(folder / "labels/9.nii.gz")
    write_scan(folder / "labels/10.nii.gz", crop_labels(8, shape, (3, 40)))
    cut(folder / "labels/1.nii.gz")
    text = "id,split\n" + "".join(f"{i},train\n" for i in range(12))
    (folder / "scans.csv").write_text(text)
    config = crops_config(folder, data={"structures": {"values": [3, 40, 2035]}})
    report = check(config, gathered(config))
    expected = {
        ("t1", 1): "damaged or cut off",
        ("labels", 1): "damaged or cut off",
        ("t1", 2): "1 voxel is NaN",
        ("t1", 3): "all zero",
        ("t1", 4): "a series of shape",
        ("t1", 5): "no such file",
        ("labels", 6): "its grid",
        ("labels", 7): "whole numbers",
        ("labels", 8): "none of its 2 label values is in data.structures",
        ("labels", 9): "damaged or cut off",
    }
    assert len(report.problems) == len(expected)
    for problem, ((kind, i), what) in zip(report.problems, expected.items(), strict=True):
        assert problem.startswith(f"scans.csv row {i + 2}: ")
        assert f"{folder}/{kind}/{i}.nii.gz: " in problem
        assert what in problem
        assert "\n" not in problem
    (warning,) = (line for line in report.warnings if "row" in line)
    assert "row 12" in warning
    assert "it lacks 1 of the structures (2035)" in warning


def test_what_headers_leave_in_doubt_is_a_warning(crops):
    for kind in ("t1", "labels"):
        path = crops / kind / "0.nii.gz"
        of_two_minds(path, path)
    config = crops_config(crops)
    about = [text for text in check(config, gathered(config)).warnings if TWO in text]
    assert [text.split(":")[:2] for text in about] == [
        ["scans.csv row 2", f" {what} {crops}/{kind}/0.nii.gz"]
        for what, kind in (("image", "t1"), ("label map", "labels"))
    ]


def test_an_atlas_that_cannot_be_read_is_a_problem(crops):
    for atlas, labels in (("t1/9.nii.gz", None), ("t1/0.nii.gz", "labels/1.nii.gz")):
        sampling = {"mode": "atlas", "atlas": str(crops / atlas)}
        sampling["atlas_labels"] = labels and str(crops / labels)
        config = crops_config(crops, sampling=sampling)
        (problem,) = check(config, gathered(config)).problems
        assert problem.startswith("atlas ")
        assert str(crops / (labels or atlas)) in problem


def test_a_cache_that_cannot_be_written_is_a_problem(crops):
    config = crops_config(crops, data={"cache": str(crops / "scans.csv")})
    (problem,) = check(config, gathered(config)).problems
    assert "this is a file, but it must be a folder" in problem


# --------------------------------------------------------------------------------- Command line


def test_check_prints_the_numbers_of_scans(six_subjects: Path, cli) -> None:
    outcome = cli("train", six_subjects, "--check", "seed=4")
    assert outcome.code == 0, outcome
    lines = outcome.out.splitlines()
    assert lines[:3] == [
        "crops, train: 3 scans of 3 subjects, 3 with labels",
        "crops, val: 2 scans of 2 subjects, 2 with labels",
        "crops, test: 1 scans of 1 subjects, 1 with labels",
    ]
    assert lines[3] == "2 structures"
    assert lines[-1] == "no problems found"
    assert "error" not in outcome.err
    assert sorted(path.name for path in six_subjects.parent.iterdir() if path.is_dir()) == []


def test_check_prints_every_problem_on_its_own_line(six_subjects: Path, cli) -> None:
    folder = six_subjects.parent
    (folder / "1.nii").write_bytes(b"no scan")
    (folder / "4-labels.nii").unlink()
    nan = nib.Nifti1Image(np.full((8, 9, 10), np.nan, np.float32), np.eye(4))
    nib.save(nan, folder / "2.nii")
    outcome = cli("train", six_subjects, "--check")
    assert outcome.code == 2
    assert "no problems" not in outcome.out
    problems = [line for line in outcome.err.splitlines() if " error: " in line]
    assert all(line.startswith("voxwarp: error: ") for line in problems)
    for name in ("1.nii", "4-labels.nii", "2.nii"):
        assert sum(name in line for line in problems) == 1, problems


# ----------------------------------------------------------------- Before anything is prepared


@pytest.fixture
def unprepared(subjects, tmp_path) -> Path:
    """A configuration of subjects who are not in the cache yet."""
    tree = tree_of(subjects, data={"cache": str(tmp_path / "prepared")})
    return write_config(tmp_path / "config.yaml", tree)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], " GB of memory, but only 0.1 GB are free"),
        (
            ["start_from={brief}", "network.channels=[4,8]"],
            "but the configuration has {'channels': [4, 8], 'name': 'pyramid'}",
        ),
        (
            ["start_from={brief}", "network={name: voxelmorph}"],
            "but the configuration has {'encoder': [16, 32, 32, 32], ",
        ),
        (["start_from={brief}/none"], "unknown model"),
    ],
)
def test_problems_that_need_no_preparation_are_reported_before_it(
    unprepared, brief, tmp_path, monkeypatch, cli, refuses, overrides, words, check
) -> None:
    """``refuses`` looks whether anything is written."""
    if not overrides:
        monkeypatch.setattr(memory, "available_memory", lambda device: int(0.1e9))
    given = [override.replace("{brief}", str(brief)) for override in overrides]
    if not check:
        assert words in refuses("train", unprepared, *given, "-o", tmp_path / "run")
        return
    outcome = cli("train", unprepared, *given, "--check", "--device", "cpu")
    assert outcome.code == 2
    (line,) = (li for li in outcome.err.splitlines() if li.startswith("voxwarp: error: "))
    assert words in line
    assert "phantoms, train: 3 scans" in outcome.out
    assert not (tmp_path / "prepared").exists()


def test_a_problem_is_reported_once(unprepared, cli, tmp_path) -> None:
    """Although both the scans and the memory need the working grid."""
    rows = "id,split,scan\n1,train,1.nii\n2,train,2.nii\n"
    (tmp_path / "scans.csv").write_text(rows)
    for i in (1, 2):
        (tmp_path / f"{i}.nii").write_text("no image")
    source = f"data.sources=[{{table: {tmp_path}/scans.csv}}]"
    alignment = "preparation={alignment: header}"
    outcome = cli("train", unprepared, source, alignment, "--check", "--device", "cpu")
    assert outcome.code == 2
    assert outcome.err.count("headers can be read") == 1
