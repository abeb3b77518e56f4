"""Batches of pairs for the steps of a training, read by this process or by workers beside it."""

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
    pairs: PairDataset, config: Config, among: World, first: int
) -> Generator[Batch, None, None]:
    """Batches from step ``first`` on.

    Raises:
        InputError: scan after scan cannot be read, or a process that reads them was killed.
    """
    try:
        loader = _loader(pairs, config, among, first)
        with interrupts_ignored():  # by the workers that start now, from their first moment
            loaded = iter(loader)
        yield from loaded
        return
    except InputError as error:  # that of a worker has its whole traceback in front
        problem = str(error).rpartition("InputError: ")[2].strip()
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        problem = (
            "a process that read scans was killed; if memory ran out, take fewer workers, and go "
            "on with --resume"
        )
    # Here, and not where it was caught: an error that is held keeps the workers alive.
    raise InputError(problem)


def _loader(pairs: PairDataset, config: Config, among: World, first: int) -> DataLoader:
    """Batches from step ``first`` on. The processes share out the numbers of the samples."""
    size, passes = config.optimiser.batch, config.optimiser.accumulate
    mine = range(among.rank * size, (among.rank + 1) * size)
    numbers = [
        [number * among.size * size + i for i in mine]
        for number in range(first * passes, config.steps * passes)
    ]
    return DataLoader(
        pairs,
        batch_sampler=numbers,
        collate_fn=collate,
        num_workers=config.workers,
        multiprocessing_context="spawn" if config.workers else None,
        worker_init_fn=ignore_signals,
        generator=torch.Generator(),  # it draws a seed, which must not be one of a loss's numbers
    )
