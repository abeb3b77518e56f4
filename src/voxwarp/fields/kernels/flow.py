"""Displacements applied, composed and stepped."""

import numpy as np

from .jit import ONE, ZERO, jit, kernel
from .loops import add, copy, index, multiply, weigh
from .rows import gather, places, row_buffers


@kernel
def warp(volume, u, out, first, last):
    """out(x) = volume(x + u(x)), trilinear; outside the volume is the border's value."""
    channels, shape = volume.shape[0], volume.shape[1:]
    _, nx, ny, nz = u.shape
    flat, field, target = volume.reshape(-1), u.reshape(-1), out.reshape(-1)
    size, step, n = shape[0] * shape[1] * shape[2], nx * ny * nz, index(nz)
    start, wx, wy, wz = row_buffers(nz)
    for i in range(first, last):
        for j in range(ny):
            row, x, y = (i * ny + j) * nz, np.float32(i), np.float32(j)
            places(field, index(row), index(step), x, y, ZERO, shape, start, wx, wy, wz, n)
            for c in range(channels):
                at = index(c * step + row)
                gather(flat, index(c * size), shape, start, wx, wy, wz, index(0), target, at, n)


@kernel
def compose(outer, inner, out, first, last):
    """out(x) = inner(x) + outer(x + inner(x))."""
    _, nx, ny, nz = inner.shape
    warp(outer, inner, out, first, last)
    field, target = inner.reshape(-1), out.reshape(-1)
    for c in range(3):
        at = index((c * nx + first) * ny * nz)
        add(field, at, target, at, index((last - first) * ny * nz))


@kernel
def take_step(u, force, extents, direction, momentum, length, mean, out, first, last):
    """Out = δ + u(x + δ), with the step δ = length · d.

    The direction is d = F / (|F| + 3 mean), to which ``momentum`` times the direction of the step
    before is added, if ``direction`` is a field; it then gets d. Both are zero outside the
    ``extents`` of the rows, and u does not change there.
    """
    _, nx, ny, nz = u.shape
    shape, step, zero = u.shape[1:], nx * ny * nz, index(0)
    flat, forces, target = u.reshape(-1), force.reshape(-1), out.reshape(-1)
    kept = direction.reshape(-1)
    start, wx, wy, wz = row_buffers(nz)
    scale, delta = np.empty(nz, np.float32), np.empty(3 * nz, np.float32)
    for i in range(first, last):
        for j in range(ny):
            row, low, high = (i * ny + j) * nz, extents[i, j, 0], extents[i, j, 1]
            n, begin = index(max(high - low, 0)), row + low
            scaled = ONE if len(kept) else length
            _step_scale(forces, index(begin), index(step), scaled, mean, scale, n)
            for c in range(3):
                at, here = index(begin + c * step), index(c * nz)
                if len(kept):
                    _turn(momentum, forces, scale, kept, at, n)
                    weigh(length, kept, at, delta, here, n)
                else:
                    multiply(forces, at, scale, zero, delta, here, n)
            places(
                *(delta, zero, index(nz), np.float32(i), np.float32(j), np.float32(low)),
                *(shape, start, wx, wy, wz, n),
            )
            for c in range(3):
                at = index(c * step + begin)
                copy(flat, index(c * step + row), target, index(c * step + row), index(nz))
                gather(flat, index(c * step), shape, start, wx, wy, wz, zero, target, at, n)
                add(delta, index(c * nz), target, at, n)


@jit
def _step_scale(force, i, step, length, mean, scale, n):
    """Length / (|F| + 3 mean) of the vectors of a row."""
    tiny, three = np.float32(np.finfo(np.float32).tiny), np.float32(3)
    j = index(i + step)
    h = index(j + step)
    for k in range(n):
        a, b, c = force[i + k], force[j + k], force[h + k]
        size = np.sqrt(a * a + b * b + c * c) + three * mean
        scale[k] = length / (size if size > tiny else tiny)


@jit
def _turn(momentum, force, scale, direction, i, n):
    """Direction = scale · force + momentum · direction, all from i on, but scale from 0 on."""
    for k in range(n):
        direction[i + k] = scale[k] * force[i + k] + momentum * direction[i + k]
