"""Displacements applied, composed, stepped and inverted."""

import numpy as np

from .jit import HALF, ONE, jit
from .rows import gather, places, row_buffers


@jit
def warp(volume, u, out, first, last):
    """out(x) = volume(x + u(x)), trilinear; outside the volume is the border's value."""
    channels, shape = volume.shape[0], volume.shape[1:]
    flat = volume.reshape(channels, -1)
    start, wx, wy, wz = row_buffers(u.shape[3])
    for i in range(first, last):
        for j in range(u.shape[2]):
            places(u[0, i, j], u[1, i, j], u[2, i, j], i, j, 0, shape, start, wx, wy, wz)
            for c in range(channels):
                gather(flat[c], shape, start, wx, wy, wz, out[c, i, j])


@jit
def compose(outer, inner, out, first, last):
    """out(x) = inner(x) + outer(x + inner(x))."""
    warp(outer, inner, out, first, last)
    for c in range(3):
        for i in range(first, last):
            for j in range(inner.shape[2]):
                for k in range(inner.shape[3]):
                    out[c, i, j, k] += inner[c, i, j, k]


@jit
def take_step(u, force, extents, length, mean, out, first, last):
    """Out = δ + u(x + δ), with the step δ = length · F / (|F| + 3 mean).

    The force F is zero outside the ``extents`` of the rows, and u does not change there.
    """
    shape, nz = u.shape[1:], u.shape[3]
    flat = u.reshape(3, -1)
    start, wx, wy, wz = row_buffers(nz)
    d0, d1, d2 = np.empty(nz, np.float32), np.empty(nz, np.float32), np.empty(nz, np.float32)
    tiny = np.float32(np.finfo(np.float32).tiny)
    for i in range(first, last):
        for j in range(u.shape[2]):
            low, high = extents[i, j]
            f0 = force[0, i, j, low:high]
            f1 = force[1, i, j, low:high]
            f2 = force[2, i, j, low:high]
            n = len(f0)
            for k in range(n):
                size = np.sqrt(f0[k] * f0[k] + f1[k] * f1[k] + f2[k] * f2[k]) + np.float32(3) * mean
                scale = length / (size if size > tiny else tiny)
                d0[k], d1[k], d2[k] = f0[k] * scale, f1[k] * scale, f2[k] * scale
            places(d0[:n], d1[:n], d2[:n], i, j, low, shape, start, wx, wy, wz)
            for c in range(3):
                row, unmoved = out[c, i, j], u[c, i, j]
                for k in range(nz):
                    row[k] = unmoved[k]
                gather(flat[c], shape, start, wx, wy, wz, row[low:high])
            _add(d0[:n], out[0, i, j, low:high])
            _add(d1[:n], out[1, i, j, low:high])
            _add(d2[:n], out[2, i, j, low:high])


@jit
def _add(a, out):
    for k in range(len(out)):
        out[k] += a[k]


@jit
def corrected_inverse(u, w, bound, out, first, last):
    """Out = w − (I + ∇w) r, r(y) = w(y) + u(y + w(y)), each change at most ``bound``."""
    nx, ny, nz = w.shape[1:]
    shape = u.shape[1:]
    flat = u.reshape(3, -1)
    start, wx, wy, wz = row_buffers(nz)
    r = np.empty((3, nz), np.float32)
    for i in range(first, last):
        before, after = max(i - 1, 0), min(i + 1, nx - 1)
        sx = ONE if after - before == 1 else HALF
        for j in range(ny):
            above, below = max(j - 1, 0), min(j + 1, ny - 1)
            sy = ONE if below - above == 1 else HALF
            places(w[0, i, j], w[1, i, j], w[2, i, j], i, j, 0, shape, start, wx, wy, wz)
            for c in range(3):
                gather(flat[c], shape, start, wx, wy, wz, r[c])
                row = w[c, i, j]
                for k in range(nz):
                    r[c, k] += row[k]
            for c in range(3):
                row, target = w[c, i, j], out[c, i, j]
                x0, x1, y0, y1 = w[c, before, j], w[c, after, j], w[c, i, above], w[c, i, below]
                for k in range(nz):
                    target[k] = (
                        r[c, k] + sx * (x1[k] - x0[k]) * r[0, k] + sy * (y1[k] - y0[k]) * r[1, k]
                    )
                target[0] += (row[1] - row[0]) * r[2, 0]
                for k in range(1, nz - 1):
                    target[k] += HALF * (row[k + 1] - row[k - 1]) * r[2, k]
                target[nz - 1] += (row[nz - 1] - row[nz - 2]) * r[2, nz - 1]
                for k in range(nz):
                    # A change that is NaN stays NaN.
                    change = target[k]
                    change = -bound if change < -bound else change
                    change = bound if change > bound else change
                    target[k] = row[k] - change
