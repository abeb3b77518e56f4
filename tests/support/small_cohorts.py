"""Small cohorts: a data set of phantoms, and how to run ``voxwarp cohort`` on it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from bids_data import grid, head, write_scan


@dataclass(frozen=True)
class SmallCohort:
    """A data set, a model, a template, and how to run the command on them."""

    folder: Path

    @property
    def bids(self) -> Path:
        return self.folder / "bids"

    @property
    def settings(self) -> list[str]:
        names = {"--fixed": "template.nii.gz", "--model": "model"}
        paths = [word for option, name in names.items() for word in (option, self.folder / name)]
        return [*map(str, paths), "--space", "Phantom", "--brain-extract", "no"]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(self, out: Path, *words: object) -> list[str]:
        command = [sys.executable, "-m", "voxwarp", "cohort", self.bids, out, *words]
        return [*map(str, command), *self.settings]

    def run(self, out: Path, *words: object) -> subprocess.CompletedProcess[str]:
        """``voxwarp cohort``, in a process of its own, as a user runs it."""
        command = self.command(out, *words)
        return subprocess.run(command, capture_output=True, text=True, env=self.environment)


def companions(folder: Path, label: str) -> None:
    """A label map in the space of the scan, but on a finer grid, and a series."""
    brain = head(int(label))
    labels = (brain > 0).astype(np.uint8) + (brain > 120)
    write_scan(folder / f"sub-{label}_desc-two_dseg.nii.gz", labels.astype(np.uint8))
    image = nib.Nifti1Image(np.stack([brain, 2 * brain, brain], -1), grid().affine)
    image.header.set_zooms((8.0, 8.0, 8.0, 2.0))
    func = folder.parent / "func"
    func.mkdir()
    nib.save(image, func / f"sub-{label}_task-rest_bold.nii.gz")
    write_scan(folder / f"sub-{label}_label-lesion_roi.nii.gz", (brain > 150).astype(np.uint8))
