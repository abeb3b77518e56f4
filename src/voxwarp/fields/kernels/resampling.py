"""Volumes at points that a matrix and a displacement of each voxel lead to."""

import numpy as np

from .jit import ONE, ZERO, jit, kernel


@jit
def _points(matrix, displacement, axes, i, j, at):
    """Voxel coordinates M (i, j, k, 1) + A w(i, j, k) of a row, (3, Z) float64."""
    for d in range(3):
        base = matrix[d, 0] * i + matrix[d, 1] * j + matrix[d, 3]
        step, target = matrix[d, 2], at[d]
        for k in range(at.shape[1]):
            target[k] = base + step * k
        if displacement.shape[1] > 0:
            a, b, c = axes[d, 0], axes[d, 1], axes[d, 2]
            u, v, w = displacement[0, i, j], displacement[1, i, j], displacement[2, i, j]
            for k in range(at.shape[1]):
                target[k] += a * u[k] + b * v[k] + c * w[k]


@jit
def _cell(flat, p, plane, row, fx, fy, fz):
    """The trilinear value in the cell whose first corner has index p in the flat volume."""
    q, r = p + plane, p + row
    s = q + row
    gy, gz = ONE - fy, ONE - fz
    near = gy * (gz * flat[p] + fz * flat[p + 1]) + fy * (gz * flat[r] + fz * flat[r + 1])
    far = gy * (gz * flat[q] + fz * flat[q + 1]) + fy * (gz * flat[s] + fz * flat[s + 1])
    return (ONE - fx) * near + fx * far


@kernel
def resample(volume, matrix, displacement, axes, extend, out, first, last):
    """out(i) = volume(M (i, 1) + A w(i)), trilinear; outside, zero or (``extend``) the border's.

    ``matrix`` M is (3, 4) and ``axes`` A (3, 3), both float64: coordinates of float32 are off by
    a hundred-thousandth of a voxel. A ``displacement`` w of no planes is none.
    """
    nx, ny, nz = volume.shape
    flat = volume.reshape(-1)
    plane, row = np.int64(ny * nz), np.int64(nz)
    at = np.empty((3, out.shape[2]), np.float64)
    for i in range(first, last):
        for j in range(out.shape[1]):
            _points(matrix, displacement, axes, i, j, at)
            values = out[i, j]
            for k in range(out.shape[2]):
                x, y, z = at[0, k], at[1, k], at[2, k]
                if extend:  # NaN stays NaN
                    x = 0.0 if x < 0.0 else (nx - 1.0 if x > nx - 1.0 else x)
                    y = 0.0 if y < 0.0 else (ny - 1.0 if y > ny - 1.0 else y)
                    z = 0.0 if z < 0.0 else (nz - 1.0 if z > nz - 1.0 else z)
                if not (-1.0 < x < nx and -1.0 < y < ny and -1.0 < z < nz):
                    values[k] = ZERO if x == x and y == y and z == z else np.float32(np.nan)
                    continue
                a, b, c = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
                fx, fy, fz = np.float32(x - a), np.float32(y - b), np.float32(z - c)
                if 0 <= a < nx - 1 and 0 <= b < ny - 1 and 0 <= c < nz - 1:
                    values[k] = _cell(flat, a * plane + b * row + c, plane, row, fx, fy, fz)
                    continue
                total = ZERO  # a cell that reaches out of the volume
                for di in range(2):
                    wx = fx if di else ONE - fx
                    for dj in range(2):
                        wy = wx * (fy if dj else ONE - fy)
                        for dk in range(2):
                            weight = wy * (fz if dk else ONE - fz)
                            u, v, w = a + di, b + dj, c + dk
                            if weight > ZERO and 0 <= u < nx and 0 <= v < ny and 0 <= w < nz:
                                total += weight * volume[u, v, w]
                values[k] = total


@kernel
def resample_field(field, matrix, displacement, axes, turn, extend, out, first, last):
    """As ``resample``, of a field of three components; ``turn`` (3, 3) is applied to the vectors.

    Outside the field is its border's value: everywhere if ``extend``, else up to half a voxel
    beyond the outer voxel centres, as in ITK, and zero beyond that.
    """
    _, nx, ny, nz = field.shape
    flat = field.reshape(3, -1)
    plane, row = np.int64(ny * nz), np.int64(nz)
    at = np.empty((3, out.shape[3]), np.float64)
    for i in range(first, last):
        for j in range(out.shape[2]):
            _points(matrix, displacement, axes, i, j, at)
            for k in range(out.shape[3]):
                x, y, z = at[0, k], at[1, k], at[2, k]
                inside = -0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5 and -0.5 <= z < nz - 0.5
                number = x == x and y == y and z == z
                if not inside and not (extend and number):
                    missing = ZERO if number else np.float32(np.nan)
                    for c in range(3):
                        out[c, i, j, k] = missing
                    continue
                x, y, z = max(x, 0.0), max(y, 0.0), max(z, 0.0)
                x, y, z = min(x, nx - 1.0), min(y, ny - 1.0), min(z, nz - 1.0)
                a = min(np.int64(x), nx - 2)
                b = min(np.int64(y), ny - 2)
                c = min(np.int64(z), nz - 2)
                fx, fy, fz = np.float32(x - a), np.float32(y - b), np.float32(z - c)
                cell = a * plane + b * row + c
                u = _cell(flat[0], cell, plane, row, fx, fy, fz)
                v = _cell(flat[1], cell, plane, row, fx, fy, fz)
                w = _cell(flat[2], cell, plane, row, fx, fy, fz)
                for d in range(3):
                    out[d, i, j, k] = turn[d, 0] * u + turn[d, 1] * v + turn[d, 2] * w


@kernel
def nearest_voxels(shape, matrix, displacement, axes, out, first, last):
    """The index of the nearest voxel (halves go up) in a flat volume, −1 outside; int64."""
    nx, ny, nz = shape
    at = np.empty((3, out.shape[2]), np.float64)
    for i in range(first, last):
        for j in range(out.shape[1]):
            _points(matrix, displacement, axes, i, j, at)
            for k in range(out.shape[2]):
                x = np.floor(at[0, k] + 0.5)
                y = np.floor(at[1, k] + 0.5)
                z = np.floor(at[2, k] + 0.5)
                inside = 0.0 <= x < nx and 0.0 <= y < ny and 0.0 <= z < nz
                if inside:
                    out[i, j, k] = (np.int64(x) * ny + np.int64(y)) * nz + np.int64(z)
                else:
                    out[i, j, k] = -1


@kernel
def copied(values, indices, out, first, last):
    """out(i) = values(indices(i)), for flat values."""
    for i in range(first, last):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                out[i, j, k] = values[indices[i, j, k]]
