"""Pairs of small scans in files, transforms that are known, and their rows."""

from pathlib import Path

import numpy as np
from cohorts import write_scan
from phantoms import blobs, homogeneous

from voxwarp.data.pairs import Pair, PairScan
from voxwarp.data.structures import Table
from voxwarp.evaluation.case import Case, read_case
from voxwarp.evaluation.protocol import Protocol
from voxwarp.evaluation.rows import Row
from voxwarp.evaluation.scoring import ScoredTransform, measure
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Chain, Warp

SHAPE = (28, 30, 32)
SPACING = (2.0, 1.5, 1.0)
AFFINE = homogeneous(np.diag(SPACING), (-20, 5, 11))
GRID = Grid(SHAPE, AFFINE)


def texture(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A brain of 1 to 200 within zeros, float32, 4 voxels from the border."""
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


def case_of(folder: Path, moving=None, fixed=None, image: np.ndarray | None = None) -> Case:
    """Two scans that look the same; their label maps, or none."""
    image = texture() if image is None else image
    sides = pair_scan(folder, "m", image, moving), pair_scan(folder, "f", image, fixed)
    return read_case(Pair(*sides))


def structures(*values: int) -> Table:
    return Table([f"s{v}" for v in values], {v: i for i, v in enumerate(values, 1)})


def warp_of(voxels: np.ndarray, grid: Grid = GRID) -> Warp:
    """From a displacement (3, X, Y, Z) in voxels."""
    mm = np.einsum("ij,jxyz->ixyz", grid.affine[:3, :3], voxels)
    return Warp(mm.astype(np.float32), grid)


STILL = warp_of(np.zeros((3, *SHAPE)))


def found(*steps: Affine | Warp, inverse=None) -> ScoredTransform:
    return ScoredTransform(Chain([STILL, *steps]), STILL, inverse)


def shift(*mm: float) -> Affine:
    return Affine(homogeneous(np.eye(3), mm))


def about_the_middle(matrix: np.ndarray, mm=(0, 0, 0)) -> Affine:
    middle = GRID.to_world((np.array(SHAPE) - 1) / 2)
    return Affine(homogeneous(matrix, middle - matrix @ middle + mm))


def rowed(
    case: Case, result: ScoredTransform, protocol: Protocol | None = None, swapped=None
) -> Row:
    return measure(case, result, protocol or Protocol(structures(1)), swapped)[0]
