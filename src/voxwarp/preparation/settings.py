"""The choice of preparation steps, shared by commands, configurations and records."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InputError
from .brain import extractor

BrainExtract = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Preparation:
    """Which steps bring a scan, as it is stored, to its brain in the template's space.

    Args:
        brain_extract: "yes" extracts the brain, "no" treats the scan as skull-stripped, "auto"
            decides for each scan.
        extractor: how the brain is extracted: "deepbet", or your own "module:function".
        bias: whether to correct the bias field; None: of heads, not of skull-stripped brains.
        affine: whether to align with the template; otherwise the scan is assumed to be aligned.
        conform: whether to work at 1 mm on 256³ voxels; otherwise on the voxels of the scan, with
            axes reordered to R, A, S.

    Raises:
        InputError: a value is not one of these, or there is no such extractor.

    Example:
        >>> import voxwarp
        >>> own = voxwarp.Preparation(brain_extract="no", bias=False)
        >>> result = voxwarp.register("moving.nii.gz", "fixed.nii.gz", preparation=own)
        >>> result.metrics["preparation"]["moving"]["bias_corrected"]
        False
    """

    brain_extract: str = "auto"
    extractor: str = "deepbet"
    bias: bool | None = None
    affine: bool = True
    conform: bool = True

    def __post_init__(self) -> None:
        if self.brain_extract not in get_args(BrainExtract):
            raise InputError(f"brain_extract must be auto, yes or no, got {self.brain_extract!r}")
        extractor(self.extractor)


DEFAULTS = Preparation()
