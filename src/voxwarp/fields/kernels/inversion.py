"""Displacements inverted."""

import numpy as np

from .jit import ONE, ZERO, jit, kernel
from .loops import index
from .rows import between, corner, places, row_buffers

INFINITE = np.float32(np.inf)


@kernel
def invert(u, w, tolerance, near, longest, most, first, last):
    """Change w by Newton's method until r(y) = w(y) + u(y + w(y)) is zero within tolerance.

    Every voxel makes one step, all of a row together; where it was longer than ``near``, or the
    point lies outside, at most ``most`` further ones. Each is at most ``longest`` along an axis.
    Where they do not suffice, as in a fold, w becomes the best that they met.
    """
    _, nx, ny, nz = w.shape
    shape, step, n = u.shape[1:], index(nx * ny * nz), index(nz)
    size = index(shape[0] * shape[1] * shape[2])
    flat, field = u.reshape(-1), w.reshape(-1)
    start, wx, wy, wz = row_buffers(nz)
    length = np.empty(nz, np.float32)
    for i in range(first, last):
        for j in range(ny):
            row, x, y = index((i * ny + j) * nz), np.float32(i), np.float32(j)
            places(field, row, step, x, y, ZERO, shape, start, wx, wy, wz, n)
            _step(flat, size, shape, start, wx, wy, wz, field, row, step, x, y, longest, length, n)
            for k in range(nz):
                if not length[k] <= near:
                    point, at = (x, y, np.float32(k)), index(row + index(k))
                    _solve(flat, shape, point, field, at, step, tolerance, longest, most)


@jit
def _step(u, size, shape, start, wx, wy, wz, w, row, step, x, y, longest, length, n):
    """One step in the n voxels of the row x, y, whose cells and weights are given.

    ``length`` becomes the largest component of r and of the step; infinity where the point was
    outside, because the border's cell says nothing about the derivatives there.
    """
    ends = np.float32(shape[0] - 1), np.float32(shape[1] - 1), np.float32(shape[2] - 1)
    cell = index(shape[1] * shape[2]), index(shape[2])
    second = index(row + step)
    third = index(second + step)
    for k in range(n):
        at, f = index(start[k]), (wx[k], wy[k], wz[k])
        a, ax, ay, az = _in_cell(u, at, cell, f)
        b, bx, by, bz = _in_cell(u, at + size, cell, f)
        c, cx, cy, cz = _in_cell(u, at + size + size, cell, f)
        r = w[row + k] + a, w[second + k] + b, w[third + k] + c
        d = _solution((ax, bx, cx), (ay, by, cy), (az, bz, cz), r)
        p = x + w[row + k], y + w[second + k], np.float32(np.int32(k)) + w[third + k]
        outside = between(p[0], ends[0]) != p[0] or between(p[1], ends[1]) != p[1]
        outside = outside or between(p[2], ends[2]) != p[2]
        furthest = max(abs(r[0]), abs(r[1]), abs(r[2]), abs(d[0]), abs(d[1]), abs(d[2]))
        length[k] = INFINITE if outside else furthest
        w[row + k] -= min(max(d[0], -longest), longest)
        w[second + k] -= min(max(d[1], -longest), longest)
        w[third + k] -= min(max(d[2], -longest), longest)


@jit
def _solve(u, shape, y, w, at, step, tolerance, bound, most):
    """``invert`` in one voxel y, whose components in w are ``step`` apart from ``at`` on."""
    least = INFINITE
    a, b, c = w[at], w[at + step], w[at + step + step]
    for _ in range(most + 1):
        value, by_x, by_y, by_z = _linear(u, shape, y[0] + a, y[1] + b, y[2] + c)
        r = a + value[0], b + value[1], c + value[2]
        error = max(abs(r[0]), abs(r[1]), abs(r[2]))
        if error < least:
            least, w[at], w[at + step], w[at + step + step] = error, a, b, c
        if not error > tolerance:  # NaN stops, too
            break
        change = _solution(by_x, by_y, by_z, r)
        a -= min(max(change[0], -bound), bound)
        b -= min(max(change[1], -bound), bound)
        c -= min(max(change[2], -bound), bound)


@jit
def _solution(by_x, by_y, by_z, r):
    """The d with (I + ∇u) d = r, by Cramer's rule; r itself where u folds."""
    x = ONE + by_x[0], by_x[1], by_x[2]
    y = by_y[0], ONE + by_y[1], by_y[2]
    z = by_z[0], by_z[1], ONE + by_z[2]
    across = _cross(y, z)
    det = _dot(x, across)
    if not det > ZERO:
        return r
    return _dot(r, across) / det, _dot(x, _cross(r, z)) / det, _dot(x, _cross(y, r)) / det


@jit
def _cross(p, q):
    return p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]


@jit
def _dot(p, q):
    return p[0] * q[0] + p[1] * q[1] + p[2] * q[2]


@jit
def _linear(u, shape, x, y, z):
    """A field at a point and its derivatives along x, y and z there, trilinear in its cell."""
    nx, ny, nz = shape
    size, cell = nx * ny * nz, (ny * nz, nz)
    i, fx, along_x = _along(x, nx)
    j, fy, along_y = _along(y, ny)
    k, fz, along_z = _along(z, nz)
    at, f = (i * ny + j) * nz + k, (fx, fy, fz)
    a, ax, ay, az = _in_cell(u, at, cell, f)
    b, bx, by, bz = _in_cell(u, at + size, cell, f)
    c, cx, cy, cz = _in_cell(u, at + 2 * size, cell, f)
    by_x = along_x * ax, along_x * bx, along_x * cx
    by_y = along_y * ay, along_y * by, along_y * cy
    return (a, b, c), by_x, by_y, (along_z * az, along_z * bz, along_z * cz)


@jit
def _along(value, n):
    """The voxel before a place, how far it is from there, and 1, or 0 outside the grid.

    Outside, the border's value continues.
    """
    inside = between(value, np.float32(n - 1))
    before = corner(inside, np.int32(n - 2))
    return before, inside - np.float32(before), ONE if inside == value else ZERO


@jit
def _in_cell(u, at, cell, f):
    """The value in a cell and its derivatives along the axes.

    Args:
        at: its first corner; ``cell``: how far the next plane and the next row are.
        f: place in the cell, 0 to 1 along each axis.
    """
    plane, row, (fx, fy, fz) = cell[0], cell[1], f
    a, in_a = _in_row(u, at, fz)
    b, in_b = _in_row(u, at + row, fz)
    c, in_c = _in_row(u, at + plane, fz)
    d, in_d = _in_row(u, at + plane + row, fz)
    near, far = _mixed(a, b, fy), _mixed(c, d, fy)
    by_z = _mixed(_mixed(in_a, in_b, fy), _mixed(in_c, in_d, fy), fx)
    return _mixed(near, far, fx), far - near, _mixed(b - a, d - c, fx), by_z


@jit
def _in_row(u, at, f):
    """The value between two neighbours in a row, and their difference."""
    difference = u[at + 1] - u[at]
    return u[at] + f * difference, difference


@jit
def _mixed(a, b, f):
    return a + f * (b - a)
