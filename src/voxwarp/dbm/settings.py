"""What is measured of a group of registered people."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

MOST_FWHM = 30.0  # mm; set by hand


@dataclass(frozen=True)
class MorphometrySettings:
    """Settings of a morphometry.

    Args:
        fwhm: widths of the Gaussians that smooth maps, full width at half maximum, mm; the maps as
            they are are always written, too.
        atlas: label map in the space of the results, whose regions are measured; None: that of the
            template, if the results lie in its folder.
        modulate: pattern of the paths of maps of each person, such as probabilities of grey matter,
            with {folder}, {stem} and {name} of her scan; None: none.
        longitudinal: measure the change between the first and the last scan of each person.
        times: table of the times of the scans, in years or as dates; None: changes are not
            annualised.
        model: whose preparation and working grid the two scans of a person get.
        threads: of each worker; they change the last digits alone.

    Raises:
        InputError: a value is not allowed.
    """

    fwhm: tuple[float, ...] = ()
    atlas: Path | None = None
    modulate: str | None = None
    longitudinal: bool = False
    times: Path | None = None
    model: str = "default"
    threads: int = 1

    def __post_init__(self) -> None:
        for width in self.fwhm:
            if not 0 < width <= MOST_FWHM:
                raise InputError(
                    f"fwhm must be above 0 and at most {MOST_FWHM:.0f} mm, got {width:g}"
                )
        if self.times is not None and not self.longitudinal:
            raise InputError("times has no effect without `longitudinal`; add it, or leave it out")

    def as_json(self) -> dict[str, Any]:
        """All settings, as a worker gets them."""
        values = asdict(self)
        for name in ("atlas", "times"):
            path = values[name]
            values[name] = None if path is None else str(Path(path).absolute())
        return {**values, "fwhm": list(self.fwhm)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "MorphometrySettings":
        """Settings from ``as_json``."""
        paths = {
            name: None if values[name] is None else Path(values[name])
            for name in ("atlas", "times")
        }
        return cls(**{**values, **paths, "fwhm": tuple(values["fwhm"])})
