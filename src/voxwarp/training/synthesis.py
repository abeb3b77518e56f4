"""Images of other contrasts, made from a scan and its label map.

A network that segments images of arbitrary contrast segments scans whose contrast it has never seen
(SynthSeg, Billot et al., doi:10.1016/j.media.2023.102789). Unlike there, the images are not drawn
from the label map alone: a random curve maps the intensities of the scan to others, so that what is
not labelled, partial volume and texture are there too, and each structure gets its own offset.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..fields.filters import gaussian
from ..preparation.intensity import DARKEST, scaled
from .config import Synthesis

NODES = 6  # of the curve of intensities; it is linear between them
LESION_NODES = 5  # along each axis; they make the outline of a lesion uneven
LESION_RADII = 3.0, 20.0  # the smallest and the largest, mm; set by hand


class Synthesiser:
    """Makes images of random contrast.

    Args:
        synthesis: settings.
        spacing: voxel size, mm.
        percentile: of the intensities of a prepared scan, becomes 1, see ``Recipe``.
        mirror: number of the structure on the other side, for each number, see ``Table``: both
            get the same offset.
    """

    def __init__(
        self,
        synthesis: Synthesis,
        spacing: Sequence[float],
        percentile: float,
        mirror: np.ndarray,
    ):
        self._settings, self._spacing = synthesis, [float(s) for s in spacing]
        self._percentile = percentile
        self._pairs = np.minimum(mirror, np.arange(len(mirror)))

    def __call__(self, image: Tensor, labels: Tensor | None, draw: np.random.Generator) -> Tensor:
        """An image of another contrast, or the same image: the share of either is a setting.

        Args:
            image: (1, X, Y, Z) in [0, 1]; background is 0, and stays 0.
            labels: (X, Y, Z) structure numbers, or None.
            draw: random numbers of this image alone.
        """
        settings = self._settings
        if draw.random() >= settings.share:
            return image
        inside = image.numpy()[0] > 0
        voxels = image.numpy()[0][inside].astype(np.float64)
        numbers = None if labels is None else labels.numpy()[inside].astype(np.int64)
        full = np.zeros(inside.shape, np.float32)
        full[inside] = self._other_contrast(voxels, numbers, draw)
        if draw.random() < settings.lesions:
            self._add_lesion(full, inside, draw)
        changed = self._blurred(torch.from_numpy(full), draw).numpy()
        changed = scaled(np.where(inside, changed.clip(DARKEST), 0), self._percentile)
        return torch.from_numpy(changed.astype(np.float32)[None])

    def _other_contrast(
        self, voxels: np.ndarray, numbers: np.ndarray | None, draw: np.random.Generator
    ) -> np.ndarray:
        """New intensities of the voxels of the brain, in [0, 1]."""
        settings = self._settings
        curve, flat = draw.random(NODES), draw.random()
        offsets = settings.structures * draw.random() * draw.standard_normal(len(self._pairs))
        offset = np.zeros(1)
        if numbers is not None:
            sizes = np.bincount(numbers, minlength=len(self._pairs))
            sums = np.bincount(numbers, weights=voxels, minlength=len(self._pairs))
            means = (sums / np.maximum(sizes, 1))[numbers]
            share = np.where(numbers > 0, settings.flatness * flat, 0)  # 0 is no structure
            voxels = voxels + share * (means - voxels)
            offset = np.where(numbers > 0, offsets[self._pairs[numbers]], 0)
        changed = np.interp(voxels, np.linspace(0, 1, NODES), curve) + offset
        return np.clip(changed, DARKEST, 1)

    def _add_lesion(self, image: np.ndarray, inside: np.ndarray, draw: np.random.Generator) -> None:
        """Fill an uneven ball with one random intensity and some texture, in place."""
        voxels = np.argwhere(inside)
        middle = voxels[draw.integers(len(voxels))]
        smallest, largest = LESION_RADII
        radius = smallest * (largest / smallest) ** draw.random()
        value, share, texture = draw.random(), draw.uniform(0.5, 1), draw.uniform(0, 0.1)
        nodes = torch.from_numpy(draw.uniform(-0.5, 0.5, (LESION_NODES,) * 3).astype(np.float32))
        reach = [math.ceil(1.5 * radius / s) for s in self._spacing]
        box = tuple(
            slice(max(m - r, 0), min(m + r + 1, n))
            for m, r, n in zip(middle, reach, image.shape, strict=True)
        )
        axes = [
            (np.arange(b.start, b.stop) - m) * s
            for b, m, s in zip(box, middle, self._spacing, strict=True)
        ]
        x, y, z = np.meshgrid(*axes, indexing="ij")
        uneven = F.interpolate(nodes[None, None], size=x.shape, mode="trilinear")[0, 0].numpy()
        distance = np.sqrt(x**2 + y**2 + z**2) / radius
        part = image[box]
        filled = inside[box] & (distance < 1 + uneven)
        noise = texture * draw.standard_normal(int(filled.sum()))
        part[filled] = np.clip((1 - share) * part[filled] + share * value + noise, DARKEST, 1)

    def _blurred(self, image: Tensor, draw: np.random.Generator) -> Tensor:
        """The image as a scanner with larger voxels or thicker slices measures it."""
        settings = self._settings
        sigma = settings.blur * draw.random() / min(self._spacing)
        axis, thick = int(draw.integers(3)), draw.random() < 0.5
        thickness = 1 + (settings.thickness / self._spacing[axis] - 1) * draw.random()
        volume = gaussian(image[None, None], sigma)[0]
        slices = round(thickness) if thick else 1
        if slices > 1:
            moved = volume.movedim(1 + axis, -1)
            missing = -moved.shape[-1] % slices
            padded = F.pad(moved, (0, missing, 0, 0), mode="replicate")
            means = F.avg_pool1d(padded.flatten(0, 2)[:, None], slices)
            back = F.interpolate(means, size=padded.shape[-1], mode="linear")
            moved = back[:, 0].view(padded.shape)[..., : moved.shape[-1]]
            volume = moved.movedim(-1, 1 + axis)
        return volume[0]
