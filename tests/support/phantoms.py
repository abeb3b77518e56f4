"""Closed forms the tests compare with: affines, fields, images and labels from fixed seeds."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from voxwarp.space.grid import Grid


def rotation(*degrees: float) -> np.ndarray:
    """(3, 3) rotation about the x, then the y, then the z axis."""
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def homogeneous(matrix: np.ndarray, offset: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """(4, 4) matrix of x ↦ matrix x + offset."""
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = matrix, offset
    return out


def oblique_affine(seed: int = 0, *, tilt: float = 20.0, shuffle: bool = True) -> np.ndarray:
    """(4, 4) voxel to RAS mm: tilted by up to ``tilt`` degrees an axis, spacing 0.6 to 2.4 mm.

    With ``shuffle`` the axes also come in random order and direction.
    """
    rng = np.random.default_rng(seed)
    matrix = rotation(*rng.uniform(-tilt, tilt, 3)) @ np.diag(rng.uniform(0.6, 2.4, 3))
    if shuffle:
        matrix = matrix[:, rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    return homogeneous(matrix, rng.uniform(-50, 50, 3))


def oblique_grid(seed: int = 0, shape: Sequence[int] = (9, 10, 11), **more: float) -> Grid:
    """A grid of ``shape`` voxels on ``oblique_affine``."""
    return Grid(tuple(shape), oblique_affine(seed, **more))


def near_identity(seed: int = 0, *, strength: float = 0.15, shift: float = 2.0) -> np.ndarray:
    """(4, 4) affine near the identity, with all twelve parameters in use, RAS mm."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(3) + rng.uniform(-strength, strength, (3, 3))
    return homogeneous(matrix, rng.uniform(-shift, shift, 3))


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) through a (4, 4) matrix, the long way: with a fourth coordinate of one."""
    ones = np.ones((*np.shape(points)[:-1], 1))
    return np.einsum("ij,...j->...i", matrix, np.concatenate([points, ones], axis=-1))[..., :3]


def indices(shape: Sequence[int]) -> np.ndarray:
    """(X, Y, Z, 3) voxel coordinates of every voxel."""
    return np.stack(np.indices(tuple(shape)), axis=-1).astype(np.float64)


def linear_field(
    matrix: np.ndarray, shape: Sequence[int], offset: Sequence[float] = (0, 0, 0)
) -> torch.Tensor:
    """u(x) = matrix (x − c) + offset with c the middle of the grid: (1, 3, X, Y, Z), float64."""
    x = indices(shape) - (np.asarray(shape) - 1) / 2
    u = np.einsum("ij,...j->...i", matrix, x) + np.asarray(offset)
    return torch.from_numpy(np.moveaxis(u, -1, 0)[None].copy())


def smooth_field(
    seed: int = 0,
    shape: Sequence[int] = (20, 22, 24),
    *,
    amplitude: float = 1.5,
    periods: float = 1.0,
    pinned: bool = True,
) -> torch.Tensor:
    """A sum of waves of up to ``periods`` periods a side: (1, 3, X, Y, Z), float64, voxels.

    The largest component is ``amplitude``; ``pinned`` brings it to zero on the border.
    """
    rng = np.random.default_rng(seed)
    unit = indices(shape) / (np.asarray(shape) - 1)
    u = np.zeros((3, *shape))
    for _ in range(4):
        phase = 2 * np.pi * (unit @ rng.uniform(-periods, periods, 3) + rng.uniform())
        u += rng.normal(size=(3, 1, 1, 1)) * np.sin(phase)
    if pinned:
        u *= np.sin(np.pi * unit).prod(axis=-1)
    return torch.from_numpy(u * amplitude / np.abs(u).max())[None]


def blobs(seed: int = 0, shape: Sequence[int] = (20, 22, 24), *, count: int = 12) -> np.ndarray:
    """A sum of Gaussians in [0, 1], float32: smooth, and textured everywhere inside."""
    rng = np.random.default_rng(seed)
    x = indices(shape)
    image = np.zeros(shape)
    for _ in range(count):
        centre, width = rng.uniform(0.2, 0.8, 3) * np.asarray(shape), rng.uniform(1.5, 4)
        image += rng.uniform(0.3, 1) * np.exp(-((x - centre) ** 2).sum(-1) / (2 * width**2))
    return (image / image.max()).astype(np.float32)


def ball(
    shape: Sequence[int],
    centre: Sequence[float],
    radii: float | Sequence[float],
    *,
    edge: float = 1.0,
) -> np.ndarray:
    """An ellipsoid of one with a sigmoid edge about ``edge`` voxels wide on zero, float32."""
    radii = np.broadcast_to(radii, 3)
    radius = np.sqrt((((indices(shape) - np.asarray(centre)) / radii) ** 2).sum(-1))
    return (1 / (1 + np.exp((radius - 1) * radii.min() / edge * 2))).astype(np.float32)


def label_map(
    seed: int = 0, shape: Sequence[int] = (20, 22, 24), values: Sequence[int] = (4, 10, 11, 49)
) -> np.ndarray:
    """Ellipsoids of the given values on zero, int16."""
    rng = np.random.default_rng(seed)
    labels, x, size = np.zeros(shape, np.int16), indices(shape), np.asarray(shape)
    for value in values:
        centre, radii = rng.uniform(0.3, 0.7, 3) * size, rng.uniform(0.15, 0.25, 3) * size
        labels[(((x - centre) / radii) ** 2).sum(-1) <= 1] = value
    return labels


def texture(
    seed: int = 0, shape: Sequence[int] = (20, 22, 24), *, grain: float = 2.0
) -> np.ndarray:
    """Noise smoothed by ``grain`` voxels in an ellipsoid on zero, in [0, 1], float32.

    Textured everywhere in ``texture_core``, with as much contrast as a brain.
    """
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), grain)
    return ((0.5 + 0.2 * noise / noise.std()).clip(0, 1) * _ellipsoid(shape)).astype(np.float32)


def texture_core(shape: Sequence[int] = (20, 22, 24)) -> torch.Tensor:
    """Where ``texture`` is not fading out yet, (X, Y, Z)."""
    return torch.from_numpy(_ellipsoid(shape) > 0.9)


def _ellipsoid(shape: Sequence[int]) -> np.ndarray:
    return ball(shape, [(n - 1) / 2 for n in shape], [0.4 * n for n in shape], edge=3)
