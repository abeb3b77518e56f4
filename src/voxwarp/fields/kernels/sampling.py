"""Sampling with either padding, and its gradients by the points and by the volume.

Rows of points are worked on in pieces of ``PIECE`` voxels. The numbers of a piece (weights of the
two ends of its cells along each axis, slopes of these weights, one number for each of the eight
corners, and results) lie in one array at distances that the compiler knows. So it can use vector
instructions without asking whether parts overlap.
"""

import numpy as np

from .jit import ONE, ZERO, jit, kernel

PIECE = 128
_WEIGHTS, _SLOPES, _CORNERS, _RESULTS = 0, 6 * PIECE, 12 * PIECE, 20 * PIECE  # where they begin
_LENGTH = 23 * PIECE


@kernel
def sample(volume, at, relative, zeros, out, first, last):
    """out(x) = volume(at(x)), or volume(x + at(x)) with ``relative``; trilinear.

    Outside the volume is zero with ``zeros``, else the border's value.
    """
    shape = volume.shape[1:]
    flat = volume.reshape(len(volume), -1)
    start, buffer = np.empty(PIECE, np.uint32), np.empty(_LENGTH, np.float32)
    for i in range(first, last):
        for j in range(at.shape[2]):
            for k in range(0, at.shape[3], PIECE):
                end = min(k + PIECE, at.shape[3])
                _cells(at, i, j, k, end, relative, zeros, shape, start, buffer)
                _corner_weights(end - k, buffer)
                for c in range(len(flat)):
                    _gather(flat[c], shape, start, buffer, out[c, i, j, k:end])


@kernel
def gradient_by_points(volume, at, relative, zeros, incoming, adds, out, first, last):
    """The gradient of ``sample`` by its points; plus the incoming one, of a field, if it ``adds``.

    Where slopes jump, at the planes of the volume, it is that of the far side, and from the border
    on outwards there is none if the border's value goes on; as in PyTorch.
    """
    shape = volume.shape[1:]
    flat = volume.reshape(len(volume), -1)
    start, buffer = np.empty(PIECE, np.uint32), np.empty(_LENGTH, np.float32)
    for i in range(first, last):
        for j in range(at.shape[2]):
            for k in range(0, at.shape[3], PIECE):
                end = min(k + PIECE, at.shape[3])
                _cells(at, i, j, k, end, relative, zeros, shape, start, buffer)
                for n in range(8 * PIECE):
                    buffer[_CORNERS + n] = ZERO
                for c in range(len(flat)):
                    _add_corners(flat[c], shape, start, incoming[c, i, j, k:end], buffer)
                _differentiate(end - k, buffer)
                for d in range(3):
                    target, offset = out[d, i, j, k:end], _RESULTS + d * PIECE
                    for n in range(len(target)):
                        target[n] = buffer[offset + n]
                    if adds:
                        g = incoming[d, i, j, k:end]
                        for n in range(len(target)):
                            target[n] += g[n]


@kernel
def planes_reached(at, relative, zeros, planes, reached, first, last):
    """First and last plane of a volume that each plane of points takes values from, (X, 2)."""
    corners, buffer = np.empty(PIECE, np.uint32), np.empty(_LENGTH, np.float32)
    for i in range(first, last):
        base = np.float32(i) if relative else ZERO
        low, high = np.uint32(planes), np.uint32(0)
        for j in range(at.shape[2]):
            for k in range(0, at.shape[3], PIECE):
                end = min(k + PIECE, at.shape[3])
                _ends(at[0, i, j, k:end], base, ZERO, planes, zeros, 0, 1, corners, buffer)
                for n in range(end - k):
                    low, high = min(low, corners[n]), max(high, corners[n])
        reached[i, 0], reached[i, 1] = low, high + 1


@kernel
def gradient_by_volume(incoming, at, relative, zeros, reached, adds, out, first, last):
    """The gradient of ``sample`` by its volume, added into the planes of ``out`` or replacing them.

    Every plane goes through all points that reach it, always in the same order, so that its sums
    do not depend on how threads share the planes.
    """
    shape = out.shape[1:]
    flat = out.reshape(len(out), -1)
    begin, stop = first * shape[1] * shape[2], last * shape[1] * shape[2]
    start, buffer = np.empty(PIECE, np.uint32), np.empty(_LENGTH, np.float32)
    if not adds:
        out[:, first:last] = ZERO
    for i in range(at.shape[1]):
        if reached[i, 1] < first or reached[i, 0] >= last:
            continue
        for j in range(at.shape[2]):
            for k in range(0, at.shape[3], PIECE):
                end = min(k + PIECE, at.shape[3])
                _cells(at, i, j, k, end, relative, zeros, shape, start, buffer)
                _corner_weights(end - k, buffer)
                for c in range(len(flat)):
                    g = incoming[c, i, j, k:end]
                    _scatter(flat[c], shape, start, buffer, g, begin, stop)


@jit
def _cells(at, i, j, k, end, relative, zeros, shape, start, buffer):
    """First corners of the cells of the points of voxels (i, j, k ≤ n < end), and weights."""
    nx, ny, nz = shape
    x, y, z, step = np.float32(i), np.float32(j), np.float32(k), ONE
    if not relative:
        x = y = z = step = ZERO
    _ends(at[0, i, j, k:end], x, ZERO, nx, zeros, 0, ny * nz, start, buffer)
    _ends(at[1, i, j, k:end], y, ZERO, ny, zeros, 1, nz, start, buffer)
    _ends(at[2, i, j, k:end], z, step, nz, zeros, 2, 1, start, buffer)


@jit
def _ends(u, base, step, n, zeros, axis, stride, start, buffer):
    """Cells of the points base + step k + u(k) along one axis of n voxels.

    Their first corners times the stride are added to ``start``, or set for the first axis. The sum
    is not rounded, so that a point just below a voxel has the slope there, however close it is.
    """
    end, last_corner, stride = np.float32(n - 1), np.int32(n - 2), np.uint32(stride)
    w, d = _WEIGHTS + 2 * axis * PIECE, _SLOPES + 2 * axis * PIECE
    if axis == 0:
        for k in range(len(u)):
            start[k] = 0
    for k in range(len(u)):
        voxel = base + step * np.float32(k)
        first, last = -voxel, end - voxel
        nearest = first if u[k] < first else u[k]
        nearest = last if nearest > last else nearest  # NaN stays NaN
        whole = np.floor(nearest if nearest >= first else first)
        a = min(np.int32(voxel) + np.int32(whole), last_corner)
        t = nearest - (np.float32(a) - voxel)
        start[k] += np.uint32(a) * stride
        buffer[w + k], buffer[w + PIECE + k] = ONE - t, t
        slope = ZERO if u[k] <= first else (ONE if u[k] < last else ZERO)
        buffer[d + k], buffer[d + PIECE + k] = -slope, slope
    if zeros:
        for k in range(len(u)):
            first = -(base + step * np.float32(k))
            last = end + first
            nearest = first if u[k] < first else u[k]
            nearest = last if nearest > last else nearest
            fade = ONE - np.abs(u[k] - nearest)  # from 1 at the border to 0 a voxel outside
            fade = ZERO if fade < ZERO else fade
            buffer[w + k] *= fade
            buffer[w + PIECE + k] *= fade
            left = ONE if u[k] >= first - ONE else ZERO
            right = -ONE if u[k] < last + ONE else ZERO
            inside = u[k] < last
            buffer[d + k] = left if u[k] < first else (-ONE if inside else ZERO)
            buffer[d + PIECE + k] = ZERO if u[k] < first else (ONE if inside else right)


@jit
def _corner_weights(count, buffer):
    """Weights of the eight corners, of the ends along x, y and z."""
    for k in range(count):
        z0, z1 = buffer[_WEIGHTS + 4 * PIECE + k], buffer[_WEIGHTS + 5 * PIECE + k]
        y0, y1 = buffer[_WEIGHTS + 2 * PIECE + k], buffer[_WEIGHTS + 3 * PIECE + k]
        x0, x1 = buffer[_WEIGHTS + k], buffer[_WEIGHTS + PIECE + k]
        a, b, c, d = x0 * y0, x0 * y1, x1 * y0, x1 * y1
        buffer[_CORNERS + k], buffer[_CORNERS + PIECE + k] = a * z0, a * z1
        buffer[_CORNERS + 2 * PIECE + k], buffer[_CORNERS + 3 * PIECE + k] = b * z0, b * z1
        buffer[_CORNERS + 4 * PIECE + k], buffer[_CORNERS + 5 * PIECE + k] = c * z0, c * z1
        buffer[_CORNERS + 6 * PIECE + k], buffer[_CORNERS + 7 * PIECE + k] = d * z0, d * z1


@jit
def _gather(flat, shape, start, buffer, out):
    """Values at the points of a piece; zero where all weights are zero, also beside NaN."""
    plane, row, one = np.uint64(shape[1] * shape[2]), np.uint64(shape[2]), np.uint64(1)
    for k in range(len(out)):
        p, w = np.uint64(start[k]), _CORNERS + k
        q, r = p + plane, p + row
        s = q + row
        value = buffer[w] * flat[p] + buffer[w + PIECE] * flat[p + one]
        value += buffer[w + 2 * PIECE] * flat[r] + buffer[w + 3 * PIECE] * flat[r + one]
        value += buffer[w + 4 * PIECE] * flat[q] + buffer[w + 5 * PIECE] * flat[q + one]
        value += buffer[w + 6 * PIECE] * flat[s] + buffer[w + 7 * PIECE] * flat[s + one]
        out[k] = value
    for k in range(len(out)):
        x = buffer[_WEIGHTS + k] + buffer[_WEIGHTS + PIECE + k]
        y = buffer[_WEIGHTS + 2 * PIECE + k] + buffer[_WEIGHTS + 3 * PIECE + k]
        z = buffer[_WEIGHTS + 4 * PIECE + k] + buffer[_WEIGHTS + 5 * PIECE + k]
        out[k] = ZERO if x * y * z == ZERO else out[k]


@jit
def _add_corners(flat, shape, start, incoming, buffer):
    """Add the incoming gradient times the volume at the eight corners."""
    plane, row, one = np.uint64(shape[1] * shape[2]), np.uint64(shape[2]), np.uint64(1)
    for k in range(len(incoming)):
        p, g, w = np.uint64(start[k]), incoming[k], _CORNERS + k
        q, r = p + plane, p + row
        s = q + row
        buffer[w] += g * flat[p]
        buffer[w + PIECE] += g * flat[p + one]
        buffer[w + 2 * PIECE] += g * flat[r]
        buffer[w + 3 * PIECE] += g * flat[r + one]
        buffer[w + 4 * PIECE] += g * flat[q]
        buffer[w + 5 * PIECE] += g * flat[q + one]
        buffer[w + 6 * PIECE] += g * flat[s]
        buffer[w + 7 * PIECE] += g * flat[s + one]


@jit
def _differentiate(count, buffer):
    """The derivatives, by x, y and z, of the trilinear mean of the corners."""
    for k in range(count):
        x0, x1 = buffer[_WEIGHTS + k], buffer[_WEIGHTS + PIECE + k]
        y0, y1 = buffer[_WEIGHTS + 2 * PIECE + k], buffer[_WEIGHTS + 3 * PIECE + k]
        z0, z1 = buffer[_WEIGHTS + 4 * PIECE + k], buffer[_WEIGHTS + 5 * PIECE + k]
        p0, p1 = buffer[_CORNERS + k], buffer[_CORNERS + PIECE + k]
        r0, r1 = buffer[_CORNERS + 2 * PIECE + k], buffer[_CORNERS + 3 * PIECE + k]
        q0, q1 = buffer[_CORNERS + 4 * PIECE + k], buffer[_CORNERS + 5 * PIECE + k]
        s0, s1 = buffer[_CORNERS + 6 * PIECE + k], buffer[_CORNERS + 7 * PIECE + k]
        p, r, q, s = z0 * p0 + z1 * p1, z0 * r0 + z1 * r1, z0 * q0 + z1 * q1, z0 * s0 + z1 * s1
        d0, d1 = buffer[_SLOPES + k], buffer[_SLOPES + PIECE + k]
        buffer[_RESULTS + k] = d0 * (y0 * p + y1 * r) + d1 * (y0 * q + y1 * s)
        d0, d1 = buffer[_SLOPES + 2 * PIECE + k], buffer[_SLOPES + 3 * PIECE + k]
        buffer[_RESULTS + PIECE + k] = x0 * (d0 * p + d1 * r) + x1 * (d0 * q + d1 * s)
        d0, d1 = buffer[_SLOPES + 4 * PIECE + k], buffer[_SLOPES + 5 * PIECE + k]
        p, r, q, s = d0 * p0 + d1 * p1, d0 * r0 + d1 * r1, d0 * q0 + d1 * q1, d0 * s0 + d1 * s1
        buffer[_RESULTS + 2 * PIECE + k] = x0 * (y0 * p + y1 * r) + x1 * (y0 * q + y1 * s)


@jit
def _scatter(flat, shape, start, buffer, incoming, first, last):
    """Add the incoming gradient to the corners of its cells, from index ``first`` to ``last``."""
    plane, row, one = np.uint64(shape[1] * shape[2]), np.uint64(shape[2]), np.uint64(1)
    for k in range(len(incoming)):
        p, g, w = np.uint64(start[k]), incoming[k], _CORNERS + k
        q = p + plane
        if first <= p < last:
            flat[p] += buffer[w] * g
            flat[p + one] += buffer[w + PIECE] * g
            flat[p + row] += buffer[w + 2 * PIECE] * g
            flat[p + row + one] += buffer[w + 3 * PIECE] * g
        if first <= q < last:
            flat[q] += buffer[w + 4 * PIECE] * g
            flat[q + one] += buffer[w + 5 * PIECE] * g
            flat[q + row] += buffer[w + 6 * PIECE] * g
            flat[q + row + one] += buffer[w + 7 * PIECE] * g
