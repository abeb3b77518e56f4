"""Fixtures of trainings: phantoms to draw pairs from, subjects and runs."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from phantom_cohort import SHAPE, Cohort
from phantoms import blobs, label_map
from runs import EVERYTHING, forget_memory, run

from training import config_of, tree_of, write_config, write_subjects


@pytest.fixture
def cohort() -> Cohort:
    return Cohort(list("aabcdz"), frozenset({0, 2, 3}))


@pytest.fixture
def atlas() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(blobs(99, SHAPE))[None]
    return image, torch.from_numpy(label_map(99, SHAPE, (1, 2, 3)))


@pytest.fixture
def six_subjects(tmp_path: Path) -> Path:
    """A configuration of six subjects whose scans are there, labelled."""
    rows = ["scan,labels,split"]
    for i, split in enumerate(("train", "train", "train", "val", "val", "test")):
        data = np.random.default_rng(i).integers(0, 3, (8, 9, 10)).astype(np.int16)
        for name in (f"{i}.nii", f"{i}-labels.nii"):
            nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / name)
        rows.append(f"{i}.nii,{i}-labels.nii,{split}")
    (tmp_path / "scans.csv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "config.yaml"
    path.write_text(
        "data: {sources: [{table: scans.csv, dataset: crops}], cache: prepared}\n"
        "preparation: {alignment: centre}\n"
    )
    return path


@pytest.fixture
def brains(phantoms, make_grid, poses, tmp_path, quick_affine) -> Path:
    """Two brains with labels."""
    lines = ["id,split"]
    for name, pose in (("fixed", poses.fixed), ("moving", poses.moving)):
        grid = make_grid("LPI", 5)
        write = {"t1": phantoms.image(grid, pose), "labels": phantoms.labels(grid, pose)}
        for kind, image in write.items():
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            nib.save(image, tmp_path / "set" / kind / f"{name}.nii.gz")
        lines.append(f"{name},train")
    (tmp_path / "set/scans.csv").write_text("\n".join(lines))
    return tmp_path / "set"


@pytest.fixture
def memory_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prediction takes longer than small trainings; test_memory has it."""
    forget_memory(monkeypatch)


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects to learn from, two to validate on, two to test on, all labelled."""
    return write_subjects(tmp_path_factory.mktemp("subjects") / "crops")


@pytest.fixture(scope="session")
def unbroken(subjects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of EVERYTHING that nothing has stopped."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    with pytest.MonkeyPatch.context() as patch:
        forget_memory(patch)
        run(config_of(subjects, **EVERYTHING), out)
    return out


@pytest.fixture(scope="session")
def brief(subjects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of few steps that is done."""
    out = tmp_path_factory.mktemp("runs") / "brief"
    with pytest.MonkeyPatch.context() as patch:
        forget_memory(patch)
        run(config_of(subjects), out)
    return out


@pytest.fixture
def held(subjects, brief, tmp_path) -> tuple[Path, Path]:
    """A folder that holds a training, and its configuration."""
    out = shutil.copytree(brief, tmp_path / "run")
    return out, write_config(tmp_path / "config.yaml", tree_of(subjects))
