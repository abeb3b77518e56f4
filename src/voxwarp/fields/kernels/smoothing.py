"""Gaussians, and grids of twice or half the resolution."""

import numpy as np

from .jit import ZERO, jit


@jit
def _clear(row):
    for k in range(len(row)):
        row[k] = ZERO


@jit
def _weigh(centre, share, out):
    """Out = the centre's share, to which the others are added."""
    for k in range(len(out)):
        out[k] = share * centre[k]


@jit
def _add_pair(a, b, share, out):
    for k in range(len(out)):
        out[k] += share * (a[k] + b[k])


@jit
def _add_pairs(a, b, share, c, d, other, out):
    for k in range(len(out)):
        out[k] += share * (a[k] + b[k]) + other * (c[k] + d[k])


@jit
def _smooth_across(planes, at, j, weights, low, high, out):
    """Out = row j smoothed across the planes around plane ``at`` of (X, Y, Z), for low ≤ k < high.

    Rows are cut out of a whole array: of a slice's, the compiler does not know that their voxels
    lie side by side.
    """
    reach, last = len(weights) // 2, len(planes) - 1
    _weigh(planes[at, j, low:high], weights[reach], out)
    for t in range(1, reach, 2):
        _add_pairs(
            planes[max(at - t, 0), j, low:high],
            planes[min(at + t, last), j, low:high],
            weights[reach + t],
            planes[max(at - t - 1, 0), j, low:high],
            planes[min(at + t + 1, last), j, low:high],
            weights[reach + t + 1],
            out,
        )
    if reach % 2:
        a, b = planes[max(at - reach, 0), j, low:high], planes[min(at + reach, last), j, low:high]
        _add_pair(a, b, weights[2 * reach], out)


@jit
def _smooth_along(padded, weights, out):
    """Out = the weighted sum of the voxels around each, of a row padded at its ends."""
    reach = len(weights) // 2
    _weigh(padded[reach:], weights[reach], out)
    for t in range(1, reach, 2):
        _add_pairs(
            padded[reach - t :],
            padded[reach + t :],
            weights[reach + t],
            padded[reach - t - 1 :],
            padded[reach + t + 1 :],
            weights[reach + t + 1],
            out,
        )
    if reach % 2:
        _add_pair(padded, padded[2 * reach :], weights[2 * reach], out)


@jit
def gaussian(volume, extents, weights, out, norms, first, last):
    """Each channel smoothed along all axes by odd symmetric weights; the border's value continues.

    Outside the ``extents`` of its rows the volume is zero. ``norms[i]``, if there are any, gets the
    sum over plane i of the length of the vector of the channels.
    """
    channels, nx, ny, nz = volume.shape
    reach = len(weights) // 2
    along_x, along_y = np.zeros((ny, 1, nz), np.float32), np.zeros(nz + 2 * reach, np.float32)
    within = np.empty((ny, 2), np.int64)
    for i in range(first, last):
        for j in range(ny):
            low, high = nz, 0
            for p in range(max(i - reach, 0), min(i + reach, nx - 1) + 1):
                low, high = min(low, extents[p, j, 0]), max(high, extents[p, j, 1])
            within[j] = low, high
        for c in range(channels):
            for j in range(ny):
                low, high = within[j]
                _clear(along_x[j, 0])
                _smooth_across(volume[c], i, j, weights, low, high, along_x[j, 0, low:high])
            for j in range(ny):
                low, high = nz, 0
                for q in range(max(j - reach, 0), min(j + reach, ny - 1) + 1):
                    low, high = min(low, within[q, 0]), max(high, within[q, 1])
                _clear(out[c, i, j])
                if low >= high:
                    continue
                _clear(along_y)
                row = along_y[reach : reach + nz]
                _smooth_across(along_x, j, 0, weights, low, high, row[low:high])
                for t in range(reach):
                    along_y[t], along_y[reach + nz + t] = row[0], row[nz - 1]
                low, high = max(low - reach, 0), min(high + reach, nz)
                _smooth_along(along_y[low:], weights, out[c, i, j, low:high])
        if len(norms):
            norms[i] = _norm(out, i)


@jit
def _norm(vectors, i):
    """The sum of the lengths of vectors, (C, X, Y, Z), over plane i."""
    channels, _, ny, nz = vectors.shape
    total, squares = 0.0, np.empty(nz, np.float32)
    for j in range(ny):
        _clear(squares)
        for c in range(channels):
            row = vectors[c, i, j]
            for k in range(nz):
                squares[k] += row[k] * row[k]
        part = ZERO
        for k in range(nz):
            part += np.sqrt(squares[k])
        total += part
    return total


@jit
def upsample(volume, scale, out, adds, first, last):
    """``scale`` times a volume of blocks of 2³ voxels at every voxel, trilinear between centres.

    Planes are those of ``out``, which has twice the sides; ``adds`` to what it holds.
    """
    channels, nx, ny, nz = volume.shape
    row = np.empty(nz, np.float32)
    near, far = np.float32(0.75), np.float32(0.25)
    for c in range(channels):
        for i in range(first, last):
            a = i // 2
            b = min(max(a + (1 if i % 2 else -1), 0), nx - 1)
            for j in range(2 * ny):
                d = j // 2
                e = min(max(d + (1 if j % 2 else -1), 0), ny - 1)
                p, q, r, s = volume[c, a, d], volume[c, a, e], volume[c, b, d], volume[c, b, e]
                for k in range(nz):
                    row[k] = scale * (
                        near * (near * p[k] + far * q[k]) + far * (near * r[k] + far * s[k])
                    )
                target = out[c, i, j]
                if not adds:
                    for k in range(2 * nz):
                        target[k] = ZERO
                target[0] += row[0]
                for k in range(nz - 1):
                    target[2 * k + 1] += near * row[k] + far * row[k + 1]
                    target[2 * k + 2] += far * row[k] + near * row[k + 1]
                target[2 * nz - 1] += row[nz - 1]


@jit
def upsample_adjoint(volume, scale, out, first, last):
    """What ``upsample`` takes from each voxel: its gradient, of a gradient; planes are of ``out``.

    A voxel counts a quarter, three quarters, three quarters and a quarter in four neighbours.
    """
    channels, _, ny, nz = out.shape
    across = np.empty((4, 2 * nz), np.float32)
    row = np.empty(2 * nz, np.float32)
    near, far = np.float32(0.75), np.float32(0.25)
    for c in range(channels):
        for i in range(first, last):
            a, b = max(2 * i - 1, 0), min(2 * i + 2, volume.shape[1] - 1)
            for j in range(ny):
                for t in range(4):
                    e = min(max(2 * j - 1 + t, 0), 2 * ny - 1)
                    p, q = volume[c, a, e], volume[c, 2 * i, e]
                    r, s = volume[c, 2 * i + 1, e], volume[c, b, e]
                    for k in range(2 * nz):
                        across[t, k] = far * (p[k] + s[k]) + near * (q[k] + r[k])
                for k in range(2 * nz):
                    row[k] = scale * (
                        far * (across[0, k] + across[3, k]) + near * (across[1, k] + across[2, k])
                    )
                target = out[c, i, j]
                for k in range(nz):
                    target[k] = near * (row[2 * k] + row[2 * k + 1])
                for k in range(1, nz):
                    target[k] += far * row[2 * k - 1]
                    target[k - 1] += far * row[2 * k]
                target[0] += far * row[0]
                target[nz - 1] += far * row[2 * nz - 1]


@jit
def average(volume, scale, out, first, last):
    """``scale`` times the mean of each block of 2³ voxels; planes are those of ``out``."""
    channels = volume.shape[0]
    _, _, ny, nz = out.shape
    share = scale * np.float32(0.125)
    row = np.empty(2 * nz, np.float32)
    for c in range(channels):
        for i in range(first, last):
            for j in range(ny):
                p, q = volume[c, 2 * i, 2 * j], volume[c, 2 * i, 2 * j + 1]
                r, s = volume[c, 2 * i + 1, 2 * j], volume[c, 2 * i + 1, 2 * j + 1]
                for k in range(2 * nz):
                    row[k] = p[k] + q[k] + r[k] + s[k]
                target = out[c, i, j]
                for k in range(nz):
                    target[k] = share * (row[2 * k] + row[2 * k + 1])
