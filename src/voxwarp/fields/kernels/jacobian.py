"""Jacobian determinants."""

import numpy as np

from .jit import HALF, ONE, ZERO, jit, kernel
from .loops import add, add_product, copy, fill, index, multiply, subtract, weigh


@kernel
def determinants(u, central, smallest, first, last):
    """det(I + ∇u) by central differences, and the smallest by those, forward and backward ones."""
    _, nx, ny, nz = u.shape
    step, plane, zero, n = nx * ny * nz, ny * nz, index(0), index(nz)
    flat, middles, least = u.reshape(-1), central.reshape(-1), smallest.reshape(-1)
    # Nine rows each: the derivative along axis a of component c is row 3 a + c.
    forward, backward = np.empty(9 * nz, np.float32), np.empty(9 * nz, np.float32)
    middle = np.empty(9 * nz, np.float32)
    cross, det = np.empty(3 * nz, np.float32), np.empty(nz, np.float32)
    for i in range(first, last):
        for j in range(ny):
            for c in range(3):
                row = c * step + i * plane + j * nz
                _neighbours(flat, row, plane, i, nx, forward, backward, index(c * nz), n)
                _neighbours(flat, row, nz, j, ny, forward, backward, index((3 + c) * nz), n)
                _along(flat, row, nz, forward, backward, (6 + c) * nz)
            copy(forward, zero, middle, zero, index(9 * nz))
            add(backward, zero, middle, zero, index(9 * nz))
            weigh(HALF, middle, zero, middle, zero, index(9 * nz))
            at = index(i * plane + j * nz)
            _determinant(middle, nz, cross, middles, at)
            copy(middles, at, least, at, n)
            _determinant(forward, nz, cross, det, zero)
            _keep_smaller(det, least, at, n)
            _determinant(backward, nz, cross, det, zero)
            _keep_smaller(det, least, at, n)


@jit
def _neighbours(flat, row, apart, at, length, forward, backward, o, n):
    """Differences of a row to those beside it; at a border both are to the only one."""
    after, before = row + apart, row - apart
    if at < length - 1:
        subtract(ONE, flat, index(after), index(row), forward, o, n)
    if at > 0:
        subtract(ONE, flat, index(row), index(before), backward, o, n)
    if at == length - 1:
        copy(backward, o, forward, o, n)
    if at == 0:
        copy(forward, o, backward, o, n)


@jit
def _along(flat, row, nz, forward, backward, o):
    """Differences of each voxel of a row to the next one and to the one before."""
    n = index(nz - 1)
    subtract(ONE, flat, index(row + 1), index(row), forward, index(o), n)
    subtract(ONE, flat, index(row + 1), index(row), backward, index(o + 1), n)
    forward[o + nz - 1], backward[o] = backward[o + nz - 1], forward[o]


@jit
def _determinant(slopes, nz, cross, out, at):
    """det(I + ∇u) of a row, as (I + ∂u/∂x) · ((I + ∂u/∂y) × (I + ∂u/∂z)); ``slopes`` change."""
    n = index(nz)
    for c in range(3):
        _add_one(slopes, index(4 * c * nz), n)
    for c in range(3):
        a, b = (c + 1) % 3, (c + 2) % 3
        multiply(
            *(slopes, index((3 + a) * nz), slopes, index((6 + b) * nz), cross, index(c * nz), n)
        )
        _subtract_product(
            *(slopes, index((3 + b) * nz), index((6 + a) * nz), cross, index(c * nz), n)
        )
    fill(ZERO, out, at, n)
    for c in range(3):
        add_product(slopes, index(c * nz), cross, index(c * nz), out, at, n)


@jit
def _add_one(a, i, n):
    for k in range(n):
        a[i + k] += ONE


@jit
def _subtract_product(a, i, j, out, o, n):
    for k in range(n):
        out[o + k] -= a[i + k] * a[j + k]


@jit
def _keep_smaller(a, out, o, n):
    for k in range(n):
        out[o + k] = a[k] if a[k] < out[o + k] else out[o + k]
