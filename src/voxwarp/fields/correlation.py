"""The squared local correlation of two images and its gradient, in slabs that fit a CPU's cache."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import compiled

# Planes along X that are computed together on a CPU, so that intermediate results stay in its
# cache; on a GPU, eight times as many, to keep it busy. Set by hand.
_PLANES = 8


def squared_correlation(*, moved: Tensor, fixed: Tensor, window: int, guard: float) -> Tensor:
    """The squared correlation of two images in the window around each voxel, in [0, 1].

    Args:
        moved: (B, C, X, Y, Z), float32 or float64.
        fixed: likewise.
        window: edge of the cubic window, odd, voxels.
        guard: ε, added to the product of the variances.
    """
    if compiled.can_differentiate(fixed, moved):
        return _CompiledCorrelation.apply(fixed, moved, window, guard)
    return _LocalCorrelation.apply(fixed, moved, window, guard)


class _CompiledCorrelation(torch.autograd.Function):
    """As ``_LocalCorrelation``, by kernels that compute the slopes of one image at a time."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, m: Tensor, window: int, guard: float) -> Tensor:
        """Compute the map and, if gradients are needed, its slopes."""
        ctx.window, shape = window, f.shape
        f, m = (x.flatten(0, 1) for x in (f, m))
        by_f, by_m = ctx.needs_input_grad[:2]
        cc, slopes = compiled.squared_correlation(f, m, window, guard, slopes=by_m)
        other = compiled.squared_correlation(m, f, window, guard, slopes=True)[1] if by_f else None
        ctx.save_for_backward(f, m, other, slopes if by_m else None)
        return cc.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the images that need them."""
        f, m, by_f, by_m = ctx.saved_tensors
        shape, incoming = gradient.shape, gradient.flatten(0, 1)
        sides = (m, f, by_f), (f, m, by_m)
        out = (
            None
            if slopes is None
            else compiled.correlation_gradient(other, own, slopes, incoming, ctx.window).view(shape)
            for other, own, slopes in sides
        )
        return *out, None, None


class _LocalCorrelation(torch.autograd.Function):
    """cc = A² / (F M + ε) with A = B[fm] − f̄ m̄, F = B[ff] − f̄², M = B[mm] − m̄², f̄ = B[f].

    B is the mean over windows and Bᵀ its adjoint. With a = g ∂cc/∂A and b = g ∂cc/∂M for the
    incoming gradient g, the gradient of m is  f Bᵀ[a] + 2 m Bᵀ[b] − Bᵀ[a f̄ + 2 b m̄];  that of f is
    the same with f and m exchanged. So three sums over windows per image are enough, and only
    the slopes have to be kept.
    """

    @staticmethod
    def forward(ctx: Any, f: Tensor, m: Tensor, window: int, guard: float) -> Tensor:
        """Compute the map and, if gradients are needed, its slopes; see ``_correlate``."""
        shape, (f, m) = f.shape, (x.detach().flatten(0, 1) for x in (f, m))
        # Centring first keeps the terms of the gradient small where images are bright and flat.
        centres = [x.mean(dim=(1, 2, 3), keepdim=True) for x in (f, m)]
        ctx.needed, ctx.window = ctx.needs_input_grad[:2], window
        cc = f.new_empty(f.shape)
        slopes = cc.new_empty(1 + 2 * sum(ctx.needed) if any(ctx.needed) else 0, *f.shape)
        for rows in _slabs(f):
            images = [_around(x, rows, window, c) for x, c in zip((f, m), centres, strict=True)]
            means = _box_sum(_moments(*images), window).mul_(_weight(f, rows, window))
            cc[:, rows], slab_slopes = _correlate(means, guard, ctx.needed, f.dtype)
            for slope, values in zip(slopes, slab_slopes, strict=True):
                slope[:, rows] = values
        ctx.save_for_backward(f, m, *centres, slopes)
        return cc.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients slab by slab, like the map."""
        f, m, f_centre, m_centre, slopes = ctx.saved_tensors
        shape, gradient = gradient.shape, gradient.flatten(0, 1)
        out = [f.new_empty(f.shape) if needed else None for needed in ctx.needed]
        for rows in _slabs(f):
            around, _ = _halo(f, rows, ctx.window)
            incoming = gradient[:, around] * _weight(f, around, ctx.window).to(f.dtype)
            terms = _padded(slopes[:, :, around] * incoming, f, rows, ctx.window)
            across, *own = _box_sum(terms, ctx.window).unbind(0)
            images = f[:, rows] - f_centre, m[:, rows] - m_centre
            for side, image_gradient in enumerate(out):
                if image_gradient is not None:
                    by_variance, bracket, *own = own
                    torch.mul(images[1 - side], across, out=image_gradient[:, rows])
                    image_gradient[:, rows].addcmul_(images[side], by_variance, value=2)
                    image_gradient[:, rows].sub_(bracket)
        return *(x if x is None else x.view(shape) for x in out), None, None


def _correlate(
    means: Tensor, guard: float, needed: Sequence[bool], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """The map and its slopes, from the window means of f, m, ff, mm and fm.

    The slopes are ∂cc/∂A and, for each image whose gradient is needed, the one by its variance
    (F or M) and the sum in the bracket of its gradient. Where rounding makes cc larger than 1, it
    is 1 and the slopes are 0.
    """
    f1, m1, ff, mm, fm = means.unbind(0)
    across = fm.addcmul_(f1, m1, value=-1).to(dtype)
    variances = [
        xx.addcmul_(x1, x1, value=-1).clamp_(min=0).to(dtype) for xx, x1 in ((ff, f1), (mm, m1))
    ]
    inverse = (variances[0] * variances[1]).add_(guard).reciprocal_()
    slope = across * inverse
    cc = across * slope
    slopes: list[Tensor] = []
    if any(needed):
        too_large = cc > 1
        inverse.masked_fill_(too_large, 0)
        slopes.append(slope.mul_(2).masked_fill_(too_large, 0))
    for side, (own, other) in enumerate(((f1, m1), (m1, f1))):
        if needed[side]:
            by_variance = (cc * variances[1 - side]).mul_(inverse).neg_()
            bracket = (slope * other.to(dtype)).addcmul_(by_variance, own.to(dtype), value=2)
            slopes += [by_variance, bracket]
    return cc.clamp_(max=1), slopes


def _moments(f: Tensor, m: Tensor) -> Tensor:
    """Stack f, m, ff, mm and fm along a new first axis."""
    moments = f.new_empty(5, *f.shape)
    moments[0], moments[1] = f, m
    for out, (a, b) in zip(moments[2:], ((f, f), (m, m), (f, m)), strict=True):
        torch.mul(a, b, out=out)
    return moments


def _slabs(x: Tensor) -> list[slice]:
    """Slices of (N, X, Y, Z) along X, of a few planes each."""
    planes = _PLANES if x.device.type == "cpu" else 8 * _PLANES
    return [slice(i, min(i + planes, x.shape[1])) for i in range(0, x.shape[1], planes)]


def _halo(x: Tensor, rows: slice, window: int) -> tuple[slice, tuple[int, int]]:
    """The planes in the windows around ``rows``, and how many are missing on either side."""
    first, last = rows.start - window // 2, rows.stop + window // 2
    around = slice(max(first, 0), min(last, x.shape[1]))
    return around, (around.start - first, last - around.stop)


def _around(x: Tensor, rows: slice, window: int, centre: Tensor) -> Tensor:
    """The rows with their halo, centred, zero outside: (N, rows + window − 1, Y, Z), float64.

    In float64, products of float32 are exact and the variance of a flat window is zero. In float32
    that variance is noise larger than ε, and at the rim of the background its gradient is as large
    as real ones.
    """
    around, _ = _halo(x, rows, window)
    return _padded(x[:, around].double() - centre, x, rows, window)


def _padded(values: Tensor, x: Tensor, rows: slice, window: int) -> Tensor:
    """Pad the values with planes of zeros where the halo of ``rows`` extends beyond ``x``."""
    _, missing = _halo(x, rows, window)
    return F.pad(values, (0, 0, 0, 0, *missing)) if any(missing) else values


def _box_sum(x: Tensor, window: int) -> Tensor:
    """Sums over windows: (..., X + window − 1, Y, Z) to (..., X, Y, Z), zero outside Y and Z.

    X goes first, because that removes the halo. Sums of 1, 2, 4, ... neighbours are made from one
    another and added up to the window. This takes few additions (one per binary digit and one per
    binary 1 of the window) and adds no large numbers, unlike running sums, whose rounding would
    spoil a variance.
    """
    reach = window // 2
    x = _sum_along(x, -3, window)
    x = _sum_along(F.pad(x, (0, 0, reach, reach)), -2, window)
    return _sum_along(F.pad(x, (reach, reach)), -1, window)


def _sum_along(x: Tensor, axis: int, window: int) -> Tensor:
    """Sums of ``window`` neighbours along an axis, which becomes shorter by window − 1."""
    length = x.shape[axis] - window + 1
    total, start, size = None, 0, 1
    while True:
        if window & size:
            part = x.narrow(axis, start, length)
            # The first part is the image itself (the window is odd), so it is not changed.
            total = part if total is None else total.add_(part) if start > 1 else total + part
            start += size
        if 2 * size > window:
            return total  # type: ignore[return-value]
        rest = x.shape[axis] - size
        x = x.narrow(axis, 0, rest) + x.narrow(axis, size, rest)
        size *= 2


def _weight(x: Tensor, rows: slice, window: int) -> Tensor:
    """1 / number of voxels of each window that are inside the image, (rows, Y, Z), float64."""
    counts = []
    for n in x.shape[1:]:
        i = torch.arange(n, device=x.device)
        reach = window // 2
        inside = (i + reach).clamp(max=n - 1) - (i - reach).clamp(min=0) + 1
        counts.append(inside.double().reciprocal())
    return counts[0][rows, None, None] * (counts[1][:, None] * counts[2])
