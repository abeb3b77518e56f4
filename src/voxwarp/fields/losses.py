"""Losses of a registration: similarity of images, smoothness of fields, overlap of labels.

Each takes (B, C, X, Y, Z) tensors and returns a scalar to minimise, the mean over the samples of
the batch. Each computes in float32 or float64, also under autocast, because bf16 is too coarse for
variances. Only first derivatives exist: the gradients written by hand cannot be differentiated.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from . import compiled
from .correlation import squared_correlation
from .field import compose


def local_ncc(*, moved: Tensor, fixed: Tensor, window: int = 9, eps: float = 1e-5) -> Tensor:
    """Local normalised cross-correlation: −mean CC, in [−1, 0]; −1 is perfect.

    For each voxel p with window W(p) of ``window``³ voxels (fewer at the border) and local
    means f̄, m̄:  CC(p) = (Σ (f − f̄)(m − m̄))² / (Σ (f − f̄)² · Σ (m − m̄)² + ε).
    Equation 4 of Balakrishnan et al., CVPR 2018. Flat windows count as 0, with zero gradient.

    Args:
        moved: (B, C, X, Y, Z), intensities of about [0, 1].
        fixed: likewise.
        window: edge of the cubic window, odd, voxels; 9 in the paper.
        eps: ε, for sums over a full window of intensities in [0, 1]; that of VoxelMorph's code.

    Raises:
        ValueError: the window is even, or smaller than 3 voxels.
    """
    return -local_ncc_map(moved=moved, fixed=fixed, window=window, eps=eps).mean()


def local_ncc_map(*, moved: Tensor, fixed: Tensor, window: int = 9, eps: float = 1e-5) -> Tensor:
    """The squared local correlation CC at every voxel, in [0, 1]; see ``local_ncc``."""
    if window % 2 == 0 or window < 3:
        raise ValueError(f"window must be an odd number of at least 3 voxels, got {window}")
    with torch.autocast(fixed.device.type, enabled=False):
        fixed, moved = torch.broadcast_tensors(*_wide(fixed, moved))
        # ε is for a product of two sums; the guard is for one of means, each window³ times smaller.
        guard = eps / window**6
        return squared_correlation(moved=moved, fixed=fixed, window=window, guard=guard)


def _wide(*tensors: Tensor) -> list[Tensor]:
    """All tensors in float32, or all in float64 if one of them is."""
    wide = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    return [x.to(wide) for x in tensors]


def mse(*, moved: Tensor, fixed: Tensor) -> Tensor:
    """Mean squared difference of intensities; 0 is perfect."""
    with torch.autocast(fixed.device.type, enabled=False):
        fixed, moved = _wide(fixed, moved)
        return F.mse_loss(moved, fixed)


def mutual_information(*, moved: Tensor, fixed: Tensor, bins: int = 32) -> Tensor:
    """Mutual information: −Σ p(f, m) ln (p(f, m) / p(f) p(m)) in nats; in [−ln(bins), 0].

    The joint histogram p counts each voxel into four bins of either image by cubic B-spline
    weights, which are smooth and sum to one: Thévenaz & Unser, doi:10.1109/83.887976. The loss is
    the mean over the images of a batch. Apart from the blur of the bins, one-to-one changes of
    contrast do not change it.

    Args:
        moved: (B, C, X, Y, Z), intensities in [0, 1]; those outside count as the nearest end,
            with zero gradient.
        fixed: likewise.
        bins: number of bins of either axis of the joint histogram; one of them lies beyond either
            end of [0, 1]. The default is set by hand.

    Raises:
        ValueError: fewer than 4 bins.
    """
    if bins < 4:
        raise ValueError(f"bins must be at least 4, got {bins}")
    with torch.autocast(fixed.device.type, enabled=False):
        images = (x.flatten(0, 1).flatten(1) for x in _wide(fixed, moved))
        information = [_information(_joint(f, m, bins)) for f, m in zip(*images, strict=True)]
        return -torch.stack(information).mean()


def _information(joint: Tensor) -> Tensor:
    """Σ p ln p − Σ p_f ln p_f − Σ p_m ln p_m, where 0 ln 0 is 0 and has a finite slope."""
    least = torch.finfo(joint.dtype).tiny
    histograms = joint, joint.sum(0), joint.sum(1)
    p_joint, p_f, p_m = ((p * p.clamp(min=least).log()).sum() for p in histograms)
    return p_joint - p_f - p_m


# Voxels counted at a time, because each takes ``bins`` weights of either image. Set by hand.
_VOXELS = 2**18


def _joint(f: Tensor, m: Tensor, bins: int) -> Tensor:
    """p(f, m), (bins, bins), of intensities (N,); the gradient recomputes the weights."""
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
    # At the upper end the fourth weight is zero, so the bins start one earlier.
    first = at.detach().floor().clamp(max=bins - 3)
    t = at - first
    s = 1 - t
    inner = [2 / 3 - a * a + a * a * a / 2 for a in (t, s)]
    weights = torch.stack([s * s * s / 6, *inner, t * t * t / 6], dim=1)
    index = first.long()[:, None] + torch.arange(-1, 3, device=x.device)
    return x.new_zeros(len(x), bins).scatter(1, index, weights)


def diffusion(field: Tensor) -> Tensor:
    """Diffusion ‖∇u‖²: mean squared difference of neighbours over axes and components, from 0.

    Equation 5 of Balakrishnan et al., CVPR 2018.

    Args:
        field: u, (B, C, X, Y, Z), voxels.

    Returns:
        The mean, without unit (voxels per voxel, squared).
    """
    return _roughness(field, [(1 / 3, (axis,)) for axis in (2, 3, 4)])


def bending(field: Tensor) -> Tensor:
    """Bending energy ‖∇∇u‖²: mean of the nine squared second differences, from 0.

    Mixed differences, ∂²/∂x∂y, count twice, as in Rueckert et al., doi:10.1109/42.796284, who sum
    over the nine instead. It is zero for affine fields.

    Args:
        field: u, (B, C, X, Y, Z), voxels, with sides of 3 voxels or more.
    """
    pairs = itertools.combinations_with_replacement((2, 3, 4), 2)
    return _roughness(field, [((1 if a == b else 2) / 9, (a, b)) for a, b in pairs])


_Differences = Sequence[tuple[float, tuple[int, ...]]]  # a weight and the axes of each difference


def _roughness(field: Tensor, differences: _Differences) -> Tensor:
    """Σ weight · mean squared difference, taken along the axes one after the other."""
    with torch.autocast(field.device.type, enabled=False):
        return _Roughness.apply(*_wide(field), differences)


class _Roughness(torch.autograd.Function):
    """The sum and its gradient in one pass: only one field is kept instead of all differences."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, differences: _Differences) -> Tensor:
        """Compute Σ w mean((D u)²) and its gradient Σ 2 w / n · Dᵀ D u."""
        if compiled.can_take(field) and [axes for _, axes in differences] == [(2,), (3,), (4,)]:
            return _Roughness._compiled(ctx, field, [weight for weight, _ in differences])
        total = field.new_zeros(())
        gradient = field.new_zeros(field.shape) if ctx.needs_input_grad[0] else None
        for weight, axes in differences:
            steps = field
            for axis in axes:
                steps = steps.diff(dim=axis)
            total += weight * steps.square().mean()
            if gradient is not None:
                _add_adjoint(gradient, steps.mul_(2 * weight / steps.numel()), axes)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def _compiled(ctx: Any, field: Tensor, weights: Sequence[float]) -> Tensor:
        """Diffusion by a kernel."""
        counts = [field.numel() // n * (n - 1) for n in field.shape[2:]]
        shares = [weight / count for weight, count in zip(weights, counts, strict=True)]
        total, gradient = compiled.diffusion(field, shares, slopes=ctx.needs_input_grad[0])
        ctx.save_for_backward(gradient if ctx.needs_input_grad[0] else None)
        return field.new_tensor(total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None]:
        """Scale the gradient that ``forward`` has computed."""
        (gradient,) = ctx.saved_tensors
        return gradient * incoming, None


def _add_adjoint(out: Tensor, steps: Tensor, axes: Sequence[int]) -> None:
    """Add Dᵀ steps to ``out``, where D takes differences along the axes in turn."""
    for axis in reversed(axes[1:]):
        shape = [n + (i == axis) for i, n in enumerate(steps.shape)]
        before = steps.new_zeros(shape)
        _add_adjoint(before, steps, (axis,))
        steps = before
    n = steps.shape[axes[0]]
    out.narrow(axes[0], 1, n).add_(steps)
    out.narrow(axes[0], 0, n).sub_(steps)


def inverse_consistency(displacement: Tensor, inverse: Tensor) -> Tensor:
    """Inverse consistency: mean of |u(x) + w(x + u(x))|² and |w(x) + u(x + w(x))|², from 0.

    Christensen & Johnson, doi:10.1109/42.932742. Beyond its grid a field continues with its
    border value, as in ``field.compose``. For exp(v) and exp(−v), only the errors of integration
    and interpolation remain.

    Args:
        displacement: u, (B, 3, X, Y, Z), voxels.
        inverse: w, its supposed inverse, (B, 3, X, Y, Z), voxels.

    Returns:
        The mean over voxels and both directions, voxels².
    """
    with torch.autocast(displacement.device.type, enabled=False):
        u, w = _wide(displacement, inverse)
        left = [compose(*pair).square().sum(dim=1).mean() for pair in ((w, u), (u, w))]
        return torch.stack(left).mean()


def soft_dice(*, moved: Tensor, fixed: Tensor, eps: float = 1e-5) -> Tensor:
    """Soft Dice: 1 − mean Dice of label channels, in [0, 1]; 0 is perfect.

    Equation 10 of Balakrishnan et al., doi:10.1109/TMI.2019.2897538. The mean is over the
    channels of each pair. A channel that is empty in both counts as perfect.

    Args:
        moved: (B, C, X, Y, Z), values in [0, 1], also masks of integers or booleans.
        fixed: likewise.
        eps: voxels, added to numerator and denominator of each Dice; set by hand.
    """
    with torch.autocast(fixed.device.type, enabled=False):
        fixed, moved = _wide(fixed, moved)
        overlap = 2 * (fixed * moved).sum(dim=(2, 3, 4)) + eps
        return 1 - (overlap / (fixed.sum(dim=(2, 3, 4)) + moved.sum(dim=(2, 3, 4)) + eps)).mean()


def segmentation(log_odds: Tensor, labels: Tensor, *, eps: float = 1.0) -> Tensor:
    """Loss of a segmentation: cross-entropy + (1 − mean soft Dice); 0 is perfect.

    A voxel of the network may cover several voxels of the label map, which count equally. A class
    that the network does not have stands for voxels that are not labelled, which do not count. The
    Dice is the mean over the classes that occur in the labels: Milletari et al.,
    doi:10.1109/3DV.2016.79, with sums of probabilities. The sum of both losses is that of nnU-Net,
    doi:10.1038/s41592-020-01008-z.

    Args:
        log_odds: (N, classes) for N voxels, before the softmax.
        labels: (N, S), the classes of the S voxels of the label map that each voxel covers; a
            voxel that covers one without a label is left out.
        eps: voxels, added to numerator and denominator of each Dice; set by hand.
    """
    with torch.autocast(log_odds.device.type, enabled=False):
        (log_odds,), last = _wide(log_odds), log_odds.shape[1] - 1
        # Weights instead of a selection: the number of voxels must not depend on their contents,
        # which are not there yet when the memory of a step is predicted.
        labelled = (labels <= last).all(dim=1).to(log_odds.dtype)
        at, weight = labels.long().clamp(max=last), labelled / labels.shape[1]
        log_p = F.log_softmax(log_odds, dim=1)
        entropy = -(log_p.gather(1, at).sum(dim=1) @ weight) / labelled.sum().clamp(min=1)
        p, zeros = log_p.exp(), log_p.new_zeros(log_p.shape[1])
        shares = weight[:, None].expand(at.shape).flatten()
        overlap = zeros.index_add(0, at.flatten(), p.gather(1, at).flatten() * shares)
        truth = zeros.index_add(0, at.flatten(), shares)
        dice = (2 * overlap + eps) / (labelled @ p + truth + eps)
        occurs = (truth > 0).to(p.dtype)
        return entropy + ((1 - dice) * occurs).sum() / occurs.sum().clamp(min=1)
