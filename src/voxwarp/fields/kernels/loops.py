"""Loops over stretches of flat arrays, which the kernels spend their time in.

Each takes whole arrays and where a stretch begins. To cut out a row instead costs as much as a
hundred voxels, because Numba counts who uses an array; and offsets without a sign need no check
whether they count from the end. So the compiler makes vector instructions of these loops, as long
as they write to one array, read from a few, and add up nothing.
"""

import numba
import numpy as np

from .jit import HALF, jit, jit_sum

index = numba.uint64  # of an offset, and of a number of voxels


@jit
def fill(value, out, o, n):
    """Out = value."""
    for k in range(n):
        out[o + k] = value


@jit
def copy(a, i, out, o, n):
    """Out = a."""
    for k in range(n):
        out[o + k] = a[i + k]


@jit
def add(a, i, out, o, n):
    """Out += a."""
    for k in range(n):
        out[o + k] += a[i + k]


@jit
def multiply(a, i, b, j, out, o, n):
    """Out = a b."""
    for k in range(n):
        out[o + k] = a[i + k] * b[j + k]


@jit
def add_product(a, i, b, j, out, o, n):
    """Out += a b."""
    for k in range(n):
        out[o + k] += a[i + k] * b[j + k]


@jit
def weigh(weight, a, i, out, o, n):
    """Out = weight · a."""
    for k in range(n):
        out[o + k] = weight * a[i + k]


@jit
def add_weighted(weight, a, i, j, out, o, n):
    """Out += weight · (a(i) + a(j))."""
    for k in range(n):
        out[o + k] += weight * (a[i + k] + a[j + k])


@jit
def add_two_weighted(weight, a, i, j, other, p, q, out, o, n):
    """Out += weight · (a(i) + a(j)) + other · (a(p) + a(q))."""
    for k in range(n):
        out[o + k] += weight * (a[i + k] + a[j + k]) + other * (a[p + k] + a[q + k])


@jit
def subtract(scale, a, i, j, out, o, n):
    """Out = scale · (a(i) − a(j))."""
    for k in range(n):
        out[o + k] = scale * (a[i + k] - a[j + k])


@jit
def difference(scale, a, i, b, j, out, o, n):
    """Out = scale · (a − b)."""
    for k in range(n):
        out[o + k] = scale * (a[i + k] - b[j + k])


@jit
def shares(reach, out):
    """Out = one over the number of voxels of a row that are up to ``reach`` away."""
    last = len(out) - 1
    for k in range(len(out)):
        out[k] = 1.0 / (min(k + reach, last) - max(k - reach, 0) + 1)


@jit
def along_row(a, row, low, high, length, out, o):
    """Out = the differences along a row of so many voxels, central inside, for low ≤ k < high.

    The row begins at ``row`` in ``a``, and the result at ``o`` in ``out``.
    """
    begin, end = max(low, 1), min(high, length - 1)
    if begin < end:
        at = row + begin
        subtract(
            HALF, a, index(at + 1), index(at - 1), out, index(o + begin - low), index(end - begin)
        )
    if low == 0 and high > 0:
        out[o] = a[row + 1] - a[row]
    if high == length and low < length:
        out[o + length - 1 - low] = a[row + length - 1] - a[row + length - 2]


@jit
def lengths(a, i, step, channels, squares, n):
    """The lengths of vectors of so many channels, which lie ``step`` voxels apart."""
    for k in range(n):
        squares[k] = a[i + k] * a[i + k]
    for c in range(1, channels):
        j = index(i + index(c) * step)
        for k in range(n):
            squares[k] += a[j + k] * a[j + k]
    for k in range(n):
        squares[k] = np.sqrt(squares[k])


@jit_sum
def total(a, i, n):
    """The sum of a stretch."""
    out = np.float32(0)
    for k in range(n):
        out += a[i + k]
    return out


@jit_sum
def total_of_squares(a, i, n):
    """The sum of the squares of a stretch."""
    out = np.float32(0)
    for k in range(n):
        out += a[i + k] * a[i + k]
    return out
