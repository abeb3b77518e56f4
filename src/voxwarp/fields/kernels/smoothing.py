"""Gaussians, and grids of twice or half the resolution."""

import numpy as np

from .jit import ZERO, jit


@jit
def gaussian(volume, weights, out, norms, first, last):
    """Each channel smoothed along all axes by odd symmetric weights; the border's value goes on.

    ``norms[i]`` gets the sum over plane i of the length of the vector of the channels.
    """
    channels, nx, ny, nz = volume.shape
    reach = len(weights) // 2
    along_x, along_y = np.empty((ny, nz), np.float32), np.empty(nz + 2 * reach, np.float32)
    for i in range(first, last):
        for c in range(channels):
            source = volume[c]
            for j in range(ny):
                row, centre = along_x[j], source[i, j]
                for k in range(nz):
                    row[k] = weights[reach] * centre[k]
                for t in range(1, reach + 1):
                    a, b, share = (
                        source[max(i - t, 0), j],
                        source[min(i + t, nx - 1), j],
                        weights[reach + t],
                    )
                    for k in range(nz):
                        row[k] += share * (a[k] + b[k])
            for j in range(ny):
                inner, centre = along_y[reach : reach + nz], along_x[j]
                for k in range(nz):
                    inner[k] = weights[reach] * centre[k]
                for t in range(1, reach + 1):
                    a, b, share = (
                        along_x[max(j - t, 0)],
                        along_x[min(j + t, ny - 1)],
                        weights[reach + t],
                    )
                    for k in range(nz):
                        inner[k] += share * (a[k] + b[k])
                for t in range(reach):
                    along_y[t], along_y[reach + nz + t] = inner[0], inner[nz - 1]
                row = out[c, i, j]
                for k in range(nz):
                    row[k] = weights[reach] * along_y[reach + k]
                for t in range(1, reach + 1):
                    share = weights[reach + t]
                    for k in range(nz):
                        row[k] += share * (along_y[reach + k - t] + along_y[reach + k + t])
        total = 0.0
        for j in range(ny):
            part = ZERO
            for k in range(nz):
                square = ZERO
                for c in range(channels):
                    square += out[c, i, j, k] * out[c, i, j, k]
                part += np.sqrt(square)
            total += part
        norms[i] = total


@jit
def upsample(volume, scale, out, adds, first, last):
    """``scale`` times a volume of blocks of 2³ voxels at every voxel, trilinear between centres.

    Planes are those of ``out``, which has twice the sides; ``adds`` to what it holds.
    """
    channels, nx, ny, nz = volume.shape
    row = np.empty(nz, np.float32)
    near, far = np.float32(0.75), np.float32(0.25)
    for c in range(channels):
        for i in range(first, last):
            a = i // 2
            b = min(max(a + (1 if i % 2 else -1), 0), nx - 1)
            for j in range(2 * ny):
                d = j // 2
                e = min(max(d + (1 if j % 2 else -1), 0), ny - 1)
                p, q, r, s = volume[c, a, d], volume[c, a, e], volume[c, b, d], volume[c, b, e]
                for k in range(nz):
                    row[k] = scale * (
                        near * (near * p[k] + far * q[k]) + far * (near * r[k] + far * s[k])
                    )
                target = out[c, i, j]
                if not adds:
                    for k in range(2 * nz):
                        target[k] = ZERO
                target[0] += row[0]
                for k in range(nz - 1):
                    target[2 * k + 1] += near * row[k] + far * row[k + 1]
                    target[2 * k + 2] += far * row[k] + near * row[k + 1]
                target[2 * nz - 1] += row[nz - 1]


@jit
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


@jit
def average(volume, scale, out, first, last):
    """``scale`` times the mean of each block of 2³ voxels; planes are those of ``out``."""
    channels = volume.shape[0]
    _, _, ny, nz = out.shape
    share = scale * np.float32(0.125)
    row = np.empty(2 * nz, np.float32)
    for c in range(channels):
        for i in range(first, last):
            for j in range(ny):
                p, q = volume[c, 2 * i, 2 * j], volume[c, 2 * i, 2 * j + 1]
                r, s = volume[c, 2 * i + 1, 2 * j], volume[c, 2 * i + 1, 2 * j + 1]
                for k in range(2 * nz):
                    row[k] = p[k] + q[k] + r[k] + s[k]
                target = out[c, i, j]
                for k in range(nz):
                    target[k] = share * (row[2 * k] + row[2 * k + 1])
