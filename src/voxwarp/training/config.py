"""The configuration of a training: every setting with its default and description, from YAML.

Unknown settings are refused, with a suggestion. Values on the command line, such as
``optimiser.batch=2``, replace those in the file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ..data.plain_yaml import dump, dump_inline
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
from .checks import check_losses, check_network, learning_from, with_defaults
from .loss_terms import SEGMENTATION_INPUTS, inputs_of, with_current_losses
from .scan_preparation import ScanPreparation


class Sampling(Section):
    """Which pairs are drawn for a training step."""

    mode: Literal["pairwise", "atlas"] = Field(
        default="pairwise",
        description="pairwise: scans of two subjects; atlas: a scan and the atlas",
    )
    atlas: Annotated[str | None, IsPath(unless=lambda name: name == "template")] = Field(
        default=None,
        description="for mode atlas: path of a scan; template: the template of the alignment, "
        "or else MNI152",
    )
    atlas_labels: LocalPath = Field(default=None, description="path of the atlas's label map")
    fixed: Literal["atlas", "either"] = Field(
        default="atlas",
        description="for mode atlas: the fixed image is always the atlas, or either at random",
    )
    labelled: Fraction = Field(
        default=0.0, description="share of the pairs that are drawn from labelled scans only"
    )
    structures: WholeNumber = Field(
        default=0,
        description="number of structures that the loss dice compares, drawn for each step; 0: all",
    )
    voxels: WholeNumber = Field(
        default=0,
        description="number of voxels per scan that the loss segmentation uses, drawn for each "
        "step; 0: all",
    )

    @model_validator(mode="after")
    def _atlas(self) -> "Sampling":
        if (self.mode == "atlas") != (self.atlas is not None):
            raise ValueError("atlas must be set in mode atlas, and only there")
        return self


class Augmentation(Section):
    """Random changes of the pairs, drawn from the seed and the step. Zero switches one off."""

    flip: Fraction = Field(
        default=0.0,
        description="probability that both scans of a pair are mirrored, left to right; in mode "
        "atlas, the atlas too",
    )
    rotation: NotNegative = Field(
        default=0.0, description="largest rotation of a scan about each axis, degrees"
    )
    scaling: BelowOne = Field(
        default=0.0, description="largest scaling of a scan along each axis; 0.1: by 10 %"
    )
    shift: NotNegative = Field(
        default=0.0, description="largest shift of a scan along each axis, mm"
    )
    bending: NotNegative = Field(
        default=0.0,
        description="standard deviation of a smooth random displacement along each axis, mm",
    )
    gamma: NotNegative = Field(
        default=0.0,
        description="the intensities are raised to a power between exp(-gamma) and exp(gamma), "
        "in the input of the network only, not in the losses; the same holds for bias and noise",
    )
    bias: NotNegative = Field(
        default=0.0,
        description="the intensities are multiplied by a smooth factor between exp(-bias) and "
        "exp(bias)",
    )
    noise: NotNegative = Field(
        default=0.0,
        description="largest standard deviation of Gaussian noise, relative to the white of the "
        "image",
    )


class Synthesis(Section):
    """Images of random contrast, made from a scan and its labels, for the network to segment."""

    share: Fraction = Field(
        default=0.0,
        description="probability that the network gets an image of a random contrast that is made "
        "from the scan and its labels, instead of the scan; gamma, bias and noise of the "
        "augmentation follow",
    )
    structures: NotNegative = Field(
        default=0.2,
        description="largest standard deviation of the offsets that structures get beside the "
        "random curve of intensities, relative to the white of the image",
    )
    flatness: Fraction = Field(
        default=1.0,
        description="largest share of the differences within a structure that is removed; 1: "
        "structures may become homogeneous",
    )
    blur: NotNegative = Field(
        default=1.0, description="largest standard deviation of a Gaussian that blurs, mm"
    )
    thickness: Annotated[float, Field(ge=1), Number] = Field(
        default=5.0,
        description="largest thickness of slices, mm; half of the images are averaged in slices "
        "along one axis",
    )
    lesions: Fraction = Field(
        default=0.3, description="probability that an image gets a lesion of random intensity"
    )


class Optimiser(Section):
    """Optimiser: AdamW; the learning rate warms up in each phase and decays as one cosine."""

    learning_rate: Positive = Field(default=1e-3, description="learning rate at its peak")
    final: Fraction = Field(
        default=0.01, description="learning rate at the end, relative to the peak"
    )
    warm_up: WholeNumber = Field(
        default=50, description="steps at the start of each phase in which the rate grows linearly"
    )
    weight_decay: NotNegative = Field(default=0.0, description="weight decay of AdamW")
    clip: NotNegative = Field(default=1.0, description="largest norm of the gradient; 0: no limit")
    batch: Count = Field(default=1, description="pairs per pass, in each process")
    accumulate: Count = Field(
        default=1, description="passes per step, whose gradients are averaged"
    )
    ema: BelowOne = Field(
        default=0.0,
        description="decay of a moving average of the weights, which is then the model; 0: none",
    )


class Phase(Section):
    """A phase of the training; phases usually go from coarse to fine."""

    steps: Count = Field(..., description="training steps of the phase")
    downsample: Annotated[Literal[1, 2, 4, 8], Number] = Field(
        default=1, description="factor by which the images are averaged down: 1, 2, 4 or 8"
    )
    leave_out: WholeNumber = Field(
        default=0,
        description="number of the finest levels of a pyramid that are not used; needs "
        "compare_at: velocity",
    )


class Validation(Section):
    """How the network is scored on pairs of val subjects."""

    every: Count = Field(
        default=150, description="steps between validations; there is one at the end, too"
    )
    pairs: Count = Field(
        default=6, description="largest number of pairs, spread evenly over all ordered pairs"
    )
    give_up: WholeNumber = Field(
        default=500,
        description="number of steps after which a training ends if the network still moves "
        "nothing; 0: never",
    )


class Log(Section):
    """What a training writes while it runs."""

    every: Count = Field(
        default=25, description="steps between lines in log.csv and in the terminal"
    )
    checkpoint: Count = Field(
        default=100, description="steps between checkpoints, from which a training resumes"
    )
    tensorboard: bool = Field(
        default=True, description="write curves and pictures for TensorBoard, if it is installed"
    )


class Config(Section):
    """The configuration of a training."""

    former_keys: ClassVar[Mapping[str, str]] = {"costs": "losses"}

    task: str = Field(
        default="deformable registration", description="task of the model, for its card"
    )
    limits: str = Field(
        default="", description="limits of the model, for its card: what it was not made for"
    )
    seed: WholeNumber = Field(
        default=0,
        description="seed of everything random: first weights, splits, pairs, augmentation",
    )
    data: Data = Field(..., description="scans, labels, splits")
    preparation: ScanPreparation = Field(
        default=ScanPreparation(), description="how scans become the input"
    )
    sampling: Sampling = Field(default=Sampling(), description="which pairs are drawn")
    augmentation: Augmentation = Field(default=Augmentation(), description="random changes")
    synthesis: Synthesis = Field(
        default=Synthesis(), description="images of random contrast, made from scans and labels"
    )
    network: dict[str, Any] = Field(
        default={"name": "voxelmorph"},
        description=f"name of the network ({', '.join(learning_from('images', 'labels'))}) and its "
        f"arguments",
    )
    start_from: Annotated[str | None, IsPath(unless=lambda name: "/" not in name)] = Field(
        default=None,
        description="model whose weights the training starts from (a name, or a path with a /) "
        "[random weights]",
    )
    losses: dict[str, dict[str, Any]] = Field(
        default={"ncc": {"weight": 1.0}, "diffusion": {"weight": 1.0}},
        description="loss terms by name (or your own module:function), each with its weight and "
        "options",
    )
    both_directions: bool = Field(
        default=False,
        description="register moving to fixed and fixed to moving, and average the losses",
    )
    compare_at: Literal["full", "velocity"] = Field(
        default="full",
        description="grid on which the losses are computed: full (that of the images) or velocity "
        "(the coarser grid of the velocity, onto which the images are averaged down)",
    )
    optimiser: Optimiser = Field(default=Optimiser(), description="how the weights are updated")
    phases: Annotated[list[Phase], Field(min_length=1)] = Field(
        default=[Phase(steps=1000)], description="phases, one after the other"
    )
    precision: Literal["auto", "bf16", "float32"] = Field(
        default="auto",
        description="precision of convolutions; auto: bf16 on processors that compute with it",
    )
    workers: WholeNumber = Field(
        default=0, description="processes that read and augment scans; 0: the training itself does"
    )
    validation: Validation = Field(default=Validation(), description="scores during the training")
    log: Log = Field(default=Log(), description="what is written during the training")

    @field_validator("network")
    @classmethod
    def _known_network(cls, network: dict[str, Any]) -> dict[str, Any]:
        check_network(network)
        return network

    @field_validator("losses", mode="before")
    @classmethod
    def _current_losses(cls, losses: Any) -> Any:
        return with_current_losses(losses) if isinstance(losses, dict) else losses

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
        """Make sure that the losses suit the network."""
        name, can = self.network["name"], self.capabilities
        if self.compare_at == "velocity" and not can.has_velocity:
            raise ValueError(f"compare_at must be full, because network {name} has no velocity")
        segments = [n for n in self.losses if SEGMENTATION_INPUTS & {*inputs_of(n)}]
        if can.learns_from == "labels":
            if segments != list(self.losses):
                raise ValueError(
                    f"losses: network {name} is trained with the loss segmentation only; remove "
                    f"the others"
                )
            if self.sampling.labelled < 1:
                raise ValueError(
                    f"sampling.labelled must be 1, because network {name} is trained on labels"
                )
        elif segments:
            suitable = ", ".join(learning_from("labels"))
            raise ValueError(f"losses: {segments[0]} is for network {suitable}, not for {name}")

    def _check_phases(self) -> None:
        """Make sure that the phases suit the network and the working grid."""
        left_out = max(phase.leave_out for phase in self.phases)
        if left_out:
            if not self.capabilities.has_levels or self.compare_at != "velocity":
                raise ValueError(
                    "phases.leave_out needs the network pyramid and compare_at: velocity"
                )
            levels = len(with_defaults(self.network)["channels"])
            if left_out >= levels:
                raise ValueError(
                    f"phases.leave_out must be less than {levels}, the number of levels of the "
                    f"pyramid, got {left_out}"
                )
        coarsest = max(phase.downsample for phase in self.phases)
        if any(n % coarsest for n in self.preparation.shape or ()):
            raise ValueError(
                f"preparation.shape must be multiples of {coarsest}, because a phase averages the "
                f"images down by that"
            )
        if self.phases[-1].leave_out:
            raise ValueError("phases: leave_out must be 0 in the last phase")

    @property
    def capabilities(self) -> Capabilities:
        """What the network can do."""
        return ARCHITECTURES[self.network["name"]].capabilities

    @property
    def steps(self) -> int:
        """Training steps of all phases."""
        return sum(phase.steps for phase in self.phases)


def read_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read the configuration of a training from a YAML file.

    Args:
        path: path of the file. Relative paths in it start at its folder.
        overrides: settings such as ``optimiser.batch=2``, with the value in YAML. Relative paths
            in them start at the working directory.

    Raises:
        InputError: the file cannot be read, or a setting or value is not valid.
    """
    return read_section(Config, path, overrides)


def build_config(tree: Mapping[str, Any], what: str = "config") -> Config:
    """Build a configuration from nested dictionaries.

    Raises:
        InputError: a setting or value is not valid; the message names it.
    """
    return build(Config, tree, what)


def to_yaml(config: Config) -> str:
    """Write a configuration with all its values as YAML."""
    return dump(config.model_dump(mode="json"))


def settings_table(
    section: type[Section] = Config, prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Every setting: its dotted name, its default ("" if it is required) and its description."""
    for name, info in section.model_fields.items():
        inner = section_in(info.annotation)
        listed = "[]" if inner and "list" in str(info.annotation) else ""
        if inner:
            yield from settings_table(inner, f"{prefix}{name}{listed}.")
        else:
            default = "" if info.is_required() else dump_inline(info.default)
            yield f"{prefix}{name}", default, info.description or ""
