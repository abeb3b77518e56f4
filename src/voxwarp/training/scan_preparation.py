"""The section ``preparation`` of a training's configuration."""

from typing import Annotated

from pydantic import Field, field_validator

from ..data.messages import short
from ..data.section import IsPath, Number, Section
from ..preparation.recipe import alignment_named
from ..preparation.settings import BrainExtract, Preparation

Side = Annotated[int, Field(ge=8, le=4096), Number]  # voxels


def _is_name(alignment: str) -> bool:
    """Whether an alignment is a name, not the path of a template's image."""
    return "/" not in alignment and "." not in alignment


class ScanPreparation(Section):
    """How scans become the input of the network; stored in the model."""

    alignment: Annotated[str, IsPath(unless=_is_name)] = Field(
        default="mni152",
        description="mni152: the brain is aligned with MNI152; path of an image: with that "
        "template; centre: the middle of each scan is put on the middle of the working grid; "
        "header: scans stay where their headers place them",
    )
    spacing: Annotated[float, Field(ge=0.01, le=100), Number] = Field(
        default=1.0, description="voxel size of the working grid in mm"
    )
    shape: Annotated[list[Side], Field(min_length=3, max_length=3)] | None = Field(
        default=None,
        description="voxels of the working grid along each axis [mni152: 160 x 192 x 224 mm around "
        "the brain; another template: its brain; centre: the largest scan; header: all scans]",
    )
    percentile: Annotated[float, Field(gt=0, le=100), Number] = Field(
        default=99.5, description="percentile of the positive intensities that becomes 1"
    )
    brain_extract: BrainExtract = Field(
        default="auto",
        description="whether the brain is extracted, as in register: auto, yes or no; only for "
        "alignment with a template",
    )
    extractor: str = Field(
        default="deepbet", description="brain extraction: deepbet, or your own module:function"
    )
    bias: bool | None = Field(
        default=None, description="whether the bias field is corrected [of heads only]"
    )

    @field_validator("alignment")
    @classmethod
    def _known_alignment(cls, alignment: str) -> str:
        try:
            alignment_named(alignment)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"must be mni152, centre, header or the path of a template's image, got "
                f"{short(alignment)}"
            ) from error
        return alignment

    @property
    def steps(self) -> Preparation:
        """The steps of preparation, as in every command.

        Raises:
            InputError: the extractor is unknown.
        """
        return Preparation(self.brain_extract, self.extractor, self.bias)
