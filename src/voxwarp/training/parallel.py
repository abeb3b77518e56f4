"""Training in several processes, each on its own pairs, started by torchrun.

This uses plain torch.distributed; the main function is ``average_gradients``. The networks are
small (a few MB), so one reduction after the backward pass takes milliseconds. A wrapper that
overlaps the two (DistributedDataParallel, Lightning Fabric) would gain nothing and hide the step.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")

#: The other processes wait while the first one prepares scans, which can take long. If a process
#: dies, torchrun ends them all, so a long timeout does no harm.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """The processes of a training.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Connect with the processes that torchrun started; without torchrun, there is one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def average_gradients(network: nn.Module, world: World) -> None:
    """Replace the gradients of every process by their mean over the processes."""
    if world.size == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world.size
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean_of(numbers: list[float], world: World, device: torch.device) -> list[float]:
    """The mean of each number over the processes."""
    if world.size == 1:
        return numbers
    reduced = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(reduced)
    return (reduced / world.size).tolist()


def any_of(answer: bool, world: World, device: torch.device) -> bool:
    """Whether the answer of any process is yes; the same result in all of them."""
    return mean_of([float(answer)], world, device)[0] > 0


def run_first_then_others(world: World, job: Callable[[], T]) -> T:
    """Run a job that fills a cache in the first process, then in the others."""
    if not world.is_first:
        dist.barrier()
    result = job()
    if world.is_first and world.size > 1:
        dist.barrier()
    return result
