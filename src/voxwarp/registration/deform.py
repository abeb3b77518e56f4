"""From two prepared scans to warps on the fixed grid: run the model, refine, remove folds."""

from collections.abc import Iterable
from typing import NamedTuple, cast

import numpy as np
import torch

from .._meter import Meter
from ..errors import InputError
from ..fields import field
from ..networks.deformation import Deformation
from ..networks.descent import DescentSettings, Weights, remove_folds
from ..networks.model import Model
from ..networks.refine import Refinement
from ..preparation.scan import Prepared
from ..space.grid import Grid
from ..space.region import bounding_box
from ..space.transform import SLAB_VOXELS, Warp, conjugate
from .contrast import Choice, adapt, choose_model

# Set by hand. benchmarks/smoothness.csv covers 0.5 to 4, and its Dice falls towards both ends.
LEAST_SMOOTHNESS, MOST_SMOOTHNESS = 0.5, 8.0
# Newton steps that correct the inverse after folds were removed. Set by hand: two leave errors of
# about 0.01 voxels almost everywhere.
CORRECTIONS = 2
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
        inverse: the displacement of the inverse; None if it was not computed.
        unsure: (1, 2) of the moving and the fixed scan, see ``networks.deformation.Deformation``.
        choice: the model that computed it, and why.
    """

    displacement: torch.Tensor
    inverse: torch.Tensor | None
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
    invert: bool = True,
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
        invert: compute the inverse, if the network does not.
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
    if deformation.inverse is None and invert:
        deformation = deformation._replace(inverse=field.invert(deformation.displacement))
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
    done = deformation.cpu()
    return PairDeformation(done.displacement, done.inverse, done.unsure, choice)


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


def on_fixed_grid(
    displacements: Iterable[torch.Tensor], model: Model, fixed: Prepared, grid: Grid
) -> list[Warp]:
    """Express displacements on the working grid as warps on the fixed grid.

    Args:
        displacements: (1, 3, X, Y, Z) each, voxels of the working grid.
        model: the model, for its working grid.
        fixed: the fixed scan on the working grid.
        grid: the grid of the fixed scan.
    """
    space = fixed.template_to_scan.inverse()
    warps = (Warp.from_voxels(one[0], model.recipe.grid) for one in displacements)
    return [_rounded(conjugate(warp, space, grid)) for warp in warps]


def without_folds(warp: Warp, inverse: Warp | None, brain: np.ndarray) -> tuple[Warp, Warp | None]:
    """A warp smoothed where it folds inside the brain, and its inverse corrected.

    Args:
        warp, inverse, brain: see ``smooth_folds``; they do not change.

    Returns:
        The warp without folds, and its inverse (None if ``inverse`` is None).
    """
    box = bounding_box(brain)
    least = field.jacobian_determinants(warp.block(box).in_voxels()[None])[1][0]
    if not (least <= 0)[torch.from_numpy(brain[box])].any():
        return warp, inverse
    copies = [w and Warp(w.displacement.copy(), w.grid) for w in (warp, inverse)]
    smooth_folds(cast(Warp, copies[0]), copies[1], brain)
    return cast(Warp, copies[0]), copies[1]


@torch.no_grad()
def smooth_folds(warp: Warp, inverse: Warp | None, brain: np.ndarray) -> None:
    """Smooth a warp in place where it folds in the box around the brain, and correct its inverse.

    Folds are counted by central, forward and backward differences.

    Args:
        warp: W, on the fixed grid.
        inverse: W⁻¹ on the same grid, or None.
        brain: mask of the brain on that grid, (X, Y, Z), boolean.
    """
    x, y, z = box = bounding_box(brain)
    part = warp.block(box).in_voxels()[None]
    displacement = _turned(warp, np.linalg.inv(warp.grid.affine[:3, :3]))
    displacement[0, :, x, y, z] = remove_folds(
        part, min_determinant=DescentSettings.min_determinant
    )[0]
    if inverse is not None:
        back = _turned(inverse, np.linalg.inv(warp.grid.affine[:3, :3]))
        for _ in range(CORRECTIONS):
            back.copy_(field.corrected_inverse(displacement, back))
        _turned(inverse, warp.grid.affine)
        _rounded(inverse)
    _turned(warp, warp.grid.affine)
    _rounded(warp)


def _turned(warp: Warp, affine: np.ndarray) -> torch.Tensor:
    """The displacements (1, 3, X, Y, Z), multiplied in place, a few planes at a time."""
    matrix = torch.from_numpy(affine[:3, :3].astype(np.float32))
    vectors = torch.from_numpy(warp.displacement)
    planes = max(1, SLAB_VOXELS // vectors[0, 0].numel())
    for part in vectors.split(planes, dim=1):
        part.copy_((matrix @ part.flatten(1)).view(part.shape))
    return vectors[None]


def _rounded(warp: Warp) -> Warp:
    """Round the displacements in place, before anything is computed from them.

    So the files hold exactly what the images were resampled with.
    """
    torch.from_numpy(warp.displacement).mul_(STEPS_PER_MM).round_().div_(STEPS_PER_MM)
    return warp
