"""Numbers that describe a registration: overlap of labels, folds, similarity."""

import numpy as np
import torch
import torch.nn.functional as F

from . import field
from .losses import local_ncc_map
from .transform import Warp


def dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    """2|A∩B| / (|A| + |B|) of every label value that is in either map, but 0.

    Args:
        a, b: integer arrays of one shape.
    """
    labelled = (a != 0) | (b != 0)
    a, b = a[labelled], b[labelled]
    values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    first, second = codes[: a.size], codes[a.size :]
    sizes = np.bincount(first, minlength=len(values)) + np.bincount(second, minlength=len(values))
    shared = np.bincount(first[first == second], minlength=len(values))
    return {
        int(value): float(2 * both / size)
        for value, both, size in zip(values, shared, sizes, strict=True)
        if value != 0
    }


def jacobian_statistics(warp: Warp, brain: np.ndarray) -> dict[str, float | int]:
    """How the volume changes locally, over the voxels of ``brain``.

    Args:
        warp: the deformation.
        brain: (X, Y, Z) boolean mask on its grid.

    Returns:
        Minimum, maximum and mean of det J by central differences, the standard deviation of
        its logarithm (over unfolded voxels), and the folds: how many voxels, and how many
        percent, have det J ≤ 0; ``folds_any_difference`` counts those where central, forward
        or backward differences say so.
    """
    brain = brain if brain.any() else np.ones_like(brain)
    x, y, z = box = bounding_box(brain)
    inside = torch.from_numpy(brain[box])
    displacement = warp.in_voxels()[None, :, x, y, z]
    determinant = field.jacobian_determinant(displacement)[0]
    folded = determinant <= 0
    any_folded = folded.clone()
    any_folded |= field.jacobian_determinant(displacement, differences="forward")[0] <= 0
    any_folded |= field.jacobian_determinant(displacement, differences="backward")[0] <= 0
    values = determinant[inside]
    count = int(folded[inside].sum())
    return {
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "mean": float(values.mean()),
        "std_log": float(values[values > 0].log().std()) if (values > 0).sum() > 1 else 0.0,
        "voxels": int(inside.sum()),
        "folds": count,
        "folds_percent": 100 * count / max(1, int(inside.sum())),
        "folds_any_difference": int(any_folded[inside].sum()),
    }


def similarity(fixed: torch.Tensor, moved: torch.Tensor) -> dict[str, float]:
    """How alike two prepared images (X, Y, Z) of 1 mm are in the fixed brain; 1 is perfect.

    Both are averaged down to 2 mm first, which tells as much for an eighth of the time.

    Returns:
        ``local_ncc``: mean squared local correlation in windows of 10 mm; ``correlation``:
        Pearson's.
    """
    f, m = (F.avg_pool3d(image[None, None], 2) for image in (fixed, moved))
    inside = f > 0
    if not inside.any():
        return {"local_ncc": 0.0, "correlation": 0.0}
    local = local_ncc_map(f, m, window=5)[inside].mean()
    correlation = torch.corrcoef(torch.stack([f[inside], m[inside]]))[0, 1]
    return {"local_ncc": float(local), "correlation": float(correlation.nan_to_num())}


def bounding_box(mask: np.ndarray, margin: int = 1) -> tuple[slice, slice, slice]:
    """Slices of the smallest block that holds a mask and a margin; everything if it is empty."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (hit[0], hit[-1] + 1) if hit.size else (0, mask.shape[axis])
        box.append(slice(max(0, low - margin), min(mask.shape[axis], high + margin)))
    return box[0], box[1], box[2]
