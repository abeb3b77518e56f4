"""Cohorts of phantoms without files, and pairs drawn from them.

A module of its own, so that other processes can import it.
"""

from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from phantoms import blobs, homogeneous, label_map

from voxwarp.preparation.recipe import Recipe
from voxwarp.space.grid import Grid
from voxwarp.training.batch import Sample
from voxwarp.training.config import Augmentation, Sampling
from voxwarp.training.sampling import PairDataset

SHAPE = (12, 13, 14)
# Structures 1 and 2 are each other's mirror, 3 is in the middle.
MIRROR = np.array([0, 2, 1, 3])
WORLD = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0)}
WORLD |= {"S": (0, 0, 1), "I": (0, 0, -1)}


def grid_of(axes: str = "RAS", spacing: tuple[float, ...] = (1, 1, 1), shape=SHAPE) -> Grid:
    directions = np.array([WORLD[letter] for letter in axes], dtype=float).T
    return Grid(shape, homogeneous(directions * spacing, (7, -3, 11)))


@cache
def texture(i: int, shape: tuple[int, int, int]) -> np.ndarray:
    """The image of a scan, (X, Y, Z) uint8; different for each scan, zero in one half."""
    x = np.round(255 * blobs(i, shape)).astype(np.uint8).clip(1)
    x[:, : shape[1] // 2] = 0
    x.setflags(write=False)  # as a memory map is
    return x


@dataclass
class Cohort:
    """Phantoms of the subjects."""

    subjects: list[str]
    labelled: frozenset[int] = frozenset()
    grid: Grid = field(default_factory=grid_of)
    mirror: np.ndarray = field(default_factory=MIRROR.copy)

    @property
    def scans(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(path=Path(f"scan{i}.nii.gz")) for i in range(len(self.subjects))]

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.grid)

    def image(self, i: int) -> np.ndarray:
        return texture(i, self.grid.shape)

    def labels(self, i: int) -> np.ndarray | None:
        return label_map(i, self.grid.shape, (1, 2, 3)) if self.is_labelled(i) else None

    def is_labelled(self, i: int) -> bool:
        return i in self.labelled

    def indices(self, split: str) -> list[int]:
        """The last subject is not trained on."""
        held_out = {
            "val": {self.subjects[-1]},
            "train": set(self.subjects[:-1]) - {self.subjects[-1]},
        }
        return [i for i, subject in enumerate(self.subjects) if subject in held_out[split]]


class Blank(Cohort):
    """One voxel a scan, for draws by the thousand."""

    def image(self, i: int) -> np.ndarray:
        return np.ones(self.grid.shape, np.uint8)

    def labels(self, i: int) -> np.ndarray | None:
        return np.ones(self.grid.shape, np.uint8)


ATLAS_MODE = Sampling(mode="atlas", atlas="template")
#: Every change that a pair may go through.
ALL = Augmentation(
    flip=0.5, rotation=10, scaling=0.1, shift=2, bending=1, gamma=0.3, bias=0.3, noise=0.05
)


def blank(subjects: str, labelled: tuple[int, ...] = ()) -> Blank:
    return Blank(list(subjects), frozenset(labelled), grid_of(shape=(1, 1, 1)))


def pairs(cohort: Cohort, augmentation: Augmentation | None = None, **more) -> PairDataset:
    drawn = more.pop("sampling", Sampling())
    return PairDataset(cohort, drawn, augmentation or Augmentation(), **{"seed": 3, **more})


def images(sample: Sample) -> list[torch.Tensor]:
    return [sample.moving, sample.fixed]


def both_labels(sample: Sample) -> list[torch.Tensor | None]:
    return [sample.moving_labels, sample.fixed_labels]


def input_images(sample: Sample) -> list[torch.Tensor]:
    return [sample.moving_input, sample.fixed_input]


def tensors(sample: Sample) -> list[torch.Tensor]:
    values = (getattr(sample, name.name) for name in fields(sample))
    return [value for value in values if isinstance(value, torch.Tensor)]


def same(a: Sample, b: Sample) -> bool:
    if (a.numbers, a.skipped) != (b.numbers, b.skipped):
        return False
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))
