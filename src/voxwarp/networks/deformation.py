"""The result of a network: a deformation on the grid of the images."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..fields import field


class Deformation(NamedTuple):
    """A deformation φ = Id + u.

    Args:
        displacement: u in voxels, (B, 3, X, Y, Z).
        regularity: the field whose roughness the training penalises: the velocity if there is one,
            else the displacement.
        unsure: of a network that recognises structures, the share of voxels where it is unsure,
            (B, 2) for the moving and the fixed images, see ``segmentation.Segmentation``.
    """

    displacement: Tensor
    regularity: Tensor
    unsure: Tensor | None = None


def integrate(velocity: Tensor, shape: Sequence[int], steps: int) -> Tensor:
    """Integrate a velocity at half resolution to exp(v) on a grid of ``shape`` voxels.

    Args:
        velocity: (B, 3, X, Y, Z), in voxels of its grid, which is padded around that of the images.
        shape: of the images.
        steps: squarings of the exponential.

    Returns:
        The displacement, (B, 3, *shape), in voxels.
    """
    full = field.upsample(field.exponentiate(velocity, steps=steps))
    return full[field.crop(shape, full.shape[2:])]
