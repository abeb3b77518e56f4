"""Predict the memory of a training step, before any is allocated."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from .._memory import free_memory
from ..errors import InputError
from ..networks.catalogue import build
from .batch import Batch
from .config import Config, Phase
from .objective import Objective

# Both set by hand; a test compares the prediction with the memory of real steps.
PROGRAM = 500e6  # bytes of the interpreter, PyTorch and its buffers
SLACK = 2.2  # factor for gradients and temporary tensors, over what the backward pass keeps


def predicted_memory(
    config: Config, shape: Sequence[int], structures: int, device: torch.device
) -> int:
    """Predict the peak memory of the largest phase, in bytes.

    A step is run with tensors that have a shape but no content, and the tensors that autograd
    keeps for the backward pass are added up.

    Args:
        config: configuration of the training.
        shape: voxels of the working grid.
        structures: number of structures in the label maps.
        device: device of the training.
    """
    with torch.device("meta"):
        weights = sum(p.numel() for p in build(config.network).parameters())
    phases = {(p.downsample, p.leave_out): p for p in config.phases}.values()
    kept = max(_kept_by_autograd(config, shape, structures, device, phase) for phase in phases)
    copies = 5 if config.optimiser.ema else 4  # weights, gradient, two moments; average
    return int(PROGRAM + SLACK * kept + 4 * copies * weights)


def _kept_by_autograd(
    config: Config, shape: Sequence[int], structures: int, device: torch.device, phase: Phase
) -> int:
    kept: dict[int, Tensor] = {}  # by storage; references, so that no address is used again

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with FakeTensorMode(), device, hooks:
        network = build(config.network)
        batch = _empty_batch(config, shape, structures, device)
        objective = Objective(config, structures)
        objective.terms = [replace(t, function=_tolerant(t.function)) for t in objective.terms]
        losses = objective(network, batch, phase)
        del network, losses
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _tolerant(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss, or 0 if it fails on tensors without content, as a user's function may."""

    def run(**inputs: Any) -> Tensor:
        try:
            return loss(**inputs)
        except Exception:  # a real error of the function will show in the first step
            return torch.zeros(())

    return run


def _empty_batch(
    config: Config, shape: Sequence[int], structures: int, device: torch.device
) -> Batch:
    count = config.optimiser.batch
    image = torch.empty((count, 1, *shape), device=device)
    labels = torch.empty((count, *shape), dtype=torch.uint8, device=device) if structures else None
    labelled = list(range(count)) if structures else []
    return Batch(image, image, image, image, labelled, labels, labels, [], [])


def available_memory(device: torch.device) -> int:
    """Free bytes of the GPU, or of the computer within the limits of its control groups."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def check_memory(
    config: Config, shape: Sequence[int], structures: int, device: torch.device
) -> int:
    """Make sure that there is enough memory for a training step.

    Returns:
        The predicted need in bytes.

    Raises:
        InputError: less is free.
    """
    need, free = predicted_memory(config, shape, structures, device), available_memory(device)
    if need > free:
        raise InputError(
            f"a training step needs about {need / 1e9:.1f} GB of memory, but only "
            f"{free / 1e9:.1f} GB are free; use a larger preparation.spacing, a smaller network, "
            f"optimiser.batch=1 (with optimiser.accumulate), or fewer sampling.structures"
        )
    return need
