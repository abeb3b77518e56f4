"""Trilinear sampling of one row of points, which the other kernels are made of."""

import numpy as np

from .jit import ONE, ZERO, jit
from .loops import along_row, index, subtract


@jit
def between(value, last):
    """The value from 0 to ``last``; NaN stays NaN."""
    value = ZERO if value < ZERO else value
    return last if value > last else value


@jit
def corner(value, last):
    """The voxel at or below a value from 0 on, at most ``last``; 0 of NaN, whose number is none."""
    return min(np.int32(value if value >= ZERO else ZERO), last)


@jit
def places(u, i, step, x, y, z, shape, start, wx, wy, wz, n):
    """Cells of n points x + u(x) of a row: index of their first corner, and weights.

    Args:
        u: flat field, whose components lie ``step`` apart; ``i``: where the row begins.
        x, y, z: the first voxel, float32.
        shape: of the volume to sample.
    """
    nx, ny, nz = shape
    x_last, y_last, z_last = np.float32(nx - 1), np.float32(ny - 1), np.float32(nz - 1)
    a_last, b_last, c_last = np.int32(nx - 2), np.int32(ny - 2), np.int32(nz - 2)
    plane, row = np.uint32(ny * nz), np.uint32(nz)
    j = index(i + step)
    h = index(j + step)
    for k in range(n):
        at_x = between(x + u[i + k], x_last)
        at_y = between(y + u[j + k], y_last)
        at_z = between(z + np.float32(np.int32(k)) + u[h + k], z_last)
        a, b, c = corner(at_x, a_last), corner(at_y, b_last), corner(at_z, c_last)
        wx[k], wy[k], wz[k] = at_x - np.float32(a), at_y - np.float32(b), at_z - np.float32(c)
        start[k] = np.uint32(a) * plane + np.uint32(b) * row + np.uint32(c)


@jit
def gather(flat, channel, shape, start, wx, wy, wz, p, out, o, n):
    """Trilinear values of a flat volume, whose channel begins there, at n places from the p-th."""
    plane, row, one = index(shape[1] * shape[2]), index(shape[2]), index(1)
    for k in range(n):
        a, fy, fz = channel + index(start[p + k]), wy[p + k], wz[p + k]
        b, c = a + plane, a + row
        d = b + row
        gy, gz = ONE - fy, ONE - fz  # weights of both ends are exact, those of a difference not
        near = gy * (gz * flat[a] + fz * flat[a + one]) + fy * (gz * flat[c] + fz * flat[c + one])
        far = gy * (gz * flat[b] + fz * flat[b + one]) + fy * (gz * flat[d] + fz * flat[d + one])
        out[o + k] = (ONE - wx[p + k]) * near + wx[p + k] * far


@jit
def row_buffers(n):
    """First corners and three weights for the points of a row, see ``places``."""
    wx, wy, wz = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    return np.empty(n, np.uint32), wx, wy, wz


@jit
def slopes(image, before, after, above, below, here, sx, sy, low, high, length, gx, gy, gz):
    """The gradient of a row of a flat image, for low ≤ k < high, from the first place on.

    Args:
        image: flat image; the next five numbers: where the rows before, after, above, below and
            the row itself begin.
        sx, sy: one over the distance of the rows beside.
        length: voxels of a row.
    """
    n = index(high - low)
    subtract(sx, image, index(after + low), index(before + low), gx, index(0), n)
    subtract(sy, image, index(below + low), index(above + low), gy, index(0), n)
    along_row(image, here, low, high, length, gz, 0)
