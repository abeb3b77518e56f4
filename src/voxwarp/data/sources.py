"""The ``data`` section of a configuration: sources of scans, splits, structures."""

import os
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from .section import Count, Fraction, IsPath, Section, WholeNumber
from .yaml_file import read_section

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

LocalPath = Annotated[str | None, IsPath()]


class ScanSource(Section):
    """A source of scans: one of a table, a folder or a BIDS data set."""

    table: LocalPath = Field(
        default=None,
        description="CSV, TSV or JSON-lines file with one scan per row; columns: scan (required), "
        "labels, subject, dataset, split; paths are relative to the folder of the table",
    )
    folder: LocalPath = Field(
        default=None, description="folder of scans; each scan is another subject"
    )
    bids: LocalPath = Field(default=None, description="BIDS data set; each sub-* is a subject")
    scan: str | None = Field(
        default=None,
        description="for a table: pattern of the scan's path, such as t1/{id}.nii.gz, with names "
        "of columns in braces [{scan}]; for a folder: pattern of the file names [*.nii.gz]",
    )
    labels: str | None = Field(
        default=None,
        description="pattern of the label map's path; for a table, with names of columns in "
        "braces; for a folder or BIDS, with {name} (the scan's file name), {stem} (file name "
        "without extension) and {folder} (the scan's folder within the source), and scans without "
        "such a file have no labels",
    )
    suffix: str = Field(default="T1w", description="suffix of the BIDS files")
    dataset: str | None = Field(
        default=None, description="name of the data set [name of the folder]"
    )
    split: Split | None = Field(
        default=None, description="split of the scans for which the table names none"
    )
    licence: str | None = Field(
        default=None, description="licence of the scans, for the model card"
    )
    credit: list[str] = Field(
        default=[], description="acknowledgements that must be passed on with the model"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "ScanSource":
        if sum(x is not None for x in (self.table, self.folder, self.bids)) != 1:
            raise ValueError("must have exactly one of table, folder and bids")
        return self


class Structures(Section):
    """Which label values are structures, and their names."""

    is_whole: ClassVar[bool] = True  # values and a table exclude each other

    values: list[Count] | None = Field(
        default=None, description="label values; each is a structure"
    )
    table: LocalPath = Field(default=None, description="CSV file with one label value per row")
    value: str = Field(default="value", description="column of the table with the label value")
    name: str = Field(
        default="structure",
        description="column of the table with the structure's name; values with the same name are "
        "one structure, values without a name are ignored",
    )
    ignore: Count | None = Field(
        default=None,
        description="label value of voxels that are not labelled; the loss segmentation leaves "
        "them out",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "Structures":
        if self.values is not None and self.table is not None:
            raise ValueError("must have values or a table, not both")
        if self.ignore is not None and self.ignore in (self.values or ()):
            raise ValueError(f"ignore must not be one of values, got {self.ignore}")
        return self


class Data(Section):
    """Scans and their splits."""

    former_keys: ClassVar[Mapping[str, str]] = {"people": "subjects"}

    sources: Annotated[list[ScanSource], Field(min_length=1)] = Field(
        default=..., description="sources of scans; all are used"
    )
    fractions: dict[Split, Fraction] = Field(
        default={"train": 0.8, "val": 0.1, "test": 0.1},
        description="share of the subjects of each data set in each split, for subjects without "
        "a split",
    )
    subjects: Count | None = Field(
        default=None,
        description="number of train subjects to use, chosen at random from the seed [all]",
    )
    structures: Structures = Field(
        default=Structures(), description="structures [all label values of the train scans]"
    )
    cache: LocalPath = Field(
        default=None,
        description="folder for prepared scans [the folder training in voxwarp's cache]",
    )

    @field_validator("fractions")
    @classmethod
    def _sum_to_one(cls, fractions: dict[str, float]) -> dict[str, float]:
        if abs(sum(fractions.values()) - 1) > 1e-6 or fractions.get("train", 0) <= 0:
            raise ValueError("must sum to 1, with more than 0 for train")
        return fractions


class TrainingData(Section):
    """The part of a training's configuration that is about scans; the rest is not checked.

    Attributes:
        data: scans, labels, splits.
        seed: seed of the splits.
    """

    model_config = ConfigDict(extra="ignore")

    data: Data
    seed: WholeNumber = 0


def read_training_data(path: str | os.PathLike[str]) -> TrainingData:
    """Read which scans a training uses, from its YAML file.

    Raises:
        InputError: the file cannot be read, or its settings about scans are not valid.
    """
    return read_section(TrainingData, path)
