"""Steps of fields whose gradients are compiled as well; see ``compiled.can_differentiate``."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import compiled


class Squaring(torch.autograd.Function):
    """The displacement of φ ∘ φ for φ = Id + u: u(x) + u(x + u(x)).

    Only u is kept. Its gradient, g + g·∇u(x + u) and what each voxel gave to others, is added up
    in one field.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        """Compose (B, 3, X, Y, Z), voxels, with itself."""
        ctx.save_for_backward(u)
        return compiled.compose(u, u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Add up the gradients by u where it is the inner field and where it is the outer one."""
        (u,) = ctx.saved_tensors
        out = compiled.gradient_by_points(u, u, gradient, relative=True, zeros=False, adds=True)
        return compiled.gradient_by_volume(u, u, gradient, relative=True, zeros=False, onto=out)


class Upsampling(torch.autograd.Function):
    """``scale`` times a volume of blocks of 2³ voxels, trilinear between their centres."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, scale: float) -> Tensor:
        """Double the sides of (B, C, X, Y, Z)."""
        ctx.scale = scale
        return compiled.upsample(volume, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Apply the adjoint."""
        return compiled.upsample_adjoint(gradient, ctx.scale), None
