"""Gaussians, and grids of twice or half the resolution."""

import numpy as np

from .jit import ZERO, jit, kernel
from .loops import add_two_weighted, add_weighted, fill, index, lengths, total, weigh


@jit
def _smooth(source, at, steps, weights, out, o, n):
    """Out = n voxels smoothed across ``steps``: how far the neighbours on either side are."""
    reach = len(weights) // 2
    weigh(weights[reach], source, index(at), out, o, n)
    for t in range(0, reach - 1, 2):
        add_two_weighted(
            *(weights[reach + t + 1], source),
            *(index(at - steps[t, 0]), index(at + steps[t, 1]), weights[reach + t + 2]),
            *(index(at - steps[t + 1, 0]), index(at + steps[t + 1, 1]), out, o, n),
        )
    if reach % 2:
        before, after = index(at - steps[reach - 1, 0]), index(at + steps[reach - 1, 1])
        add_weighted(weights[2 * reach], source, before, after, out, o, n)


@jit
def _steps(at, length, stride, steps):
    """How far the neighbours t = 1, 2, ... of place ``at`` are on either side, within the array."""
    for t in range(len(steps)):
        steps[t, 0] = min(t + 1, at) * stride
        steps[t, 1] = min(t + 1, length - 1 - at) * stride


@kernel
def gaussian(volume, extents, weights, out, norms, first, last):
    """Each channel smoothed along all axes by odd symmetric weights; the border's value continues.

    Outside the ``extents`` of its rows the volume is zero. ``norms[i]``, if there are any, gets the
    sum over plane i of the length of the vector of the channels.
    """
    channels, nx, ny, nz = volume.shape
    source, target = volume.reshape(-1), out.reshape(-1)
    reach, zero = len(weights) // 2, index(0)
    along_x, along_y = np.zeros(ny * nz, np.float32), np.zeros(nz + 2 * reach, np.float32)
    within, size = np.empty((ny, 2), np.int64), np.empty(nz, np.float32)
    steps, across = np.empty((reach, 2), np.int64), np.empty((reach, 2), np.int64)
    apart = np.empty((reach, 2), np.int64)
    for t in range(reach):
        apart[t] = t + 1
    for i in range(first, last):
        _hulls(extents, i, reach, within)
        _steps(i, nx, ny * nz, steps)
        for c in range(channels):
            for j in range(ny):
                low, high = within[j, 0], within[j, 1]
                row, at = j * nz, ((c * nx + i) * ny + j) * nz
                fill(ZERO, along_x, index(row), index(nz))
                if low < high:
                    n = index(high - low)
                    _smooth(source, at + low, steps, weights, along_x, index(row + low), n)
            for j in range(ny):
                low, high = nz, 0
                for q in range(max(j - reach, 0), min(j + reach, ny - 1) + 1):
                    low, high = min(low, within[q, 0]), max(high, within[q, 1])
                at = ((c * nx + i) * ny + j) * nz
                fill(ZERO, target, index(at), index(nz))
                if low >= high:
                    continue
                fill(ZERO, along_y, zero, index(nz + 2 * reach))
                _steps(j, ny, nz, across)
                n = index(high - low)
                _smooth(along_x, j * nz + low, across, weights, along_y, index(reach + low), n)
                for t in range(reach):
                    along_y[t], along_y[reach + nz + t] = along_y[reach], along_y[reach + nz - 1]
                low, high = max(low - reach, 0), min(high + reach, nz)
                n = index(high - low)
                _smooth(along_y, reach + low, apart, weights, target, index(at + low), n)
        if len(norms):
            plane, step, sum_of_norms = i * ny * nz, nx * ny * nz, 0.0
            for j in range(ny):
                row = index(plane + j * nz)
                lengths(target, row, index(step), channels, size, index(nz))
                sum_of_norms += total(size, zero, index(nz))
            norms[i] = sum_of_norms


@jit
def _hulls(extents, i, reach, within):
    """For each row j of plane i: where the planes up to ``reach`` away are not zero."""
    nx, ny, _ = extents.shape
    for j in range(ny):
        low, high = extents[i, j, 0], extents[i, j, 1]
        for p in range(max(i - reach, 0), min(i + reach, nx - 1) + 1):
            low, high = min(low, extents[p, j, 0]), max(high, extents[p, j, 1])
        within[j, 0], within[j, 1] = low, high


@kernel
def upsample(volume, scale, out, adds, first, last):
    """``scale`` times a volume of blocks of 2³ voxels at every voxel, trilinear between centres.

    Planes are those of ``out``, which has twice the sides; ``adds`` to what it holds.
    """
    channels, nx, ny, nz = volume.shape
    source, target = volume.reshape(-1), out.reshape(-1)
    row = np.empty(nz, np.float32)
    for c in range(channels):
        for i in range(first, last):
            a = i // 2
            b = min(max(a + (1 if i % 2 else -1), 0), nx - 1)
            for j in range(2 * ny):
                d = j // 2
                e = min(max(d + (1 if j % 2 else -1), 0), ny - 1)
                near, far = (c * nx + a) * ny, (c * nx + b) * ny
                _mix(
                    *(source, index((near + d) * nz), index((near + e) * nz)),
                    *(index((far + d) * nz), index((far + e) * nz), scale, row, index(nz)),
                )
                at = index(((c * 2 * nx + i) * 2 * ny + j) * 2 * nz)
                if not adds:
                    fill(ZERO, target, at, index(2 * nz))
                _add_between(row, target, at)


@jit
def _mix(a, p, q, r, s, scale, row, n):
    """The row a quarter of the way from row p to q, and from both to the rows r and s beside."""
    near, far = np.float32(0.75), np.float32(0.25)
    for k in range(n):
        row[k] = scale * (
            near * (near * a[p + k] + far * a[q + k]) + far * (near * a[r + k] + far * a[s + k])
        )


@jit
def _add_between(row, out, at):
    """Out += the row at twice as many places."""
    near, far, one, two = np.float32(0.75), np.float32(0.25), index(1), index(2)
    last = index(len(row) - 1)
    out[at] += row[0]
    for k in range(last):
        out[at + two * k + one] += near * row[k] + far * row[k + one]
        out[at + two * k + two] += far * row[k] + near * row[k + one]
    out[at + two * last + one] += row[last]


@kernel
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


@kernel
def average(volume, scale, out, first, last):
    """``scale`` times the mean of each block of 2³ voxels; planes are those of ``out``."""
    _, wide, high, long = volume.shape
    channels, nx, ny, nz = out.shape
    source, target = volume.reshape(-1), out.reshape(-1)
    share = scale * np.float32(0.125)
    row = np.empty(2 * nz, np.float32)
    for c in range(channels):
        for i in range(first, last):
            for j in range(ny):
                at = ((c * wide + 2 * i) * high + 2 * j) * long
                beside = at + high * long
                _add_rows(
                    *(source, index(at), index(at + long), index(beside), index(beside + long)),
                    *(row, index(2 * nz)),
                )
                _add_neighbours(row, share, target, index(((c * nx + i) * ny + j) * nz), index(nz))


@jit
def _add_rows(a, p, q, r, s, row, n):
    for k in range(n):
        row[k] = a[p + k] + a[q + k] + a[r + k] + a[s + k]


@jit
def _add_neighbours(row, share, out, at, n):
    one, two = index(1), index(2)
    for k in range(n):
        out[at + k] = share * (row[two * k] + row[two * k + one])
