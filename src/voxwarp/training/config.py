"""The configuration of a training: every knob, its default and what it does; read from YAML.

A word that is not a knob is refused with the nearest one that is. Values on the command line,
``key.of.it=value``, take the place of those in the file.
"""

import copy
import difflib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import InputError
from ..networks.network import NETWORKS
from .costs import COSTS, OF_RECOGNITION, check_options, cost_function, options_of, wants_of


def _no_boolean(value: Any) -> Any:
    """Pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, and not true or false")
    return value


Number = BeforeValidator(_no_boolean)
Fraction = Annotated[float, Field(ge=0, le=1), Number]
BelowOne = Annotated[float, Field(ge=0, lt=1), Number]
NotNegative = Annotated[float, Field(ge=0), Number]
Positive = Annotated[float, Field(gt=0), Number]
Count = Annotated[int, Field(ge=1, lt=1 << 31), Number]
WholeNumber = Annotated[int, Field(ge=0, lt=1 << 31), Number]

Side = Annotated[int, Field(ge=8, le=4096), Number]  # voxels

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


#: Costs of the deformation alone: without another one nothing would be learnt.
TAME = "diffusion", "bending", "inverse_consistency"


class Section(BaseModel):
    """Knobs that belong together. Numbers are finite, words are known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(Section):
    """Where scans come from: a table of them, a folder, or a BIDS data set; just one of these."""

    table: str | None = Field(
        default=None,
        description="CSV or JSON-lines file, one scan a row; columns scan, labels, person, "
        "dataset, split, of which all but scan may be missing; paths from its folder",
    )
    folder: str | None = Field(default=None, description="folder of scans, each of another person")
    bids: str | None = Field(default=None, description="BIDS data set; sub-* are the people")
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
    def _one_kind(self) -> "Source":
        if sum(x is not None for x in (self.table, self.folder, self.bids)) != 1:
            raise ValueError("one of table, folder and bids is wanted")
        return self


class Structures(Section):
    """Which label values count, and what they are called."""

    values: list[Count] | None = Field(default=None, description="label values, each a structure")
    table: str | None = Field(default=None, description="CSV file with a row for each label value")
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

    sources: Annotated[list[Source], Field(min_length=1)] = Field(
        default=..., description="data sets; they are put together"
    )
    fractions: dict[Split, Fraction] = Field(
        default={"train": 0.8, "val": 0.1, "test": 0.1},
        description="of the people of each data set, where no split is given",
    )
    people: Count | None = Field(
        default=None,
        description="train on so many people only, the first in an order drawn from the seed",
    )
    structures: Structures = Field(
        default=Structures(), description="[all label values of the training scans]"
    )
    cache: str | None = Field(
        default=None, description="folder of prepared scans [voxwarp's cache folder, training/]"
    )

    @field_validator("fractions")
    @classmethod
    def _sum_to_one(cls, fractions: dict[str, float]) -> dict[str, float]:
        if abs(sum(fractions.values()) - 1) > 1e-6 or fractions.get("train", 0) <= 0:
            raise ValueError("fractions must sum to 1, with some for train")
        return fractions


class Preparation(Section):
    """How scans become the network's input; the model keeps it."""

    alignment: Literal["mni152", "centre", "header"] = Field(
        default="mni152",
        description="mni152: brains, aligned with the template; centre: the middle of each scan "
        "on the middle of the lattice; header: where the header says",
    )
    spacing: Annotated[float, Field(ge=0.01, le=100), Number] = Field(
        default=1.0, description="mm, of the lattice"
    )
    shape: Annotated[list[Side], Field(min_length=3, max_length=3)] | None = Field(
        default=None,
        description="voxels of the lattice [mni152: 160 x 192 x 224 mm around the brain; centre "
        "and header: as large as the largest scan]",
    )
    percentile: Annotated[float, Field(gt=0, le=100), Number] = Field(
        default=99.5, description="of the positive intensities; becomes 1"
    )
    brain_extract: Literal["auto", "yes", "no"] = Field(
        default="auto", description="as register has it; only for mni152"
    )
    extractor: str = Field(default="deepbet", description="or a function as module:function")
    bias: bool | None = Field(default=None, description="correct the bias field [of heads]")


class Sampling(Section):
    """Which pairs are drawn."""

    mode: Literal["pairwise", "atlas"] = Field(
        default="pairwise",
        description="pairwise: scans of two people of one split; atlas: a scan and the atlas",
    )
    atlas: str | None = Field(default=None, description="the atlas, a scan; template: MNI152")
    atlas_labels: str | None = Field(default=None, description="label map of the atlas")
    fixed: Literal["atlas", "either"] = Field(
        default="atlas", description="atlas mode: which of the two is the fixed image"
    )
    labelled: Fraction = Field(
        default=0.0, description="share of the pairs that is drawn among the labelled scans alone"
    )
    structures: WholeNumber = Field(
        default=0, description="that the cost dice compares in a step, drawn anew each time; 0: all"
    )
    voxels: WholeNumber = Field(
        default=0,
        description="of each scan that the cost recognition looks at in a step, drawn; 0: all",
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
        "costs do not; so for bias and noise",
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
    """How well the network does on pairs of the val people."""

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
    preparation: Preparation = Field(
        default=Preparation(), description="how scans become the input"
    )
    sampling: Sampling = Field(default=Sampling(), description="which pairs are drawn")
    augmentation: Augmentation = Field(default=Augmentation(), description="random changes")
    network: dict[str, Any] = Field(
        default={"name": "voxelmorph"},
        description="name (voxelmorph, diffeomorphic, pyramid, anatomy) and its arguments",
    )
    start_from: str | None = Field(
        default=None, description="model whose weights are the first ones, instead of random ones"
    )
    costs: dict[str, dict[str, Any]] = Field(
        default={"ncc": {"weight": 1.0}, "diffusion": {"weight": 1.0}},
        description="name or module:function, with weight and the options of the function",
    )
    both_directions: bool = Field(
        default=False,
        description="compare moving with fixed and fixed with moving; the mean counts",
    )
    compare_at: Literal["full", "velocity"] = Field(
        default="full",
        description="lattice of the costs: the images', or the velocity's, where the images are "
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
        _check_network(network)
        return network

    @field_validator("costs")
    @classmethod
    def _known_costs(cls, costs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, options in costs.items():
            _check_cost(name, options)
        if not any(options.get("weight", 1.0) > 0 for options in costs.values()):
            raise ValueError("one of them at least must have a weight above 0")
        if not any(options.get("weight", 1.0) > 0 for n, options in costs.items() if n not in TAME):
            raise ValueError(f"{', '.join(costs)}: none of them compares images or labels")
        return costs

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        name = self.network["name"]
        has_velocity = name in ("diffeomorphic", "pyramid")
        if self.compare_at == "velocity" and not has_velocity:
            raise ValueError(f"compare_at velocity: network {name} predicts no velocity")
        of_recognition = [n for n in self.costs if OF_RECOGNITION & {*wants_of(n)}]
        if name == "anatomy" and of_recognition != list(self.costs):
            raise ValueError("costs: network anatomy learns by cost recognition alone")
        if name != "anatomy" and of_recognition:
            raise ValueError(f"costs: {of_recognition[0]} is for network anatomy")
        if name == "anatomy" and self.sampling.labelled < 1:
            raise ValueError("sampling.labelled: network anatomy learns from labels: 1 is wanted")
        if any(phase.leave_out for phase in self.phases):
            if self.network["name"] != "pyramid" or self.compare_at != "velocity":
                raise ValueError("phases.leave_out wants a pyramid and compare_at: velocity")
            levels = len(self.network.get("channels", (8, 16, 32, 32, 32)))
            if max(phase.leave_out for phase in self.phases) >= levels:
                raise ValueError(f"phases.leave_out: the pyramid has {levels} levels only")
        coarsest = max(phase.downsample for phase in self.phases)
        if any(n % coarsest for n in self.preparation.shape or ()):
            raise ValueError(f"preparation.shape: phases want multiples of {coarsest}")
        if self.phases[-1].leave_out:
            raise ValueError("phases: the last one must use all levels")
        return self

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)


#: Weights of a network, more than which are a mistake: 1 GB, where ours have a few MB.
LARGEST_NETWORK = 1 << 28
#: Numbers among a network's arguments, at most; 2^-16 is the least step of an exponential.
LARGEST_ARGUMENT = {"steps": 16}
LARGEST_WIDTH, LARGEST_DEPTH = 4096, 16


def _check_network(network: Mapping[str, Any]) -> None:
    """Make sure that a network can be built so; it is not, but for the shapes of its weights."""
    name = network.get("name")
    if name == "descent":
        raise ValueError("network descent has no weights, so there is nothing to train")
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"name {name!r}{_nearest(str(name), NETWORKS)}")
    arguments = {key: value for key, value in network.items() if key != "name"}
    parameters = inspect.signature(NETWORKS[name]).parameters
    for key, value in arguments.items():
        if key not in parameters:
            raise ValueError(f"{name} has no argument {key!r}{_nearest(key, list(parameters))}")
        _check_argument(key, value, parameters[key].default)
    used = {key: arguments.get(key, p.default) for key, p in parameters.items()}
    if "decoder" in used:
        wanted = len(used["encoder"]) + (2 if name == "voxelmorph" else 0)
        if len(used["decoder"]) < wanted:
            raise ValueError(f"decoder: {wanted} numbers or more are wanted for that encoder")
    with torch.device("meta"):
        weights = sum(p.numel() for p in NETWORKS[name](**arguments).parameters())
    if weights > LARGEST_NETWORK:
        raise ValueError(f"{weights / 1e6:.0f} million weights are too many; take fewer channels")


def _check_argument(key: str, value: Any, default: Any) -> None:
    """Whole numbers, as many and as large as makes sense."""
    largest = LARGEST_ARGUMENT.get(key, LARGEST_WIDTH)
    many = isinstance(default, tuple)
    if isinstance(value, list) != many:
        wanted = "a list of whole numbers" if many else "a whole number"
        raise ValueError(f"{key}: {wanted} is wanted, got {_short(value)}")
    numbers = value if many else [value]
    if not all(type(n) is int and 0 < n <= largest for n in numbers):
        raise ValueError(
            f"{key}: whole numbers from 1 to {largest} are wanted, got {_short(value)}"
        )
    if not 1 <= len(numbers) <= LARGEST_DEPTH:
        raise ValueError(f"{key}: 1 to {LARGEST_DEPTH} numbers are wanted, got {len(numbers)}")


def _check_cost(name: str, options: Mapping[str, Any]) -> None:
    """Make sure that there is a cost of that name, and that it has these options."""
    if name not in COSTS and ":" not in name:
        raise ValueError(f"no cost {name!r}{_nearest(name, COSTS)}, or module:function")
    weight = options.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise ValueError(f"{name}.weight: a number is wanted, got {_short(weight)}")
    if not 0 <= weight <= 1e12:  # not so for NaN
        raise ValueError(f"{name}.weight: a number from 0 to 1e12 is wanted, got {_short(weight)}")
    known = options_of(cost_function(name))
    for key in options:
        if key != "weight" and key not in known:
            raise ValueError(f"{name} has no option {key!r}{_nearest(key, ['weight', *known])}")
    check_options(name, {key: value for key, value in options.items() if key != "weight"})


def read_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """A configuration from a YAML file.

    Args:
        path: of the file. Its relative paths are taken from its folder. Under ``extends`` it
            may name another file, which it changes.
        overrides: ``key.of.it=value`` each, the value in YAML; relative paths in them are taken
            from the working directory.

    Raises:
        InputError: the file cannot be read, or a knob or value in it is not known.
    """
    path = Path(path)
    tree = _read_tree(path, seen=())
    for override in overrides:
        first, _, rest = override.partition("=")[0].strip().partition(".")
        if rest and first in ("costs", "network") and first not in tree:
            # Part of a section that is not in the file: the rest of it is the default.
            tree[first] = copy.deepcopy(Config.model_fields[first].default)
        _set(tree, override)
    return build_config(tree, f"config {path}")


def _read_tree(path: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """What a file says, put over what the file says that it ``extends``."""
    what = f"config {path}"
    try:
        place = os.path.realpath(path)
        if place in seen:
            raise InputError(f"{what}: it extends itself")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(_one_line(f"{what}: {error.strerror or error}")) from error
    except InputError:
        raise
    except ValueError as error:  # no text, or no path
        raise InputError(_one_line(f"{what}: cannot be read: {error}")) from error
    tree = _parsed(text, what)
    if not isinstance(tree, dict):
        raise InputError(_one_line(f"{what}: keys and values are wanted at its top"))
    tree = _located(_without_empty(tree), path.parent.absolute(), what)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise InputError(f"{what}: extends: the name of another file is wanted")
    return _merged(_read_tree(path.parent / base, (*seen, place)), tree)


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """Sections in which everything is commented out say nothing."""
    sections = [name for name, info in Config.model_fields.items() if _section_in(info.annotation)]
    return {key: value for key, value in tree.items() if value is not None or key not in sections}


#: Sections whose words are taken over as a whole: one network's arguments do not fit another's.
_WHOLE = "network", "costs", "fractions", "structures"


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` in the place of ``base``, section by section; lists as a whole."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both and key not in _WHOLE else value
    return out


def build_config(tree: Mapping[str, Any], what: str = "config") -> Config:
    """A configuration from nested dictionaries.

    Raises:
        InputError: a knob or value is not known; the message names it.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = [_explained(problem) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(_one_line(f"{what}: {problems[0]}{more}")) from None
    except RecursionError:
        raise InputError(f"{what}: nested too deeply") from None


def to_yaml(config: Config) -> str:
    """The configuration with all its values, as a YAML file."""
    tree = config.model_dump(mode="json")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def knobs(section: type[Section] = Config, before: str = "") -> Iterator[tuple[str, str, str]]:
    """Every knob: its dotted name, its default and what it does."""
    for name, info in section.model_fields.items():
        inner = _section_in(info.annotation)
        listed = "[]" if inner and "list" in str(info.annotation) else ""
        if inner:
            yield from knobs(inner, f"{before}{name}{listed}.")
        else:
            default = "" if info.is_required() else _as_value(info.default)
            yield f"{before}{name}", default, info.description or ""


def _as_value(value: Any) -> str:
    """A value as it can stand after ``key=`` on the command line."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that an annotation is, or is a list of."""
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return annotation
    found = (_section_in(inner) for inner in getattr(annotation, "__args__", ()))
    return next((section for section in found if section), None)


_PLAIN = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_FLOATS = (
    re.compile(r"^([-+]?(\d+\.\d*|\.\d+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", re.ASCII),
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$", re.ASCII),
)


class _Loader(yaml.SafeLoader):
    """YAML that is as simple as JSON: words, numbers, true and false, null, lists, dictionaries.

    No key stands twice, and there are no aliases, which can make terabytes of a line. 1e-3 is a
    number; yes, no, on, off and dates are words.
    """

    yaml_constructors = {  # noqa: RUF012
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (*_PLAIN, "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", None)
    }
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, ``*name``."""
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise ValueError(f"line {line}: there are no aliases here (a * at a word's beginning)")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Puts words in quotes where ``_Loader`` would take them for something else."""


for _tag, _pattern in (
    ("null", re.compile(r"^(~|null|Null|NULL|)$")),
    ("bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$")),
    ("int", re.compile(r"^[-+]?(0|[1-9]\d*)$", re.ASCII)),
    *(("float", pattern) for pattern in _FLOATS),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, None)
for _pattern in _FLOATS:
    _Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _pattern, None)


def _mapping(loader: _Loader, node: yaml.Node) -> dict:
    if not isinstance(node, yaml.MappingNode):  # of the tag !!map
        raise ValueError(f"line {node.start_mark.line + 1}: keys and values are wanted")
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ValueError(f"line {line}: key {_short(key)} is not a word")
        if key in made:
            raise ValueError(f"line {line}: {_short(key)} stands there twice")
        made[key] = loader.construct_object(value_node, deep=True)
    return made


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _parsed(text: str, what: str) -> Any:
    """Values from YAML, with environment variables put in.

    Raises:
        InputError: it is no YAML, or a variable is not set.
    """
    try:
        tree = yaml.load(text, _Loader)
    # The tags !!int and !!bool make the last three of words that are neither.
    except (yaml.YAMLError, RecursionError, ValueError, LookupError) as error:
        raise InputError(_one_line(f"{what}: not YAML: {error}")) from error
    return _expanded(tree, what)


def _set(tree: dict, override: str) -> None:
    """Put the value of ``a.b.0.c=value`` into nested dictionaries and lists."""
    key, equals, text = override.partition("=")
    what = f"override {_short(override)}"
    if not equals or not key.strip():
        raise InputError(f"{what}: key=value is wanted")
    *path, last = _words(key.strip())
    section = next((word for word in reversed(path) if not word.isdecimal()), "")
    value = _located({last: _parsed(text, what)}, Path.cwd(), what, section)[last]
    place: Any = tree
    for word in path:
        at = _slot(place, word, what)
        if isinstance(place, dict) and place.get(at) is None:
            place[at] = {}
        place = place[at]
    place[_slot(place, last, what)] = value


def _words(key: str) -> list[str]:
    """The parts of a dotted key. After ``costs`` may come a module:function with dots."""
    rest = key.removeprefix("costs.")
    if rest != key and ":" in rest:
        module, _, function = rest.partition(":")
        name, _, option = function.partition(".")
        return ["costs", f"{module}:{name}", *([option] if option else [])]
    return key.split(".")


def _slot(place: Any, word: str, what: str) -> Any:
    """Where in a dictionary or list a word leads to."""
    if isinstance(place, dict):
        return word
    if not isinstance(place, list):
        raise InputError(f"{what}: there is nothing inside of {_short(place)}")
    if not word.isdecimal() or len(word) > 9 or int(word) >= len(place):
        raise InputError(f"{what}: there is no {_short(word)} in a list of {len(place)}, from 0 on")
    return int(word)


DEEPEST = 32  # dictionaries and lists inside of each other


def _expanded(tree: Any, what: str, depth: int = 0) -> Any:
    """``${NAME}`` and ``${NAME:-default}`` in words give way to environment variables."""
    if depth > DEEPEST:
        raise InputError(_one_line(f"{what}: nested too deeply"))
    if isinstance(tree, dict):
        return {key: _expanded(value, what, depth + 1) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_expanded(value, what, depth + 1) for value in tree]
    if not isinstance(tree, str):
        return tree

    def value_of(match: re.Match) -> str:
        value = os.environ.get(match[1]) or match[3]
        if value is None:
            raise InputError(_one_line(f"{what}: the environment variable {match[1]} is not set"))
        return value

    return re.sub(r"\$\{([A-Za-z_]\w*)(:-([^}]*))?\}", value_of, tree, flags=re.ASCII)


# Knobs that are paths, by the section they stand in.
_PATHS = {
    "": ("start_from",),
    "sources": ("table", "folder", "bids"),
    "structures": ("table",),
    "data": ("cache",),
    "sampling": ("atlas", "atlas_labels"),
}


def _located(tree: Any, folder: Path, what: str, section: str = "") -> Any:
    """Relative paths from the folder of the file that they stand in."""
    if isinstance(tree, list):
        return [_located(value, folder, what, section) for value in tree]
    if not isinstance(tree, dict):
        return tree
    out = {}
    for key, value in tree.items():
        if key in _PATHS.get(section, ()) and isinstance(value, str) and not _is_name(key, value):
            try:
                out[key] = os.path.normpath(folder / Path(value).expanduser())
            except RuntimeError as error:  # ~ of nobody
                raise InputError(_one_line(f"{what}: {key}: {value}: {error}")) from error
        else:
            out[key] = _located(value, folder, what, key)
    return out


def _is_name(key: str, value: str) -> bool:
    """Whether a path is none: the atlas ``template``, a model that is installed."""
    return (key == "atlas" and value == "template") or (key == "start_from" and "/" not in value)


def _explained(problem: Any) -> str:
    """What is wrong with a knob, in a few words."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section = _section_at(problem["loc"][:-1])
        return f"unknown key {place!r}{_nearest(str(problem['loc'][-1]), section.model_fields)}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{place}: keys and values are wanted, got {_short(problem['input'])}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _section_at(place: Sequence[Any]) -> type[Section]:
    section: type[Section] = Config
    for part in place:
        if isinstance(part, str) and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation) or section
    return section


def _nearest(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _short(value: object) -> str:
    """A value in a message."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."


LONGEST = 600  # letters of a message


def _one_line(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
