"""Folds that are smoothed away."""

import numpy as np

from .jacobian import determinants
from .jit import ONE, jit, kernel
from .smoothing import gaussian


@kernel
def smooth_folds(u, folded, regions, widening, weights, bound, first, last):
    """A round of ``folds.remove_folds`` in regions that do not overlap; u and folded change.

    Regions are given by their first voxel along each axis and the one past the last. u is smoothed
    by the weights: fully up to ``widening`` voxels from folded ones, and less and less beyond. Then
    voxels are folded where the smallest determinant is below ``bound``.
    """
    no_norms = np.empty(0)
    changed, checked = np.empty((3, 2), np.int64), np.empty((3, 2), np.int64)
    for r in range(first, last):
        region = regions[r]
        x, y, z = region[0, 0], region[1, 0], region[2, 0]
        part = u[:, x : region[0, 1], y : region[1, 1], z : region[2, 1]].copy()
        _, nx, ny, nz = part.shape
        # Those that change, and those that are checked, have all their neighbours in the region.
        _inner(region, u.shape[1:], 2, changed)
        _inner(region, u.shape[1:], 1, checked)
        near = np.zeros((1, nx, ny, nz), np.float32)
        _widen(folded, region, widening, near[0])
        rows = np.zeros((nx, ny, 2), np.int32)
        rows[:, :, 1] = nz
        blend, smooth = np.empty_like(near), np.empty_like(part)
        gaussian(near, rows, weights, blend, no_norms, 0, nx)
        gaussian(part, rows, weights, smooth, no_norms, 0, nx)
        for c in range(3):
            for i in range(changed[0, 0], changed[0, 1]):
                for j in range(changed[1, 0], changed[1, 1]):
                    for k in range(changed[2, 0], changed[2, 1]):
                        before = part[c, i, j, k]
                        after = before + blend[0, i, j, k] * (smooth[c, i, j, k] - before)
                        part[c, i, j, k] = u[c, x + i, y + j, z + k] = after
        central, least = np.empty_like(near[0]), np.empty_like(near[0])
        determinants(part, central, least, 0, nx)
        for i in range(checked[0, 0], checked[0, 1]):
            for j in range(checked[1, 0], checked[1, 1]):
                for k in range(checked[2, 0], checked[2, 1]):
                    folded[x + i, y + j, z + k] = least[i, j, k] < bound


@jit
def _inner(region, shape, by, out):
    """The voxels of a region without ``by`` at its ends, except at those of the grid."""
    for a in range(3):
        begin, end = region[a, 0], region[a, 1]
        out[a, 0] = by if begin > 0 else 0
        out[a, 1] = end - begin - (by if end < shape[a] else 0)


@jit
def _widen(mask, region, by, out):
    """Out = 1 for voxels of the region up to ``by`` from those of the mask, along each axis."""
    x, y, z = region[0, 0], region[1, 0], region[2, 0]
    nx, ny, nz = out.shape
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                if mask[x + i, y + j, z + k]:
                    for p in range(max(i - by, 0), min(i + by + 1, nx)):
                        for q in range(max(j - by, 0), min(j + by + 1, ny)):
                            out[p, q, max(k - by, 0) : min(k + by + 1, nz)] = ONE
