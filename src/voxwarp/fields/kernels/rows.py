"""Trilinear sampling of one row of points, which the other kernels are made of."""

import numpy as np

from .jit import HALF, ONE, ZERO, jit


@jit
def _between(value, last):
    """The value from 0 to ``last``; NaN stays NaN."""
    value = ZERO if value < ZERO else value
    return last if value > last else value


@jit
def _corner(value, last):
    """The voxel at or below a value from 0 on, at most ``last``; 0 of NaN, whose number is none."""
    return min(np.int32(value if value >= ZERO else ZERO), last)


@jit
def places(u0, u1, u2, i, j, shape, start, wx, wy, wz):
    """Cells of the points x + u(x) of row (i, j): index of their first corner, and weights.

    Rows of the components of u come one by one: those of a slice might have gaps between voxels,
    for all the compiler knows, and take twice as long.
    """
    nx, ny, nz = shape
    x_last, y_last, z_last = np.float32(nx - 1), np.float32(ny - 1), np.float32(nz - 1)
    a_last, b_last, c_last = np.int32(nx - 2), np.int32(ny - 2), np.int32(nz - 2)
    plane, row = np.uint32(ny * nz), np.uint32(nz)
    for k in range(len(u0)):
        x = _between(np.float32(i) + u0[k], x_last)
        y = _between(np.float32(j) + u1[k], y_last)
        z = _between(np.float32(k) + u2[k], z_last)
        a, b, c = _corner(x, a_last), _corner(y, b_last), _corner(z, c_last)
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
def warp_plane(flat, shape, u, i, out, buffers):
    """Plane i of every channel of a warped volume, (C, Y, Z)."""
    start, wx, wy, wz = buffers
    for j in range(u.shape[2]):
        places(u[0, i, j], u[1, i, j], u[2, i, j], i, j, shape, start, wx, wy, wz)
        for c in range(len(flat)):
            gather(flat[c], shape, start, wx, wy, wz, out[c, j])


@jit
def slopes(before, here, after, sx, j, gx, gy, gz):
    """The gradient of a row j of plane ``here`` of an image, its neighbours given; (Y, Z) each."""
    ny, nz = here.shape
    a, b = max(j - 1, 0), min(j + 1, ny - 1)
    sy = ONE if b - a == 1 else HALF
    x0, x1, y0, y1, row = before[j], after[j], here[a], here[b], here[j]
    for k in range(nz):
        gx[k] = sx * (x1[k] - x0[k])
        gy[k] = sy * (y1[k] - y0[k])
    gz[0], gz[nz - 1] = row[1] - row[0], row[nz - 1] - row[nz - 2]
    for k in range(1, nz - 1):
        gz[k] = HALF * (row[k + 1] - row[k - 1])
