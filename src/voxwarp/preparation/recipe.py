"""Recipes: the working grid, the working space and the scale of intensities of a model's scans."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..space.grid import Grid
from .agreement import FitThresholds
from .template import TEMPLATES, Template, mni152, template_named

# 160 × 192 × 224 voxels of 1 mm as in VoxelMorph (doi:10.1109/TMI.2019.2897538), with the axes of
# FreeSurfer (L, I, A), around the MNI152 brain.
WORKING_GRID = Grid(
    (160, 192, 224),
    [
        [-1.0, 0.0, 0.0, 79.5],
        [0.0, 0.0, 1.0, -128.0],
        [0.0, -1.0, 0.0, 101.0],
        [0.0, 0.0, 0.0, 1.0],
    ],
)

#: How scans come into a common space: aligned with a template, by their centres, or by headers.
Alignment = Template | Literal["centre", "header"]
TEMPLATE_FILE = "template.nii.gz"  # in the folder of a model with a template of its own


@dataclass(frozen=True)
class Recipe:
    """How a scan becomes the input of a network.

    Args:
        grid: working grid, in the working space; aligned scans are resampled onto it.
        percentile: the percentile of the brain's intensities that becomes 1; higher ones are
            clipped. 99.5 is set by hand; all shipped models were trained with it.
        alignment: the working space: that of a template, which scans are aligned with by an affine
            map; "centre", with the middle of each scan at the origin; or "header", the world space
            of the scans.
    """

    grid: Grid = WORKING_GRID
    percentile: float = 99.5
    alignment: Alignment = field(default_factory=mni152)

    @property
    def template(self) -> Template | None:
        """The template that scans are aligned with, if there is one."""
        return self.alignment if isinstance(self.alignment, Template) else None

    @property
    def alignment_name(self) -> str:
        """The alignment as one word, as in configurations and records."""
        if not isinstance(self.alignment, Template):
            return self.alignment
        known = (name for name, make in TEMPLATES.items() if make() is self.alignment)
        return next(known, "template")

    def described(self) -> dict[str, Any]:
        """The recipe for records in JSON, with the description of a template of its own."""
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
        """Read a recipe from its record.

        Args:
            about: as ``described`` returns it.
            folder: the model's, which has the image of a template of its own.

        Raises:
            InputError: the template's image is missing.
            ValueError, KeyError, TypeError: the record is not valid.
        """
        grid = Grid(about["shape"], about["affine"])
        alignment = about.get("alignment", "mni152")
        if alignment == "template":
            template = about["template"]
            path = folder / TEMPLATE_FILE
            if not os.path.lexists(path):
                raise InputError(
                    f"model {folder}: its template {path.name} is missing; copy the whole folder "
                    f"of the model"
                )
            own = Template(
                name=str(template["name"]),
                source=path,
                title=str(template["title"]),
                space_code=int(template["space_code"]),
                thresholds=_thresholds(template.get("thresholds", {})),
            )
            return cls(grid, about["percentile"], own)
        names = "centre", "header", *TEMPLATES
        if alignment not in names:  # a record must not point to other files
            raise ValueError(f"alignment must be {', '.join(names)} or template, got {alignment!r}")
        return cls(grid, about["percentile"], alignment_named(alignment))


def _thresholds(values: dict[str, Any]) -> FitThresholds:
    return FitThresholds(**{name: float(value) for name, value in dict(values).items()})


def alignment_named(name: str) -> Alignment:
    """Return the alignment that a configuration names.

    Args:
        name: centre, header, the name of a template, or the path of its image.

    Raises:
        ValueError: it is none of these.
    """
    if name == "centre":
        return "centre"
    if name == "header":
        return "header"
    try:
        return template_named(str(name))
    except InputError as error:
        names = ", ".join(["centre", "header", *TEMPLATES])
        raise ValueError(
            f"alignment must be {names} or the path of a template, got {name!r}"
        ) from error
