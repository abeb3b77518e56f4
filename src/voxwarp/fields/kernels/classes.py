"""What a network recognises in each voxel, from its embedding."""

import math

import numpy as np

from .jit import ONE, ZERO, jit, kernel
from .loops import add, fill, index, lengths, multiply

_LOG2_E, _LN_2 = np.float32(1.44269504), np.float32(0.69314718)
# The series of exp(r); the error for |r| ≤ ln 2 / 2 is below the rounding of float32.
_C2, _C3, _C4, _C5, _C6 = (np.float32(1 / math.factorial(i)) for i in range(2, 7))

# Voxels that are classified together: as many as make the loops over them long, while all that is
# known of them stays in the cache of the processor.
TOGETHER = 128


@kernel
def class_maps(
    embedded, shift, inside, normalise, directions, bias, projection, background, out, first, last
):
    """Maps (M, X, Y, Z) = softmax(directions · e + bias) · projection.

    e are the embeddings, (X, Y, Z, C), to be made one long with ``normalise``; C is a multiple of
    four. They are the first bits of float32 numbers, without the last ``shift`` bits, which are 16
    for bf16. Where not ``inside``, the maps are the ``background``. ``directions`` (K, C), the
    ``bias`` (K) and the ``projection`` (K, M) are of K classes.
    """
    nx, ny, nz, channels = embedded.shape
    classes, maps = projection.shape
    flat, target, step = embedded.reshape(-1), out.reshape(-1), nx * ny * nz
    rows, shares = directions.reshape(-1), projection.reshape(-1)
    where, waiting = np.empty(TOGETHER, np.int64), 0
    bits = np.zeros(channels * TOGETHER, np.uint32)
    buffers = (
        bits.view(np.float32),
        np.empty(classes * TOGETHER, np.float32),
        np.empty(maps * TOGETHER, np.float32),
    )
    for m in range(maps):
        begin = index(m * step + first * ny * nz)
        fill(background[m], target, begin, index((last - first) * ny * nz))
    end = last * ny * nz
    for voxel in range(first * ny * nz, end):
        if inside[voxel]:
            at = index(voxel * channels)
            for c in range(channels):
                bits[c * TOGETHER + waiting] = np.uint32(flat[at + index(c)]) << shift
            where[waiting] = voxel
            waiting += 1
        if waiting == TOGETHER or (voxel == end - 1 and waiting > 0):
            _classify(normalise, rows, bias, shares, *buffers)
            for m in range(maps):
                for v in range(waiting):
                    target[m * step + where[v]] = buffers[2][m * TOGETHER + v]
            waiting = 0


@jit
def _classify(normalise, directions, bias, projection, e, odds, maps):
    """The maps of some voxels; of embeddings, log-odds and maps, the voxels are the last axis."""
    n, zero, classes = index(TOGETHER), index(0), len(bias)
    channels, count = len(e) // TOGETHER, len(projection) // classes
    top, sums = np.empty(TOGETHER, np.float32), np.empty(TOGETHER, np.float32)
    whole = np.empty(TOGETHER, np.int32)
    if normalise:
        lengths(e, zero, n, channels, sums, n)
        _invert(sums, n)
        for c in range(channels):
            multiply(e, index(c) * n, sums, zero, e, index(c) * n, n)
    fill(np.float32(-np.inf), top, zero, n)
    for k in range(classes):
        row = index(k) * n
        fill(bias[k], odds, row, n)
        for c in range(0, channels, 4):
            _add_four(directions, index(k * channels + c), e, index(c) * n, odds, row, n)
        _raise_to(odds, row, top, n)
    fill(ZERO, sums, zero, n)
    fill(ZERO, maps, zero, index(len(maps)))
    for k in range(classes):
        row = index(k) * n
        _exponentiate(odds, row, top, whole, n)
        add(odds, row, sums, zero, n)
        for m in range(count):
            _add_share(projection[k * count + m], odds, row, maps, index(m) * n, n)
    _invert(sums, n)
    for m in range(count):
        multiply(maps, index(m) * n, sums, zero, maps, index(m) * n, n)


@jit
def _invert(a, n):
    """One over each value, which is at least 1e-12."""
    least = np.float32(1e-12)
    for v in range(n):
        a[v] = ONE / (a[v] if a[v] > least else least)


@jit
def _add_four(weights, j, e, i, odds, o, n):
    """The share of four channels of the embeddings in the odds of a class."""
    p, q = weights[j], weights[j + index(1)]
    r, s = weights[j + index(2)], weights[j + index(3)]
    i1 = i + n
    i2 = i1 + n
    i3 = i2 + n
    for v in range(n):
        odds[o + v] += p * e[i + v] + q * e[i1 + v] + r * e[i2 + v] + s * e[i3 + v]


@jit
def _add_share(share, odds, o, maps, i, n):
    for v in range(n):
        maps[i + v] += share * odds[o + v]


@jit
def _raise_to(odds, o, top, n):
    """Top = the larger of both."""
    for v in range(n):
        top[v] = odds[o + v] if odds[o + v] > top[v] else top[v]


@jit
def _exponentiate(odds, o, top, whole, n):
    """exp(odds − the largest one) = 2^i exp(r), where r is at most ln 2 / 2."""
    half, least, bias = np.float32(0.5), np.float32(-80), np.int32(127)
    powers = whole.view(np.float32)
    for v in range(n):
        x = odds[o + v] - top[v]
        x = least if x < least else x  # exp of less is as good as zero
        i = np.int32(np.floor(x * _LOG2_E + half))
        r = x - np.float32(i) * _LN_2
        odds[o + v] = ONE + r * (ONE + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * _C6)))))
        whole[v] = (i + bias) << np.int32(23)  # 2^i as the bits of a float32
    for v in range(n):
        odds[o + v] *= powers[v]
