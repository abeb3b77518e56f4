"""Options that several commands share, and the frozen values that are made of them.

What is left out on the command line is None here, so that its default stands in one place: in
``Preparation``, ``Refinement`` or ``Runtime``. The words of ``show_default`` are for the help
alone.
"""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..runtime import Runtime

if TYPE_CHECKING:
    from ..networks.refine import Refinement
    from ..preparation.settings import Preparation


class Device(str, Enum):
    """Where the network runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class BrainExtract(str, Enum):
    """Whether brains are extracted."""

    auto = "auto"
    yes = "yes"
    no = "no"


OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Exit with code 3 where there is any warning.")
]
ModelOption = Annotated[str, typer.Option(help="Name of a model, or its folder.")]
SmoothnessOption = Annotated[
    float | None,
    typer.Option(
        help="How smooth a refined deformation is, or that of default and none: 2 is smoother.",
        metavar="FACTOR",
    ),
]

# --------------------------------------------------------------------------------- Preparation

BrainExtractOption = Annotated[
    BrainExtract | None,
    typer.Option(
        help="Extract the brain; auto tells heads from brains and says which it saw.",
        show_default="auto",
    ),
]
ExtractorOption = Annotated[
    str | None,
    typer.Option(
        help="What extracts it: deepbet, or a function as module:function.", show_default="deepbet"
    ),
]
BiasOption = Annotated[
    bool | None,
    typer.Option("--bias/--no-bias", help="Correct the bias field (N4).", show_default="of heads"),
]
AffineOption = Annotated[
    bool | None,
    typer.Option("--affine/--no-affine", help="Align linearly first.", show_default="affine"),
]


def preparation_of(
    brain_extract: BrainExtract | None = None,
    extractor: str | None = None,
    bias: bool | None = None,
    affine: bool | None = None,
    conform: bool | None = None,
) -> "Preparation":
    """What the options of the preparation mean.

    Raises:
        InputError: one of them is wrong.
    """
    from ..preparation.settings import Preparation

    return Preparation(
        **_given(
            brain_extract=brain_extract and brain_extract.value,
            extractor=extractor,
            bias=bias,
            affine=affine,
            conform=conform,
        )
    )


# ---------------------------------------------------------------------------------- Refinement

RefineOption = Annotated[
    bool | None,
    typer.Option(
        "--refine/--no-refine",
        help="Go on from the network's answer for this pair.",
        show_default="no-refine",
    ),
]
RefineStepsOption = Annotated[
    int | None,
    typer.Option(
        help="Refine in so many steps at most, 1 to 1000.", metavar="N", show_default="16"
    ),
]
RefineSecondsOption = Annotated[
    float | None,
    typer.Option(
        help="Refine for so long at most.", metavar="SECONDS", show_default="as long as it takes"
    ),
]


def refinement_of(
    refine: bool | None, steps: int | None, seconds: float | None
) -> "bool | Refinement":
    """What the options of the refinement mean; steps or seconds alone ask for it, too.

    Raises:
        InputError: one of them is wrong, or they contradict each other.
    """
    given = _given(steps=steps, seconds=seconds)
    if refine is False and given:
        raise InputError(f"--no-refine: --refine-{next(iter(given))} asks for a refinement")
    if not (refine or given):
        return False
    from ..networks.refine import Refinement

    return Refinement(**given)


# ------------------------------------------------------------------------------------- Runtime

DeviceOption = Annotated[
    Device | None, typer.Option(help="Where the network runs.", show_default="auto")
]
CacheOption = Annotated[
    bool | None,
    typer.Option(
        "--cache/--no-cache", help="Remember what was found in each scan.", show_default="cache"
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="Of the processor; the last bits of results depend on them.",
        metavar="N",
        show_default="as many as PyTorch takes",
    ),
]


def runtime_of(
    *,
    device: Device | None = None,
    cache: bool | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Runtime:
    """What the options of the runtime mean.

    Raises:
        InputError: the number of threads is none.
    """
    given = _given(device=device and device.value, cache=cache, threads=threads)
    return Runtime(**given, progress=progress)


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not left out."""
    return {name: value for name, value in options.items() if value is not None}


# ------------------------------------------------------------------------- Saved registrations

TransformOption = Annotated[
    list[str],
    typer.Option(
        "--transform",
        "-t",
        help="Folder that register wrote, or an ITK affine; several in the order in which the "
        "image travels (ANTs lists them the other way round). \\[PATH,1]: its inverse.",
        metavar="PATH",
    ),
]
InverseOption = Annotated[
    bool, typer.Option("--inverse", help="From the (last) fixed scan to the (first) moving scan.")
]
