"""The squared local correlation of two images and its gradient, by running sums over windows.

Sums start anew in every block of ``PLANES`` planes, so that results do not depend on how threads
share the blocks. They are in float64, because the rounding of float32 is larger than the variance
of flat windows.
"""

import numpy as np

from .jit import jit, kernel
from .loops import shares

PLANES = 8


@kernel
def squared_correlation(
    fixed, moved, fixed_centre, moved_centre, window, guard, cc, slopes, first, last
):
    """The map cc of blocks of planes and, unless it has no planes, its ``slopes`` (3, X, Y, Z).

    They are 2 A / (F M + ε), ∂cc/∂M, and what the sums over windows are subtracted for the means,
    see ``correlation``; where rounding makes cc larger than 1, it is 1 and they are 0.
    """
    nx, ny, nz = fixed.shape
    reach = window // 2
    by_x = np.empty((5, ny, nz))
    by_y, sums, scratch = np.empty((5, nz)), np.empty((5, nz)), np.empty((2, 5, nz + 2 * reach))
    per_x, per_y, per_z = np.empty(nx), np.empty(ny), np.empty(nz)
    shares(reach, per_x)
    shares(reach, per_y)
    shares(reach, per_z)
    for block in range(first, last):
        start = block * PLANES
        by_x[:] = 0.0
        for i in range(max(start - reach, 0), min(start + reach, nx)):
            _add_moments(fixed[i], moved[i], fixed_centre, moved_centre, 1.0, by_x)
        for i in range(start, min(start + PLANES, nx)):
            if i + reach < nx:
                new = i + reach
                _add_moments(fixed[new], moved[new], fixed_centre, moved_centre, 1.0, by_x)
            if i > start and i - reach > 0:
                old = i - reach - 1
                _add_moments(fixed[old], moved[old], fixed_centre, moved_centre, -1.0, by_x)
            for j in range(ny):
                _slide(by_x, j, reach, by_y)
                _sum_along(by_y, window, scratch, sums)
                _correlate(sums, per_x[i] * per_y[j], per_z, guard, cc[i, j], i, j, slopes)


@kernel
def correlation_gradient(
    fixed, moved, fixed_centre, moved_centre, slopes, incoming, window, out, first, last
):
    """The gradient by the moved image, m: f Bᵀ[a] + 2 m Bᵀ[b] − Bᵀ[c] with the slopes a, b, c."""
    nx, ny, nz = fixed.shape
    reach = window // 2
    by_x = np.empty((3, ny, nz))
    by_y, sums, scratch = np.empty((3, nz)), np.empty((3, nz)), np.empty((2, 3, nz + 2 * reach))
    per_x, per_y, per_z = np.empty(nx), np.empty(ny), np.empty(nz)
    shares(reach, per_x)
    shares(reach, per_y)
    shares(reach, per_z)
    for block in range(first, last):
        start = block * PLANES
        by_x[:] = 0.0
        for i in range(max(start - reach, 0), min(start + reach, nx)):
            _add_slopes(slopes, i, incoming, per_x[i], per_y, per_z, by_x)
        for i in range(start, min(start + PLANES, nx)):
            if i + reach < nx:
                new = i + reach
                _add_slopes(slopes, new, incoming, per_x[new], per_y, per_z, by_x)
            if i > start and i - reach > 0:
                old = i - reach - 1
                _add_slopes(slopes, old, incoming, -per_x[old], per_y, per_z, by_x)
            for j in range(ny):
                _slide(by_x, j, reach, by_y)
                _sum_along(by_y, window, scratch, sums)
                f, m, target = fixed[i, j], moved[i, j], out[i, j]
                for k in range(nz):
                    central, other = m[k] - moved_centre, f[k] - fixed_centre
                    target[k] = other * sums[0, k] + 2 * central * sums[1, k] - sums[2, k]


@jit
def _add_moments(fixed, moved, fixed_centre, moved_centre, sign, out):
    """Add f, m, ff, mm and fm of a plane, centred, to ``out``, (5, Y, Z)."""
    for j in range(fixed.shape[0]):
        f, m = fixed[j], moved[j]
        s0, s1, s2, s3, s4 = out[0, j], out[1, j], out[2, j], out[3, j], out[4, j]
        for k in range(len(f)):
            a, b = f[k] - fixed_centre, m[k] - moved_centre
            s0[k] += sign * a
            s1[k] += sign * b
            s2[k] += sign * (a * a)
            s3[k] += sign * (b * b)
            s4[k] += sign * (a * b)


@jit
def _add_slopes(slopes, i, incoming, share, per_y, per_z, out):
    """Add a plane of slopes times the incoming gradient and the windows' weights to ``out``."""
    for j in range(len(per_y)):
        weight = share * per_y[j]
        g = incoming[i, j]
        s0, s1, s2 = slopes[0, i, j], slopes[1, i, j], slopes[2, i, j]
        t0, t1, t2 = out[0, j], out[1, j], out[2, j]
        for k in range(len(per_z)):
            w = weight * per_z[k] * g[k]
            t0[k] += w * s0[k]
            t1[k] += w * s1[k]
            t2[k] += w * s2[k]


@jit
def _slide(planes, j, reach, out):
    """Sums over the rows within reach of row j; ``out`` has those of row j − 1."""
    ny = planes.shape[1]
    if j == 0:
        out[:] = 0.0
        for t in range(len(planes)):
            for q in range(min(reach, ny)):
                _add_row(planes[t, q], 1.0, out[t])
    for t in range(len(planes)):
        if j + reach < ny:
            _add_row(planes[t, j + reach], 1.0, out[t])
        if j - reach > 0:
            _add_row(planes[t, j - reach - 1], -1.0, out[t])


@jit
def _add_row(row, sign, out):
    for k in range(len(out)):
        out[k] += sign * row[k]


@jit
def _sum_along(rows, window, scratch, out):
    """Sums over windows of each row, zero outside it; from sums of 1, 2, 4, ... neighbours.

    All rows take each step before any takes the next: a processor waits for what it has only just
    written, if it reads it across two vectors.
    """
    n, reach = rows.shape[1], window // 2
    sums, doubled = scratch[0], scratch[1]
    for t in range(len(rows)):
        sums[t, :reach] = 0.0
        sums[t, reach : reach + n] = rows[t]
        sums[t, reach + n :] = 0.0
    for t in range(len(rows)):
        out[t, :] = sums[t, :n]  # the window is odd
    start, size = 1, 2
    while size <= window:
        for t in range(len(rows)):
            # Slices, because the compiler does not know that k + size is not negative.
            target, own, shifted = doubled[t], sums[t], sums[t, size // 2 :]
            for k in range(n + 2 * reach - size + 1):
                target[k] = own[k] + shifted[k]
        sums, doubled = doubled, sums
        if window & size:
            for t in range(len(rows)):
                target, shifted = out[t], sums[t, start:]
                for k in range(n):
                    target[k] += shifted[k]
            start += size
        size *= 2


@jit
def _correlate(sums, share_xy, per_z, guard, cc, i, j, slopes):
    """A row of the map and its slopes, from the sums of f, m, ff, mm and fm over windows."""
    wanted = slopes.shape[1] > 0
    a, b, c = slopes[0, i, j], slopes[1, i, j], slopes[2, i, j]
    for k in range(len(cc)):
        share = share_xy * per_z[k]
        f, m = sums[0, k] * share, sums[1, k] * share
        ff, mm = sums[2, k] * share - f * f, sums[3, k] * share - m * m
        ff, mm = 0.0 if ff < 0.0 else ff, 0.0 if mm < 0.0 else mm
        across = sums[4, k] * share - f * m
        inverse = 1.0 / (ff * mm + guard)
        slope = across * inverse
        square = across * slope
        inverse = 0.0 if square > 1.0 else inverse
        cc[k] = 1.0 if square > 1.0 else square
        if wanted:
            by_across, by_variance = 2.0 * across * inverse, -square * ff * inverse
            a[k], b[k] = by_across, by_variance
            c[k] = by_across * f + 2.0 * by_variance * m
