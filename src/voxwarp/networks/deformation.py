"""What a network answers: a deformation of the images' lattice."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..fields import field


class Deformation(NamedTuple):
    """φ = Id + u and its inverse, displacements in voxels, (B, 3, X, Y, Z).

    ``regularity`` is the field whose roughness the training penalises: the velocity where
    there is one, else the displacement.
    """

    displacement: Tensor
    inverse: Tensor | None
    regularity: Tensor


def integrated(velocity: Tensor, shape: Sequence[int], steps: int) -> Deformation:
    """exp(±v) on the lattice of ``shape`` that the velocity, at half resolution, is around."""
    both = field.exponentiate(torch.cat([velocity, -velocity]), steps=steps)
    full = field.upsample(both)
    displacement, inverse = full[field.crop(shape, full.shape[2:])].chunk(2)
    return Deformation(displacement, inverse, velocity)
