"""Averages of many images on one grid, some planes at a time; votes of label maps."""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from ..errors import InputError

Average = Literal["mean", "median", "trimmed"]
TRIMMED = 0.1  # of the persons, at either end; set by hand
PLANES_BYTES = 256e6  # of the images that are averaged at a time; set by hand
# Voxels of the Gaussian that is subtracted, and how much is added of the difference; set by hand.
SHARPENING_SIGMA, SHARPENING = 1.0, 1.0


def check_average(average: str) -> None:
    """Check the name of an average.

    Raises:
        InputError: there is none of that name.
    """
    if average not in get_args(Average):
        raise InputError(f"average must be {', '.join(get_args(Average))}, got {average!r}")


def enough_to_trim(symmetric: bool) -> int:
    """The least number of persons of whom the trimmed mean leaves out some."""
    return int(np.ceil(1 / TRIMMED / (2 if symmetric else 1)))


def averaged(
    images: Sequence[np.ndarray],
    persons: Sequence[Sequence[int]],
    average: Average = "mean",
    *,
    symmetric: bool = False,
) -> np.ndarray:
    """The average of images over persons.

    Args:
        images: (X, Y, Z) each; may be mapped from files.
        persons: the images of each; those of one person are averaged first, so that each person
            counts once.
        average: "mean", "median", or "trimmed": the mean without the lowest and the highest tenth.
        symmetric: count the mirror images along the first axis, too.

    Returns:
        (X, Y, Z) float32.
    """
    out = np.empty(images[0].shape, np.float32)
    along = len(out)
    plane = out.nbytes // along * len(images) * (2 if symmetric else 1)
    planes = max(1, int(PLANES_BYTES // plane))
    for first in range(0, along, planes):
        last = min(first + planes, along)
        stack = [_of_persons(images, persons, slice(first, last))]
        if symmetric:
            across = _of_persons(images, persons, slice(along - last, along - first))
            stack.append(across[:, ::-1])
        out[first:last] = _statistic(np.concatenate(stack), average)
    return out


def _of_persons(
    images: Sequence[np.ndarray], persons: Sequence[Sequence[int]], part: slice
) -> np.ndarray:
    return np.stack(
        [
            np.mean([images[index][part] for index in own], axis=0, dtype=np.float64)
            for own in persons
        ]
    )


def _statistic(stack: np.ndarray, average: Average) -> np.ndarray:
    if average == "mean":
        return np.asarray(stack.mean(axis=0))
    stack = np.sort(stack, axis=0)
    number = len(stack)
    cut = (number - 1) // 2 if average == "median" else int(TRIMMED * number)
    return np.asarray(stack[cut : number - cut].mean(axis=0))


def mean_and_spread(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of images of one shape, float32, one at a time."""
    total = squares = np.zeros(())
    number = 0
    for image in images:
        values = image.astype(np.float64)
        total, squares, number = total + values, squares + values**2, number + 1
    mean = total / number
    spread = np.sqrt(np.maximum(squares / number - mean**2, 0))
    return mean.astype(np.float32), spread.astype(np.float32)


def sharpened(image: np.ndarray) -> np.ndarray:
    """An image with a part of what a Gaussian removes from it added, in its own range.

    Args:
        image: (X, Y, Z), zero outside the brain.
    """
    blurred = ndimage.gaussian_filter(image, SHARPENING_SIGMA, truncate=4)
    sharp = image + SHARPENING * (image - blurred)
    return np.where(image > 0, np.clip(sharp, image[image > 0].min(), image.max()), 0)


def sharpness(image: np.ndarray, inside: np.ndarray, spacing: Sequence[float]) -> float:
    """The mean gradient of an image in a brain, over its mean intensity there; 1/mm.

    Args:
        image: (X, Y, Z).
        inside: (X, Y, Z) boolean.
        spacing: mm.
    """
    slopes = np.gradient(image.astype(np.float32), *spacing)
    size = np.sqrt(sum(np.square(slope) for slope in slopes))
    return float(size[inside].mean() / image[inside].mean())


class Votes:
    """What label maps say of each voxel, kept for those where any has a label.

    Args:
        maps: (X, Y, Z) of whole numbers each; may be mapped from files.
        persons: the maps of each; a person has one vote, which her maps share.
    """

    def __init__(self, maps: Sequence[np.ndarray], persons: Sequence[Sequence[int]]):
        self.shape = maps[0].shape
        inside = np.zeros(self.shape, bool)
        for one in maps:
            inside |= one != 0
        self.where = np.flatnonzero(inside)
        self.votes = np.stack([one.reshape(-1)[self.where] for one in maps])
        weights = np.empty(len(maps))
        for own in persons:
            weights[list(own)] = 1 / (len(persons) * len(own))
        self.weights = weights
        self.labels = [int(label) for label in np.unique(self.votes) if label != 0]

    def share(self, label: int) -> np.ndarray:
        """The share of the persons that have a label, (voxels,) float32, where any has one."""
        total = np.zeros(len(self.where), np.float32)
        for weight, own in zip(self.weights, self.votes, strict=True):
            total[own == label] += np.float32(weight)
        return total

    def volume(self, values: np.ndarray) -> np.ndarray:
        """Values of the kept voxels as a volume, zero elsewhere."""
        out = np.zeros(self.shape, values.dtype)
        out.reshape(-1)[self.where] = values
        return out

    def winners(self) -> tuple[np.ndarray, np.ndarray]:
        """The label with most votes, 0 among them, and its share; ties go to the lowest label."""
        best = np.zeros(len(self.where), self.votes.dtype)
        most = self.share(0)
        for label in self.labels:
            share = self.share(label)
            better = share > most + 1e-6
            best[better], most[better] = label, share[better]
        return best, most
