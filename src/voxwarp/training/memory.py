"""How much memory a training step will take, known before it is taken."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from ..errors import InputError
from ..networks.catalogue import build
from .batch import Batch
from .config import Config, Phase
from .objective import Objective

PROGRAM = 500e6  # bytes of the interpreter, PyTorch and its buffers
SLACK = 1.8  # gradients and what is held for a moment, beside what the backward pass needs


def predicted_memory(
    config: Config, shape: Sequence[int], structures: int, device: torch.device
) -> int:
    """Bytes that the most expensive phase will take at its peak.

    A step is run with tensors that have a shape and no contents, and what autograd keeps for the
    backward pass is added up.

    Args:
        shape: of the cohort's lattice.
        structures: how many there are in its labels.
    """
    with torch.device("meta"):
        weights = sum(p.numel() for p in build(config.network).parameters())
    phases = {(p.downsample, p.leave_out): p for p in config.phases}.values()
    kept = max(_kept_by_autograd(config, shape, structures, device, phase) for phase in phases)
    copies = 5 if config.optimiser.ema else 4  # weights, gradient, two moments, average
    return int(PROGRAM + SLACK * kept + 4 * copies * weights)


def _kept_by_autograd(
    config: Config, shape: Sequence[int], structures: int, device: torch.device, phase: Phase
) -> int:
    held: dict[int, Tensor] = {}  # by storage; held, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with FakeTensorMode(), device, hooks:
        network = build(config.network)
        batch = _empty_batch(config, shape, structures, device)
        objective = Objective(config, structures)
        objective.terms = [replace(t, function=_tolerant(t.function)) for t in objective.terms]
        losses = objective(network, batch, phase)
        del network, losses
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def _tolerant(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss; nothing where it looks at values, of which there are none. Ours do not."""

    def run(**given: Any) -> Tensor:
        try:
            return loss(**given)
        except Exception:  # whatever a user's function makes of it; a step will tell
            return torch.zeros(())

    return run


def _empty_batch(
    config: Config, shape: Sequence[int], structures: int, device: torch.device
) -> Batch:
    count = config.optimiser.batch
    image = torch.empty((count, 1, *shape), device=device)
    labels = torch.empty((count, *shape), dtype=torch.uint8, device=device) if structures else None
    everyone = list(range(count)) if structures else []
    return Batch(image, image, image, image, everyone, labels, labels, [], [])


def available_memory(device: torch.device) -> int:
    """Bytes that are free: of the GPU, or of the machine or the share of it that is ours."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = []
    try:
        text = Path("/proc/meminfo").read_text()
        free.append(1024 * int(text.split("MemAvailable:")[1].split()[0]))
    except (OSError, IndexError, ValueError):
        pass
    return min([*free, *_left_by_containers()], default=1 << 62)


CGROUPS = Path("/sys/fs/cgroup")


def _left_by_containers() -> Iterator[int]:
    """What the limits of our control group, and of those around it, leave; bytes."""
    try:
        own = Path("/proc/self/cgroup").read_text().split("0::/")[1].split("\n")[0]
    except (OSError, IndexError):
        own = ""
    for group in (CGROUPS / own, *(CGROUPS / own).parents):
        try:
            limit = int((group / "memory.max").read_text())  # "max" where there is none
            used = int((group / "memory.current").read_text())
            words = (group / "memory.stat").read_text().split()
        except (OSError, ValueError):
            continue
        stat = dict(zip(words[::2], words[1::2], strict=False))
        # Pages of files that were read go as soon as memory is wanted.
        cached = sum(int(stat.get(name, 0)) for name in ("inactive_file", "active_file"))
        yield limit - used + cached


def check_memory(
    config: Config, shape: Sequence[int], structures: int, device: torch.device
) -> int:
    """The predicted need, bytes.

    Raises:
        InputError: less is free.
    """
    need, free = predicted_memory(config, shape, structures, device), available_memory(device)
    if need > free:
        raise InputError(
            f"a training step needs about {need / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB "
            f"are free: take a larger preparation.spacing, a smaller network, optimiser.batch=1 "
            f"(with optimiser.accumulate), or fewer sampling.structures"
        )
    return need
