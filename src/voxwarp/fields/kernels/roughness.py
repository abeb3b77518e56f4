"""The roughness of fields, with its gradient."""

import numpy as np

from .jit import TWO, ZERO, jit, kernel


@kernel
def diffusion(fields, weights, gradient, totals, first, last):
    """Σ weight · (difference of neighbours along an axis)², and 2 Σ weight · Dᵀ D u, where wanted.

    ``fields`` is (N, X, Y, Z); ``totals[i]`` is the sum of plane i with differences to the next
    plane; a ``gradient`` of no planes is not wanted.
    """
    count, nx, ny, nz = fields.shape
    wx, wy, wz = weights
    wanted = gradient.shape[1] > 0
    squares, slope = np.empty(nz, np.float32), np.empty(nz, np.float32)
    for i in range(first, last):
        total = 0.0
        for c in range(count):
            squares[:] = ZERO
            for j in range(ny):
                row = fields[c, i, j]
                slope[:] = ZERO
                if i + 1 < nx:
                    _difference(row, fields[c, i + 1, j], wx, slope, squares)
                if j + 1 < ny:
                    _difference(row, fields[c, i, j + 1], wy, slope, squares)
                for k in range(nz - 1):
                    step = row[k] - row[k + 1]
                    squares[k] += wz * step * step
                if not wanted:
                    continue
                target = gradient[c, i, j]
                if i > 0:
                    _pull(row, fields[c, i - 1, j], wx, slope)
                if j > 0:
                    _pull(row, fields[c, i, j - 1], wy, slope)
                for k in range(nz - 1):
                    slope[k] += wz * (row[k] - row[k + 1])
                for k in range(1, nz):
                    slope[k] += wz * (row[k] - row[k - 1])
                for k in range(nz):
                    target[k] = TWO * slope[k]
            for k in range(nz):
                total += squares[k]
        totals[i] = total


@jit
def _difference(row, other, weight, slope, squares):
    for k in range(len(row)):
        step = row[k] - other[k]
        slope[k] += weight * step
        squares[k] += weight * step * step


@jit
def _pull(row, other, weight, slope):
    for k in range(len(row)):
        slope[k] += weight * (row[k] - other[k])
