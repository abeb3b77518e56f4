"""Small BIDS data sets of phantoms, and a model with which a registration takes a second."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import Recipe
from voxwarp.space.grid import Grid

SHAPE, SPACING = (20, 24, 18), 8.0  # of the scans


def grid(spacing: float = SPACING) -> Grid:
    """Around the origin."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(SHAPE) - 1) / 2
    return Grid(SHAPE, affine)


def head(seed: int, size: float = 1.0) -> np.ndarray:
    """A brain of blobs, zero outside; every seed gives another one."""
    rng = np.random.default_rng(seed)
    points = np.moveaxis(np.indices(SHAPE, float), 0, -1)
    centre = (np.array(SHAPE) - 1) / 2
    inside = (((points - centre) / (size * np.array([7.5, 9.5, 7.0]))) ** 2).sum(-1) < 1
    values = np.full(SHAPE, 60.0)
    for _ in range(9):
        place = centre + rng.uniform(-5, 5, 3)
        values += rng.uniform(20, 60) * np.exp(-((points - place) ** 2).sum(-1) / 8)
    return np.where(inside, values, 0).astype(np.int16)


def write_scan(path: Path, data: np.ndarray) -> Path:
    """Write a scan; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, grid().affine), path)
    return path


def write_bids(
    root: Path, persons: int = 2, extra: Callable[[Path, str], Any] | None = None
) -> Path:
    """A data set of persons 01, 02, ... without sessions.

    Args:
        root: its folder.
        persons: their number.
        extra: called with the folder anat of each, and its label.
    """
    root.mkdir(parents=True)
    about = {"Name": "Phantoms", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(about))
    for number in range(1, persons + 1):
        label = f"{number:02d}"
        folder = root / f"sub-{label}" / "anat"
        write_scan(folder / f"sub-{label}_T1w.nii.gz", head(number))
        if extra is not None:
            extra(folder, label)
    return root


def write_quick_model(folder: Path) -> Path:
    """A descent in few steps on a small grid; scans are aligned by their headers."""
    recipe = Recipe(grid(), alignment="header")
    Model.build({"name": "descent", "steps": [2, 2]}, recipe).save(folder)
    return folder
