"""The mean of deformations, and the update of a template's shape that brings it to zero.

Scan i lies at φᵢ(x) = x + uᵢ(x) of a template. Of the displacements, not of velocities, the mean is
taken: it is what must vanish, it is defined for every deformation, also where it is not the
exponential of a velocity, and one update makes it zero. With φ̄ = Id + mean u, the template moves to
the points x' with φ̄(ψ(x')) = x', that is ψ = φ̄⁻¹, and then the mean of φᵢ(ψ(x')) is x'. No smaller
step is taken (ANTs takes a quarter of it), because the mean of many is smooth and small.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..errors import InputError
from ..fields import field
from ..fields.folds import remove_folds
from ..networks.descent import DescentSettings
from ..space.grid import Grid
from .linear import MIRROR

TOLERANCE = 1e-3  # of the inverse, voxels: an error would remain in every further round


def mean_displacement(
    fields: Sequence[np.ndarray], weights: Sequence[float], *, symmetric: bool = False
) -> torch.Tensor:
    """The weighted mean of displacements, summed in the order in which they are given.

    Args:
        fields: (3, X, Y, Z) float32 each, voxels; may be mapped from files.
        weights: which sum to 1.
        symmetric: take the mean with the mirror image along the first axis, see ``mirrored``.

    Returns:
        (1, 3, X, Y, Z) float32, voxels.
    """
    total = np.zeros(fields[0].shape, np.float64)
    for weight, one in zip(weights, fields, strict=True):
        total += weight * one
    mean = torch.from_numpy(total.astype(np.float32))[None]
    return (mean + mirrored(mean)) / 2 if symmetric else mean


def mirrored(displacement: torch.Tensor) -> torch.Tensor:
    """The displacement of the mirror images: F ∘ φ ∘ F, where F flips the first axis.

    Args:
        displacement: (1, 3, X, Y, Z), voxels.
    """
    flipped = displacement.flip(2).clone()
    flipped[:, 0].neg_()
    return flipped


def check_mirror(grid: Grid) -> None:
    """Check that mirroring the world, x to −x, is flipping the first axis of a grid.

    Raises:
        InputError: it is not.
    """
    last = grid.shape[0] - 1
    ends = grid.to_world(np.array([[0, 0, 0], [last, 0, 0], [0, 1, 0], [0, 0, 1]]))
    flipped = grid.to_world(np.array([[last, 0, 0], [0, 0, 0], [last, 1, 0], [last, 0, 1]]))
    if not np.allclose(ends @ MIRROR, flipped, atol=1e-3):
        raise InputError(
            "symmetric: the working grid of this model is not symmetric about the plane between "
            "the hemispheres; use a model that is aligned with MNI152"
        )


def update(mean: torch.Tensor) -> torch.Tensor:
    """The displacement of ψ, the inverse of Id + mean.

    Args:
        mean: displacement, (1, 3, X, Y, Z), voxels.
    """
    with torch.no_grad():
        mean = remove_folds(mean, min_determinant=DescentSettings.min_determinant)
        return field.invert(mean, tolerance=TOLERANCE)


def updated(displacement: torch.Tensor, shape_update: torch.Tensor) -> torch.Tensor:
    """The displacement of φ ∘ ψ, without folds.

    Args:
        displacement: of φ, (1, 3, X, Y, Z), voxels.
        shape_update: displacement of ψ, of the same shape.
    """
    with torch.no_grad():
        composed = field.compose(displacement, shape_update)
        return remove_folds(composed, min_determinant=DescentSettings.min_determinant)
