"""What a model's inputs are: the lattice, the space that it lies in, and the scale of intensity."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..space.grid import Grid
from .agreement import FitThresholds
from .template import TEMPLATES, Template, mni152, template_named

# The paper's 160 × 192 × 224 at 1 mm with FreeSurfer's axes L, I, A, around the MNI152 brain.
WORKING_GRID = Grid(
    (160, 192, 224),
    [
        [-1.0, 0.0, 0.0, 79.5],
        [0.0, 0.0, 1.0, -128.0],
        [0.0, -1.0, 0.0, 101.0],
        [0.0, 0.0, 0.0, 1.0],
    ],
)

#: Where scans are put together: on a template, middle on middle, or where their headers say.
Alignment = Template | Literal["centre", "header"]
TEMPLATE_FILE = "template.nii.gz"  # of a model whose template is not one of ``TEMPLATES``


@dataclass(frozen=True)
class Recipe:
    """How a scan becomes the network's input.

    Args:
        grid: lattice that aligned scans are resampled onto, in their common world space.
        percentile: the intensity of the brain's voxels that becomes 1; larger ones are clipped.
        alignment: what the common space is: that of a template, where an affine map leads; that
            with the middle of each scan at its origin ("centre"); or the one that the scans'
            headers tell of ("header").
    """

    grid: Grid = WORKING_GRID
    percentile: float = 99.5
    alignment: Alignment = field(default_factory=mni152)

    @property
    def template(self) -> Template | None:
        """The template that scans are aligned with, if they are."""
        return self.alignment if isinstance(self.alignment, Template) else None

    @property
    def alignment_name(self) -> str:
        """The alignment in a word, as configurations and records have it."""
        if not isinstance(self.alignment, Template):
            return self.alignment
        known = (name for name, make in TEMPLATES.items() if make() is self.alignment)
        return next(known, "template")

    def described(self) -> dict[str, Any]:
        """For records in JSON; of a template that has no name, what tells it from others."""
        about = {
            "shape": list(self.grid.shape),
            "affine": self.grid.affine.tolist(),
            "percentile": self.percentile,
            "alignment": self.alignment_name,
        }
        if self.alignment_name == "template" and self.template is not None:
            about["template"] = {
                "name": self.template.name,
                "title": self.template.title,
                "space_code": self.template.space_code,
                "thresholds": asdict(self.template.thresholds),
                "file": TEMPLATE_FILE,
            }
        return about

    @classmethod
    def from_record(cls, about: dict[str, Any], folder: Path) -> "Recipe":
        """What ``described`` told, with the template's image from the model's folder.

        Raises:
            InputError: the template is not there.
            ValueError, KeyError, TypeError: it is no such record.
        """
        grid = Grid(about["shape"], about["affine"])
        alignment = about.get("alignment", "mni152")
        if alignment == "template":
            known = about["template"]
            path = folder / TEMPLATE_FILE
            if not path.is_file():
                raise InputError(f"model {folder}: its template, {path.name}, is not there")
            own = Template(
                name=str(known["name"]),
                source=path,
                title=str(known["title"]),
                space_code=int(known["space_code"]),
                thresholds=_thresholds(known.get("thresholds", {})),
            )
            return cls(grid, about["percentile"], own)
        if alignment not in ("centre", "header", *TEMPLATES):  # a record names no other files
            raise ValueError(f"alignment {alignment!r}")
        return cls(grid, about["percentile"], alignment_named(alignment))


def _thresholds(told: dict[str, Any]) -> FitThresholds:
    return FitThresholds(**{name: float(value) for name, value in dict(told).items()})


def alignment_named(name: str) -> Alignment:
    """The alignment behind a word of a configuration: a template's name or path, or how.

    Raises:
        ValueError: it is no such word.
    """
    if name == "centre":
        return "centre"
    if name == "header":
        return "header"
    try:
        return template_named(str(name))
    except InputError as error:
        raise ValueError(f"alignment {name!r}") from error
