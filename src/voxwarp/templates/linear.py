"""Means of affine maps that leave out their rigid parts.

Where a person lay in the scanner says nothing about the mean brain, so only the stretch of a map
counts: in L = R P, with a rotation R, it is the symmetric positive P. Stretches are averaged in the
space of symmetric positive matrices, by their logarithms (Karcher mean of P², affine-invariant
metric; Pennec et al., doi:10.1007/s11263-005-3222-z).
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import expm

from ..space.transform import Affine

ITERATIONS, CONVERGED = 100, 1e-12
MIRROR = np.eye(3) - 2 * np.outer((1, 0, 0), (1, 0, 0))  # left to right, in RAS mm


def mean_stretch(
    affines: Sequence[Affine], weights: Sequence[float], *, symmetric: bool = False
) -> Affine:
    """The stretch that leaves none on average: Σ wᵢ log stretch(Aᵢ P⁻¹) = 0.

    Args:
        affines: Aᵢ, from one space to that of each scan, of positive determinant.
        weights: wᵢ, which sum to 1.
        symmetric: count the mirror image of each scan, too.

    Returns:
        P, a linear map of the space; the maps from the new space to the scans are Aᵢ P⁻¹.
    """
    squares = [affine.matrix[:3, :3].T @ affine.matrix[:3, :3] for affine in affines]
    if symmetric:
        squares += [MIRROR @ square @ MIRROR for square in squares]
        weights = [weight / 2 for weight in (*weights, *weights)]
    mean = expm(sum(w * _log(square) for w, square in zip(weights, squares, strict=True)))
    for _ in range(ITERATIONS):
        root = _root(mean)
        back = np.linalg.inv(root)
        rest = sum(
            w * _log(back @ square @ back) for w, square in zip(weights, squares, strict=True)
        )
        mean = root @ expm(rest) @ root
        if np.linalg.norm(rest) < CONVERGED:
            break
    return _linear(_root(mean))


def stretch(affine: Affine) -> np.ndarray:
    """The stretch P of an affine map with the linear part L = R P, (3, 3)."""
    linear = affine.matrix[:3, :3]
    return _root(linear.T @ linear)


def log_stretch(affine: Affine) -> np.ndarray:
    """The logarithm of the stretch of an affine map, (3, 3) symmetric; 0 if it is rigid."""
    linear = affine.matrix[:3, :3]
    return _log(linear.T @ linear) / 2


def _linear(matrix: np.ndarray) -> Affine:
    whole = np.eye(4)
    whole[:3, :3] = matrix
    return Affine(whole)


def _log(square: np.ndarray) -> np.ndarray:
    """The logarithm of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh((square + square.T) / 2)
    return vectors @ np.diag(np.log(values)) @ vectors.T


def _root(square: np.ndarray) -> np.ndarray:
    """The square root of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh((square + square.T) / 2)
    return vectors @ np.diag(np.sqrt(values)) @ vectors.T
