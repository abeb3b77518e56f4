"""The files of a registration: which ones to write, and what stands in for one that is missing."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from .._layout import (
    AFFINE,
    COMPOSITE,
    FIXED_MASK,
    INVERSE_COMPOSITE,
    INVERSE_WARP,
    INVERSE_WARPED,
    METRICS,
    MOVING_MASK,
    REPORT,
    WARP,
    WARPED,
    WARPED_LABELS,
    WARPED_LESION,
    WARPED_MASK,
)
from ..errors import InputError
from ..space.grid import Grid

ALL = "all"
COMPOSITES = "composite"  # not among all: it holds the transforms a second time

#: The outputs that can be chosen, and their files. ``metrics.json`` is always written.
OUTPUTS = {
    "transforms": (AFFINE, WARP),
    "inverse": (INVERSE_WARP,),
    COMPOSITES: (COMPOSITE, INVERSE_COMPOSITE),
    "warped": (WARPED,),
    "inverse-warped": (INVERSE_WARPED,),
    "labels": (WARPED_LABELS,),
    "masks": (MOVING_MASK, FIXED_MASK, WARPED_MASK, WARPED_LESION),
    "report": (REPORT,),
}


def files_of(save: str | Iterable[str]) -> frozenset[str]:
    """The names of the files that the chosen outputs consist of, ``metrics.json`` included.

    Args:
        save: names of outputs: "all" (of them but composite), or some of ``OUTPUTS``, as one
            string with commas or as an iterable of strings.

    Raises:
        InputError: a name is unknown.
    """
    names = save.split(",") if isinstance(save, str) else list(save)
    files = {METRICS}
    for name in (str(name).strip() for name in names):
        if name == ALL:
            files.update(*(own for output, own in OUTPUTS.items() if output != COMPOSITES))
        elif name in OUTPUTS:
            files.update(OUTPUTS[name])
        else:
            raise InputError(
                f"save must be all, or some of {', '.join(OUTPUTS)}, separated by commas, got "
                f"{name!r}"
            )
    return frozenset(files)


@dataclass(frozen=True)
class MissingWarp:
    """A transform whose file is missing: an error when it is used, and not before.

    So a folder without the inverse warp still serves for all that needs no inverse.

    Args:
        path: where the file would be.
        why: what is missing, and what helps, to be said of ``path``.
    """

    path: Path
    why: str = ""

    def map(self, points: np.ndarray) -> NoReturn:
        """Raise InputError."""
        raise self.error()

    def map_nodes(self, grid: Grid, first: int, last: int) -> NoReturn:
        """Raise InputError."""
        raise self.error()

    def error(self) -> InputError:
        """The error that names the file."""
        return InputError(
            self.why
            or f"transform {self.path.parent}: {self.path.name} is missing, and the inverse of the "
            f"deformation is needed here; register again and save it, too"
        )
