"""Image files read and resampled by nibabel and SciPy: an oracle for resampling."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

PathOrImage = Path | nib.Nifti1Image


def opened(source: PathOrImage) -> nib.Nifti1Image:
    return nib.load(source) if isinstance(source, Path) else source


def voxels(source: PathOrImage) -> np.ndarray:
    return np.asarray(opened(source).dataobj)


def nodes(source: PathOrImage) -> np.ndarray:
    """All voxel centres in RAS mm, (X, Y, Z, 3)."""
    image = opened(source)
    return apply_affine(image.affine, np.moveaxis(np.indices(image.shape[:3]), 0, -1))


def taken(
    source: PathOrImage, points: np.ndarray, order: int, mode: str = "nearest"
) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's values of an image at RAS points, and where all eight neighbours are inside."""
    image = opened(source)
    at = np.moveaxis(apply_affine(np.linalg.inv(image.affine), points), -1, 0)
    last = np.array(image.shape).reshape(3, *[1] * (at.ndim - 1)) - 1
    data = voxels(image) if order == 0 else voxels(image).astype(np.float64)
    return (
        ndimage.map_coordinates(data, at, order=order, mode=mode),
        ((at > 1e-3) & (at < last - 1e-3)).all(axis=0),
    )


def brain_points(path: Path, number: int = 300) -> np.ndarray:
    """RAS points between the voxels of the brain."""
    image, rng = nib.load(path), np.random.default_rng(11)
    inside = rng.permutation(np.argwhere(voxels(image) > 200))[:number]
    return apply_affine(image.affine, inside + rng.uniform(-0.5, 0.5, inside.shape))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two boolean masks."""
    return 2 * (a & b).sum() / (a.sum() + b.sum())
