"""Which steps of preparation are taken: one value for every command, configuration and record."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InputError
from .brain import extractor

BrainExtract = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Preparation:
    """Which steps are taken from a scan as it is stored to its brain in the template's space.

    Args:
        brain_extract: extract the brain ("yes"), take the scan for a brain ("no"), or look
            ("auto").
        extractor: see ``brain.extractor``.
        bias: correct the bias field; None: of heads, not of brains.
        affine: align with the template; without it the scan is taken to be there.
        conform: work at 1 mm on 256³ voxels; without it on the scan's own, its axes reordered
            to R, A, S.

    Raises:
        InputError: a word is none of these, or there is no such extractor.
    """

    brain_extract: str = "auto"
    extractor: str = "deepbet"
    bias: bool | None = None
    affine: bool = True
    conform: bool = True

    def __post_init__(self) -> None:
        if self.brain_extract not in get_args(BrainExtract):
            raise InputError(f"brain-extract {self.brain_extract!r}: wanted auto, yes or no")
        extractor(self.extractor)


DEFAULTS = Preparation()
