"""Calculus of dense fields on voxel lattices: sample, warp, compose, exponentiate, differentiate.

Tensors are (B, C, X, Y, Z); coordinates and displacements have C = 3 in axis order and are in
voxels of the lattice they live on. A displacement u pulls: moved(x) = moving(x + u(x)).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = Literal["zeros", "border"]

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def lattice(shape: Sequence[int], like: Tensor) -> Tensor:
    """x: the coordinates of every voxel, (1, 3, X, Y, Z), with the device and type of ``like``."""
    axes = [torch.arange(n, device=like.device, dtype=like.dtype) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def sample(
    volume: Tensor, at: Tensor, *, nearest: bool = False, padding: Padding = "zeros"
) -> Tensor:
    """volume(at), trilinear (or nearest neighbour, halves up): the one interpolator of voxwarp.

    Args:
        volume: (B, C, X, Y, Z); floating point, or any type with ``nearest``.
        at: (B, 3, ...) voxel coordinates of ``volume``, with three trailing axes.
        nearest: copy the nearest voxel's value, exactly, instead of interpolating.
        padding: outside the volume "zeros", or the value at the nearest "border" point.

    Returns:
        (B, C, ...) in the type of ``volume``.
    """
    if volume.ndim != 5 or at.ndim != 5 or at.shape[1] != 3 or at.shape[0] != volume.shape[0]:
        raise ValueError(
            f"volume must be (B, C, X, Y, Z) and at (B, 3, X', Y', Z'), "
            f"got {tuple(volume.shape)} and {tuple(at.shape)}"
        )
    if nearest:
        return _sample_nearest(volume, at, padding)
    # grid_sample wants the last axis first and [-1, 1] from centre to centre of the end voxels.
    last = torch.tensor([max(n - 1, 1) for n in volume.shape[2:]], dtype=at.dtype, device=at.device)
    unit = at.movedim(1, -1) * (2 / last) - 1
    return F.grid_sample(
        volume, unit.flip(-1).to(volume.dtype), padding_mode=padding, align_corners=True
    )


def _sample_nearest(volume: Tensor, at: Tensor, padding: Padding) -> Tensor:
    index = torch.floor(at + 0.5).long()
    size = torch.tensor(volume.shape[2:], device=at.device).view(1, 3, 1, 1, 1)
    inside = ((index >= 0) & (index < size)).all(dim=1, keepdim=True)
    i, j, k = index.clamp(min=0).minimum(size - 1).unbind(1)
    _, ny, nz = volume.shape[2:]
    flat = ((i * ny + j) * nz + k).flatten(1).unsqueeze(1)  # (B, 1, N)
    # PyTorch gathers no unsigned integers wider than a byte; their bits are gathered instead.
    bits = volume.view(_SIGNED.get(volume.dtype, volume.dtype))
    values = bits.flatten(2).gather(2, flat.expand(-1, volume.shape[1], -1))
    values = values.unflatten(2, tuple(at.shape[2:]))
    if padding == "zeros":
        values = torch.where(inside, values, torch.zeros((), dtype=values.dtype, device=at.device))
    return values.view(volume.dtype)


def warp(
    volume: Tensor, displacement: Tensor, *, nearest: bool = False, padding: Padding = "zeros"
) -> Tensor:
    """moved(x) = volume(x + u(x)), for a displacement u (B, 3, X, Y, Z) in voxels of ``volume``."""
    at = lattice(displacement.shape[2:], displacement) + displacement
    return sample(volume, at, nearest=nearest, padding=padding)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The displacement of x ↦ φ_outer(φ_inner(x)): inner(x) + outer(x + inner(x)).

    Outside its lattice a field has the value of the nearest border point.
    """
    return inner + warp(outer, inner, padding="border")


def exponentiate(velocity: Tensor, *, steps: int = 7) -> Tensor:
    """φ = exp(v) by scaling and squaring (Arsigny et al., doi:10.1007/11866565_113).

    Args:
        velocity: stationary velocity v, (B, 3, X, Y, Z), voxels per unit time.
        steps: number of squarings; the first step is v / 2**steps, of error O(2**-steps).

    Returns:
        Displacement of the flow of v at time one, in the same voxels. A velocity leaves the
        lattice with its border value, so that a constant one integrates to itself everywhere.
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def invert(displacement: Tensor, *, iterations: int = 20) -> Tensor:
    """The displacement w with (Id + u) ∘ (Id + w) = Id, by fixed-point iteration w ← −u(x + w).

    Converges where u has a Lipschitz constant below one (Chen et al., doi:10.1118/1.2816107);
    where u folds there is no inverse and the answer is only near. Fields of a velocity have an
    exact one: exponentiate(−v).
    """
    inverse = -displacement
    for _ in range(iterations):
        inverse = -warp(displacement, inverse, padding="border")
    return inverse


def resize(field: Tensor, shape: Sequence[int]) -> Tensor:
    """A displacement or velocity on a lattice of another size over the same field of view.

    End voxels keep their centres, so component i is scaled by (N_i − 1) / (n_i − 1).
    """
    target = (int(shape[0]), int(shape[1]), int(shape[2]))
    ratio = [(N - 1) / max(n - 1, 1) for N, n in zip(target, field.shape[2:], strict=True)]
    resized = F.interpolate(field, size=target, mode="trilinear", align_corners=True)
    return resized * resized.new_tensor(ratio).view(1, 3, 1, 1, 1)


def upsample(field: Tensor) -> Tensor:
    """A displacement or velocity of a lattice averaged down by two, on the full lattice.

    Averaging puts the centre of voxel j at 2j + ½ of the full lattice. (``resize`` keeps the
    centres of the end voxels instead.) Near the border the field goes on with its end value.

    Args:
        field: (B, 3, X, Y, Z), in its own voxels.

    Returns:
        (B, 3, 2X, 2Y, 2Z), in voxels of the full lattice: twice as many.
    """
    return 2 * F.interpolate(field, scale_factor=2, mode="trilinear", align_corners=False)


Differences = Literal["central", "forward", "backward"]


def jacobian_determinant(displacement: Tensor, *, differences: Differences = "central") -> Tensor:
    """det(I + ∇u), (B, X, Y, Z): the local change of volume of x ↦ x + u(x).

    Args:
        displacement: u, (B, 3, X, Y, Z), in voxels of its own lattice.
        differences: "central" (one-sided at the border), or one-sided everywhere. Central
            differences miss folds between neighbours (Liu et al., doi:10.1007/s11263-024-02047-1).
    """
    gradient = [_difference(displacement, axis, differences) for axis in (2, 3, 4)]
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = (g.unbind(1) for g in gradient)
    xx, yy, zz = xx + 1, yy + 1, zz + 1
    return xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx)


def _difference(field: Tensor, axis: int, differences: Differences) -> Tensor:
    step = field.diff(dim=axis)
    first, last = step.narrow(axis, 0, 1), step.narrow(axis, step.shape[axis] - 1, 1)
    if differences == "forward":
        return torch.cat([step, last], dim=axis)
    if differences == "backward":
        return torch.cat([first, step], dim=axis)
    inner = (
        step.narrow(axis, 0, step.shape[axis] - 1) + step.narrow(axis, 1, step.shape[axis] - 1)
    ) / 2
    return torch.cat([first, inner, last], dim=axis)
