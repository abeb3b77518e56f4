"""Batches of pairs for the training steps, read by this process or by worker processes."""

from collections.abc import Generator

import torch
from torch.utils.data import DataLoader

from ..errors import InputError
from .batch import Batch, collate
from .config import Config
from .parallel import World
from .sampling import PairDataset
from .signals import ignore_signals, interrupts_ignored


def batches(
    pairs: PairDataset, config: Config, world: World, first: int
) -> Generator[Batch, None, None]:
    """Yield the batches of this process from step ``first`` on.

    Raises:
        InputError: one scan after the other cannot be read, or a worker was killed.
    """
    try:
        loader = _loader(pairs, config, world, first)
        with interrupts_ignored():  # the workers that start here inherit this
            loaded = iter(loader)
        yield from loaded
        return
    except InputError as error:  # that of a worker begins with its traceback
        problem = str(error).rpartition("InputError: ")[2].strip()
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        problem = (
            "a worker that reads scans was killed, perhaps because memory ran out; reduce workers "
            "and continue with `resume`"
        )
    # Raised outside of the handlers, because a pending exception keeps the workers alive.
    raise InputError(problem)


def _loader(pairs: PairDataset, config: Config, world: World, first: int) -> DataLoader:
    """Batches from step ``first`` on; each process takes its share of the pair numbers."""
    size, passes = config.optimiser.batch, config.optimiser.accumulate
    mine = range(world.rank * size, (world.rank + 1) * size)
    numbers = [
        [number * world.size * size + i for i in mine]
        for number in range(first * passes, config.steps * passes)
    ]
    return DataLoader(
        pairs,
        batch_sampler=numbers,
        collate_fn=collate,
        num_workers=config.workers,
        multiprocessing_context="spawn" if config.workers else None,
        worker_init_fn=ignore_signals,
        generator=torch.Generator(),  # draws a seed, and must not disturb the draws of losses
    )
