"""Extents: between which voxels of each row a volume is not zero, so that kernels skip the rest."""

from .jit import ZERO, kernel
from .loops import index


@kernel
def extents(volume, out, first, last):
    """The first voxel of each row (i, j) that is not zero in all channels, and one past the last.

    Rows of zeros get (Z, 0), so that the least first and the largest last of several rows are
    those of all of them.
    """
    channels, nx, ny, nz = volume.shape
    flat, one = volume.reshape(-1), index(1)
    for i in range(first, last):
        for j in range(ny):
            low, high = index(nz), index(0)
            for c in range(channels):
                row = index(((c * nx + i) * ny + j) * nz)
                k = index(0)
                while k < low and flat[row + k] == ZERO:
                    k += one
                if k == index(nz):
                    continue  # all zeros
                low, k = k, index(nz)
                while k > high and flat[row + k - one] == ZERO:
                    k -= one
                high = k
            out[i, j, 0], out[i, j, 1] = low, high


@kernel
def widened(extents, planes, rows, voxels, nz, out, first, last):
    """Extents with those of so many planes and rows on either side, and so many voxels longer."""
    nx, ny, _ = extents.shape
    for i in range(first, last):
        for j in range(ny):
            low, high = nz, 0
            for p in range(max(i - planes, 0), min(i + planes, nx - 1) + 1):
                for q in range(max(j - rows, 0), min(j + rows, ny - 1) + 1):
                    low, high = min(low, extents[p, q, 0]), max(high, extents[p, q, 1])
            empty = low >= high
            out[i, j, 0] = nz if empty else max(low - voxels, 0)
            out[i, j, 1] = 0 if empty else min(high + voxels, nz)
