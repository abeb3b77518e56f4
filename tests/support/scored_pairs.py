"""Pairs of small scans in files, known transforms, and their scores."""

from pathlib import Path

import numpy as np
from cohorts import write_scan
from phantoms import blobs, homogeneous

from voxwarp.data.pairs import Pair, PairScan
from voxwarp.data.structures import Table
from voxwarp.evaluation.loaded_pair import LoadedPair, load_pair
from voxwarp.evaluation.protocol import Protocol
from voxwarp.evaluation.rows import Row
from voxwarp.evaluation.scoring import ScoredTransform, score_registration
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Chain, Warp

SHAPE = (28, 30, 32)
SPACING = (2.0, 1.5, 1.0)
AFFINE = homogeneous(np.diag(SPACING), (-20, 5, 11))
GRID = Grid(SHAPE, AFFINE)


def texture(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A brain with values from 1 to 200, float32; the outer 4 voxels are zero."""
    image = np.zeros(shape, np.float32)
    inside = tuple(slice(4, n - 4) for n in shape)
    image[inside] = 1 + 199 * blobs(seed, image[inside].shape, count=60)
    return image


def box(corner: tuple[int, ...], size: tuple[int, ...], value: int = 1) -> np.ndarray:
    data = np.zeros(SHAPE, np.int16)
    data[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))] = value
    return data


def pair_scan(folder: Path, name: str, image: np.ndarray, labels=None, **more) -> PairScan:
    affine = more.pop("affine", AFFINE)
    path = write_scan(folder / f"{name}.nii.gz", image, affine)
    if labels is not None:
        labels = write_scan(folder / f"{name}_seg.nii.gz", labels, affine)
    return PairScan(name, path, labels, more.pop("subject", name), **more)


def loaded_pair_of(
    folder: Path, moving=None, fixed=None, image: np.ndarray | None = None
) -> LoadedPair:
    """Two identical scans with these label maps, or without."""
    image = texture() if image is None else image
    scans = pair_scan(folder, "m", image, moving), pair_scan(folder, "f", image, fixed)
    return load_pair(Pair(*scans))


def structures(*values: int) -> Table:
    return Table([f"s{v}" for v in values], {v: i for i, v in enumerate(values, 1)})


def warp_of(voxels: np.ndarray, grid: Grid = GRID) -> Warp:
    """The warp of a displacement (3, X, Y, Z) in voxels."""
    mm = np.einsum("ij,jxyz->ixyz", grid.affine[:3, :3], voxels)
    return Warp(mm.astype(np.float32), grid)


STILL = warp_of(np.zeros((3, *SHAPE)))


def scored_transform(*transforms: Affine | Warp, inverse=None) -> ScoredTransform:
    return ScoredTransform(Chain([STILL, *transforms]), STILL, inverse)


def shift(*mm: float) -> Affine:
    return Affine(homogeneous(np.eye(3), mm))


def about_the_middle(matrix: np.ndarray, mm=(0, 0, 0)) -> Affine:
    middle = GRID.to_world((np.array(SHAPE) - 1) / 2)
    return Affine(homogeneous(matrix, middle - matrix @ middle + mm))


def scores(
    loaded: LoadedPair, scored: ScoredTransform, protocol: Protocol | None = None, reverse=None
) -> Row:
    return score_registration(loaded, scored, protocol or Protocol(structures(1)), reverse=reverse)[
        0
    ]
