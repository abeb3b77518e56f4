"""README and docs as pages with blocks of code, and a desk with the files that these name."""

import glob
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from brains import OTHER, UPRIGHT, Phantoms, Pose, make_grid
from other_tools import write_all

from training import write_subjects
from voxwarp.registration.result import Registration
from voxwarp.training.config import read_config
from voxwarp.training.train import train

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
# A file, named at the end of a sentence and shown in the block below.
_SHOWN = re.compile(r"`(\S+\.yaml)`:\n\n```yaml\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code: its language, its text, and why it is not run, if it is not."""

    language: str
    text: str
    reason: str = ""

    def commands(self) -> Iterator[str]:
        """The command lines of a block of a shell's, each on one line."""
        if self.language in ("bash", "sh", "console"):
            lines = (line.strip() for line in self.text.replace("\\\n", " ").splitlines())
            yield from (line for line in lines if line)


def blocks(text: str) -> list[Block]:
    """The blocks of code of a page."""
    found = _BLOCK.finditer(text)
    return [Block(one["language"], one["text"], one["reason"] or "") for one in found]


def block_with(page: str, text: str) -> str:
    """The only block of Python of a page that has a piece of text in it."""
    (found,) = (b.text for b in blocks(PAGES[page]) if b.language == "python" and text in b.text)
    return found


def arguments(line: str) -> list[str]:
    """The words of a command line behind the program's name, patterns of files expanded."""
    words = shlex.split(line, comments=True)[1:]
    return [name for word in words for name in sorted(glob.glob(word)) or [word]]


class Desk:
    """A folder with what the examples read: scans, labels, masks, points, tables, results.

    Args:
        folder: made here.
        phantoms: that the scans show.
        register: makes the results.
    """

    def __init__(self, folder: Path, phantoms: Phantoms, register: Callable[..., Registration]):
        self.folder = folder
        folder.mkdir()
        self._write_scans(phantoms)
        write_all(folder, phantoms)
        self._write_data_sets(phantoms)
        self._write_tables()
        self._write_results(register)
        self._write_training()

    def copied_to(self, folder: Path, text: str) -> None:
        """All but the results that the page makes itself; and the files that it shows in full."""
        own = set(re.findall(r"-o (\S+)", text)) | set(re.findall(r"save\(\"([^\"]+)\"\)", text))
        for path in self.folder.iterdir():
            if path.name in own and path.is_dir():
                continue
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, folder / path.name)
        for name, shown in _SHOWN.findall(text):
            (folder / name).write_text(shown, encoding="utf-8")

    def _write_scans(self, phantoms: Phantoms) -> None:
        moving, fixed = make_grid(spacing=4.5), make_grid(spacing=5)
        bold = make_grid(spacing=5.5)
        scans = {
            moving: (
                *("moving", "sub-01_T1w", "sub-03_T1w", "head", "brain", "contrast"),
                *("t2_brain", "t2", "flair", "T1w", "patient", "sub-01_inplaneT2"),
            ),
            fixed: ("fixed", "sub-02_T1w", "head2", "other_t2", "other_T1w", "control"),
            bold: ("bold_mean",),
        }
        poses = {moving: OTHER, fixed: UPRIGHT, bold: OTHER}
        labels = {moving: ("moving_labels", "sub-03_seg"), bold: ()}
        labels[fixed] = ("fixed_labels", "atlas_labels", "seg_in_aligned_space")
        masks = {moving: ("brain_mask",), fixed: ("brain_mask2",), bold: ("bold_mask",)}
        for grid, names in scans.items():
            image = phantoms.image(grid, poses[grid])
            for name in (*names, *(f"contrast{n}" for n in (1, 2) if grid is moving)):
                self._save(image, name)
            for name in labels[grid]:
                self._save(phantoms.labels(grid, poses[grid]), name)
            for name in masks[grid]:
                inside = (np.asarray(image.dataobj) > 0).astype(np.uint8)
                self._save(nib.Nifti1Image(inside, image.affine), name)
        structures = np.asarray(phantoms.labels(moving, OTHER).dataobj)
        for name, value in zip(
            ("lesion", "tumour", "cavity"), np.unique(structures)[1:], strict=False
        ):
            inside = (structures == value).astype(np.uint8)
            self._save(nib.Nifti1Image(inside, moving.affine), name)
        self._save(phantoms.image(make_grid(spacing=10)), "grid_3mm")
        frames = np.stack([np.asarray(phantoms.image(bold, OTHER).dataobj)] * 2, axis=-1)
        self._save(nib.Nifti1Image(frames, bold.affine), "bold")
        (self.folder / "study").mkdir()
        for number in range(2):
            image = phantoms.image(make_grid(spacing=4.75 + number / 4), OTHER)
            self._save(image, f"study/subject{number}")
            (self.folder / f"sub-0{number + 1}" / "anat").mkdir(parents=True)
            self._save(image, f"sub-0{number + 1}/anat/T1w")

    def _write_data_sets(self, phantoms: Phantoms) -> None:
        """Two data sets of BIDS, and some of their people with label maps, all of them brains."""
        poses = [Pose((n, -n, 2 * n), 1 + n / 60, (n, -n, n), bend=1.0 + n) for n in range(6)]
        for name, number in (("ds000011", 3), ("ds002748", 6)):
            rows = ["participant_id\tage\tgender"]
            for person, pose in enumerate(poses[:number], start=1):
                label, grid = f"sub-{person:02d}", make_grid(spacing=5.5 + person / 4)
                (self.folder / name / label / "anat").mkdir(parents=True)
                self._save(phantoms.image(grid, pose), f"{name}/{label}/anat/{label}_T1w")
                rows.append(f"{label}\t{20 + 7 * person % 30}\t{'mf'[person % 2]}")
            (self.folder / name / "participants.tsv").write_text("\n".join(rows) + "\n")
            about = {"Name": name, "BIDSVersion": "1.10.0"}
            (self.folder / name / "dataset_description.json").write_text(json.dumps(about))
        (self.folder / "labelled").mkdir()
        for person, pose in enumerate(poses[:3], start=1):
            name, grid = f"labelled/sub-{person:02d}", make_grid(spacing=6)
            self._save(phantoms.image(grid, pose), f"{name}_T1w")
            self._save(phantoms.labels(grid, pose), f"{name}_dseg")

    def _write_training(self) -> None:
        """The ready configurations, crops for one of them, and a model that is hardly trained."""
        shutil.copytree(ROOT / "configs", self.folder / "configs")
        crops = write_subjects(self.folder / "crops", splits=("",) * 10)
        for kind, theirs in (("images", "t1"), ("labels", "labels")):
            (self.folder / "hippocampus" / kind).mkdir(parents=True)
            for number in range(10):
                name = f"hippocampus_{4 + 10 * number:03d}.nii.gz"
                source = crops / theirs / f"p{number}.nii.gz"
                source.rename(self.folder / "hippocampus" / kind / name)
        shutil.rmtree(crops)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VOXWARP_DATA", str(self.folder))
            quick = ["phases=[{steps: 1}]", "validation.every=1", "validation.pairs=2"]
            quick += ["log.every=1", "log.tensorboard=false", "optimiser.batch=1"]
            config = read_config(self.folder / "configs" / "hippocampus.yaml", quick)
            train(config, self.folder / "runs" / "hippocampus", device="cpu", show=False)

    def _save(self, image: nib.Nifti1Image, name: str) -> None:
        nib.save(image, self.folder / f"{name}.nii.gz")

    def _write_tables(self) -> None:
        for name in ("electrodes", "mni_peaks"):
            (self.folder / f"{name}.csv").write_text("name,x,y,z\na,0,-18,4\nb,20,-30,10\n")
        electrodes = "name\tx\ty\tz\nA1\t0\t-18\t4\nA2\t20\t-30\t10\n"
        (self.folder / "sub-01_electrodes.tsv").write_text(electrodes)
        columns = "moving,fixed,moving_labels,fixed_labels\n"
        row = "moving.nii.gz,fixed.nii.gz,moving_labels.nii.gz,fixed_labels.nii.gz\n"
        (self.folder / "pairs.csv").write_text(columns + row)
        (self.folder / "structures.csv").write_text("value,structure\n2,one\n7,other\n")
        module = "def my_function(head):\n    return head.data > 0\n"
        (self.folder / "my_module.py").write_text(module)

    def _write_results(self, register: Callable[..., Registration]) -> None:
        def path(name: str) -> Path:
            return self.folder / f"{name}.nii.gz"

        pair = register(path("moving"), path("fixed"))
        for name in ("out", "pair", "results/a", "results/b", "study/sub-01", "study/sub-02"):
            pair.save(self.folder / name)
        rigid = register(path("bold_mean"), path("sub-01_T1w"), transform="rigid")
        rigid.save(self.folder / "bold_to_t1")
        register(path("moving"), path("fixed"), transform="rigid").save(self.folder / "rigid")
