"""A brain extractor that knows the phantoms: what is tested then is all around the extraction."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from voxwarp.space.volume import Volume


def knowing(phantoms: Any, **poses: Any) -> Callable[[Volume], np.ndarray]:
    """The brain of a phantom head whose file name begins with the name of its pose."""

    def extract(head: Volume) -> np.ndarray:
        name = head.name.rpartition("/")[2]
        pose = next(pose for start, pose in poses.items() if name.startswith(start))
        # At 1 mm, from every third voxel: the map of a pose takes long.
        step = max(1, round(3 / min(head.grid.spacing)))
        grid = head.grid.resized([-(-n // step) for n in head.grid.shape])
        brain = torch.from_numpy((phantoms.values(grid, pose) > 0).astype(np.float32))
        size = head.grid.shape
        soft = F.interpolate(brain[None, None], size, mode="trilinear", align_corners=True)
        return soft[0, 0].numpy() >= 0.5

    return extract


def never(head: Volume) -> np.ndarray:
    """For where nothing is to be extracted."""
    raise AssertionError(f"{head.name}: nothing was to be extracted")


def nothing(head: Volume) -> np.ndarray:
    """Finds no brain."""
    return np.zeros(head.data.shape, dtype=bool)
