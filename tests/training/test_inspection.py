"""What is found before a training: all problems, what is odd, and how much there is."""

import numpy as np
from cohorts import crop, crop_labels, crops_config, cut, gathered, write_scan

from voxwarp.training.inspection import check


def test_all_is_well(crops):
    config = crops_config(crops)
    calls = []
    report = check(config, gathered(config), progress=lambda *done: calls.append(done))
    assert calls == [(i + 1, 4) for i in range(4)]
    assert report.problems == []
    assert report.doubts == [
        "data: there are 1 people in split val: hardly anything can be validated"
    ]
    assert report.structures == ["3", "40", "2035"]
    counts = {split: (c.scans, c.people, c.labelled) for split, c in report.counts["crops"].items()}
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
        ("t1", 2): "1 voxels are NaN",
        ("t1", 3): "all zero",
        ("t1", 4): "a series of shape",
        ("t1", 5): "no such file",
        ("labels", 6): "its grid",
        ("labels", 7): "whole numbers",
        ("labels", 8): "none of its 2 label values is a structure",
        ("labels", 9): "damaged or cut off",
    }
    assert len(report.problems) == len(expected)
    for problem, ((kind, i), what) in zip(report.problems, expected.items(), strict=True):
        assert problem.startswith(f"scans.csv row {i + 2}: ")
        assert f"{folder}/{kind}/{i}.nii.gz: " in problem
        assert what in problem
        assert "\n" not in problem
    (doubt,) = (doubt for doubt in report.doubts if "row" in doubt)
    assert "row 12" in doubt
    assert "1 structures are not in it (2035)" in doubt


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
    assert "this is a file, a folder is wanted" in problem
