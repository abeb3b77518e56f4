"""The forces of a descent, and the determinant that it watches."""

import numpy as np

from .jit import HALF, ONE, TWO, ZERO, jit
from .rows import gather, places, row_buffers, slopes


@jit
def window_moments(image, window, mean, variance, first, last):
    """The mean and the variance of the voxels in the window around each voxel."""
    nx, ny, nz = image.shape
    r = window // 2
    by_x = np.empty((2, ny, nz), np.float32)
    by_y = np.zeros((2, nz + 2 * r), np.float32)
    sums = np.empty((2, nz), np.float32)
    per_z = _shares(nz, r)
    for i in range(first, last):
        low, high = max(i - r, 0), min(i + r, nx - 1)
        for j in range(ny):
            s0, s1, row = by_x[0, j], by_x[1, j], image[low, j]
            for k in range(nz):
                s0[k], s1[k] = row[k], row[k] * row[k]
            for p in range(low + 1, high + 1):
                row = image[p, j]
                for k in range(nz):
                    s0[k] += row[k]
                    s1[k] += row[k] * row[k]
        for j in range(ny):
            rows = _sum_in_plane(by_x, j, r, 0, nz, by_y, sums)
            share_xy = ONE / np.float32((high - low + 1) * rows)
            means, variances = mean[i, j], variance[i, j]
            for k in range(nz):
                share = share_xy * per_z[k]
                m = sums[0, k] * share
                v = sums[1, k] * share - m * m
                means[k] = m
                variances[k] = ZERO if v < ZERO else v


@jit
def _shares(nz, r):
    """One over the number of voxels along z in the window around each voxel."""
    per_z = np.empty(nz, np.float32)
    for k in range(nz):
        per_z[k] = ONE / np.float32(min(k + r, nz - 1) - max(k - r, 0) + 1)
    return per_z


@jit
def _sum_in_plane(by_x, j, r, low, high, by_y, sums):
    """Sums over the window's rows and voxels for low ≤ k < high of row j; the number of rows."""
    ny, nz = by_x.shape[1:]
    top, bottom = max(j - r, 0), min(j + r, ny - 1)
    before, after = max(low - r, 0), min(high + r, nz)
    for t in range(len(by_x)):
        inner, row = by_y[t, r + before : r + after], by_x[t, top, before:after]
        for k in range(len(inner)):
            inner[k] = row[k]
        for q in range(top + 1, bottom + 1):
            row = by_x[t, q, before:after]
            for k in range(len(inner)):
                inner[k] += row[k]
        source, out = by_y[t, low : high + 2 * r], sums[t, : high - low]
        for k in range(len(out)):
            out[k] = source[k]
        for d in range(1, 2 * r + 1):
            shifted = source[d:]
            for k in range(len(out)):
                out[k] += shifted[k]
    return bottom - top + 1


@jit
def correlation_force(
    moving, fixed, mean, variance, u, window, guard, rounding, extents, force, totals, first, last
):
    """The force of the local correlation; ``totals[i]`` is the sum of cc over plane i.

    Planes of the moved image, their products and the windows' sums live in buffers only.
    ``extents`` are those of rows of the fixed variance, of the voxels in the windows around them,
    and of those in planes beside them, too; outside the first, the force is zero.
    """
    nx, ny, nz = fixed.shape
    r = window // 2
    reach = max(r, 1)
    size = 2 * reach + 1
    ring = np.empty((size, ny, nz), np.float32)
    flat = moving.reshape(-1)
    start, wx, wy, wz = row_buffers(nz)
    by_x = np.empty((3, ny, nz), np.float32)
    by_y = np.zeros((3, nz + 2 * r), np.float32)
    sums = np.empty((3, nz), np.float32)
    gx, gy, gz = np.empty(nz, np.float32), np.empty(nz, np.float32), np.empty(nz, np.float32)
    per_z = _shares(nz, r)
    active, inside, around = extents
    ready = max(first - reach, 0)
    for i in range(first, last):
        while ready <= min(i + reach, nx - 1):
            for j in range(ny):
                left, right = around[ready, j]
                u0 = u[0, ready, j, left:right]
                u1 = u[1, ready, j, left:right]
                u2 = u[2, ready, j, left:right]
                places(u0, u1, u2, ready, j, left, moving.shape, start, wx, wy, wz)
                out = ring[ready % size, j, left:right]
                gather(flat, moving.shape, start, wx, wy, wz, out)
            ready += 1
        low, high = max(i - r, 0), min(i + r, nx - 1)
        for j in range(ny):
            left, right = inside[i, j]
            s0, s1, s2 = by_x[0, j, left:right], by_x[1, j, left:right], by_x[2, j, left:right]
            m, f = ring[low % size, j, left:right], fixed[low, j, left:right]
            for k in range(len(m)):
                s0[k], s1[k], s2[k] = m[k], m[k] * m[k], m[k] * f[k]
            for p in range(low + 1, high + 1):
                m, f = ring[p % size, j, left:right], fixed[p, j, left:right]
                for k in range(len(m)):
                    s0[k] += m[k]
                    s1[k] += m[k] * m[k]
                    s2[k] += m[k] * f[k]
        before, after = max(i - 1, 0), min(i + 1, nx - 1)
        sx = ONE if after - before == 1 else HALF
        here = ring[i % size]
        total = 0.0
        for j in range(ny):
            left, right = active[i, j]
            f0, f1, f2 = force[0, i, j], force[1, i, j], force[2, i, j]
            _clear(f0, f1, f2)
            if left >= right:
                continue
            f0, f1, f2 = f0[left:right], f1[left:right], f2[left:right]
            rows = _sum_in_plane(by_x, j, r, left, right, by_y, sums)
            slopes(ring[before % size], here, ring[after % size], sx, j, left, right, gx, gy, gz)
            share_xy = ONE / np.float32((high - low + 1) * rows)
            m, f, shares = here[j, left:right], fixed[i, j, left:right], per_z[left:right]
            fm, fv = mean[i, j, left:right], variance[i, j, left:right]
            part = ZERO
            for k in range(len(m)):
                share = share_xy * shares[k]
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
def _clear(f0, f1, f2):
    """Zeros in the rows of a force."""
    for k in range(len(f0)):
        f0[k] = f1[k] = f2[k] = ZERO


@jit
def difference_force(
    moving, fixed, u, weight, background, cells, extents, force, adds, totals, first, last
):
    """The force of the maps' difference, w Σ (f − m) ∇m; ``totals[i]`` sums |f − m|² over plane i.

    Outside the ``extents`` of its rows, ``fixed`` is the ``background``, as is ``moving`` in all
    ``cells``, of the number of its first corner, that are zero. ``adds`` to what is in ``force``.
    """
    channels, nx, ny, nz = fixed.shape
    shape = moving.shape[1:]
    ring = np.empty((3, channels, ny, nz), np.float32)
    known = np.empty((3, ny, 2), np.int32)
    flat = moving.reshape(channels, -1)
    start, wx, wy, wz = row_buffers(nz)
    gx, gy, gz = np.empty(nz, np.float32), np.empty(nz, np.float32), np.empty(nz, np.float32)
    ready = max(first - 1, 0)
    for i in range(first, last):
        while ready <= min(i + 1, nx - 1):
            for j in range(ny):
                u0, u1, u2 = u[0, ready, j], u[1, ready, j], u[2, ready, j]
                places(u0, u1, u2, ready, j, 0, shape, start, wx, wy, wz)
                left, right = 0, nz
                while left < nz and not cells[start[left]]:
                    left += 1
                while right > left and not cells[start[right - 1]]:
                    right -= 1
                known[ready % 3, j] = left, right
                for c in range(channels):
                    row, value = ring[ready % 3, c, j], background[c]
                    for k in range(nz):
                        row[k] = value
                    gather(
                        *(flat[c], shape, start[left:right]),
                        *(wx[left:right], wy[left:right], wz[left:right], row[left:right]),
                    )
            ready += 1
        before, after = max(i - 1, 0), min(i + 1, nx - 1)
        sx = ONE if after - before == 1 else HALF
        total = 0.0
        for j in range(ny):
            left, right = extents[i, j]
            if known[i % 3, j, 0] < known[i % 3, j, 1]:
                left, right = min(left, known[i % 3, j, 0]), max(right, known[i % 3, j, 1])
            f0, f1, f2 = force[0, i, j], force[1, i, j], force[2, i, j]
            if not adds:
                _clear(f0, f1, f2)
            part = ZERO
            f0, f1, f2 = f0[left:right], f1[left:right], f2[left:right]
            for c in range(channels if left < right else 0):
                here = ring[i % 3, c]
                slopes(
                    ring[before % 3, c], here, ring[after % 3, c], sx, j, left, right, gx, gy, gz
                )
                f, m = fixed[c, i, j, left:right], here[j, left:right]
                for k in range(len(m)):
                    gap = f[k] - m[k]
                    part += gap * gap
                    gap *= weight
                    f0[k] += gap * gx[k]
                    f1[k] += gap * gy[k]
                    f2[k] += gap * gz[k]
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
