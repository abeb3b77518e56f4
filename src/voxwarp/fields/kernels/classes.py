"""What a network recognises in each voxel, from its embedding."""

import math

import numpy as np

from .jit import ONE, jit, jit_sum, kernel
from .loops import copy, fill, index, largest, total, total_of_squares

_LOG2_E, _LN_2 = np.float32(1.44269504), np.float32(0.69314718)
# The series of exp(r); the error for |r| ≤ ln 2 / 2 is below the rounding of float32.
_C2, _C3, _C4, _C5, _C6 = (np.float32(1 / math.factorial(i)) for i in range(2, 7))


@kernel
def class_maps(
    embedded, inside, normalise, directions, bias, projection, background, out, first, last
):
    """Maps (M, X, Y, Z) = softmax(directions · e + bias) · projection.

    e are the embeddings, (X, Y, Z, C), to be made one long with ``normalise``; C is a multiple of
    four. Where not ``inside``, the maps are the ``background``. ``directions`` (C, K), the ``bias``
    (K) and the ``projection`` (M, K) are of K classes.
    """
    nx, ny, nz, channels = embedded.shape
    maps, classes = projection.shape
    flat, target, step = embedded.reshape(-1), out.reshape(-1), nx * ny * nz
    rows, shares = directions.reshape(-1), projection.reshape(-1)
    odds, whole = np.empty(classes, np.float32), np.empty(classes, np.int32)
    zero, n = index(0), index(classes)
    for i in range(first, last):
        for m in range(maps):
            fill(background[m], target, index(m * step + i * ny * nz), index(ny * nz))
        for voxel in range(i * ny * nz, (i + 1) * ny * nz):
            if not inside[voxel]:
                continue
            at, scale = index(voxel * channels), ONE
            if normalise:
                length = np.sqrt(total_of_squares(flat, at, index(channels)))
                scale = ONE / max(length, np.float32(1e-12))
            copy(bias, zero, odds, zero, n)
            for c in range(0, channels, 4):
                _add_four(scale, flat, at + index(c), rows, index(c * classes), odds, n)
            _exponentiate(odds, whole, n)
            weight = ONE / total(odds, zero, n)
            for m in range(maps):
                share = _dot(odds, shares, index(m * classes), n)
                target[index(m * step + voxel)] = weight * share


@jit
def _add_four(scale, a, i, rows, j, odds, n):
    """The share of four channels of an embedding in the odds."""
    p, q = scale * a[i], scale * a[i + index(1)]
    r, s = scale * a[i + index(2)], scale * a[i + index(3)]
    j1 = j + n
    j2 = j1 + n
    j3 = j2 + n
    for k in range(n):
        odds[k] += p * rows[j + k] + q * rows[j1 + k] + r * rows[j2 + k] + s * rows[j3 + k]


@jit_sum
def _dot(a, b, j, n):
    out = np.float32(0)
    for k in range(n):
        out += a[k] * b[j + k]
    return out


@jit
def _exponentiate(odds, whole, n):
    """exp(odds − the largest one) = 2^i exp(r), where r is at most ln 2 / 2."""
    top, half, least, bias = largest(odds, n), np.float32(0.5), np.float32(-80), np.int32(127)
    for k in range(n):
        x = odds[k] - top
        odds[k] = least if x < least else x  # exp of less is as good as zero
    for k in range(n):
        whole[k] = np.int32(np.floor(odds[k] * _LOG2_E + half))
    for k in range(n):
        r = odds[k] - np.float32(whole[k]) * _LN_2
        odds[k] = ONE + r * (ONE + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * _C6)))))
    for k in range(n):
        whole[k] = (whole[k] + bias) << np.int32(23)  # 2^i as the bits of a float32
    powers = whole.view(np.float32)
    for k in range(n):
        odds[k] *= powers[k]
