"""Steps of fields whose gradients are compiled as well; see ``compiled.can_differentiate``."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import compiled


class Exponential(torch.autograd.Function):
    """``field.exponentiate``: u ← u(x) + u(x + u(x)), again and again.

    The gradient of each squaring, g + g·∇u(x + u) and what each voxel gave to others, is added up
    in one field, and two fields are enough for all squarings: new memory takes time.
    """

    @staticmethod
    def forward(ctx: Any, velocity: Tensor, steps: int) -> Tensor:
        """Square v / 2**steps, (B, 3, X, Y, Z) in voxels; keep all fields if needed."""
        ctx.steps, kept = steps, []
        u = velocity.contiguous() / 2**steps
        for _ in range(steps):
            if ctx.needs_input_grad[0]:
                kept.append(u)
            u = compiled.compose(u, u)
        ctx.save_for_backward(*kept)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Go back through the squarings."""
        incoming, spare = gradient, None
        for u in reversed(ctx.saved_tensors):
            out = compiled.gradient_of_squaring(u, gradient, spare)
            # What came in may be in use elsewhere, what was made here is not.
            gradient, spare = out, None if gradient is incoming else gradient
        return gradient / 2**ctx.steps, None


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
