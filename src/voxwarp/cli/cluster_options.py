"""What cohort, template and morphometry share: which scans, on which processors or cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .command import Command
from .options import COMPUTING, INPUTS

if TYPE_CHECKING:
    from ..cohort.cluster import Cluster

WHICH = "Which scans"
CLUSTER = "Where it runs"
#: Names that other BIDS Apps have for our options.
OTHER_NAMES = {
    "--n-cpus": "--nprocs",
    "--ncpus": "--nprocs",
    "--nthreads": "--nprocs",
    "--mem": "--mem-gb",
    "--skip-bids-validator": "--skip-bids-validation",
}


class CohortCommand(Command):
    """A command whose options may be written as those of other BIDS Apps.

    These have underscores in place of hyphens, and take several values after one option.
    """

    several = ("--participant-label", "--session-label", "--also")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Bring the arguments into the form of our other commands."""
        return super().parse_args(ctx, list(_expanded(args, self.several)))


def _expanded(args: Sequence[str], several: Sequence[str]) -> list[str]:
    expanded, current = list[str](), ""
    for arg in args:
        if arg.startswith("--"):
            name, equals, value = arg.partition("=")
            name = OTHER_NAMES.get(name.replace("_", "-"), name.replace("_", "-"))
            current = name if name in several and not equals else ""
            expanded.append(f"{name}{equals}{value}")
        elif current and not arg.startswith("-"):
            if expanded[-1] != current:
                expanded.append(current)
            expanded.append(arg)
        else:
            current = ""
            expanded.append(arg)
    return expanded


ParticipantLabel = Annotated[
    list[str] | None,
    typer.Option(
        help="Only these persons, with or without sub-; several may follow.",
        metavar="LABEL",
        rich_help_panel=WHICH,
    ),
]
FilterFile = Annotated[
    Path | None,
    typer.Option(
        help='JSON file of entities that scans must have, such as {"t1w": {"acquisition": '
        '"mprage"}}, as for fMRIPrep.',
        metavar="FILE",
        rich_help_panel=WHICH,
    ),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        help="Transform images of these suffixes, too, such as T2w, dseg or bold: those of the "
        "same session. They must share the world space of the T1w scan.",
        metavar="SUFFIX",
        rich_help_panel=INPUTS,
    ),
]
Processors = Annotated[
    int | None,
    typer.Option(
        help="CPU cores to use.",
        metavar="N",
        min=1,
        show_default="all",
        rich_help_panel=COMPUTING,
    ),
]
ThreadsOfEach = Annotated[
    int | None,
    typer.Option(
        help="Cores of each scan; the last digits of results depend on it.",
        metavar="N",
        min=1,
        show_default="1",
        rich_help_panel=COMPUTING,
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        help="Memory to use, in GB.",
        metavar="GB",
        min=0.1,
        show_default="what is free",
        rich_help_panel=COMPUTING,
    ),
]
WorkDir = Annotated[
    Path | None,
    typer.Option(
        "-w",
        "--work-dir",
        help="Folder for intermediate results, which later runs reuse.",
        metavar="FOLDER",
        show_default="the cache of voxwarp",
        rich_help_panel=COMPUTING,
    ),
]
DaskScheduler = Annotated[
    str | None,
    typer.Option(
        help="Run on the workers of this scheduler of dask: its address, or its file.",
        metavar="ADDRESS",
        rich_help_panel=CLUSTER,
    ),
]
DaskConfig = Annotated[
    Path | None,
    typer.Option(
        help="Run on the cluster that this YAML file describes, such as SLURM.",
        metavar="FILE",
        rich_help_panel=CLUSTER,
    ),
]


def cluster_of(
    nprocs: int | None,
    mem_gb: float | None,
    dask_scheduler: str | None,
    dask_config: Path | None,
) -> "Cluster":
    """Where the work is done, as the options say.

    Raises:
        InputError: they exclude each other.
    """
    from ..cohort.cluster import Cluster

    if dask_scheduler is not None and dask_config is not None:
        raise InputError("dask_scheduler and dask_config exclude each other: leave one out")
    return Cluster(
        processors=nprocs,
        memory=None if mem_gb is None else mem_gb * 1e9,
        address=dask_scheduler,
        description=dask_config,
    )
