"""The brain of a scan on any grid: masked, its bias field removed, interpolated once."""

from dataclasses import replace

import numpy as np

from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import Volume
from .intensity import from_zero


def brain_only(
    scan: Volume,
    onto: Grid,
    through: Affine | None = None,
    *,
    mask: Volume | None = None,
    log_bias: Volume | None = None,
) -> Volume:
    """The scan's brain, its bias removed, zero elsewhere, interpolated once.

    Args:
        scan: with intensities from zero.
        onto: grid of the result.
        through: from ``onto``'s space to the scan's; the identity by default.
        mask: the brain, on any grid in the scan's space; None: all that is not 0.
        log_bias: logarithm of the bias field, on any grid in the scan's space.
    """
    same = through is None and onto == scan.grid
    moved = scan if same else resample(scan, onto, through)
    moved = unbiased(moved, log_bias, through)
    if mask is None:
        return moved
    return replace(moved, data=np.where(mask_on(mask, onto, through), moved.data, 0))


def unbiased(scan: Volume, log_bias: Volume | None, through: Affine | None = None) -> Volume:
    """The scan over its bias field; ``through`` leads from the scan's space to the field's."""
    if log_bias is None:
        return scan
    # A scan may reach further than the lattice: there the field stays as it is at the border.
    logarithm = resample(log_bias, scan.grid, through, padding="border").data
    return replace(scan, data=scan.data * np.exp(-logarithm))


def mask_on(mask: Volume, grid: Grid, through: Affine | None = None) -> np.ndarray:
    """A mask on another grid: where its linear interpolation is one half or more."""
    if through is None and grid == mask.grid:
        return mask.data != 0
    soft = replace(mask, data=(mask.data != 0).astype(np.float32))
    return resample(soft, grid, through).data >= 0.5


def brain_mask(scan: Volume, grid: Grid, mask: Volume | None = None) -> Volume:
    """The brain on any grid in the scan's space: 1 inside, 0 outside, uint8.

    Args:
        scan: a brain alone, or a head.
        grid: of the result.
        mask: the brain; None: all of the scan that is not background.
    """
    standard = from_zero(scan)
    mask = mask or replace(standard, data=standard.data > 0)
    return Volume(mask_on(mask, grid).astype(np.uint8), grid, scan.name, is_label_file=True)
