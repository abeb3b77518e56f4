"""From a scan as it is stored to the network's input, with the way back."""

import importlib.util
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from .linear import register_affine
from .model import Recipe
from .resample import resample
from .transform import Affine
from .volume import Volume, read_volume, to_canonical


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the working grid.

    Args:
        image: (X, Y, Z) float32 in [0, 1].
        template_to_scan: from MNI152 space to the scan's own, RAS mm.
    """

    image: torch.Tensor
    template_to_scan: Affine


def prepare(
    scan: Volume, recipe: Recipe, *, template_to_scan: Affine | None = None, seed: int = 0
) -> Prepared:
    """Align a brain-extracted scan to MNI152, put it on the working grid, scale it to [0, 1].

    Args:
        scan: brain-extracted, any grid.
        recipe: the model's.
        template_to_scan: skip the affine registration and use this.
        seed: of the affine registration.
    """
    scan = to_canonical(scan)
    scan = replace(scan, data=_from_zero(scan.data.astype(np.float32)))
    if template_to_scan is None:
        template_to_scan = register_affine(template(), scan, seed=seed)
    aligned = resample(scan, recipe.grid, template_to_scan).data
    return Prepared(torch.from_numpy(scaled(aligned, recipe.percentile)), template_to_scan)


def _from_zero(data: np.ndarray) -> np.ndarray:
    """Intensities that begin at zero: scans with negative ones (z-scores, say) are shifted.

    Voxels that are exactly zero are background and stay so.
    """
    if data.min() >= 0:
        return data
    brain = data != 0
    return np.where(brain, np.maximum(data - np.percentile(data[brain], 0.5), 0), 0)


def scaled(image: np.ndarray, percentile: float) -> np.ndarray:
    """Intensities over their ``percentile`` in the brain (where they are positive), in [0, 1]."""
    brain = image[image > 0]
    if brain.size == 0:
        return np.zeros_like(image)
    return np.clip(image / np.percentile(brain, percentile), 0, 1)


@cache
def template() -> Volume:
    """The brain-extracted ICBM 152 2009a symmetric T1 average, 1 mm, that nilearn ships."""
    return read_volume(template_path(), "template")


def template_path() -> Path:
    """The template's file inside nilearn, which is found but, being slow, not imported."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nilearn, which ships the MNI152 template, is not installed")
    return (
        Path(spec.origin).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    )
