"""Calculus of dense fields on voxel lattices: sample, warp, compose, exponentiate, differentiate.

Tensors are (B, C, X, Y, Z); coordinates and displacements have C = 3 in axis order and are in
voxels of the lattice they live on. A displacement u pulls: moved(x) = moving(x + u(x)).
"""

import math
from collections.abc import Sequence
from types import EllipsisType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Padding = Literal["zeros", "border"]

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def identity_grid(shape: Sequence[int], like: Tensor) -> Tensor:
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
    _check(volume, at)
    if nearest:
        return _sample_nearest(volume, at, padding)
    return _interpolate(volume, at, padding, relative=False)


def _check(volume: Tensor, at: Tensor) -> None:
    if volume.ndim != 5 or at.ndim != 5 or at.shape[1] != 3 or at.shape[0] != volume.shape[0]:
        raise ValueError(
            f"volume must be (B, C, X, Y, Z) and at (B, 3, X', Y', Z'), "
            f"got {tuple(volume.shape)} and {tuple(at.shape)}"
        )


def _interpolate(volume: Tensor, at: Tensor, padding: Padding, *, relative: bool) -> Tensor:
    """volume(at), or with ``relative`` volume(x + at(x)); trilinear."""
    # Weights of eight corners do not survive fewer digits than float32 has.
    low = volume.dtype in (torch.float16, torch.bfloat16)
    wide = volume.float() if low else volume
    return _Interpolation.apply(wide, at, padding, relative).to(volume.dtype)


# PyTorch numbers the modes: trilinear; outside zero, or the value at the border.
_TRILINEAR, _PADDING = 0, {"zeros": 0, "border": 1}
_PARTS_WITH_GRADIENT = 8  # of a volume: each part of the points has a gradient of its own


class _Interpolation(torch.autograd.Function):
    """``grid_sample``, which on a processor runs one thread a sample, on every core.

    The points of a sample are cut into parts that are stacked as a batch; the volume is the same
    for all (a view, no copy). What autograd would keep, the points in the units and the order of
    axes that PyTorch wants, is made again for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, at: Tensor, padding: Padding, relative: bool) -> Tensor:
        """One sample of the batch after the other."""
        ctx.save_for_backward(volume, at)
        ctx.padding, ctx.relative = _PADDING[padding], relative
        parts = _parts(volume)
        moved = []
        for v, a in zip(volume, at, strict=True):
            grid = _grid(v, a, relative, parts)
            values = torch.grid_sampler_3d(
                v.expand(parts, *v.shape), grid, _TRILINEAR, ctx.padding, True
            )
            moved.append(_joined(values.movedim(1, 0), a.shape[1:]))
        return _stacked(moved)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of the volume only where it is wanted: images have none, velocities do."""
        volume, at = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        parts = min(_parts(volume), _PARTS_WITH_GRADIENT) if wanted[0] else _parts(volume)
        of_volume, of_points = [], []
        for v, a, g in zip(volume, at, gradient, strict=True):
            grid = _grid(v, a, ctx.relative, parts)
            pieces, by_grid = torch.ops.aten.grid_sampler_3d_backward(
                _cut(g, parts).movedim(0, 1)[:, :, None, None],
                v.expand(parts, *v.shape),
                grid,
                _TRILINEAR,
                ctx.padding,
                True,
                list(wanted),
            )
            if wanted[0]:
                of_volume.append(pieces.sum(0) if parts > 1 else pieces[0])
            if wanted[1]:
                of_points.append(_by_points(by_grid, v, a))
        return (
            _stacked(of_volume) if wanted[0] else None,
            _stacked(of_points) if wanted[1] else None,
            None,
            None,
        )


def _parts(volume: Tensor) -> int:
    """How many parts of the points are worked on side by side; a GPU wants them in one."""
    return torch.get_num_threads() if volume.device.type == "cpu" else 1


def _cut(values: Tensor, parts: int) -> Tensor:
    """(C, X, Y, Z) to (C, parts, n), padded with zeros where the count does not divide."""
    flat = values.flatten(1)
    return F.pad(flat, (0, -flat.shape[1] % parts)).unflatten(1, (parts, -1))


def _joined(pieces: Tensor, shape: Sequence[int]) -> Tensor:
    """(C, parts, ..., n), without the points of the padding, to (C, *shape)."""
    return pieces.reshape(len(pieces), -1)[:, : math.prod(shape)].unflatten(1, tuple(shape))


def _stacked(samples: list[Tensor]) -> Tensor:
    return samples[0][None] if len(samples) == 1 else torch.stack(samples)


def _scales(volume: Tensor) -> list[float]:
    """Units of ``grid_sample`` a voxel: it goes from −1 to 1 between the centres of end voxels."""
    return [2 / max(n - 1, 1) for n in volume.shape[1:]]


def _grid(volume: Tensor, at: Tensor, relative: bool, parts: int) -> Tensor:
    """The points as ``grid_sample`` wants them, (parts, 1, 1, n, 3), last axis first."""
    count = at[0].numel()
    unit = volume.new_zeros if count % parts else volume.new_empty
    grid = unit((3, count + -count % parts))
    wide = torch.promote_types(at.dtype, volume.dtype)
    for axis, scale in enumerate(_scales(volume)):
        n = at.shape[1 + axis] if relative else 1
        start = torch.arange(n, dtype=wide, device=at.device) * scale - 1
        start = start.view([-1 if i == axis else 1 for i in range(3)])
        out = grid[2 - axis, :count].view(at.shape[1:])
        torch.add(start, at[axis], alpha=scale, out=out)
    return grid.view(3, parts, 1, 1, -1).movedim(0, -1)


def _by_points(by_grid: Tensor, volume: Tensor, at: Tensor) -> Tensor:
    """The gradient by ``_grid``'s answer as that by the points, (3, X, Y, Z)."""
    flat = by_grid.view(-1, 3)[: at[0].numel()]
    out = torch.empty_like(at, memory_format=torch.contiguous_format)
    for axis, scale in enumerate(_scales(volume)):
        torch.mul(flat[:, 2 - axis].view(at.shape[1:]), scale, out=out[axis])
    return out


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
    if nearest:
        at = identity_grid(displacement.shape[2:], displacement) + displacement
        return sample(volume, at, nearest=True, padding=padding)
    _check(volume, displacement)
    return _interpolate(volume, displacement, padding, relative=True)


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


def corrected_inverse(displacement: Tensor, inverse: Tensor, *, bound: float = 0.5) -> Tensor:
    """A better inverse w of u from a near one, by a step of Newton's method.

    With the residual r(y) = w(y) + u(y + w(y)):  w ← w − (I + ∇w) r, since I + ∇w is nearly the
    inverse of the Jacobian of Id + u there. Unlike fixed-point iteration it also converges where
    u stretches by more than two.

    Args:
        displacement: u, (B, 3, X, Y, Z), voxels.
        inverse: w, likewise.
        bound: longest change along an axis, voxels.
    """
    residual = inverse + warp(displacement, inverse, padding="border")
    change = residual.clone()
    for axis in range(3):
        _add_along(change, inverse, residual[:, axis : axis + 1], 2 + axis)
    return inverse - change.clamp_(-bound, bound)


def _add_along(out: Tensor, field: Tensor, by: Tensor, axis: int) -> None:
    """Add ∂field/∂axis · by, central differences, with little traffic to and from memory."""
    n = field.shape[axis]
    for first, count, before, after, share in (
        (1, n - 2, 0, 2, 0.5),
        (0, 1, 0, 1, 1.0),
        (n - 1, 1, n - 2, n - 1, 1.0),
    ):
        step = field.narrow(axis, after, count) - field.narrow(axis, before, count)
        there = out.narrow(axis, first, count)
        there.addcmul_(step, by.narrow(axis, first, count), value=share)


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


def downsample(field: Tensor) -> Tensor:
    """A displacement or velocity averaged down by two, in voxels of the coarse lattice.

    Args:
        field: (B, 3, X, Y, Z), even sides, in its own voxels.
    """
    return averaged(field, 2) / 2


def averaged(volume: Tensor, factor: int) -> Tensor:
    """The mean of blocks of ``factor``³ voxels, (B, C, X / factor, ...)."""
    return volume if factor == 1 else F.avg_pool3d(volume, factor)


def blocks(volume: Tensor, side: int) -> Tensor:
    """(B, X, Y, Z) to (B, X / side, Y / side, Z / side, side³): the voxels of each block."""
    b, x, y, z = volume.shape
    split = volume.reshape(b, x // side, side, y // side, side, z // side, side)
    return split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)


Crop = tuple[slice | EllipsisType, ...]


def padded(volume: Tensor, multiple: int, *, border: bool = False) -> tuple[Tensor, Crop]:
    """The volume with more around it up to sides of a multiple, and the slices that undo it.

    Zeros, or the border's value.
    """
    shape = volume.shape[2:]
    target = [-(-n // multiple) * multiple for n in shape]
    # F.pad wants (before, after) of the last axis first.
    pads = [((t - n) // 2, t - n - (t - n) // 2) for n, t in zip(shape, target, strict=True)]
    flat = [n for before_after in reversed(pads) for n in before_after]
    more = F.pad(volume, flat, mode="replicate" if border else "constant") if any(flat) else volume
    return more, crop(shape, target)


def crop(shape: Sequence[int], padded: Sequence[int]) -> Crop:
    """The slices that take a volume of ``shape`` out of the middle of a padded one."""
    starts = [(p - n) // 2 for n, p in zip(shape, padded, strict=True)]
    return (..., *(slice(s, s + n) for s, n in zip(starts, shape, strict=True)))


Differences = Literal["central", "forward", "backward"]


def jacobian_determinant(displacement: Tensor, *, differences: Differences = "central") -> Tensor:
    """det(I + ∇u), (B, X, Y, Z): the local change of volume of x ↦ x + u(x).

    Args:
        displacement: u, (B, 3, X, Y, Z), in voxels of its own lattice.
        differences: "central" (one-sided at the border), or one-sided everywhere. Central
            differences miss folds between neighbours (Liu et al., doi:10.1007/s11263-024-02047-1).
    """
    gradient = [difference(displacement, axis, differences) for axis in (2, 3, 4)]
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = (g.unbind(1) for g in gradient)
    xx, yy, zz = xx + 1, yy + 1, zz + 1
    return xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx)


def difference(field: Tensor, axis: int, differences: Differences = "central") -> Tensor:
    """The change a voxel along an axis of the tensor; at a border, to the only neighbour."""
    n = field.shape[axis]
    apart = 2 if differences == "central" else 1
    inner = field.narrow(axis, apart, n - apart) - field.narrow(axis, 0, n - apart)
    if apart == 2:
        inner = inner / 2
    first = field.narrow(axis, 1, 1) - field.narrow(axis, 0, 1)
    last = field.narrow(axis, n - 1, 1) - field.narrow(axis, n - 2, 1)
    ends = {"central": [first, inner, last], "forward": [inner, last], "backward": [first, inner]}
    return torch.cat(ends[differences], dim=axis)
