"""The configuration of a training: every knob, its default and what it does; read from YAML.

A word that is not a knob is refused with the nearest one that is. Values on the command line,
``key.of.it=value``, take the place of those in the file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..data.messages import short
from ..data.plain_yaml import written, written_in_line
from ..data.section import (
    BelowOne,
    Count,
    Fraction,
    IsPath,
    NotNegative,
    Number,
    Positive,
    Section,
    WholeNumber,
    build,
    section_in,
)
from ..data.sources import Data, LocalPath
from ..data.yaml_file import read_section
from ..networks.catalogue import ARCHITECTURES, Capabilities
from ..preparation.recipe import alignment_named
from ..preparation.settings import BrainExtract, Preparation
from .checks import check_losses, check_network, learning_from, with_defaults
from .loss_terms import OF_SEGMENTATION, wants_of

Side = Annotated[int, Field(ge=8, le=4096), Number]  # voxels


def _is_word(alignment: str) -> bool:
    """Whether an alignment is a word, and not the path of a template's image."""
    return "/" not in alignment and "." not in alignment


class Inputs(Section):
    """How scans become the network's input; the model keeps it."""

    alignment: Annotated[str, IsPath(unless=_is_word)] = Field(
        default="mni152",
        description="mni152: brains, aligned with the template, or with another one whose image "
        "has this path; centre: the middle of each scan on the middle of the lattice; header: "
        "where the header says",
    )
    spacing: Annotated[float, Field(ge=0.01, le=100), Number] = Field(
        default=1.0, description="mm, of the lattice"
    )
    shape: Annotated[list[Side], Field(min_length=3, max_length=3)] | None = Field(
        default=None,
        description="voxels of the lattice [mni152: 160 x 192 x 224 mm around the brain; another "
        "template: its brain; centre and header: as large as the largest scan]",
    )
    percentile: Annotated[float, Field(gt=0, le=100), Number] = Field(
        default=99.5, description="of the positive intensities; becomes 1"
    )
    brain_extract: BrainExtract = Field(
        default="auto", description="as register has it; only for scans aligned with a template"
    )
    extractor: str = Field(default="deepbet", description="or a function as module:function")
    bias: bool | None = Field(default=None, description="correct the bias field [of heads]")

    @field_validator("alignment")
    @classmethod
    def _known_alignment(cls, alignment: str) -> str:
        try:
            alignment_named(alignment)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"mni152, centre, header or the path of a template's image is wanted, got "
                f"{short(alignment)}"
            ) from error
        return alignment

    @property
    def steps(self) -> Preparation:
        """Which steps of preparation are taken, as every command has them.

        Raises:
            InputError: there is no such extractor.
        """
        return Preparation(self.brain_extract, self.extractor, self.bias)


class Sampling(Section):
    """Which pairs are drawn."""

    mode: Literal["pairwise", "atlas"] = Field(
        default="pairwise",
        description="pairwise: scans of two subjects of one split; atlas: a scan and the atlas",
    )
    atlas: Annotated[str | None, IsPath(unless=lambda word: word == "template")] = Field(
        default=None, description="the atlas, a scan; template: MNI152"
    )
    atlas_labels: LocalPath = Field(default=None, description="label map of the atlas")
    fixed: Literal["atlas", "either"] = Field(
        default="atlas", description="atlas mode: which of the two is the fixed image"
    )
    labelled: Fraction = Field(
        default=0.0, description="share of the pairs that is drawn among the labelled scans alone"
    )
    structures: WholeNumber = Field(
        default=0, description="that the loss dice compares in a step, drawn anew each time; 0: all"
    )
    voxels: WholeNumber = Field(
        default=0,
        description="of each scan that the loss segmentation looks at in a step, drawn; 0: all",
    )

    @model_validator(mode="after")
    def _atlas(self) -> "Sampling":
        if (self.mode == "atlas") != (self.atlas is not None):
            raise ValueError("mode atlas wants an atlas, and no other mode does")
        return self


class Augmentation(Section):
    """Random changes of the pairs; seeded by step. Zero switches one off."""

    flip: Fraction = Field(
        default=0.0,
        description="probability of mirroring both left to right; in mode atlas the atlas, too",
    )
    rotation: NotNegative = Field(
        default=0.0, description="degrees about each axis, at most; each scan"
    )
    scaling: BelowOne = Field(
        default=0.0, description="change of size along each axis, at most; 0.1: by 10 %"
    )
    shift: NotNegative = Field(default=0.0, description="mm along each axis, at most")
    bending: NotNegative = Field(
        default=0.0, description="deviation of a smooth displacement along each axis, mm"
    )
    gamma: NotNegative = Field(
        default=0.0,
        description="log-range of a power of the intensities, which the network sees and the "
        "losses do not; so for bias and noise",
    )
    bias: NotNegative = Field(default=0.0, description="log-range of a smooth factor")
    noise: NotNegative = Field(
        default=0.0, description="deviation of the noise, at most; 1 is white"
    )


class Optimiser(Section):
    """Adam with decoupled weight decay, one cosine over all steps, a warm-up in each phase."""

    learning_rate: Positive = Field(default=1e-3, description="at its peak")
    final: Fraction = Field(default=0.01, description="of the peak, at the end of the cosine")
    warm_up: WholeNumber = Field(default=50, description="steps of linear growth, in each phase")
    weight_decay: NotNegative = Field(default=0.0, description="of AdamW")
    clip: NotNegative = Field(default=1.0, description="largest norm of the gradient; 0: no limit")
    batch: Count = Field(default=1, description="pairs in one pass, in each process")
    accumulate: Count = Field(default=1, description="passes in a step")
    ema: BelowOne = Field(
        default=0.0,
        description="decay of the moving average of the weights, which is validated and kept",
    )


class Phase(Section):
    """A stretch of the training, from coarse to fine."""

    steps: Count = Field(..., description="updates of the weights")
    downsample: Annotated[Literal[1, 2, 4, 8], Number] = Field(
        default=1, description="images are averaged down by this"
    )
    leave_out: WholeNumber = Field(
        default=0, description="finest levels of a pyramid that rest; wants compare_at: velocity"
    )


class Validation(Section):
    """How well the network does on pairs of the val subjects."""

    every: Count = Field(default=150, description="steps; also at the end")
    pairs: Count = Field(
        default=6, description="at most so many, evenly chosen among all ordered ones"
    )
    give_up: WholeNumber = Field(
        default=500,
        description="steps after which a network that moves nothing ends the run; 0: never",
    )


class Log(Section):
    """What is written while it runs."""

    every: Count = Field(default=25, description="steps, of a line in log.csv and the terminal")
    checkpoint: Count = Field(default=100, description="steps, of the state to resume from")
    tensorboard: bool = Field(default=True, description="scalars and pictures, if it is installed")


class Config(Section):
    """A whole training."""

    task: str = Field(default="deformable registration", description="for the model's card")
    limits: str = Field(default="", description="for the model's card: what it was not made for")
    seed: WholeNumber = Field(
        default=0, description="of the weights, the splits, the pairs, the changes"
    )
    data: Data = Field(..., description="scans, labels, splits")
    preparation: Inputs = Field(default=Inputs(), description="how scans become the input")
    sampling: Sampling = Field(default=Sampling(), description="which pairs are drawn")
    augmentation: Augmentation = Field(default=Augmentation(), description="random changes")
    network: dict[str, Any] = Field(
        default={"name": "voxelmorph"},
        description=f"name ({', '.join(learning_from('images', 'labels'))}) and its arguments",
    )
    start_from: Annotated[str | None, IsPath(unless=lambda word: "/" not in word)] = Field(
        default=None, description="model whose weights are the first ones, instead of random ones"
    )
    losses: dict[str, dict[str, Any]] = Field(
        default={"ncc": {"weight": 1.0}, "diffusion": {"weight": 1.0}},
        description="name or module:function, with weight and the options of the function",
    )
    both_directions: bool = Field(
        default=False,
        description="compare moving with fixed and fixed with moving; the mean counts",
    )
    compare_at: Literal["full", "velocity"] = Field(
        default="full",
        description="lattice of the losses: the images', or the velocity's, where the images are "
        "averaged down to it",
    )
    optimiser: Optimiser = Field(default=Optimiser(), description="steps of the weights")
    phases: Annotated[list[Phase], Field(min_length=1)] = Field(
        default=[Phase(steps=1000)], description="one after the other"
    )
    precision: Literal["auto", "bf16", "float32"] = Field(
        default="auto", description="of convolutions; auto: bf16 where the processor multiplies it"
    )
    workers: WholeNumber = Field(default=0, description="processes that read and augment; 0: none")
    validation: Validation = Field(default=Validation(), description="how well it does")
    log: Log = Field(default=Log(), description="what is written while it runs")

    @field_validator("network")
    @classmethod
    def _known_network(cls, network: dict[str, Any]) -> dict[str, Any]:
        check_network(network)
        return network

    @field_validator("losses")
    @classmethod
    def _known_losses(cls, losses: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        check_losses(losses)
        return losses

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        self._check_network_fits()
        self._check_phases()
        return self

    def _check_network_fits(self) -> None:
        """What the network can do, and what it is to be taught."""
        name, can = self.network["name"], self.capabilities
        if self.compare_at == "velocity" and not can.has_velocity:
            raise ValueError(f"compare_at velocity: network {name} predicts no velocity")
        of_segmentation = [n for n in self.losses if OF_SEGMENTATION & {*wants_of(n)}]
        if can.learns_from == "labels":
            if of_segmentation != list(self.losses):
                raise ValueError(f"losses: network {name} learns by loss segmentation alone")
            if self.sampling.labelled < 1:
                raise ValueError(
                    f"sampling.labelled: network {name} learns from labels: 1 is wanted"
                )
        elif of_segmentation:
            whose = ", ".join(learning_from("labels"))
            raise ValueError(f"losses: {of_segmentation[0]} is for network {whose}")

    def _check_phases(self) -> None:
        """What a stretch of the training rests or averages."""
        left_out = max(phase.leave_out for phase in self.phases)
        if left_out:
            if not self.capabilities.has_levels or self.compare_at != "velocity":
                raise ValueError("phases.leave_out wants a pyramid and compare_at: velocity")
            levels = len(with_defaults(self.network)["channels"])
            if left_out >= levels:
                raise ValueError(f"phases.leave_out: the pyramid has {levels} levels only")
        coarsest = max(phase.downsample for phase in self.phases)
        if any(n % coarsest for n in self.preparation.shape or ()):
            raise ValueError(f"preparation.shape: phases want multiples of {coarsest}")
        if self.phases[-1].leave_out:
            raise ValueError("phases: the last one must use all levels")

    @property
    def capabilities(self) -> Capabilities:
        """What the network can do."""
        return ARCHITECTURES[self.network["name"]].capabilities

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)


def read_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """A configuration from a YAML file.

    Args:
        path: of the file, see ``data.yaml_file``.
        overrides: ``key.of.it=value`` each, the value in YAML; relative paths in them are taken
            from the working directory.

    Raises:
        InputError: the file cannot be read, or a knob or value in it is not known.
    """
    return read_section(Config, path, overrides)


def build_config(tree: Mapping[str, Any], what: str = "config") -> Config:
    """A configuration from nested dictionaries.

    Raises:
        InputError: a knob or value is not known; the message names it.
    """
    return build(Config, tree, what)


def to_yaml(config: Config) -> str:
    """The configuration with all its values, as a YAML file."""
    return written(config.model_dump(mode="json"))


def knobs(section: type[Section] = Config, before: str = "") -> Iterator[tuple[str, str, str]]:
    """Every knob: its dotted name, its default and what it does."""
    for name, info in section.model_fields.items():
        inner = section_in(info.annotation)
        listed = "[]" if inner and "list" in str(info.annotation) else ""
        if inner:
            yield from knobs(inner, f"{before}{name}{listed}.")
        else:
            default = "" if info.is_required() else written_in_line(info.default)
            yield f"{before}{name}", default, info.description or ""
