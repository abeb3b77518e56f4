"""The forces of a descent."""

import numpy as np

from .jit import HALF, ONE, TWO, ZERO, jit, kernel
from .loops import (
    add,
    add_product,
    copy,
    difference,
    fill,
    index,
    multiply,
    shares,
    total,
    total_of_squares,
    weigh,
)
from .rows import gather, places, row_buffers, slopes


@kernel
def window_moments(image, window, mean, variance, first, last):
    """The mean and the variance of the voxels in the window around each voxel."""
    nx, ny, nz = image.shape
    flat, means, variances = image.reshape(-1), mean.reshape(-1), variance.reshape(-1)
    r, zero, n = window // 2, index(0), index(nz)
    by_x, by_y = np.empty(2 * ny * nz, np.float32), np.zeros(2 * (nz + 2 * r), np.float32)
    sums, per_z = np.empty(2 * nz, np.float32), np.empty(nz, np.float32)
    shares(r, per_z)
    for i in range(first, last):
        low, high = max(i - r, 0), min(i + r, nx - 1)
        fill(ZERO, by_x, zero, index(2 * ny * nz))
        for p in range(low, high + 1):
            plane, size = index(p * ny * nz), index(ny * nz)
            add(flat, plane, by_x, zero, size)
            add_product(flat, plane, flat, plane, by_x, size, size)
        for j in range(ny):
            rows = _sum_in_plane(by_x, ny, nz, j, r, 0, nz, by_y, sums)
            share = ONE / np.float32((high - low + 1) * rows)
            at = index((i * ny + j) * nz)
            _moments(sums, share, per_z, means, variances, at, n)


@jit
def _moments(sums, share, per_z, means, variances, at, n):
    for k in range(n):
        weight = share * per_z[k]
        m = sums[k] * weight
        v = sums[n + k] * weight - m * m
        means[at + k] = m
        variances[at + k] = ZERO if v < ZERO else v


@jit
def _sum_in_plane(by_x, ny, nz, j, r, low, high, by_y, sums):
    """Sums over the window's rows and voxels for low ≤ k < high of row j; the number of rows.

    ``by_x`` holds sums over planes; ``by_y`` is a buffer of rows that are longer by r at each end,
    where it is zero. A row of ``sums`` has ``nz`` places, and the result begins at its first.
    """
    top, bottom = max(j - r, 0), min(j + r, ny - 1)
    before, after = max(low - r, 0), min(high + r, nz)
    n, wide = index(after - before), index(high - low)
    for t in range(len(sums) // nz):
        padded, plane, out = t * (nz + 2 * r), t * ny * nz, index(t * nz)
        inner = index(padded + r + before)
        copy(by_x, index(plane + top * nz + before), by_y, inner, n)
        for q in range(top + 1, bottom + 1):
            add(by_x, index(plane + q * nz + before), by_y, inner, n)
        copy(by_y, index(padded + low), sums, out, wide)
        for d in range(1, 2 * r + 1):
            add(by_y, index(padded + low + d), sums, out, wide)
    return bottom - top + 1


@kernel
def correlation_force(
    moving, fixed, mean, variance, u, window, guard, rounding, extents, force, totals, first, last
):
    """The force of the local correlation; ``totals[i]`` is the sum of cc over plane i.

    Planes of the moved image, their products and the windows' sums live in buffers only.
    ``extents`` are those of rows of the fixed variance, of the voxels in the windows around them,
    and of those in planes beside them, too; outside the first, the force is zero.
    """
    nx, ny, nz = fixed.shape
    r, zero, shape, step = window // 2, index(0), moving.shape, nx * ny * nz
    reach = max(r, 1)
    size, plane = 2 * reach + 1, ny * nz
    flat, still, field, out = (
        moving.reshape(-1),
        fixed.reshape(-1),
        u.reshape(-1),
        force.reshape(-1),
    )
    means, variances = mean.reshape(-1), variance.reshape(-1)
    ring = np.empty(size * plane, np.float32)
    start, wx, wy, wz = row_buffers(nz)
    by_x, by_y = np.empty(3 * plane, np.float32), np.zeros(3 * (nz + 2 * r), np.float32)
    sums, cc = np.empty(3 * nz, np.float32), np.empty(nz, np.float32)
    pull = np.empty(nz, np.float32)
    gx, gy, gz = np.empty(nz, np.float32), np.empty(nz, np.float32), np.empty(nz, np.float32)
    per_z = np.empty(nz, np.float32)
    shares(r, per_z)
    active, inside, around = extents
    ready = max(first - reach, 0)
    for i in range(first, last):
        while ready <= min(i + reach, nx - 1):
            for j in range(ny):
                left, right = around[ready, j, 0], around[ready, j, 1]
                n, at = index(max(right - left, 0)), ready * plane + j * nz + left
                x, y, z = np.float32(ready), np.float32(j), np.float32(left)
                places(field, index(at), index(step), x, y, z, shape, start, wx, wy, wz, n)
                to = index((ready % size) * plane + j * nz + left)
                gather(flat, zero, shape, start, wx, wy, wz, zero, ring, to, n)
            ready += 1
        low, high = max(i - r, 0), min(i + r, nx - 1)
        for j in range(ny):
            left, right = inside[i, j, 0], inside[i, j, 1]
            if left >= right:
                continue
            n, s = index(right - left), index(j * nz + left)
            for t in range(3):
                fill(ZERO, by_x, index(t * plane + j * nz + left), n)
            for p in range(low, high + 1):
                m, f = index((p % size) * plane + j * nz + left), index(p * plane + j * nz + left)
                add(ring, m, by_x, s, n)
                add_product(ring, m, ring, m, by_x, index(plane + j * nz + left), n)
                add_product(ring, m, still, f, by_x, index(2 * plane + j * nz + left), n)
        before, after = max(i - 1, 0) % size * plane, min(i + 1, nx - 1) % size * plane
        sx = ONE if min(i + 1, nx - 1) - max(i - 1, 0) == 1 else HALF
        here, sum_of_cc = i % size * plane, 0.0
        for j in range(ny):
            left, right = active[i, j, 0], active[i, j, 1]
            row = i * plane + j * nz
            for d in range(3):
                fill(ZERO, out, index(d * step + row), index(nz))
            if left >= right:
                continue
            n, at = index(right - left), index(row + left)
            rows = _sum_in_plane(by_x, ny, nz, j, r, left, right, by_y, sums)
            above, below = max(j - 1, 0), min(j + 1, ny - 1)
            sy = ONE if below - above == 1 else HALF
            slopes(
                *(ring, before + j * nz, after + j * nz, here + above * nz, here + below * nz),
                *(here + j * nz, sx, sy, left, right, nz),
                *(gx, gy, gz),
            )
            share = ONE / np.float32((high - low + 1) * rows)
            _covariances(sums, index(nz), share, per_z, index(left), means, at, n)
            m = index(here + j * nz + left)
            _pull(sums, index(nz), ring, m, still, means, variances, at, guard, rounding, pull, n)
            _correlation(sums, index(nz), variances, at, guard, cc, n)
            sum_of_cc += total(cc, zero, n)
            multiply(pull, zero, gx, zero, out, at, n)
            multiply(pull, zero, gy, zero, out, index(step + row + left), n)
            multiply(pull, zero, gz, zero, out, index(2 * step + row + left), n)
        totals[i] = sum_of_cc


@jit
def _covariances(sums, row, share, per_z, left, means, at, n):
    """From the sums of m, m² and m f in windows to m̄, the variance of m and the covariance."""
    second = index(2) * row
    for k in range(n):
        weight = share * per_z[left + k]
        m = sums[k] * weight
        v = sums[row + k] * weight - m * m
        sums[second + k] = sums[second + k] * weight - m * means[at + k]
        sums[row + k] = ZERO if v < ZERO else v
        sums[k] = m


@jit
def _pull(sums, row, moved, m, fixed, means, variances, at, guard, rounding, pull, n):
    """2 A / (F M) · (f − f̄ − A / M (m − m̄)), from what ``_covariances`` gives."""
    second = index(2) * row
    for k in range(n):
        v, across = sums[row + k], sums[second + k]
        slope = across / (v * variances[at + k] + guard)
        slope = ZERO if across * slope > ONE else slope
        ratio = across / (rounding if v < rounding else v)
        own = moved[m + k] - sums[k]
        pull[k] = TWO * slope * (fixed[at + k] - means[at + k] - ratio * own)


@jit
def _correlation(sums, row, variances, at, guard, cc, n):
    """A² / (F M), at most 1."""
    second = index(2) * row
    for k in range(n):
        across = sums[second + k]
        value = across * (across / (sums[row + k] * variances[at + k] + guard))
        cc[k] = ONE if value > ONE else value


@kernel
def difference_force(
    moving, fixed, u, weight, background, cells, extents, force, adds, totals, first, last
):
    """The force of the maps' difference, w Σ (f − m) ∇m; ``totals[i]`` sums |f − m|² over plane i.

    Outside the ``extents`` of its rows, ``fixed`` is the ``background``, as is ``moving`` in all
    ``cells``, of the number of its first corner, that are zero. ``adds`` to what is in ``force``.
    """
    channels, nx, ny, nz = fixed.shape
    shape, plane, step = moving.shape[1:], ny * nz, nx * ny * nz
    size, zero, slot = shape[0] * shape[1] * shape[2], index(0), channels * plane
    flat, still, field = moving.reshape(-1), fixed.reshape(-1), u.reshape(-1)
    out = force.reshape(-1)
    ring, known = np.empty(3 * slot, np.float32), np.empty((3, ny, 2), np.int64)
    start, wx, wy, wz = row_buffers(nz)
    gap, gx = np.empty(nz, np.float32), np.empty(nz, np.float32)
    gy, gz = np.empty(nz, np.float32), np.empty(nz, np.float32)
    ready = max(first - 1, 0)
    for i in range(first, last):
        while ready <= min(i + 1, nx - 1):
            for j in range(ny):
                at, x, y = index(ready * plane + j * nz), np.float32(ready), np.float32(j)
                places(field, at, index(step), x, y, ZERO, shape, start, wx, wy, wz, index(nz))
                left, right = _inside(cells, start, nz)
                known[ready % 3, j, 0], known[ready % 3, j, 1] = left, right
                p, n = index(left), index(right - left)
                for c in range(channels):
                    row = (ready % 3) * slot + c * plane + j * nz
                    fill(background[c], ring, index(row), index(nz))
                    channel, to = index(c * size), index(row + left)
                    gather(flat, channel, shape, start, wx, wy, wz, p, ring, to, n)
            ready += 1
        before, after = max(i - 1, 0) % 3 * slot, min(i + 1, nx - 1) % 3 * slot
        sx = ONE if min(i + 1, nx - 1) - max(i - 1, 0) == 1 else HALF
        here, sum_of_squares = i % 3 * slot, 0.0
        for j in range(ny):
            left, right = extents[i, j, 0], extents[i, j, 1]
            if known[i % 3, j, 0] < known[i % 3, j, 1]:
                left, right = min(left, known[i % 3, j, 0]), max(right, known[i % 3, j, 1])
            row = i * plane + j * nz
            if not adds:
                for d in range(3):
                    fill(ZERO, out, index(d * step + row), index(nz))
            if left >= right:
                continue
            n, above, below = index(right - left), max(j - 1, 0), min(j + 1, ny - 1)
            sy = ONE if below - above == 1 else HALF
            for c in range(channels):
                own = here + c * plane
                slopes(
                    *(ring, before + c * plane + j * nz, after + c * plane + j * nz),
                    *(own + above * nz, own + below * nz, own + j * nz, sx, sy),
                    *(left, right, nz, gx, gy, gz),
                )
                f, m = index(c * step + row + left), index(own + j * nz + left)
                difference(ONE, still, f, ring, m, gap, zero, n)
                sum_of_squares += total_of_squares(gap, zero, n)
                weigh(weight, gap, zero, gap, zero, n)
                add_product(gap, zero, gx, zero, out, index(row + left), n)
                add_product(gap, zero, gy, zero, out, index(step + row + left), n)
                add_product(gap, zero, gz, zero, out, index(2 * step + row + left), n)
        totals[i] = sum_of_squares


@jit
def _inside(cells, start, n):
    """Between which of n points the cells are not zero: the first, and one past the last."""
    left, right, one = index(0), index(n), index(1)
    while left < right and not cells[start[left]]:
        left += one
    while right > left and not cells[start[right - one]]:
        right -= one
    return np.int64(left), np.int64(right)
