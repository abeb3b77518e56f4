"""Options that several commands share, and the settings that are made of them.

Commands cannot import the classes of the settings to ask for their defaults, because that takes
PyTorch; a test compares the defaults here with theirs. None stands for "not given" where that
makes a difference.
"""

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..runtime import Runtime

if TYPE_CHECKING:
    from ..networks.refine import Refinement
    from ..preparation.settings import Preparation

# Panels of the help.
INPUTS = "Inputs"
TRANSFORM = "Transform"
PREPARATION = "Preparation"
OUTPUT = "Output"
COMPUTING = "Computing"
OTHER = "Other"


class DeviceName(StrEnum):
    """Where the networks run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class BrainExtractName(StrEnum):
    """Whether brains are extracted."""

    auto = "auto"
    yes = "yes"
    no = "no"


# -------------------------------------------------------------------------------------- Output

OutFolder = Annotated[
    Path,
    typer.Option(
        "-o", "--out", help="Folder for the results.", metavar="FOLDER", rich_help_panel=OUTPUT
    ),
]


def out_file(name: str, what: str) -> Path:
    """The path of a file to write.

    Args:
        name: as it was given; a path forgets that it ended in a slash.
        what: is written to it, for messages.

    Raises:
        InputError: the name is that of a folder.
    """
    if is_folder_name(name):
        raise InputError(f"output {name}: this is a folder, but {what} must be written to a file")
    return Path(name)


def is_folder_name(name: str) -> bool:
    """Whether the name of an output says that it is a folder, which need not exist."""
    return name.endswith(tuple(filter(None, (os.sep, os.altsep))))


Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace existing results.", rich_help_panel=OUTPUT),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit with code 3 if there is any warning.", rich_help_panel=OUTPUT
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the results as a JSON object, for scripts.", rich_help_panel=OTHER
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="Print only warnings and errors.", rich_help_panel=OTHER),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", help="Print log messages on stderr, too.", rich_help_panel=OTHER
    ),
]

# ----------------------------------------------------------------------------------- Transform


def _model_names(incomplete: str) -> list[str]:
    """The installed models that begin so, for the completion of shells."""
    from ..networks.installed import installed

    return [name for name in installed() if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(
        autocompletion=_model_names,
        help="Name of an installed model (voxwarp models list), or the folder of a model.",
        metavar="NAME",
        rich_help_panel=TRANSFORM,
    ),
]
Refine = Annotated[
    bool | None,
    typer.Option(
        "--refine/--no-refine",
        help="Continue from the model's result by optimising this one pair: a little more overlap, "
        "slower.",
        show_default="no refinement",
        rich_help_panel=TRANSFORM,
    ),
]
RefineSteps = Annotated[
    int | None,
    typer.Option(
        help="Refine in at most N steps, 1 to 1000; implies --refine.",
        metavar="N",
        show_default="8 with --refine",
        rich_help_panel=TRANSFORM,
    ),
]
RefineSeconds = Annotated[
    float | None,
    typer.Option(
        help="Stop refining after this time; implies --refine.",
        metavar="SECONDS",
        show_default="no limit",
        rich_help_panel=TRANSFORM,
    ),
]
Smoothness = Annotated[
    float | None,
    typer.Option(
        help="Make the deformation smoother (above 1) or rougher (below 1), 0.5 to 8; for "
        "--refine and for the models default, fast, any and none.",
        metavar="FACTOR",
        show_default="1",
        rich_help_panel=TRANSFORM,
    ),
]


def refinement_of(
    refine: bool | None, steps: int | None, seconds: float | None
) -> "bool | Refinement":
    """The refinement that the options ask for; steps or seconds alone ask for it, too.

    Raises:
        InputError: one of them is out of range, or they contradict each other.
    """
    limits = {"steps": steps, "seconds": seconds}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    if refine is False and limits:
        raise InputError(f"--no-refine contradicts --refine-{next(iter(limits))}: leave one out")
    if not (refine or limits):
        return False
    from ..networks.refine import Refinement

    return Refinement(**limits)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------- Preparation

BrainExtract = Annotated[
    BrainExtractName,
    typer.Option(
        help="Extract the brain: yes, no, or auto (from scans with skull; the command prints which "
        "scans are heads and which are brains).",
        metavar="MODE",
        rich_help_panel=PREPARATION,
    ),
]
Extractor = Annotated[
    str,
    typer.Option(
        help="Extract brains with deepbet, or with a Python function of your own "
        "(module:function).",
        metavar="NAME",
        rich_help_panel=PREPARATION,
    ),
]
Bias = Annotated[
    bool | None,
    typer.Option(
        "--bias/--no-bias",
        help="Correct the bias field (N4).",
        show_default="bias for heads, no-bias for brains",
        rich_help_panel=PREPARATION,
    ),
]
Affine = Annotated[
    bool,
    typer.Option(
        "--affine/--no-affine",
        help="Align the scans linearly first. Use --no-affine if they already share a world space.",
        rich_help_panel=PREPARATION,
    ),
]


def preparation_of(
    brain_extract: BrainExtractName,
    extractor: str,
    bias: bool | None,
    affine: bool,
    conform: bool = True,
) -> "Preparation":
    """The preparation that the options ask for.

    Raises:
        InputError: the extractor does not exist.
    """
    from ..preparation.settings import Preparation

    return Preparation(brain_extract.value, extractor, bias, affine, conform)


# ----------------------------------------------------------------------------------- Computing

Device = Annotated[
    DeviceName,
    typer.Option(
        help="Run the networks on cpu or cuda; auto takes a GPU if there is one.",
        metavar="NAME",
        rich_help_panel=COMPUTING,
    ),
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Reuse brain masks, bias fields and alignments that earlier commands computed.",
        rich_help_panel=COMPUTING,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Number of CPU threads; the last digits of results depend on it.",
        metavar="N",
        show_default="chosen by PyTorch",
        rich_help_panel=COMPUTING,
    ),
]


def runtime_of(
    *,
    device: DeviceName = DeviceName.auto,
    cache: bool = True,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Runtime:
    """The runtime that the options ask for.

    Raises:
        InputError: the number of threads is below 1.
    """
    return Runtime(device.value, cache, progress, threads)


# ------------------------------------------------------------------------- Saved registrations

Transforms = Annotated[
    list[str],
    typer.Option(
        "--transform",
        "-t",
        help="Folder of register, preprocess or antsRegistration, or a file of ITK (linear, a "
        "composite .h5, or a displacement field); [PATH,1] is its inverse. Repeat it for a chain, "
        "in the order in which the image travels (ANTs uses the reverse order).",
        metavar="PATH",
        rich_help_panel=TRANSFORM,
    ),
]
Inverse = Annotated[
    bool,
    typer.Option(
        "--inverse",
        help="Go from the fixed space to the moving space.",
        rich_help_panel=TRANSFORM,
    ),
]
