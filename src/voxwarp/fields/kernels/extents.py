"""Extents: between which voxels of each row a volume is not zero, so that kernels skip the rest."""

from .jit import ZERO, jit


@jit
def extents(volume, out, first, last):
    """The first voxel of each row (i, j) that is not zero in all channels, and one past the last.

    Rows of zeros get (Z, 0), so that the least first and the largest last of several rows are
    those of all of them.
    """
    channels, _, ny, nz = volume.shape
    for i in range(first, last):
        for j in range(ny):
            low, high = nz, 0
            for c in range(channels):
                row = volume[c, i, j]
                k = 0
                while k < low and row[k] == ZERO:
                    k += 1
                low, k = k, nz
                while k > high and row[k - 1] == ZERO:
                    k -= 1
                high = k
            out[i, j] = low, high


@jit
def widened(extents, planes, rows, voxels, nz, out, first, last):
    """Extents with those of so many planes and rows on either side, and so many voxels longer."""
    nx, ny, _ = extents.shape
    for i in range(first, last):
        for j in range(ny):
            low, high = nz, 0
            for p in range(max(i - planes, 0), min(i + planes, nx - 1) + 1):
                for q in range(max(j - rows, 0), min(j + rows, ny - 1) + 1):
                    low, high = min(low, extents[p, q, 0]), max(high, extents[p, q, 1])
            out[i, j] = (max(low - voxels, 0), min(high + voxels, nz)) if low < high else (nz, 0)
