"""The commands of docs/cohort.md, run as they are printed, on two real heads."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pages import PAGES, blocks

pytestmark = [pytest.mark.slow, pytest.mark.data]

COMMANDS = [
    line
    for block in blocks(PAGES["docs/cohort.md"])
    for line in block.commands()
    if line.startswith("voxwarp cohort")
]


def test_the_tutorial_does_what_it_says(data: Path, tmp_path: Path) -> None:
    source, bids = data / "ds000011", tmp_path / "bids"
    bids.mkdir()
    shutil.copy(source / "dataset_description.json", bids)
    for name in ("sub-01", "sub-02"):
        shutil.copytree(source / name, bids / name)
    outputs = []
    for line in COMMANDS:
        words = [sys.executable, "-m", "voxwarp", *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    dry, first, group, second = outputs
    assert "2 of 2 scans would be registered" in dry
    assert "2 scans: 2 registered" in first
    assert "group_T1w.tsv" in group
    assert "nothing to do: all 2 results are up to date" in second
    out = tmp_path / "derivatives" / "voxwarp"
    assert (out / "index.html").is_file()
    template = nib.load(next((out / "group").glob("*_desc-mean_T1w.nii.gz")))
    for path in out.glob("sub-*/anat/*_space-*_desc-brain_mask.nii.gz"):
        mask = np.asarray(nib.load(path).dataobj)
        assert mask.shape == template.shape
        assert 1.2e6 < mask.sum() < 2.4e6  # mm³
    rows = (out / "quality.tsv").read_text().splitlines()
    assert [row.split("\t")[-1] for row in rows] == ["flags", "n/a", "n/a"]
