"""Costs of a registration: similarity of images, smoothness of fields, overlap of labels.

Each takes (B, C, X, Y, Z) tensors and returns a scalar to minimise, the mean of what it is for
each sample of the batch; each computes in float32 or wider, also under autocast, because variances
do not survive bf16. Gradients are of first order: those written out by hand have none themselves.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .field import compose


def local_ncc(*, moved: Tensor, fixed: Tensor, window: int = 9, eps: float = 1e-5) -> Tensor:
    """−mean of the squared local normalised cross-correlation; in [−1, 0], −1 for perfect.

    For each voxel p with window W(p) of ``window``³ voxels (fewer at the border) and local
    means f̄, m̄:  CC(p) = (Σ (f − f̄)(m − m̄))² / (Σ (f − f̄)² · Σ (m − m̄)² + ε).
    Equation 4 of Balakrishnan et al., CVPR 2018. Flat windows count as 0, with zero gradient.

    Args:
        moved, fixed: (B, C, X, Y, Z), intensities of about [0, 1].
        window: edge of the cubic window, odd, voxels.
        eps: guard of the denominator, for sums over a full window of intensities in [0, 1].
    """
    return -local_ncc_map(moved=moved, fixed=fixed, window=window, eps=eps).mean()


def local_ncc_map(*, moved: Tensor, fixed: Tensor, window: int = 9, eps: float = 1e-5) -> Tensor:
    """The squared local correlation of every voxel, in [0, 1]; see ``local_ncc``."""
    if window % 2 == 0 or window < 3:
        raise ValueError(f"window must be an odd number of voxels from 3, got {window}")
    with torch.autocast(fixed.device.type, enabled=False):
        pair = torch.broadcast_tensors(*_wide(fixed, moved))
        return _LocalCorrelation.apply(*pair, window, eps / window**6)


def _wide(*tensors: Tensor) -> list[Tensor]:
    """All in float32, or in float64 where one of them is."""
    wide = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    return [x.to(wide) for x in tensors]


# Planes along X that are worked on together, so that what is in between stays in cache.
# A GPU has no such cache, and wants more work at once.
_PLANES = 8


class _LocalCorrelation(torch.autograd.Function):
    """cc = A² / (F M + ε) with A = B[fm] − f̄ m̄, F = B[ff] − f̄², M = B[mm] − m̄², f̄ = B[f].

    B is the mean over windows and Bᵀ its adjoint. With a = g ∂cc/∂A and b = g ∂cc/∂M for the
    incoming gradient g, that of m is  f Bᵀ[a] + 2 m Bᵀ[b] − Bᵀ[a f̄ + 2 b m̄];  likewise of f.
    So three sums over windows a side are enough, and nothing else has to be kept.
    """

    @staticmethod
    def forward(ctx: Any, f: Tensor, m: Tensor, window: int, guard: float) -> Tensor:
        """The map, and where a gradient is wanted ∂cc/∂A, ∂cc/∂M, ∂cc/∂F and the bracket."""
        shape, (f, m) = f.shape, (x.detach().flatten(0, 1) for x in (f, m))
        # Centring first keeps the terms of the gradient small where images are bright and flat.
        centres = [x.mean(dim=(1, 2, 3), keepdim=True) for x in (f, m)]
        ctx.wanted, ctx.window = ctx.needs_input_grad[:2], window
        cc = f.new_empty(f.shape)
        slopes = cc.new_empty(1 + 2 * sum(ctx.wanted) if any(ctx.wanted) else 0, *f.shape)
        for rows in _slabs(f):
            images = [_around(x, rows, window, c) for x, c in zip((f, m), centres, strict=True)]
            means = _box_sum(_moments(*images), window).mul_(_share(f, rows, window))
            cc[:, rows], found = _correlate(means, guard, ctx.wanted, f.dtype)
            for slope, values in zip(slopes, found, strict=True):
                slope[:, rows] = values
        ctx.save_for_backward(f, m, *centres, slopes)
        return cc.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Slab by slab, as the map."""
        f, m, f_centre, m_centre, slopes = ctx.saved_tensors
        shape, gradient = gradient.shape, gradient.flatten(0, 1)
        out = [f.new_empty(f.shape) if wanted else None for wanted in ctx.wanted]
        for rows in _slabs(f):
            around, _ = _halo(f, rows, ctx.window)
            incoming = gradient[:, around] * _share(f, around, ctx.window).to(f.dtype)
            terms = _padded(slopes[:, :, around] * incoming, f, rows, ctx.window)
            across, *own = _box_sum(terms, ctx.window).unbind(0)
            images = f[:, rows] - f_centre, m[:, rows] - m_centre
            for side, into in enumerate(out):
                if into is not None:
                    of_variance, bracket, *own = own
                    torch.mul(images[1 - side], across, out=into[:, rows])
                    into[:, rows].addcmul_(images[side], of_variance, value=2).sub_(bracket)
        return *(x if x is None else x.view(shape) for x in out), None, None


def _correlate(
    means: Tensor, guard: float, wanted: Sequence[bool], dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """The map from the means of f, m, ff, mm, fm, and its slopes by A, by F and by M.

    Next to the slope by either variance comes the bracket that belongs to its image. Where the
    bound of cc holds, by rounding, there is no slope.
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
    if any(wanted):
        bound = cc > 1
        inverse.masked_fill_(bound, 0)
        slopes.append(slope.mul_(2).masked_fill_(bound, 0))
    for side, (own, other) in enumerate(((f1, m1), (m1, f1))):
        if wanted[side]:
            of_variance = (cc * variances[1 - side]).mul_(inverse).neg_()
            bracket = (slope * other.to(dtype)).addcmul_(of_variance, own.to(dtype), value=2)
            slopes += [of_variance, bracket]
    return cc.clamp_(max=1), slopes


def _moments(f: Tensor, m: Tensor) -> Tensor:
    """f, m, ff, mm, fm, one behind the other along a new first axis."""
    moments = f.new_empty(5, *f.shape)
    moments[0], moments[1] = f, m
    for out, (a, b) in zip(moments[2:], ((f, f), (m, m), (f, m)), strict=True):
        torch.mul(a, b, out=out)
    return moments


def _slabs(x: Tensor) -> list[slice]:
    """The planes of (N, X, Y, Z) along X, some at a time."""
    planes = _PLANES if x.device.type == "cpu" else 8 * _PLANES
    return [slice(i, min(i + planes, x.shape[1])) for i in range(0, x.shape[1], planes)]


def _halo(x: Tensor, rows: slice, window: int) -> tuple[slice, tuple[int, int]]:
    """The planes that windows around ``rows`` reach, and how many are missing on either side."""
    first, last = rows.start - window // 2, rows.stop + window // 2
    around = slice(max(first, 0), min(last, x.shape[1]))
    return around, (around.start - first, last - around.stop)


def _around(x: Tensor, rows: slice, window: int, centre: Tensor) -> Tensor:
    """The rows with their halo, centred, zero outside: (N, rows + window − 1, Y, Z), float64.

    Products of float32 are exact in it, and the variance of a flat window is zero. In float32 it is
    noise that ε does not cover, and its gradient, at the rim of the background, as large as others.
    """
    around, _ = _halo(x, rows, window)
    return _padded(x[:, around].double() - centre, x, rows, window)


def _padded(values: Tensor, x: Tensor, rows: slice, window: int) -> Tensor:
    """With planes of zeros in place of those that the halo of the rows is missing in ``x``."""
    _, missing = _halo(x, rows, window)
    return F.pad(values, (0, 0, 0, 0, *missing)) if any(missing) else values


def _box_sum(x: Tensor, window: int) -> Tensor:
    """Sums over windows: (..., X + window − 1, Y, Z) to (..., X, Y, Z), zero outside of Y and Z.

    X goes first, which leaves the halo behind. Sums of 1, 2, 4, ... neighbours are made of one
    another and added up to the window: as few additions as there are binary digits and ones in
    it, none of large numbers (unlike running sums, whose rounding a variance would not survive).
    """
    reach = window // 2
    x = _sum_along(x, -3, window)
    x = _sum_along(F.pad(x, (0, 0, reach, reach)), -2, window)
    return _sum_along(F.pad(x, (reach, reach)), -1, window)


def _sum_along(x: Tensor, axis: int, window: int) -> Tensor:
    """Sums of ``window`` neighbours along an axis, which gets shorter by window − 1."""
    length = x.shape[axis] - window + 1
    total, start, size = None, 0, 1
    while True:
        if window & size:
            part = x.narrow(axis, start, length)
            # The first part is the image itself (the window is odd), not to be written to.
            total = part if total is None else total.add_(part) if start > 1 else total + part
            start += size
        if 2 * size > window:
            return total  # type: ignore[return-value]
        rest = x.shape[axis] - size
        x = x.narrow(axis, 0, rest) + x.narrow(axis, size, rest)
        size *= 2


def _share(x: Tensor, rows: slice, window: int) -> Tensor:
    """One over the number of voxels of each window that are inside, (rows, Y, Z), float64."""
    counts = []
    for n in x.shape[1:]:
        i = torch.arange(n, device=x.device)
        reach = window // 2
        inside = (i + reach).clamp(max=n - 1) - (i - reach).clamp(min=0) + 1
        counts.append(inside.double().reciprocal())
    return counts[0][rows, None, None] * (counts[1][:, None] * counts[2])


def mse(*, moved: Tensor, fixed: Tensor) -> Tensor:
    """Mean squared difference of intensities; from 0, which is perfect."""
    with torch.autocast(fixed.device.type, enabled=False):
        fixed, moved = _wide(fixed, moved)
        return F.mse_loss(moved, fixed)


def mutual_information(*, moved: Tensor, fixed: Tensor, bins: int = 32) -> Tensor:
    """−mutual information in nats, Σ p(f, m) ln (p(f, m) / p(f) p(m)); in [−ln(bins), 0].

    p counts each voxel into four bins a side by cubic B-spline weights, which are smooth and sum
    to one: Thévenaz & Unser, doi:10.1109/83.887976. Mean over the images of a batch. It sees no
    one-to-one change of contrast, save what the width of the bins blurs.

    Args:
        moved, fixed: (B, C, X, Y, Z), intensities in [0, 1]; those beyond count as the nearest,
            with zero gradient.
        bins: of either axis of the joint histogram, one of them beyond either end of [0, 1].
    """
    if bins < 4:
        raise ValueError(f"bins must be at least 4, got {bins}")
    with torch.autocast(fixed.device.type, enabled=False):
        images = (x.flatten(0, 1).flatten(1) for x in _wide(fixed, moved))
        found = [_information(_joint(f, m, bins)) for f, m in zip(*images, strict=True)]
        return -torch.stack(found).mean()


def _information(joint: Tensor) -> Tensor:
    """Σ p ln p − Σ p_f ln p_f − Σ p_m ln p_m, where 0 ln 0 is 0, with a finite slope."""
    least = torch.finfo(joint.dtype).tiny
    tables = joint, joint.sum(0), joint.sum(1)
    both, f, m = ((p * p.clamp(min=least).log()).sum() for p in tables)
    return both - f - m


_VOXELS = 2**18  # of a histogram, at a time: (voxels, bins) weights for either image


def _joint(f: Tensor, m: Tensor, bins: int) -> Tensor:
    """p(f, m), (bins, bins), of (N,) intensities; the weights are made again for the gradient."""
    joint = f.new_zeros(bins, bins)
    for part in zip(f.split(_VOXELS), m.split(_VOXELS), strict=True):
        counts = checkpoint(_counts, *part, bins, use_reentrant=False, preserve_rng_state=False)
        joint = joint + counts
    return joint / len(f)


def _counts(f: Tensor, m: Tensor, bins: int) -> Tensor:
    return _weights(f, bins).T @ _weights(m, bins)


def _weights(x: Tensor, bins: int) -> Tensor:
    """(N, bins): the cubic B-spline around 1 + (bins − 3) x at every bin."""
    at = 1 + (bins - 3) * x.clamp(0, 1)
    # At the upper end the fourth weight is zero; the bin before has it.
    first = at.detach().floor().clamp(max=bins - 3)
    t = at - first
    s = 1 - t
    inner = [2 / 3 - a * a + a * a * a / 2 for a in (t, s)]
    weights = torch.stack([s * s * s / 6, *inner, t * t * t / 6], dim=1)
    index = first.long()[:, None] + torch.arange(-1, 3, device=x.device)
    return x.new_zeros(len(x), bins).scatter(1, index, weights)


def diffusion(field: Tensor) -> Tensor:
    """Mean over axes and components of the squared difference of neighbours, ‖∇u‖²; from 0.

    Equation 5 of Balakrishnan et al., CVPR 2018; no unit (voxels per voxel). Weight it with λ.
    """
    return _roughness(field, [(1 / 3, (axis,)) for axis in (2, 3, 4)])


def bending(field: Tensor) -> Tensor:
    """Mean over components and the nine second differences, squared, ‖∇∇u‖²; from 0.

    Mixed ones, ∂²/∂x∂y, count twice, as in Rueckert et al., doi:10.1109/42.796284, who take the
    sum over the nine. Per voxel; zero for affine fields. Sides of 3 voxels or more.
    """
    pairs = itertools.combinations_with_replacement((2, 3, 4), 2)
    return _roughness(field, [((1 if a == b else 2) / 9, (a, b)) for a, b in pairs])


_Differences = Sequence[tuple[float, tuple[int, ...]]]  # weight, and the axes of the differences


def _roughness(field: Tensor, terms: _Differences) -> Tensor:
    """Σ weight · mean squared difference along one axis after the other."""
    with torch.autocast(field.device.type, enabled=False):
        return _Roughness.apply(*_wide(field), terms)


class _Roughness(torch.autograd.Function):
    """The sum and its gradient together: one field is kept instead of every difference of it."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, terms: _Differences) -> Tensor:
        """Σ w mean((D u)²), with the gradient Σ 2 w / n · Dᵀ D u."""
        total = field.new_zeros(())
        wanted = ctx.needs_input_grad[0]
        gradient = field.new_zeros(field.shape) if wanted else None
        for weight, axes in terms:
            steps = field
            for axis in axes:
                steps = steps.diff(dim=axis)
            total += weight * steps.square().mean()
            if gradient is not None:
                _add_adjoint(gradient, steps.mul_(2 * weight / steps.numel()), axes)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None]:
        """The gradient is there; it only has to be scaled."""
        (gradient,) = ctx.saved_tensors
        return gradient * incoming, None


def _add_adjoint(out: Tensor, steps: Tensor, axes: Sequence[int]) -> None:
    """Add Dᵀ of the steps to ``out``, where D takes differences along the axes in turn."""
    for axis in reversed(axes[1:]):
        shape = [n + (i == axis) for i, n in enumerate(steps.shape)]
        before = steps.new_zeros(shape)
        _add_adjoint(before, steps, (axis,))
        steps = before
    n = steps.shape[axes[0]]
    out.narrow(axes[0], 1, n).add_(steps)
    out.narrow(axes[0], 0, n).sub_(steps)


def inverse_consistency(displacement: Tensor, inverse: Tensor) -> Tensor:
    """Mean over voxels of |u(x) + w(x + u(x))|² and |w(x) + u(x + w(x))|², voxels²; from 0.

    Both ways averaged: Christensen & Johnson, doi:10.1109/42.932742. Beyond the lattice a field
    has its border value, as in ``field.compose``. For exp(v) and exp(−v) the error of integration
    and interpolation is left.

    Args:
        displacement: u, (B, 3, X, Y, Z), voxels.
        inverse: w, likewise; of an inverse (Id + u) ∘ (Id + w) = Id.
    """
    with torch.autocast(displacement.device.type, enabled=False):
        u, w = _wide(displacement, inverse)
        left = [compose(*pair).square().sum(dim=1).mean() for pair in ((w, u), (u, w))]
        return torch.stack(left).mean()


def soft_dice(*, moved: Tensor, fixed: Tensor, eps: float = 1e-5) -> Tensor:
    """1 − mean Dice of label channels with values in [0, 1]; in [0, 1], 0 for perfect.

    Equation 10 of Balakrishnan et al., doi:10.1109/TMI.2019.2897538. The Dice is of each channel
    of each pair; a channel that is empty on both sides counts as perfect. Integers and booleans
    are taken as they are: masks of 0 and 1.
    """
    with torch.autocast(fixed.device.type, enabled=False):
        fixed, moved = _wide(fixed, moved)
        overlap = 2 * (fixed * moved).sum(dim=(2, 3, 4)) + eps
        return 1 - (overlap / (fixed.sum(dim=(2, 3, 4)) + moved.sum(dim=(2, 3, 4)) + eps)).mean()


def segmentation(log_odds: Tensor, labels: Tensor, *, eps: float = 1.0) -> Tensor:
    """Cross-entropy + (1 − mean soft Dice) of what is recognised in voxels; from 0, for perfect.

    A voxel may stand for several of the label map, each of which counts the same. The Dice is of
    the classes that are among the labels: Milletari et al., doi:10.1109/3DV.2016.79, as sums of
    probabilities; both together as in nnU-Net, doi:10.1038/s41592-020-01008-z.

    Args:
        log_odds: (N, classes) of N voxels; a softmax makes them probabilities.
        labels: (N, S), numbers of the classes of the S voxels of the label map behind each.
        eps: voxels, in numerator and denominator of each Dice.
    """
    with torch.autocast(log_odds.device.type, enabled=False):
        (log_odds,), at = _wide(log_odds), labels.long()
        log_p = F.log_softmax(log_odds, dim=1)
        entropy = -log_p.gather(1, at).mean()
        p, share = log_p.exp(), 1 / at.shape[1]
        zeros = p.new_zeros(p.shape[1])
        overlap = zeros.index_add(0, at.flatten(), p.gather(1, at).flatten()) * share
        truth = (
            zeros.index_add(0, at.flatten(), torch.ones_like(at, dtype=p.dtype).flatten()) * share
        )
        dice = (2 * overlap + eps) / (p.sum(dim=0) + truth + eps)
        there = (truth > 0).to(p.dtype)
        return entropy + 1 - (dice * there).sum() / there.sum()
