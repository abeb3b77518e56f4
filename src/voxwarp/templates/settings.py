"""How a template is built."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError
from ..registration.deform import check_smoothness
from .averages import Average, check_average

#: mm; a brain in smaller voxels than the least takes more memory than it is worth.
LEAST_SPACING, LARGEST_SPACING = 0.3, 8.0
MOST_ROUNDS = 20
AFFINE_ROUNDS = 2  # the first with the rigid mean, which is blurred; set by hand


@dataclass(frozen=True)
class TemplateSettings:
    """Settings of a template.

    Args:
        name: of the template and its space, letters and digits; in the names of files after tpl-.
        cohort: label of the group of people that it is of; in the names of files after cohort-.
        model: name or folder of the model that registers the scans.
        rounds: of deformable registration, each with the mean of the one before.
        average: of the intensities: "mean", "median" or "trimmed" (without the extremes).
        spacing: of the template's voxels, mm.
        symmetric: count the mirror image of each scan, too.
        sharpen: sharpen the last average.
        longitudinal: whether scans may be of the same person; each person counts once.
        smoothness: see ``register``.
        brain_extract, extractor, bias: see ``Preparation``.
        threads: of each worker; they change the last digits alone.

    Raises:
        InputError: a value is not allowed.
    """

    name: str = "template"
    cohort: str | None = None
    model: str = "default"
    rounds: int = 4
    average: Average = "mean"
    spacing: float = 1.0
    symmetric: bool = False
    sharpen: bool = False
    longitudinal: bool = False
    smoothness: float | None = None
    brain_extract: str = "auto"
    extractor: str = "deepbet"
    bias: bool | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        for what, label in (("name", self.name), ("cohort", self.cohort)):
            if label is not None and not (label.isascii() and label.isalnum()):
                raise InputError(f"{what} must be of letters and digits, as in BIDS, got {label!r}")
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise InputError(f"rounds must be from 1 to {MOST_ROUNDS}, got {self.rounds}")
        if not LEAST_SPACING <= self.spacing <= LARGEST_SPACING:
            raise InputError(
                f"spacing must be from {LEAST_SPACING} to {LARGEST_SPACING:.0f} mm, got "
                f"{self.spacing:g}"
            )
        check_average(self.average)
        check_smoothness(self.smoothness)

    def as_json(self) -> dict[str, Any]:
        """All settings, as a worker gets them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TemplateSettings":
        """Settings from ``as_json``."""
        return cls(**values)
