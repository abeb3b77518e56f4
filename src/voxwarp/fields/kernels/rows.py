"""Trilinear sampling of one row of points, which the other kernels are made of."""

import numpy as np

from .jit import HALF, ONE, ZERO, jit


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
def places(u0, u1, u2, i, j, low, shape, start, wx, wy, wz):
    """Cells of the points x + u(x) of row (i, j): index of their first corner, and weights.

    Rows of the components of u come one by one: those of a slice might have gaps between voxels,
    for all the compiler knows, and take twice as long. They begin with voxel ``low``.
    """
    nx, ny, nz = shape
    x_last, y_last, z_last = np.float32(nx - 1), np.float32(ny - 1), np.float32(nz - 1)
    a_last, b_last, c_last = np.int32(nx - 2), np.int32(ny - 2), np.int32(nz - 2)
    plane, row = np.uint32(ny * nz), np.uint32(nz)
    for k in range(len(u0)):
        x = between(np.float32(i) + u0[k], x_last)
        y = between(np.float32(j) + u1[k], y_last)
        z = between(np.float32(low + k) + u2[k], z_last)
        a, b, c = corner(x, a_last), corner(y, b_last), corner(z, c_last)
        wx[k], wy[k], wz[k] = x - np.float32(a), y - np.float32(b), z - np.float32(c)
        start[k] = np.uint32(a) * plane + np.uint32(b) * row + np.uint32(c)


@jit
def gather(flat, shape, start, wx, wy, wz, out):
    """Trilinear values of a flat volume at the places of a row."""
    plane, row, one = np.uint64(shape[1] * shape[2]), np.uint64(shape[2]), np.uint64(1)
    for k in range(len(out)):
        p, fy, fz = np.uint64(start[k]), wy[k], wz[k]
        q, r = p + plane, p + row
        s = q + row
        gy, gz = ONE - fy, ONE - fz  # weights of both ends are exact, those of a difference not
        near = gy * (gz * flat[p] + fz * flat[p + one]) + fy * (gz * flat[r] + fz * flat[r + one])
        far = gy * (gz * flat[q] + fz * flat[q + one]) + fy * (gz * flat[s] + fz * flat[s + one])
        out[k] = (ONE - wx[k]) * near + wx[k] * far


@jit
def row_buffers(n):
    """First corners and three weights for the points of a row, see ``places``."""
    wx, wy, wz = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    return np.empty(n, np.uint32), wx, wy, wz


@jit
def slopes(before, here, after, sx, j, low, high, gx, gy, gz):
    """The gradient of a row j of plane ``here`` of an image, its neighbours given; (Y, Z) each.

    Of the voxels low ≤ k < high alone, from the first place of ``gx``, ``gy`` and ``gz`` on.
    """
    ny, nz = here.shape
    a, b = max(j - 1, 0), min(j + 1, ny - 1)
    sy = ONE if b - a == 1 else HALF
    x0, x1, y0, y1 = (
        before[j, low:high],
        after[j, low:high],
        here[a, low:high],
        here[b, low:high],
    )
    for k in range(len(x0)):
        gx[k] = sx * (x1[k] - x0[k])
        gy[k] = sy * (y1[k] - y0[k])
    row, begin, end = here[j], max(low, 1), min(high, nz - 1)
    inner, up, down = gz[begin - low :], row[begin + 1 : end + 1], row[begin - 1 : end - 1]
    for k in range(len(up)):
        inner[k] = HALF * (up[k] - down[k])
    if low == 0:
        gz[0] = row[1] - row[0]
    if high == nz:
        gz[nz - 1 - low] = row[nz - 1] - row[nz - 2]
