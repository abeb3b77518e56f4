"""Several processes that train one network, each on its own pairs, as torchrun starts them.

Plain torch.distributed, and one function of consequence: ``average_gradients``. The networks
are small (a few MB), so that a single reduction after the backward pass costs milliseconds, and
a wrapper that overlaps the two (DistributedDataParallel, Lightning Fabric) would gain nothing
and hide the step.
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

#: The others wait while the first process prepares scans. Where one ends, torchrun ends them all.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """The processes: how many, and which one this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0


@contextmanager
def world(device: torch.device) -> Iterator[World]:
    """The processes that torchrun started; one, without it."""
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


def average_gradients(network: nn.Module, among: World) -> None:
    """Give every process the mean of all processes' gradients."""
    if among.size == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= among.size
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean_of(numbers: list[float], among: World, device: torch.device) -> list[float]:
    """The means over all processes."""
    if among.size == 1:
        return numbers
    reduced = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(reduced)
    return (reduced / among.size).tolist()


def any_of(answer: bool, among: World, device: torch.device) -> bool:
    """Whether any process says yes; all are told the same."""
    return mean_of([float(answer)], among, device)[0] > 0


def first_then_others(among: World, job: Callable[[], T]) -> T:
    """Let the first process do a job that fills a cache, then the others, who find it full."""
    if not among.is_first:
        dist.barrier()
    done = job()
    if among.is_first and among.size > 1:
        dist.barrier()
    return done
