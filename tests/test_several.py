"""Several scans in one command: their folders, and the files that come once for each."""

import os
from pathlib import Path

import pytest

from voxwarp._several import folders_of, one_per_scan
from voxwarp.errors import InputError


@pytest.mark.parametrize(
    ("scans", "names"),
    [
        (["a.nii.gz", "x/b.mgz", "c.nii"], ["a", "b", "c"]),
        (
            ["bids/sub-01/anat/T1w.nii.gz", "bids/sub-02/anat/T1w.nii.gz"],
            ["sub-01_T1w", "sub-02_T1w"],
        ),
        (
            ["sub-01/ses-1/T1w.nii", "sub-01/ses-2/T1w.nii", "sub-02/ses-1/T1w.nii", "e.nii"],
            ["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_ses-1_T1w", "e"],
        ),
        (["d/sub-01/mri/T1.mgz", "d/sub-02/T1.mgz"], ["sub-01_mri_T1", "sub-02_T1"]),
        (["T1.mgz", "sub-02/T1.mgz"], ["T1", "sub-02_T1"]),
        (["x/../sub-01/T1.mgz", "./sub-02/T1.mgz"], ["sub-01_T1", "sub-02_T1"]),
        (["sub-01/mri/T1.mgz", "sub-01/alt/T1.mgz"], ["mri_T1", "alt_T1"]),
    ],
)
@pytest.mark.parametrize("base", ["", "/data/study"])
def test_folders_tell_scans_apart(base: str, scans: list[str], names: list[str]) -> None:
    folders = folders_of([Path(base, scan) for scan in scans], Path("out"))
    assert folders == [Path("out", name) for name in names]
    assert len({os.path.abspath(folder) for folder in folders}) == len(scans)


@pytest.mark.parametrize(
    "scans",
    [
        ["sub-01/T1.mgz", "sub-01/T1.mgz"],
        ["sub-01/T1.mgz", "sub-01/T1.nii.gz"],
        ["sub-01/T1.mgz", "sub-02/T1.mgz", "x/sub-01_T1.nii"],
        ["a/b_c/T1.nii", "a_b/c/T1.nii"],
    ],
)
def test_scans_that_cannot_be_told_apart_are_refused(scans: list[str]) -> None:
    with pytest.raises(InputError, match=r"output out/\S*T1: two of the scans"):
        folders_of([Path(scan) for scan in scans], Path("out"))


def test_one_file_for_each_scan_or_none() -> None:
    scans = ["a", "b"]
    assert one_per_scan(["1", "2"], scans, "mask") == ["1", "2"]
    assert one_per_scan(None, scans, "mask") == one_per_scan([], scans, "mask") == [None, None]
    with pytest.raises(InputError, match=r"mask must be given once .* got 1 file for 2 scans"):
        one_per_scan(["1"], scans, "mask")
    with pytest.raises(InputError, match="got 2 files for 1 scan"):
        one_per_scan(["1", "2"], scans[:1], "mask")
