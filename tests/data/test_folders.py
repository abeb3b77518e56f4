"""Scans in folders and BIDS data sets: which files are found, whose they are, their label maps."""

from pathlib import Path

import pytest

from voxwarp.data.scans import gather
from voxwarp.data.sources import Data
from voxwarp.errors import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_of_scans(tmp_path):
    """Label maps that lie beside their scans are no scans; what has none is unlabelled."""
    folder = tmp_path / "set"
    touch(folder, "a.nii.gz", "a_seg.nii.gz", "b.c.nii.gz", ".hidden.nii.gz", "note.txt")
    (folder / "lost.nii.gz").symlink_to("nowhere")
    data = Data(sources=[{"folder": str(folder), "labels": "{stem}_seg.nii.gz", "split": "train"}])
    found = gather(data, 0)
    assert [(s.path.name, s.labels and s.labels.name, s.subject) for s in found] == [
        ("a.nii.gz", "a_seg.nii.gz", "a"),
        ("b.c.nii.gz", None, "b.c"),
        ("lost.nii.gz", None, "lost"),
    ]
    assert {(s.dataset, s.where) for s in found} == {("set", "set")}


def test_a_folder_with_folders(tmp_path):
    touch(tmp_path / "scans", "1/T1.nii", "2/T1.nii", "2/T2.nii")
    touch(tmp_path / "maps", "1/T1.nii")
    source = {"folder": str(tmp_path / "scans"), "scan": "*/T1.nii"}
    found = gather(Data(sources=[{**source, "labels": "../maps/{folder}/{name}"}]), 0)
    assert [(s.subject, s.labels) for s in found] == [
        ("1/T1", tmp_path / "maps/1/T1.nii"),
        ("2/T1", None),
    ]
    for pattern, message in (
        ("../map/{folder}/{name}", r"none of the scans has a label map; .*map/1/T1\.nii does not"),
        ("{id}", "unknown placeholder 'id'; use {name}, {stem} or {folder}"),
    ):
        with pytest.raises(InputError, match=message):
            gather(Data(sources=[{**source, "labels": pattern}]), 0)


def test_a_bids_data_set(tmp_path):
    """Sessions and runs are scans of one subject; derivatives and other suffixes are not taken."""
    root = tmp_path / "ds1"
    touch(
        root,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz",
        "sub-02/ses-b/anat/sub-02_ses-b_run-1_T1w.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_run-2_T1w.nii.gz",
        "sub-02/ses-b/anat/sub-02_ses-b_run-2_T1w.json",
        "sub-02/ses-b/anat/sub-02_ses-b_T2w.nii.gz",
        "sub-02/ses-b/func/sub-02_ses-b_T1w.nii.gz",
        "derivatives/tool/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-03/anat/sub-03_desc-brain_mask.nii.gz",
        "masks/sub-01/anat/sub-01_T1w_dseg.nii.gz",
        "participants.tsv",
    )
    source = {"bids": str(root), "labels": "masks/{folder}/{stem}_dseg.nii.gz"}
    found = gather(Data(sources=[source], fractions={"train": 1}), 0)
    assert [(s.subject, s.path.name.partition("_")[2]) for s in found] == [
        ("sub-01", "T1w.nii.gz"),
        ("sub-02", "ses-a_T1w.nii.gz"),
        ("sub-02", "ses-b_run-1_T1w.nii"),
        ("sub-02", "ses-b_run-2_T1w.nii.gz"),
    ]
    assert [s.labels is not None for s in found] == [True, False, False, False]
    assert {s.dataset for s in found} == {"ds1"}
    (other,) = gather(Data(sources=[{"bids": str(root), "suffix": "T2w", "split": "train"}]), 0)
    assert other.path.name == "sub-02_ses-b_T2w.nii.gz"
