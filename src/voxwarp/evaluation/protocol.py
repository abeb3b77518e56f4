"""What an evaluation counts: structures, regions, and how labels are carried."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..data.pairs import Pair
from ..data.sources import Structures
from ..data.structures import Table, structures_of
from ..errors import InputError
from .case import values_of

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Protocol:
    """What is counted, and how labels are carried.

    Args:
        structures: over which Dice and distances are averaged.
        regions: label values that Dice-regions is averaged over, where a map has at least
            50 voxels of each; None: all of them.
        labels: how they are resampled: "nearest" neighbour, or "linear", one value at a time.
    """

    structures: Table
    regions: Ranges | None = None
    labels: Literal["nearest", "linear"] = "nearest"

    def described(self) -> dict[str, Any]:
        """For records in JSON."""
        return {
            "structures": self.structures.names,
            "regions": "all" if self.regions is None else [list(r) for r in self.regions],
            "labels": self.labels,
        }


def ranges(text: str) -> Ranges:
    """Label values in words, such as ``4-41,44,47-62``.

    Raises:
        InputError: it is something else.
    """
    parts = [re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", x) for x in text.split(",")]
    found = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    if not all(parts) or any(low > high for low, high in found):
        raise InputError(f"regions {text!r}: label values are wanted, such as 4-41,44,47-62")
    return found


def protocol_of(
    pairs: Sequence[Pair],
    *,
    structures: str | os.PathLike[str] | Structures | None = None,
    regions: str | None = None,
    labels: Literal["nearest", "linear"] = "nearest",
) -> Protocol:
    """A protocol in words.

    Args:
        pairs: whose label values are the structures where none are named.
        structures: path of a CSV table with columns value and structure, or a training's.
        regions: see ``ranges``; None: all label values.
        labels: how they are resampled.

    Raises:
        InputError: one of these is wrong, or a label map cannot be read.
    """
    chosen = None if regions is None else ranges(regions)  # before any map is read
    if not isinstance(structures, Structures):
        structures = Structures(table=None if structures is None else os.fspath(structures))
    return Protocol(structures_of(structures, lambda split: values_of(pairs)), chosen, labels)
