"""The forces of a descent, and the determinant that it watches."""

import numpy as np

from .jit import HALF, ONE, TWO, ZERO, jit
from .rows import row_buffers, slopes, warp_plane


@jit
def correlation_force(
    moving, fixed, mean, variance, u, window, guard, rounding, force, totals, first, last
):
    """The force of the local correlation; ``totals[i]`` is the sum of cc over plane i.

    Planes of the moved image, their products and the windows' sums live in buffers only.
    """
    nx, ny, nz = fixed.shape
    r = window // 2
    reach = max(r, 1)
    size = 2 * reach + 1
    ring = np.empty((size, 1, ny, nz), np.float32)
    flat = moving.reshape(1, -1)
    buffers = row_buffers(nz)
    by_x = np.empty((3, ny, nz), np.float32)
    by_y = np.zeros((3, nz + 2 * r), np.float32)
    sums = np.empty((3, nz), np.float32)
    gx, gy, gz = np.empty(nz, np.float32), np.empty(nz, np.float32), np.empty(nz, np.float32)
    per_z = np.empty(nz, np.float32)
    for k in range(nz):
        per_z[k] = ONE / np.float32(min(k + r, nz - 1) - max(k - r, 0) + 1)
    ready = max(first - reach, 0)
    for i in range(first, last):
        while ready <= min(i + reach, nx - 1):
            warp_plane(flat, moving.shape, u, ready, ring[ready % size], buffers)
            ready += 1
        low, high = max(i - r, 0), min(i + r, nx - 1)
        for j in range(ny):
            s0, s1, s2 = by_x[0, j], by_x[1, j], by_x[2, j]
            m, f = ring[low % size, 0, j], fixed[low, j]
            for k in range(nz):
                s0[k], s1[k], s2[k] = m[k], m[k] * m[k], m[k] * f[k]
            for p in range(low + 1, high + 1):
                m, f = ring[p % size, 0, j], fixed[p, j]
                for k in range(nz):
                    s0[k] += m[k]
                    s1[k] += m[k] * m[k]
                    s2[k] += m[k] * f[k]
        before, after = max(i - 1, 0), min(i + 1, nx - 1)
        sx = ONE if after - before == 1 else HALF
        here = ring[i % size, 0]
        total = 0.0
        for j in range(ny):
            top, bottom = max(j - r, 0), min(j + r, ny - 1)
            for t in range(3):
                inner, row = by_y[t, r : r + nz], by_x[t, top]
                for k in range(nz):
                    inner[k] = row[k]
                for q in range(top + 1, bottom + 1):
                    row = by_x[t, q]
                    for k in range(nz):
                        inner[k] += row[k]
                source, out = by_y[t], sums[t]
                for k in range(nz):
                    out[k] = source[k]
                for d in range(1, window):
                    for k in range(nz):
                        out[k] += source[k + d]
            slopes(ring[before % size, 0], here, ring[after % size, 0], sx, j, gx, gy, gz)
            share_xy = ONE / np.float32((high - low + 1) * (bottom - top + 1))
            m, f, fm, fv = here[j], fixed[i, j], mean[i, j], variance[i, j]
            f0, f1, f2 = force[0, i, j], force[1, i, j], force[2, i, j]
            part = ZERO
            for k in range(nz):
                share = share_xy * per_z[k]
                mm = sums[0, k] * share
                mv = sums[1, k] * share - mm * mm
                mv = ZERO if mv < ZERO else mv
                across = sums[2, k] * share - mm * fm[k]
                slope = across / (mv * fv[k] + guard)
                cc = across * slope
                slope = ZERO if cc > ONE else slope
                part += ONE if cc > ONE else cc
                ratio = across / (rounding if mv < rounding else mv)
                pull = TWO * slope * (f[k] - fm[k] - ratio * (m[k] - mm))
                f0[k] = pull * gx[k]
                f1[k] = pull * gy[k]
                f2[k] = pull * gz[k]
            total += part
        totals[i] = total


@jit
def difference_force(moving, fixed, u, weight, force, adds, totals, first, last):
    """The force of the maps' difference, w Σ (f − m) ∇m; ``totals[i]`` sums |f − m|² over plane i.

    ``adds`` to what is in ``force`` already.
    """
    channels, nx, ny, nz = fixed.shape
    ring = np.empty((3, channels, ny, nz), np.float32)
    flat = moving.reshape(channels, -1)
    buffers = row_buffers(nz)
    gx, gy, gz = np.empty(nz, np.float32), np.empty(nz, np.float32), np.empty(nz, np.float32)
    ready = max(first - 1, 0)
    for i in range(first, last):
        while ready <= min(i + 1, nx - 1):
            warp_plane(flat, moving.shape[1:], u, ready, ring[ready % 3], buffers)
            ready += 1
        before, after = max(i - 1, 0), min(i + 1, nx - 1)
        sx = ONE if after - before == 1 else HALF
        total = 0.0
        for j in range(ny):
            f0, f1, f2 = force[0, i, j], force[1, i, j], force[2, i, j]
            if not adds:
                for k in range(nz):
                    f0[k] = f1[k] = f2[k] = ZERO
            part = ZERO
            for c in range(channels):
                here = ring[i % 3, c]
                slopes(ring[before % 3, c], here, ring[after % 3, c], sx, j, gx, gy, gz)
                f, m = fixed[c, i, j], here[j]
                for k in range(nz):
                    left = f[k] - m[k]
                    part += left * left
                    left *= weight
                    f0[k] += left * gx[k]
                    f1[k] += left * gy[k]
                    f2[k] += left * gz[k]
            total += part
        totals[i] = total


@jit
def _determinant(a, b, c, d, e, f, g, h, i):
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


@jit
def determinants(u, central, smallest, first, last):
    """det(I + ∇u) by central differences, and the smallest by those, forward and backward ones."""
    _, nx, ny, nz = u.shape
    for i in range(first, last):
        ip, im = min(i + 1, nx - 1), max(i - 1, 0)
        i0, i1 = (i, ip) if i < nx - 1 else (im, i)  # forward; the last voxel has the one before
        i2, i3 = (im, i) if i > 0 else (i, ip)
        for j in range(ny):
            jp, jm = min(j + 1, ny - 1), max(j - 1, 0)
            j0, j1 = (j, jp) if j < ny - 1 else (jm, j)
            j2, j3 = (jm, j) if j > 0 else (j, jp)
            for k in range(nz):
                k0, k1 = (k, k + 1) if k < nz - 1 else (k - 1, k)
                k2, k3 = (k - 1, k) if k > 0 else (k, k + 1)
                fx0 = u[0, i1, j, k] - u[0, i0, j, k]
                fx1 = u[1, i1, j, k] - u[1, i0, j, k]
                fx2 = u[2, i1, j, k] - u[2, i0, j, k]
                bx0 = u[0, i3, j, k] - u[0, i2, j, k]
                bx1 = u[1, i3, j, k] - u[1, i2, j, k]
                bx2 = u[2, i3, j, k] - u[2, i2, j, k]
                fy0 = u[0, i, j1, k] - u[0, i, j0, k]
                fy1 = u[1, i, j1, k] - u[1, i, j0, k]
                fy2 = u[2, i, j1, k] - u[2, i, j0, k]
                by0 = u[0, i, j3, k] - u[0, i, j2, k]
                by1 = u[1, i, j3, k] - u[1, i, j2, k]
                by2 = u[2, i, j3, k] - u[2, i, j2, k]
                fz0 = u[0, i, j, k1] - u[0, i, j, k0]
                fz1 = u[1, i, j, k1] - u[1, i, j, k0]
                fz2 = u[2, i, j, k1] - u[2, i, j, k0]
                bz0 = u[0, i, j, k3] - u[0, i, j, k2]
                bz1 = u[1, i, j, k3] - u[1, i, j, k2]
                bz2 = u[2, i, j, k3] - u[2, i, j, k2]
                forward = _determinant(
                    ONE + fx0, fy0, fz0, fx1, ONE + fy1, fz1, fx2, fy2, ONE + fz2
                )
                backward = _determinant(
                    ONE + bx0, by0, bz0, bx1, ONE + by1, bz1, bx2, by2, ONE + bz2
                )
                middle = _determinant(
                    ONE + HALF * (fx0 + bx0),
                    HALF * (fy0 + by0),
                    HALF * (fz0 + bz0),
                    HALF * (fx1 + bx1),
                    ONE + HALF * (fy1 + by1),
                    HALF * (fz1 + bz1),
                    HALF * (fx2 + bx2),
                    HALF * (fy2 + by2),
                    ONE + HALF * (fz2 + bz2),
                )
                least = backward if backward < forward else forward
                central[i, j, k] = middle
                smallest[i, j, k] = middle if middle < least else least
