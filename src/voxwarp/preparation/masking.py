"""The brain of a scan on any grid: bias field removed, masked, interpolated once."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from ..space.grid import Grid
from ..space.region import bounding_box
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import Volume
from .intensity import from_zero

FILLING = 2.0, 4.0, 8.0, 16.0  # sigmas of the Gaussians that fill lesions, mm; set by hand
ENOUGH = 0.1  # share of a Gaussian that must be brain; set by hand


def brain_on(
    scan: Volume,
    grid: Grid,
    transform: Affine | None = None,
    *,
    mask: Volume | None = None,
    log_bias: Volume | None = None,
    lesion: Volume | None = None,
) -> Volume:
    """Resample the brain of a scan onto a grid: bias field removed, zero outside the brain.

    The scan is interpolated once.

    Args:
        scan: intensities that start at zero, see ``from_zero``.
        grid: grid of the result.
        transform: maps points of the grid's space to points of the scan, RAS mm; by default the
            identity.
        mask: brain mask, on any grid in the scan's space; None: every voxel that is not 0.
        log_bias: logarithm of the bias field, on any grid in the scan's space.
        lesion: mask of lesions, on any grid in the scan's space; they are filled, see ``filled``.
    """
    on_own_grid = transform is None and grid == scan.grid
    moved = scan if on_own_grid else resample(scan, grid, transform)
    moved = unbiased(moved, log_bias, transform)
    if mask is not None:
        moved = replace(moved, data=np.where(mask_on(mask, grid, transform), moved.data, 0))
    return moved if lesion is None else filled(moved, touched(lesion, grid, transform))


def filled(brain: Volume, lesion: np.ndarray) -> Volume:
    """Fill lesions of a brain smoothly with the intensities of the brain around them.

    So an edge of a lesion pulls nothing, and where tissue is missing, there is brain. Each voxel
    gets the mean of the brain around, weighted by the narrowest Gaussian that reaches enough of it.

    Args:
        brain: zero outside the brain, on any grid.
        lesion: (X, Y, Z) boolean, on its grid.
    """
    known = (brain.data > 0) & ~lesion
    if not lesion.any() or not known.any():
        return brain
    data = brain.data.astype(np.float32)
    data[lesion] = data[known].mean()
    left, spacing = lesion.copy(), np.asarray(brain.grid.spacing)
    for sigma in FILLING:
        box = bounding_box(left, margin=int(np.ceil(3 * sigma / spacing.min())))
        inside = known[box].astype(np.float32)
        weight = ndimage.gaussian_filter(inside, sigma / spacing, truncate=3)
        value = ndimage.gaussian_filter(inside * brain.data[box], sigma / spacing, truncate=3)
        near = left[box] & (weight > ENOUGH)
        data[box][near] = value[near] / weight[near]
        left[box][near] = False
        if not left.any():
            break
    return replace(brain, data=data)


def unbiased(scan: Volume, log_bias: Volume | None, transform: Affine | None = None) -> Volume:
    """Divide a scan by its bias field.

    Args:
        scan: the scan.
        log_bias: logarithm of the bias field, on any grid; None: the scan is returned as it is.
        transform: maps points of the scan's space to points of the field's; by default the
            identity.
    """
    if log_bias is None:
        return scan
    # The scan may extend beyond the grid of the field: there the field keeps its border value.
    logarithm = resample(log_bias, scan.grid, transform, padding="border").data
    return replace(scan, data=scan.data * np.exp(-logarithm))


def mask_on(mask: Volume, grid: Grid, transform: Affine | None = None) -> np.ndarray:
    """Resample a mask onto a grid: True where its linear interpolation is at least 0.5.

    Args:
        mask: 0 outside.
        grid: grid of the result.
        transform: maps points of the grid's space to points of the mask's; by default the identity.
    """
    return _share(mask, grid, transform) >= 0.5


def touched(lesion: Volume, grid: Grid, transform: Affine | None = None) -> np.ndarray:
    """Where a voxel of a grid, interpolated linearly, has anything of a lesion in it.

    Args:
        lesion: mask, 0 outside.
        grid, transform: see ``mask_on``.
    """
    return _share(lesion, grid, transform) > 0


def _share(mask: Volume, grid: Grid, transform: Affine | None) -> np.ndarray:
    """The linear interpolation of a mask on a grid, from 0 to 1."""
    soft = replace(mask, data=(mask.data != 0).astype(np.float32))
    if transform is None and grid == mask.grid:
        return soft.data
    return resample(soft, grid, transform).data


def brain_mask(scan: Volume, grid: Grid, mask: Volume | None = None) -> Volume:
    """Return the brain mask of a scan on any grid in its space: 1 inside, 0 outside, uint8.

    Args:
        scan: a head, or a skull-stripped brain.
        grid: grid of the result.
        mask: brain mask; None: every voxel of the scan that is not background.
    """
    standard = from_zero(scan)
    mask = mask or replace(standard, data=standard.data > 0)
    return Volume(mask_on(mask, grid).astype(np.uint8), grid, scan.name, is_label_file=True)


def lesion_on(grid: Grid, lesion: Volume | None, transform: Affine | None = None) -> Volume | None:
    """Lesions on a grid: 1 where anything is ``touched``, else 0, float32; None if there are none.

    Args:
        grid, transform: see ``mask_on``.
        lesion: on any grid.
    """
    if lesion is None:
        return None
    return Volume(touched(lesion, grid, transform).astype(np.float32), grid, lesion.name)
