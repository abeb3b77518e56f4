"""What an evaluation counts: structures, regions, and how labels are resampled."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..data.pairs import Pair
from ..data.sources import Structures
from ..data.structures import Table, structures_of
from ..errors import InputError
from .loaded_pair import label_values_in

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Protocol:
    """What an evaluation counts, and how it resamples labels.

    Args:
        structures: the structures over which Dice and distances are averaged.
        regions: ranges of label values (first, last) over which ``dice_regions`` is averaged, as
            far as both maps have at least 50 voxels of a value; None: all values.
        labels: how labels are resampled: "nearest" neighbour, or "linear", one value at a time.
    """

    structures: Table
    regions: Ranges | None = None
    labels: Literal["nearest", "linear"] = "nearest"

    def described(self) -> dict[str, Any]:
        """The protocol as JSON values, for records."""
        return {
            "structures": self.structures.names,
            "regions": "all" if self.regions is None else [list(r) for r in self.regions],
            "labels": self.labels,
        }


def parse_ranges(text: str) -> Ranges:
    """Read ranges of label values such as ``4-41,44,47-62``.

    Raises:
        InputError: the text is something else.
    """
    parts = [re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", x) for x in text.split(",")]
    ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    if not all(parts) or any(low > high for low, high in ranges):
        raise InputError(
            f"regions must be label values and ranges such as 4-41,44,47-62, got {text!r}"
        )
    return ranges


def protocol_of(
    pairs: Sequence[Pair],
    *,
    structures: str | os.PathLike[str] | Structures | None = None,
    regions: str | None = None,
    labels: Literal["nearest", "linear"] = "nearest",
) -> Protocol:
    """Make a protocol.

    Args:
        pairs: without ``structures``, every label value in these pairs is a structure.
        structures: path of a CSV table with columns value and structure, or the structures of a
            training.
        regions: ranges of label values such as ``4-41,44,47-62``; None: all label values.
        labels: how labels are resampled, "nearest" or "linear".

    Raises:
        InputError: an argument is wrong, or a label map cannot be read.
    """
    chosen = None if regions is None else parse_ranges(regions)  # before any map is read
    if not isinstance(structures, Structures):
        structures = Structures(table=None if structures is None else os.fspath(structures))
    table = structures_of(structures, lambda split: label_values_in(pairs))
    # In scores, voxels that a training ignores are background, as are all other values.
    return Protocol(replace(table, ignored=None), chosen, labels)
