"""Where scans come from, as a configuration tells it: sources, splits, structures."""

import os
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from .section import Count, Fraction, IsPath, Section, WholeNumber
from .yaml_file import read_section

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

LocalPath = Annotated[str | None, IsPath()]


class ScanSource(Section):
    """Where scans come from: a table of them, a folder, or a BIDS data set; just one of these."""

    table: LocalPath = Field(
        default=None,
        description="CSV or JSON-lines file, one scan a row; columns scan, labels, subject, "
        "dataset, split, of which all but scan may be missing; paths from its folder",
    )
    folder: LocalPath = Field(default=None, description="folder of scans, each of another subject")
    bids: LocalPath = Field(default=None, description="BIDS data set; sub-* are the subjects")
    scan: str | None = Field(
        default=None,
        description="of a table: pattern of the path, such as t1/{id}.nii.gz, filled from the "
        "columns [{scan}]; of a folder: which files [*.nii.gz]",
    )
    labels: str | None = Field(
        default=None,
        description="pattern of the label map's path, filled from the table's columns, or for a "
        "folder or BIDS from {name}, the scan's file name, {stem}, that without its ending, and "
        "{folder}, where it lies in there; of these, a scan without such a file has no labels",
    )
    suffix: str = Field(default="T1w", description="of BIDS files")
    dataset: str | None = Field(default=None, description="name of the data set [the folder's]")
    split: Split | None = Field(default=None, description="split of all scans that name none")
    licence: str | None = Field(
        default=None, description="of the scans; goes into the model's card"
    )
    credit: list[str] = Field(default=[], description="lines that have to go with the model")

    @model_validator(mode="after")
    def _one_kind(self) -> "ScanSource":
        if sum(x is not None for x in (self.table, self.folder, self.bids)) != 1:
            raise ValueError("one of table, folder and bids is wanted")
        return self


class Structures(Section):
    """Which label values count, and what they are called."""

    is_whole: ClassVar[bool] = True  # values and a table exclude each other

    values: list[Count] | None = Field(default=None, description="label values, each a structure")
    table: LocalPath = Field(default=None, description="CSV file with a row for each label value")
    value: str = Field(default="value", description="column of the label value")
    name: str = Field(
        default="structure",
        description="column of the structure's name; values share names, or have none",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "Structures":
        if self.values is not None and self.table is not None:
            raise ValueError("values or a table is wanted, not both")
        return self


class Data(Section):
    """Scans, who is trained on and who is not."""

    sources: Annotated[list[ScanSource], Field(min_length=1)] = Field(
        default=..., description="data sets; they are put together"
    )
    fractions: dict[Split, Fraction] = Field(
        default={"train": 0.8, "val": 0.1, "test": 0.1},
        description="of the subjects of each data set, where no split is given",
    )
    subjects: Count | None = Field(
        default=None,
        description="train on so many subjects only, the first in an order drawn from the seed",
    )
    structures: Structures = Field(
        default=Structures(), description="[all label values of the training scans]"
    )
    cache: LocalPath = Field(
        default=None, description="folder of prepared scans [voxwarp's cache folder, training/]"
    )

    @field_validator("fractions")
    @classmethod
    def _sum_to_one(cls, fractions: dict[str, float]) -> dict[str, float]:
        if abs(sum(fractions.values()) - 1) > 1e-6 or fractions.get("train", 0) <= 0:
            raise ValueError("fractions must sum to 1, with some for train")
        return fractions


class TrainingData(Section):
    """What the configuration of a training says of its scans; its other sections may be anything.

    Attributes:
        data: scans, labels, splits.
        seed: of the splits.
    """

    model_config = ConfigDict(extra="ignore")

    data: Data
    seed: WholeNumber = 0


def read_training_data(path: str | os.PathLike[str]) -> TrainingData:
    """The scans of a training, from its YAML file.

    Raises:
        InputError: the file cannot be read, or what it says of scans is wrong.
    """
    return read_section(TrainingData, path)
