"""Calculus of dense fields on grids: sample, warp, compose, exponentiate, differentiate.

Tensors are (B, C, X, Y, Z). Coordinates and displacements have C = 3 components, in the order of
the axes, and are in voxels of their own grid. A displacement u pulls: moved(x) = moving(x + u(x)).
"""

from collections.abc import Sequence
from types import EllipsisType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from . import compiled
from .differentiable import Exponential, Upsampling
from .interpolation import Padding, sample, sample_displaced


def identity_grid(shape: Sequence[int], like: Tensor) -> Tensor:
    """The coordinates of every voxel, (1, 3, X, Y, Z), with the device and type of ``like``."""
    axes = [torch.arange(n, device=like.device, dtype=like.dtype) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def warp(
    volume: Tensor, displacement: Tensor, *, nearest: bool = False, padding: Padding = "zeros"
) -> Tensor:
    """Warp a volume by a displacement u: moved(x) = volume(x + u(x)).

    Args:
        volume: (B, C, X, Y, Z).
        displacement: u, (B, 3, X, Y, Z), voxels of ``volume``.
        nearest: as in ``sample``.
        padding: as in ``sample``.
    """
    if nearest:
        at = identity_grid(displacement.shape[2:], displacement) + displacement
        return sample(volume, at, nearest=True, padding=padding)
    return sample_displaced(volume, displacement, padding=padding)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Compose two displacements: that of x ↦ φ_outer(φ_inner(x)), inner(x) + outer(x + inner(x)).

    Outside its grid a field continues with its border value.

    Args:
        outer: (B, 3, X, Y, Z), voxels; applied last.
        inner: likewise in shape and unit; applied first.
    """
    if compiled.can_take(outer, inner):
        return compiled.compose(outer, inner)
    return inner + warp(outer, inner, padding="border")


def exponentiate(velocity: Tensor, *, steps: int = 7) -> Tensor:
    """Integrate a velocity: exp(v), by scaling and squaring.

    Arsigny et al., doi:10.1007/11866565_113. Outside its grid a velocity continues with its
    border value, so a constant velocity integrates to itself everywhere.

    Args:
        velocity: stationary velocity v, (B, 3, X, Y, Z), voxels per unit time.
        steps: number of squarings; the first step is v / 2**steps, the error O(2**-steps).
            7 is the default of VoxelMorph.

    Returns:
        The displacement of the flow of v at time one, (B, 3, X, Y, Z), voxels.
    """
    if compiled.can_differentiate(velocity):
        return Exponential.apply(velocity, steps)
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


# Set by hand. Voxels: the longest change of an inverse in a step of Newton's method, along an axis;
# the sides of the coarsest grid, from whose inverse finer ones start, are shorter. Steps: of all
# voxels, and of those that need more at most.
LONGEST, COARSEST = 1.0, 4
STEPS, MOST_FURTHER_STEPS = 2, 12


@torch.no_grad()
def invert(displacement: Tensor, *, start: Tensor | None = None, tolerance: float = 0.01) -> Tensor:
    """Invert a displacement by Newton's method.

    It goes on until the residual w(y) + u(y + w(y)) is zero within about the tolerance. Unlike
    fixed-point iteration (Chen et al., doi:10.1118/1.2816107), it also converges where u stretches
    by more than two. For a field that comes from a velocity v, exponentiate(−v) is the exact
    inverse.

    Args:
        displacement: u, (B, 3, X, Y, Z), voxels. Gradients are not followed.
        start: an approximate inverse, of the same shape; by default that on the grid of half the
            resolution, which is found in the same way.
        tolerance: of each component of the residual, voxels; compiled kernels leave a few voxels
            somewhat above it, whose last step was short.

    Returns:
        The displacement w with (Id + u) ∘ (Id + w) = Id, (B, 3, X, Y, Z), voxels. Where u folds,
        no inverse exists and the result is approximate.

    Raises:
        ValueError: the start has another shape.
    """
    if start is not None and start.shape != displacement.shape:
        raise ValueError(
            f"start must have the shape of the displacement, {tuple(displacement.shape)}, got "
            f"{tuple(start.shape)}"
        )
    inverse = _coarse_inverse(displacement, tolerance) if start is None else start.clone()
    inverse = inverse.contiguous()
    if compiled.can_take(displacement, inverse):
        longest, most = LONGEST, MOST_FURTHER_STEPS
        compiled.invert(displacement, inverse, tolerance, longest=longest, most=most)
        return inverse
    for _ in range(STEPS):
        inverse = newton_step(displacement, inverse)
    for u, w in zip(displacement, inverse, strict=True):
        _solve_further(u, w, tolerance)
    return inverse


def _coarse_inverse(displacement: Tensor, tolerance: float) -> Tensor:
    """About the inverse, from that on the grid of half the resolution; −u on a small grid."""
    if max(displacement.shape[2:]) < COARSEST:
        return -displacement
    # One component after the other: of large grids, no copy of all three is padded or cropped.
    parts = (padded(component, 2, border=True) for component in displacement.split(1, dim=1))
    coarse = torch.cat([downsample(part) for part, _ in parts], dim=1)
    within = crop(displacement.shape[2:], [2 * n for n in coarse.shape[2:]])
    # It is only a start, so it need not be as accurate.
    coarse = invert(coarse, tolerance=4 * tolerance)
    inverse = torch.empty_like(displacement, memory_format=torch.contiguous_format)
    for component, part in zip(inverse.split(1, dim=1), coarse.split(1, dim=1), strict=True):
        component.copy_(upsample(part)[within])
    if not coarse.isfinite().all():  # what is not finite would spread
        torch.where(inverse.isfinite(), inverse, -displacement, out=inverse)
    return inverse


def newton_step(displacement: Tensor, inverse: Tensor) -> Tensor:
    """Improve an approximate inverse by one step of Newton's method.

    With the residual r(y) = w(y) + u(y + w(y)):  w ← w − (I + ∇w) r, because I + ∇w is nearly the
    inverse of the Jacobian of Id + u there.

    Args:
        displacement: u, (B, 3, X, Y, Z), voxels.
        inverse: w, of the same shape, voxels.
    """
    residual = inverse + warp(displacement, inverse, padding="border")
    change = residual.clone()
    for axis in range(3):
        _add_along(change, inverse, residual[:, axis : axis + 1], 2 + axis)
    return inverse - change.clamp_(-LONGEST, LONGEST)


def _add_along(out: Tensor, field: Tensor, by: Tensor, axis: int) -> None:
    """Add ∂field/∂axis · by to ``out``, by central differences, without large temporary tensors."""
    n = field.shape[axis]
    if n == 1:
        return
    for first, count, before, after, weight in (
        (1, n - 2, 0, 2, 0.5),
        (0, 1, 0, 1, 1.0),
        (n - 1, 1, n - 2, n - 1, 1.0),
    ):
        step = field.narrow(axis, after, count) - field.narrow(axis, before, count)
        part = out.narrow(axis, first, count)
        part.addcmul_(step, by.narrow(axis, first, count), value=weight)


def _solve_further(u: Tensor, w: Tensor, tolerance: float) -> None:
    """Go on with the Jacobian of Id + u in the voxels whose residual is above the tolerance.

    Args:
        u: (3, X, Y, Z).
        w: its approximate inverse, which is changed; where the steps do not suffice, it becomes
            the best that they met.
    """

    def at(points: Tensor) -> Tensor:  # (3, N)
        return sample(u[None], points[None, ..., None, None], padding="border")[0, ..., 0, 0]

    residual = w + warp(u[None], w[None], padding="border")[0]
    voxels = (residual.abs().amax(dim=0) > tolerance).nonzero().T
    found = w[:, voxels[0], voxels[1], voxels[2]]
    least = torch.full_like(found[0], torch.inf)
    half = (torch.eye(3).to(u) / 2)[..., None]  # of a voxel, along each axis
    for _ in range(MOST_FURTHER_STEPS + 1):
        points = voxels + found
        residual = found + at(points)
        error = residual.abs().amax(dim=0)
        better = error < least
        x, y, z = voxels[:, better]
        w[:, x, y, z] = found[:, better]
        left = error > tolerance
        voxels, found, points, residual = (t[:, left] for t in (voxels, found, points, residual))
        if not voxels.numel():
            break
        least = torch.minimum(error, least)[left]
        jacobian = [2 * h + at(points + h) - at(points - h) for h in half]
        found = found - _solution(jacobian, residual).clamp_(-LONGEST, LONGEST)


def _solution(columns: Sequence[Tensor], right: Tensor) -> Tensor:
    """The d, (3, N), with (a b c) d = right for the columns a, b, c; right itself in a fold."""

    def determinant(p: Tensor, q: Tensor, s: Tensor) -> Tensor:
        return (p * torch.linalg.cross(q, s, dim=0)).sum(dim=0)

    a, b, c = columns
    whole = determinant(a, b, c)
    parts = determinant(right, b, c), determinant(a, right, c), determinant(a, b, right)
    return torch.where(whole > 0, torch.stack(parts) / whole, right)


def resize(field: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize a displacement or velocity to a grid of another size over the same field of view.

    End voxels keep their centres, so component i is scaled by (N_i − 1) / (n_i − 1).

    Args:
        field: (B, 3, X, Y, Z), in its own voxels.
        shape: the new size (N_1, N_2, N_3), voxels.

    Returns:
        (B, 3, N_1, N_2, N_3), in voxels of the new grid.
    """
    target = (int(shape[0]), int(shape[1]), int(shape[2]))
    ratio = [(N - 1) / max(n - 1, 1) for N, n in zip(target, field.shape[2:], strict=True)]
    resized = F.interpolate(field, size=target, mode="trilinear", align_corners=True)
    return resized * resized.new_tensor(ratio).view(1, 3, 1, 1, 1)


def upsample(field: Tensor) -> Tensor:
    """Upsample a displacement or velocity from a grid that was averaged down by two.

    Averaging puts the centre of voxel j at 2j + ½ of the full grid. (``resize`` keeps the
    centres of the end voxels instead.) Near the border the field continues with its border value.

    Args:
        field: (B, 3, X, Y, Z), in its own voxels.

    Returns:
        (B, 3, 2X, 2Y, 2Z), in voxels of the full grid, so with components twice as large.
    """
    if compiled.can_differentiate(field):
        return Upsampling.apply(field, 2.0)
    return 2 * F.interpolate(field, scale_factor=2, mode="trilinear", align_corners=False)


def downsample(field: Tensor) -> Tensor:
    """Average a displacement or velocity down by two, in voxels of the coarse grid.

    Args:
        field: (B, 3, X, Y, Z), even sides, in its own voxels.

    Returns:
        (B, 3, X / 2, Y / 2, Z / 2), in voxels of the coarse grid.
    """
    return averaged(field, 2) / 2


def averaged(volume: Tensor, factor: int) -> Tensor:
    """The mean of each block of ``factor``³ voxels, (B, C, X / factor, Y / factor, Z / factor)."""
    if factor % 2 == 0 and not any(n % 2 for n in volume.shape[2:]) and compiled.can_take(volume):
        return averaged(compiled.average(volume), factor // 2)
    return volume if factor == 1 else F.avg_pool3d(volume, factor)


def blocks(volume: Tensor, side: int) -> Tensor:
    """Collect voxels by block: (B, X, Y, Z) to (B, X / side, Y / side, Z / side, side³)."""
    b, x, y, z = volume.shape
    number = _NUMBERS.get(side * volume.element_size())
    if number is not None and not volume.requires_grad and volume.storage_offset() % side == 0:
        # Neighbours along the last axis stay neighbours; it is faster to move them as one number.
        pairs = volume.contiguous().view(number).view(b, x // side, side, y // side, side, -1)
        return pairs.permute(0, 1, 3, 5, 2, 4).contiguous().flatten(4).view(volume.dtype)
    split = volume.reshape(b, x // side, side, y // side, side, z // side, side)
    return split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)


_NUMBERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their bytes


#: Slices that undo padding.
Crop = tuple[slice | EllipsisType, ...]


def padded(volume: Tensor, multiple: int, *, border: bool = False) -> tuple[Tensor, Crop]:
    """Pad a volume on both sides so that its sides are multiples of ``multiple``.

    Args:
        volume: (B, C, X, Y, Z).
        multiple: number of voxels.
        border: pad with the border value instead of zeros.

    Returns:
        The padded volume, and the slices that undo the padding.
    """
    shape = volume.shape[2:]
    target = [-(-n // multiple) * multiple for n in shape]
    # F.pad takes (before, after) of the last axis first.
    pads = [((t - n) // 2, t - n - (t - n) // 2) for n, t in zip(shape, target, strict=True)]
    flat = [n for before_after in reversed(pads) for n in before_after]
    if any(flat):
        volume = F.pad(volume, flat, mode="replicate" if border else "constant")
    return volume, crop(shape, target)


def crop(shape: Sequence[int], padded: Sequence[int]) -> Crop:
    """The slices that cut a volume of ``shape`` out of the middle of one of shape ``padded``."""
    starts = [(p - n) // 2 for n, p in zip(shape, padded, strict=True)]
    return (..., *(slice(s, s + n) for s, n in zip(starts, shape, strict=True)))


Differences = Literal["central", "forward", "backward"]


def jacobian_determinant(displacement: Tensor, *, differences: Differences = "central") -> Tensor:
    """The Jacobian determinant det(I + ∇u): the local change of volume of x ↦ x + u(x).

    Args:
        displacement: u, (B, 3, X, Y, Z), in its own voxels.
        differences: "central" (one-sided at the border), or "forward" or "backward" everywhere.
            Central differences miss folds between neighbours (Liu et al.,
            doi:10.1007/s11263-024-02047-1).

    Returns:
        (B, X, Y, Z).
    """
    if differences == "central" and compiled.can_take(displacement):
        return compiled.determinants(displacement)[0]
    gradient = [difference(displacement, axis, differences) for axis in (2, 3, 4)]
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = (g.unbind(1) for g in gradient)
    xx, yy, zz = xx + 1, yy + 1, zz + 1
    return xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx)


def jacobian_determinants(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """det(I + ∇u) by central differences, and the smallest by central and one-sided ones.

    Args:
        displacement: u, (B, 3, X, Y, Z), voxels.

    Returns:
        (B, X, Y, Z) each.
    """
    if compiled.can_take(displacement):
        return compiled.determinants(displacement)
    central = jacobian_determinant(displacement)
    smallest = central
    sides: tuple[Differences, ...] = ("forward", "backward")
    for one_sided in sides:
        other = jacobian_determinant(displacement, differences=one_sided)
        smallest = torch.minimum(smallest, other)
    return central, smallest


def difference(field: Tensor, axis: int, differences: Differences = "central") -> Tensor:
    """Differences per voxel along an axis of a tensor; at a border, with the only neighbour."""
    n = field.shape[axis]
    apart = 2 if differences == "central" else 1
    inner = field.narrow(axis, apart, n - apart) - field.narrow(axis, 0, n - apart)
    if apart == 2:
        inner = inner / 2
    first = field.narrow(axis, 1, 1) - field.narrow(axis, 0, 1)
    last = field.narrow(axis, n - 1, 1) - field.narrow(axis, n - 2, 1)
    ends = {"central": [first, inner, last], "forward": [inner, last], "backward": [first, inner]}
    return torch.cat(ends[differences], dim=axis)
