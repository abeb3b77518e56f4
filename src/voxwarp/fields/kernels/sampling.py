"""Sampling with either padding, and its gradients by the points and by the volume."""

import numpy as np

from .jit import ONE, ZERO, jit
from .rows import between, corner


@jit
def sample(volume, at, relative, zeros, out, first, last):
    """out(x) = volume(at(x)), or volume(x + at(x)) with ``relative``; trilinear.

    Outside the volume is zero with ``zeros``, else the border's value.
    """
    shape = volume.shape[1:]
    flat = volume.reshape(len(volume), -1)
    start, weights, rises = _buffers(at.shape[3])
    for i in range(first, last):
        for j in range(at.shape[2]):
            _cells(at[:, i, j], i, j, relative, zeros, shape, start, weights, rises)
            for c in range(len(flat)):
                _gather(flat[c], shape, start, weights, out[c, i, j])


@jit
def gradient_by_points(volume, at, relative, zeros, incoming, adds, out, first, last):
    """The gradient of ``sample`` by its points; plus the incoming one, of a field, if it ``adds``.

    With the slope on the far side at the volumes' planes, where it jumps, and none beyond the
    border, as in PyTorch.
    """
    shape = volume.shape[1:]
    flat = volume.reshape(len(volume), -1)
    start, weights, rises = _buffers(at.shape[3])
    for i in range(first, last):
        for j in range(at.shape[2]):
            for d in range(3):
                row = out[d, i, j]
                for k in range(len(row)):
                    row[k] = incoming[d, i, j, k] if adds else ZERO
            _cells(at[:, i, j], i, j, relative, zeros, shape, start, weights, rises)
            for c in range(len(flat)):
                _add_slopes(flat[c], shape, start, weights, rises, incoming[c, i, j], out[:, i, j])


@jit
def planes_reached(at, relative, zeros, planes, reached, first, last):
    """First and last plane of a volume that each plane of points takes values from, (X, 2)."""
    nz = at.shape[3]
    corners = np.empty(nz, np.int32)
    w0, w1, d0, d1 = (
        np.empty(nz, np.float32),
        np.empty(nz, np.float32),
        np.empty(nz, np.float32),
        np.empty(nz, np.float32),
    )
    for i in range(first, last):
        base = np.float32(i) if relative else ZERO
        low, high = np.int32(planes), np.int32(0)
        for j in range(at.shape[2]):
            _ends(at[0, i, j], base, ZERO, planes, zeros, corners, w0, w1, d0, d1)
            for k in range(nz):
                low, high = min(low, corners[k]), max(high, corners[k])
        reached[i, 0], reached[i, 1] = low, high + 1


@jit
def gradient_by_volume(incoming, at, relative, zeros, reached, adds, out, first, last):
    """The gradient of ``sample`` by its volume, added into the planes of ``out`` or replacing them.

    Every plane goes through all points that reach it, always in the same order, so that its sums
    do not depend on how threads share the planes.
    """
    shape = out.shape[1:]
    flat = out.reshape(len(out), -1)
    start, weights, rises = _buffers(at.shape[3])
    if not adds:
        out[:, first:last] = ZERO
    begin, end = first * shape[1] * shape[2], last * shape[1] * shape[2]
    for i in range(at.shape[1]):
        if reached[i, 1] < first or reached[i, 0] >= last:
            continue
        for j in range(at.shape[2]):
            _cells(at[:, i, j], i, j, relative, zeros, shape, start, weights, rises)
            for c in range(len(flat)):
                _scatter(flat[c], shape, start, weights, incoming[c, i, j], begin, end)


@jit
def _buffers(n):
    """First corners of the cells of a row's points, weights of both ends by axis, their slopes."""
    return np.empty(n, np.uint32), np.empty((6, n), np.float32), np.empty((6, n), np.float32)


@jit
def _ends(u, base, step, n, zeros, first_corner, w0, w1, d0, d1):
    """Along one axis of n voxels: cells of the points base + step k + u(k), weights and slopes."""
    end, beyond, last_corner = np.float32(n - 1), np.float32(n), np.int32(n - 2)
    if zeros:
        for k in range(len(u)):
            x = (base + step * np.float32(k)) + u[k]
            nearest = between(x, end)
            a = corner(nearest, last_corner)
            t = nearest - np.float32(a)
            fade = ONE - np.abs(x - nearest)  # from 1 at the border to 0 one voxel outside
            fade = ZERO if fade < ZERO else fade
            first_corner[k] = a
            w0[k], w1[k] = fade * (ONE - t), fade * t
            left = ONE if x >= -ONE else ZERO
            right = -ONE if x < beyond else ZERO
            d0[k] = left if x < ZERO else (right if x < end else ZERO)
            d1[k] = ZERO if x < ZERO else (ONE if x < end else right)
    else:
        for k in range(len(u)):
            x = (base + step * np.float32(k)) + u[k]
            nearest = between(x, end)
            a = corner(nearest, last_corner)
            t = nearest - np.float32(a)
            first_corner[k] = a
            w0[k], w1[k] = ONE - t, t
            slope = ZERO if x <= ZERO else (ONE if x < end else ZERO)
            d0[k], d1[k] = -slope, slope


@jit
def _cells(u, i, j, relative, zeros, shape, start, weights, rises):
    """Cells of the points of row (i, j), and their weights and slopes of both ends along x, y, z.

    Rows of ``weights`` and ``rises`` are those of the near and the far end along x, y and z.
    """
    nx, ny, nz = shape
    x, y, z = (np.float32(i), np.float32(j), ONE) if relative else (ZERO, ZERO, ZERO)
    a, b, c = np.empty(len(start), np.int32), np.empty(len(start), np.int32), start.view(np.int32)
    _ends(u[0], x, ZERO, nx, zeros, a, weights[0], weights[1], rises[0], rises[1])
    _ends(u[1], y, ZERO, ny, zeros, b, weights[2], weights[3], rises[2], rises[3])
    _ends(u[2], ZERO, z, nz, zeros, c, weights[4], weights[5], rises[4], rises[5])
    plane, row = np.uint32(ny * nz), np.uint32(nz)
    for k in range(len(start)):
        start[k] += np.uint32(a[k]) * plane + np.uint32(b[k]) * row


@jit
def _gather(flat, shape, start, weights, out):
    """Trilinear values at the points of a row; zero where all weights are, also beside NaN."""
    plane, row, one = np.uint32(shape[1] * shape[2]), np.uint32(shape[2]), np.uint32(1)
    x0, x1, y0, y1, z0, z1 = (
        weights[0],
        weights[1],
        weights[2],
        weights[3],
        weights[4],
        weights[5],
    )
    for k in range(len(out)):
        p = start[k]
        q, r = p + plane, p + row
        s = q + row
        near = y0[k] * (z0[k] * flat[p] + z1[k] * flat[p + one]) + y1[k] * (
            z0[k] * flat[r] + z1[k] * flat[r + one]
        )
        far = y0[k] * (z0[k] * flat[q] + z1[k] * flat[q + one]) + y1[k] * (
            z0[k] * flat[s] + z1[k] * flat[s + one]
        )
        whole = (x0[k] + x1[k]) * (y0[k] + y1[k]) * (z0[k] + z1[k])
        out[k] = ZERO if whole == ZERO else x0[k] * near + x1[k] * far


@jit
def _add_slopes(flat, shape, start, weights, rises, incoming, out):
    """Add the incoming gradient times the volume's slopes at the points of a row; out is (3, Z)."""
    plane, row, one = np.uint32(shape[1] * shape[2]), np.uint32(shape[2]), np.uint32(1)
    x0, x1, y0, y1, z0, z1 = (
        weights[0],
        weights[1],
        weights[2],
        weights[3],
        weights[4],
        weights[5],
    )
    a0, a1, b0, b1, c0, c1 = rises[0], rises[1], rises[2], rises[3], rises[4], rises[5]
    gx, gy, gz = out[0], out[1], out[2]
    for k in range(len(incoming)):
        p, g = start[k], incoming[k]
        q, r = p + plane, p + row
        s = q + row
        p0, p1, r0, r1 = flat[p], flat[p + one], flat[r], flat[r + one]
        q0, q1, s0, s1 = flat[q], flat[q + one], flat[s], flat[s + one]
        u, v = z0[k], z1[k]
        at_p, at_r, at_q, at_s = u * p0 + v * p1, u * r0 + v * r1, u * q0 + v * q1, u * s0 + v * s1
        gx[k] += g * (a0[k] * (y0[k] * at_p + y1[k] * at_r) + a1[k] * (y0[k] * at_q + y1[k] * at_s))
        gy[k] += g * (x0[k] * (b0[k] * at_p + b1[k] * at_r) + x1[k] * (b0[k] * at_q + b1[k] * at_s))
        u, v = c0[k], c1[k]
        at_p, at_r, at_q, at_s = u * p0 + v * p1, u * r0 + v * r1, u * q0 + v * q1, u * s0 + v * s1
        gz[k] += g * (x0[k] * (y0[k] * at_p + y1[k] * at_r) + x1[k] * (y0[k] * at_q + y1[k] * at_s))


@jit
def _scatter(flat, shape, start, weights, incoming, first, last):
    """Add the incoming gradient to the corners of its cells, from index ``first`` to ``last``."""
    plane, row, one = np.uint32(shape[1] * shape[2]), np.uint32(shape[2]), np.uint32(1)
    for k in range(len(incoming)):
        p, g = start[k], incoming[k]
        u, v = weights[4, k], weights[5, k]
        for side in range(2):
            if first <= p < last:
                share = g * weights[side, k]
                above, below = share * weights[2, k], share * weights[3, k]
                flat[p] += above * u
                flat[p + one] += above * v
                flat[p + row] += below * u
                flat[p + row + one] += below * v
            p += plane
