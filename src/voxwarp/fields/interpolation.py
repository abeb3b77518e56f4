"""Interpolation of volumes at points, the only one of voxwarp apart from cubic splines."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import compiled

Padding = Literal["zeros", "border"]

# PyTorch cannot gather unsigned integers of more than 8 bits, but signed ones of the same size.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def sample(
    volume: Tensor, at: Tensor, *, nearest: bool = False, padding: Padding = "zeros"
) -> Tensor:
    """Sample a volume at points, by trilinear or nearest-neighbour interpolation.

    Args:
        volume: (B, C, X, Y, Z); floating point, or any type with ``nearest``.
        at: (B, 3, X', Y', Z') coordinates of the points, in voxels of ``volume``.
        nearest: copy the value of the nearest voxel exactly (halves go up).
        padding: values outside the volume: "zeros", or "border" for the value at the nearest
            point of its border.

    Returns:
        (B, C, X', Y', Z') in the type of ``volume``.

    Raises:
        ValueError: the tensors do not have these shapes.
    """
    _check(volume, at)
    if nearest:
        return _sample_nearest(volume, at, padding)
    return _interpolate(volume, at, padding, relative=False)


def sample_displaced(volume: Tensor, displacement: Tensor, *, padding: Padding) -> Tensor:
    """Sample a volume trilinearly at x + u(x), without making the points x + u(x) first.

    Args:
        volume: (B, C, X, Y, Z), floating point.
        displacement: u, (B, 3, X', Y', Z'), voxels of ``volume``.
        padding: as in ``sample``.

    Raises:
        ValueError: the tensors do not have these shapes.
    """
    _check(volume, displacement)
    return _interpolate(volume, displacement, padding, relative=True)


def _check(volume: Tensor, at: Tensor) -> None:
    if volume.ndim != 5 or at.ndim != 5 or at.shape[1] != 3 or at.shape[0] != volume.shape[0]:
        raise ValueError(
            f"volume must be (B, C, X, Y, Z) and at (B, 3, X', Y', Z'), "
            f"got {tuple(volume.shape)} and {tuple(at.shape)}"
        )


def _interpolate(volume: Tensor, at: Tensor, padding: Padding, *, relative: bool) -> Tensor:
    """volume(at), or with ``relative`` volume(x + at(x)); trilinear."""
    # 16-bit floats have too few digits for the weights of the eight corners.
    is_16_bit = volume.dtype in (torch.float16, torch.bfloat16)
    wide = volume.float() if is_16_bit else volume
    return _Interpolation.apply(wide, at, padding, relative).to(volume.dtype)


# The numbers of the modes in PyTorch's C++ functions.
_TRILINEAR, _PADDING = 0, {"zeros": 0, "border": 1}
# Most parts if the volume needs a gradient, because each part takes the memory of one more volume.
_PARTS_WITH_GRADIENT = 8


class _Interpolation(torch.autograd.Function):
    """``grid_sample`` on all cores; on a CPU, PyTorch runs only one thread per sample of a batch.

    The points of a sample are cut into parts, which are stacked as a batch with the same volume
    (a view, not copies). The points in PyTorch's units and order of axes are computed again for
    the gradient; autograd would keep them in memory.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, at: Tensor, padding: Padding, relative: bool) -> Tensor:
        """Interpolate the samples of the batch one after the other."""
        ctx.save_for_backward(volume, at)
        ctx.padding, ctx.relative = _PADDING[padding], relative
        ctx.compiled = compiled.can_take(volume, at)
        if ctx.compiled:
            return compiled.sample(volume, at, relative=relative, zeros=padding == "zeros")
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
        """Compute only the gradients that are needed: images need none, velocities do."""
        volume, at = ctx.saved_tensors
        needed = ctx.needs_input_grad[:2]
        if ctx.compiled:
            how = {"relative": ctx.relative, "zeros": ctx.padding == _PADDING["zeros"]}
            return (
                compiled.gradient_by_volume(volume, at, gradient, **how) if needed[0] else None,
                compiled.gradient_by_points(volume, at, gradient, **how) if needed[1] else None,
                None,
                None,
            )
        parts = min(_parts(volume), _PARTS_WITH_GRADIENT) if needed[0] else _parts(volume)
        volume_gradients, point_gradients = [], []
        for v, a, g in zip(volume, at, gradient, strict=True):
            grid = _grid(v, a, ctx.relative, parts)
            by_volume, by_grid = torch.ops.aten.grid_sampler_3d_backward(
                _cut(g, parts).movedim(0, 1)[:, :, None, None],
                v.expand(parts, *v.shape),
                grid,
                _TRILINEAR,
                ctx.padding,
                True,
                list(needed),
            )
            if needed[0]:
                volume_gradients.append(by_volume.sum(0) if parts > 1 else by_volume[0])
            if needed[1]:
                point_gradients.append(_by_points(by_grid, v, a))
        return (
            _stacked(volume_gradients) if needed[0] else None,
            _stacked(point_gradients) if needed[1] else None,
            None,
            None,
        )


def _parts(volume: Tensor) -> int:
    """The number of parts of the points: one per thread on a CPU, one on a GPU."""
    return torch.get_num_threads() if volume.device.type == "cpu" else 1


def _cut(values: Tensor, parts: int) -> Tensor:
    """(C, X, Y, Z) to (C, parts, n), padded with zeros to a multiple of the parts."""
    flat = values.flatten(1)
    return F.pad(flat, (0, -flat.shape[1] % parts)).unflatten(1, (parts, -1))


def _joined(pieces: Tensor, shape: Sequence[int]) -> Tensor:
    """(C, parts, ..., n) to (C, *shape), without the padding."""
    return pieces.reshape(len(pieces), -1)[:, : math.prod(shape)].unflatten(1, tuple(shape))


def _stacked(samples: list[Tensor]) -> Tensor:
    return samples[0][None] if len(samples) == 1 else torch.stack(samples)


def _scales(volume: Tensor) -> list[float]:
    """Units of ``grid_sample`` per voxel: −1 and 1 are the centres of the end voxels."""
    return [2 / max(n - 1, 1) for n in volume.shape[1:]]


def _grid(volume: Tensor, at: Tensor, relative: bool, parts: int) -> Tensor:
    """The points as ``grid_sample`` takes them, (parts, 1, 1, n, 3), last axis first."""
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
    """Turn the gradient by the output of ``_grid`` into that by the points, (3, X, Y, Z)."""
    flat = by_grid.view(-1, 3)[: at[0].numel()]
    out = torch.empty_like(at, memory_format=torch.contiguous_format)
    for axis, scale in enumerate(_scales(volume)):
        torch.mul(flat[:, 2 - axis].view(at.shape[1:]), scale, out=out[axis])
    return out


def _sample_nearest(volume: Tensor, at: Tensor, padding: Padding) -> Tensor:
    sizes = volume.shape[2:]
    # Half as wide numbers take half the time, which is that of the memory.
    kind = torch.int32 if math.prod(sizes) < 2**31 else torch.int64
    flat = torch.zeros((), dtype=kind, device=at.device)
    inside = torch.ones((), dtype=torch.bool, device=at.device)
    for points, n in zip(at.unbind(1), sizes, strict=True):
        index = (points + 0.5).floor_().clamp_(-1, n).to(kind)  # (B, X', Y', Z')
        if padding == "zeros":
            inside = inside & (index >= 0) & (index < n)
        flat = flat * n + index.clamp_(0, n - 1)
    bits = volume.view(_SIGNED.get(volume.dtype, volume.dtype)).flatten(2)
    picked = [b.index_select(1, f.flatten()) for b, f in zip(bits, flat, strict=True)]
    values = _stacked(picked).unflatten(2, tuple(at.shape[2:]))
    if padding == "zeros":
        values = torch.where(inside.unsqueeze(1), values, torch.zeros_like(values[:1, :1, :1]))
    return values.view(volume.dtype)
