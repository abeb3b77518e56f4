"""Costs of a registration: similarity of images, smoothness of fields, overlap of labels.

Each takes (B, C, X, Y, Z) tensors and returns a scalar to minimise; each computes in float32
or wider, also under autocast, because variances do not survive bf16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def local_ncc(fixed: Tensor, moved: Tensor, *, window: int = 9, eps: float = 1e-5) -> Tensor:
    """−mean of the squared local normalised cross-correlation; in [−1, 0], −1 for perfect.

    For each voxel p with window W(p) of ``window``³ voxels (fewer at the border) and local
    means f̄, m̄:  CC(p) = (Σ (f − f̄)(m − m̄))² / (Σ (f − f̄)² · Σ (m − m̄)² + ε).
    Equation 4 of Balakrishnan et al., CVPR 2018. Flat windows count as 0, with zero gradient.

    Args:
        fixed, moved: (B, C, X, Y, Z), intensities of about [0, 1].
        window: edge of the cubic window, odd, voxels.
        eps: guard of the denominator, for sums over a full window of intensities in [0, 1].
    """
    return -local_ncc_map(fixed, moved, window=window, eps=eps).mean()


def local_ncc_map(fixed: Tensor, moved: Tensor, *, window: int = 9, eps: float = 1e-5) -> Tensor:
    """The squared local correlation of every voxel, in [0, 1]; see ``local_ncc``."""
    if window % 2 == 0 or window < 3:
        raise ValueError(f"window must be an odd number of voxels from 3, got {window}")
    with torch.autocast(fixed.device.type, enabled=False):
        f, m = (x if x.dtype == torch.float64 else x.float() for x in (fixed, moved))
        # Centring first keeps E[x²] − E[x]² from cancelling where the images are bright and flat.
        f, m = f - f.detach().mean(), m - m.detach().mean()
        moments = torch.cat([f, m, f * f, m * m, f * m], dim=1)
        f1, m1, ff, mm, fm = _window_mean(moments, window).chunk(5, dim=1)
        cross = fm - f1 * m1
        variances = (ff - f1 * f1).clamp(min=0) * (mm - m1 * m1).clamp(min=0)
        return (cross * cross / (variances + eps / window**6)).clamp(max=1)


def _window_mean(x: Tensor, window: int) -> Tensor:
    """Mean over the part of each cubic window that lies inside, one axis at a time."""
    for axis in range(2, 5):
        if x.shape[axis] < window:  # thinner than avg_pool3d takes
            x = (x.movedim(axis, -1) @ _band(x.shape[axis], window, x)).movedim(-1, axis)
            continue
        size, pad = [1, 1, 1], [0, 0, 0]
        size[axis - 2], pad[axis - 2] = window, window // 2
        x = F.avg_pool3d(x, size, stride=1, padding=pad, count_include_pad=False)
    return x


def _band(n: int, window: int, like: Tensor) -> Tensor:
    """(n, n) matrix whose column j takes the mean of the entries within ``window`` around j."""
    i = torch.arange(n, device=like.device)
    near = ((i[:, None] - i).abs() <= window // 2).to(like.dtype)
    return near / near.sum(dim=0)


def mse(fixed: Tensor, moved: Tensor) -> Tensor:
    """Mean squared difference of intensities; from 0, which is perfect."""
    with torch.autocast(fixed.device.type, enabled=False):
        return F.mse_loss(moved.float(), fixed.float())


def diffusion(field: Tensor) -> Tensor:
    """Mean over axes and components of the squared difference of neighbours, ‖∇u‖²; from 0.

    Equation 5 of Balakrishnan et al., CVPR 2018; no unit (voxels per voxel). Weight it with λ.
    """
    with torch.autocast(field.device.type, enabled=False):
        field = field.float() if field.dtype != torch.float64 else field
        return torch.stack([field.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).mean()


def soft_dice(fixed: Tensor, moved: Tensor, *, eps: float = 1e-5) -> Tensor:
    """1 − mean Dice of label channels with values in [0, 1]; in [0, 1], 0 for perfect.

    Equation 10 of Balakrishnan et al., doi:10.1109/TMI.2019.2897538. A channel that is empty
    on both sides counts as perfect.
    """
    with torch.autocast(fixed.device.type, enabled=False):
        fixed, moved = fixed.float(), moved.float()
        overlap = 2 * (fixed * moved).sum(dim=(2, 3, 4)) + eps
        return 1 - (overlap / (fixed.sum(dim=(2, 3, 4)) + moved.sum(dim=(2, 3, 4)) + eps)).mean()
