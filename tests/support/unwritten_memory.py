"""Memory that nobody wrote, made to hold NaN: who reads it is found out."""

import torch


def poison(*sizes: int) -> None:
    """Leave NaN in memory that is free again, in pieces like those that layers will ask for."""
    wanted = {*sizes, *(2**k for k in range(4, 19)), *(27 * 2**k for k in range(2, 14))}
    held = [torch.full((size,), torch.nan, dtype=kind) for size in sorted(wanted)
            for kind in (torch.float32, torch.bfloat16) for _ in range(3)]  # fmt: skip
    del held
