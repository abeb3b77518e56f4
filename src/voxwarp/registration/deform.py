"""From two prepared scans to warps on the fixed grid: run the model, refine, unfold, invert."""

from typing import NamedTuple

import numpy as np
import torch

from .._meter import Meter
from ..errors import InputError
from ..fields import field
from ..fields.folds import remove_folds
from ..networks.deformation import Deformation
from ..networks.descent import DescentSettings, Weights
from ..networks.model import Model
from ..networks.refine import Refinement
from ..preparation.scan import Prepared
from ..space.grid import Grid
from ..space.region import bounding_box
from ..space.transform import SLAB_VOXELS, Warp, conjugate
from .contrast import Choice, adapt, choose_model

# Set by hand. benchmarks/smoothness.csv covers 0.5 to 4, and its Dice falls towards both ends.
LEAST_SMOOTHNESS, MOST_SMOOTHNESS = 0.5, 8.0
# Displacements are rounded to 1/1024 mm (2⁻¹⁰ mm, 1 µm), far below the accuracy of any
# registration, because it makes the files smaller: one warp of 61 MB becomes a file of 30 MB, and
# of 39 MB with steps of 2⁻¹³ mm.
STEPS_PER_MM = 1024


def check_smoothness(smoothness: float | None) -> None:
    """Check that a smoothness is within the limits.

    Raises:
        InputError: it is not.
    """
    if smoothness is not None and not LEAST_SMOOTHNESS <= smoothness <= MOST_SMOOTHNESS:
        raise InputError(
            f"smoothness must be between {LEAST_SMOOTHNESS} and {MOST_SMOOTHNESS:.0f}, got "
            f"{smoothness}"
        )


def check_lesions_count(model: Model, has_lesions: bool, *, refined: bool) -> None:
    """Check that lesions can be left out, if a scan has any.

    Raises:
        InputError: there are lesions, but the model looks at whole images.
    """
    if has_lesions and not (refined or model.capabilities.is_descent):
        raise InputError(
            f"lesion_mask has no effect on model {model.name}, which looks at whole images; use "
            f"default or another model that descends, or refine the result with `refine`"
        )


def check_smoothness_applies(model: Model, smoothness: float | None, *, refined: bool) -> None:
    """Check that a smoothness affects the result.

    Raises:
        InputError: it does not, because the model learned its smoothness in training and its
            result is not refined.
    """
    if smoothness is not None and not (refined or model.capabilities.has_smoothness):
        raise InputError(
            f"smoothness has no effect on model {model.name}, which learned its smoothness in "
            f"training; refine the result with `refine`, or use another model"
        )


class PairDeformation(NamedTuple):
    """The deformation of a pair, on the CPU.

    Args:
        displacement: (1, 3, X, Y, Z), voxels of the working grid.
        unsure: (1, 2) of the moving and the fixed scan, see ``networks.deformation.Deformation``.
        choice: the model that computed it, and why.
    """

    displacement: torch.Tensor
    unsure: torch.Tensor | None
    choice: Choice


@torch.no_grad()
def compute_deformation(
    model: Model,
    *,
    moving: Prepared,
    fixed: Prepared,
    device: torch.device,
    refinement: Refinement | None = None,
    smoothness: float | None = None,
    meter: Meter | None = None,
    start: torch.Tensor | None = None,
) -> PairDeformation:
    """Compute the deformation between two scans on the working grid.

    Args:
        model: the model, on ``device``; if it does not know the contrast of a scan, it may leave
            the pair to another, see ``contrast.choose_model``.
        moving, fixed: the scans on the working grid of the model.
        device: where the network runs.
        refinement: how the result of the model is refined; None: not at all.
        smoothness: factor for the refinement, and for models that have a smoothness.
        meter: measures the time of the stages "network" and "refine".
        start: displacement from which the model's descent continues, (1, 3, X, Y, Z), voxels of the
            working grid; by default the model begins anew.

    Returns:
        The deformation, and the model that computed it.
    """
    meter = meter or Meter(memory=False)
    meter.start("network")
    images = {"moving": moving.image.to(device), "fixed": fixed.image.to(device)}
    weights = _weights(moving, fixed, device)
    further = _further_inputs(model, moving, fixed, device)

    def deformed(choice: Choice) -> Deformation:
        has_smoothness = choice.model.capabilities.has_smoothness
        return choice.model.deform(
            **choice.images,
            smoothness=smoothness if has_smoothness else None,
            map_cache=choice.map_cache,
            weights=weights,
            **further,
        )

    if start is not None:
        choice = Choice(model, model, images)
        factor = 1.0 if smoothness is None else smoothness
        deformation = model.continued(
            start.to(device), **images, smoothness=factor, weights=weights
        )
    else:
        choice = choose_model(model, images, device)
        deformation = deformed(choice)
        if adapted := adapt(choice, deformation):
            choice, deformation = adapted, deformed(adapted)
    if refinement:
        meter.start("refine")
        deformation = choice.model.refine(
            deformation,
            refinement,
            **choice.images,
            smoothness=smoothness,
            map_cache=choice.map_cache,
            weights=weights,
        )
    unsure = deformation.unsure
    return PairDeformation(
        deformation.displacement.cpu(), None if unsure is None else unsure.cpu(), choice
    )


def _weights(moving: Prepared, fixed: Prepared, device: torch.device) -> Weights | None:
    """Nothing pulls in a lesion of either scan; None if neither has one."""
    if moving.lesion is None and fixed.lesion is None:
        return None
    of_fixed = torch.ones_like(fixed.image) if fixed.lesion is None else 1 - fixed.lesion
    of_moving = None if moving.lesion is None else 1 - moving.lesion
    return Weights(of_fixed, of_moving).to(device)


def _further_inputs(
    model: Model, moving: Prepared, fixed: Prepared, device: torch.device
) -> dict[str, torch.Tensor]:
    """The inputs that the network needs beside the images, such as "fixed_mask"."""
    sides = {"moving": moving, "fixed": fixed}
    names = (name.partition("_") for name in model.capabilities.further_inputs)
    return {f"{side}_{kind}": sides[side].further(kind).to(device) for side, _, kind in names}


def on_fixed_grid(displacement: torch.Tensor, model: Model, fixed: Prepared, grid: Grid) -> Warp:
    """Express a displacement on the working grid as a warp on the fixed grid.

    Args:
        displacement: (1, 3, X, Y, Z), voxels of the working grid.
        model: the model, for its working grid.
        fixed: the fixed scan on the working grid.
        grid: the grid of the fixed scan.
    """
    space = fixed.template_to_scan.inverse()
    return _rounded(conjugate(Warp.from_voxels(displacement[0], model.recipe.grid), space, grid))


def without_folds(warp: Warp, brain: np.ndarray) -> Warp:
    """The warp, smoothed where it folds inside the brain; ``warp`` does not change.

    Args:
        warp, brain: see ``smooth_folds``.
    """
    box = bounding_box(brain)
    least = field.jacobian_determinants(warp.block(box).in_voxels()[None])[1][0]
    if not (least <= 0)[torch.from_numpy(brain[box])].any():
        return warp
    copy = Warp(warp.displacement.copy(), warp.grid)
    smooth_folds(copy, brain)
    return copy


@torch.no_grad()
def smooth_folds(warp: Warp, brain: np.ndarray) -> None:
    """Smooth a warp in place where it folds in the box around the brain.

    Folds are counted by central, forward and backward differences.

    Args:
        warp: W, on the fixed grid.
        brain: mask of the brain on that grid, (X, Y, Z), boolean.
    """
    x, y, z = box = bounding_box(brain)
    part = remove_folds(
        warp.block(box).in_voxels()[None], min_determinant=DescentSettings.min_determinant
    )
    warp.displacement[:, x, y, z] = Warp.from_voxels(part[0], warp.block(box).grid).displacement
    _rounded(warp)


@torch.no_grad()
def inverted(warp: Warp) -> Warp:
    """The inverse of a warp from ``on_fixed_grid``, on the same grid.

    It is that of the warp as it is written: an inverse on the working grid, brought onto the fixed
    grid, would be that of another interpolation.

    Both are turned into voxels and back in place, as there may not be memory for a copy. After
    that, rounding makes of the warp what it was: ``on_fixed_grid`` rounds it, too.
    """
    to_mm = warp.grid.affine[:3, :3]
    try:
        inverse = field.invert(_turned(warp, np.linalg.inv(to_mm)))
    finally:
        _turned(warp, to_mm)
        _rounded(warp)
    found = Warp(inverse[0].numpy(), warp.grid)
    _turned(found, to_mm)
    return _rounded(found)


def _turned(warp: Warp, matrix: np.ndarray) -> torch.Tensor:
    """The displacements (1, 3, X, Y, Z), multiplied in place, a few planes at a time."""
    vectors, by = torch.from_numpy(warp.displacement), torch.from_numpy(matrix.astype(np.float32))
    planes = max(1, SLAB_VOXELS // vectors[0, 0].numel())
    for part in vectors.split(planes, dim=1):
        part.copy_((by @ part.flatten(1)).view(part.shape))
    return vectors[None]


def _rounded(warp: Warp) -> Warp:
    """Round the displacements in place, before anything is computed from them.

    So the files hold exactly what the images were resampled with.
    """
    torch.from_numpy(warp.displacement).mul_(STEPS_PER_MM).round_().div_(STEPS_PER_MM)
    return warp
