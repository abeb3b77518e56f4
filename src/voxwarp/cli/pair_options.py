"""What evaluate and benchmark share: options that choose pairs and scores, and the summary."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import DONE, DOUBTFUL, answer, warn
from .options import OUTPUT

if TYPE_CHECKING:
    from ..data.pairs import Pair
    from ..evaluation.protocol import Protocol

PAIRS = "Pairs"
SCORES = "Scores"


class ResamplingName(StrEnum):
    """How label maps are resampled."""

    nearest = "nearest"
    linear = "linear"


Pairs = Annotated[
    Path,
    typer.Argument(
        help="CSV table of pairs (columns moving and fixed), CSV table of scans, or the YAML file "
        "of a training. Of scans, all ordered pairs of a split are registered.",
        metavar="PAIRS",
    ),
]
Split = Annotated[
    str,
    typer.Option(
        help="Split of the scans to use: train, val, test or all; for tables of scans that have "
        "the column split, and for trainings.",
        metavar="NAME",
        rich_help_panel=PAIRS,
    ),
]
Kind = Annotated[
    str,
    typer.Option(
        help="Pairs of two subjects (inter), two scans of one subject (retest), or all.",
        metavar="KIND",
        rich_help_panel=PAIRS,
    ),
]
ScanPattern = Annotated[
    str | None,
    typer.Option(
        "--scan",
        help="For a table of scans: path of each scan, with columns of the table in braces, such "
        "as t1/{id}.nii.gz.",
        metavar="PATTERN",
        rich_help_panel=PAIRS,
    ),
]
LabelsPattern = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="For a table of scans: path of each label map, such as labels/{id}.nii.gz.",
        metavar="PATTERN",
        rich_help_panel=PAIRS,
    ),
]
First = Annotated[
    int | None,
    typer.Option(
        help="Use only the first N pairs.",
        metavar="N",
        min=1,
        show_default="all pairs",
        rich_help_panel=PAIRS,
    ),
]
Structures = Annotated[
    Path | None,
    typer.Option(
        help="CSV table of the structures to score, with columns value and structure.",
        metavar="FILE",
        show_default="every label value",
        rich_help_panel=SCORES,
    ),
]
Regions = Annotated[
    str | None,
    typer.Option(
        help="Label values for a second mean, Dice-regions, such as 4-41,44,47-62.",
        metavar="VALUES",
        show_default="every label value",
        rich_help_panel=SCORES,
    ),
]
Resampling = Annotated[
    ResamplingName,
    typer.Option(
        help="Resample label maps by nearest neighbour, or linearly, one value at a time.",
        metavar="METHOD",
        rich_help_panel=SCORES,
    ),
]
OutFolder = Annotated[
    Path,
    typer.Option(
        "-o",
        "--out",
        help="Folder for the tables. If they exist, the command continues with the pairs that are "
        "missing.",
        metavar="FOLDER",
        rich_help_panel=OUTPUT,
    ),
]
Retry = Annotated[
    bool, typer.Option("--retry", help="Try failed pairs again.", rich_help_panel=OUTPUT)
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Remove existing tables and start again.", rich_help_panel=OUTPUT
    ),
]


def pairs_of(
    table: Path,
    split: str,
    scan: str | None,
    labels: str | None,
    kind: str,
    first: int | None,
) -> "list[Pair]":
    """The pairs that the options choose.

    Raises:
        InputError: see ``read_pairs``.
    """
    from ..data.pairs import read_pairs

    return read_pairs(table, split=split, scan=scan, labels=labels, kind=kind)[:first]


def warn_of_headers(pairs: "Sequence[Pair]") -> None:
    """Print what the headers of the scans and label maps leave in doubt, once for each file."""
    from ..space.volume import header_warnings

    scans = [scan for pair in pairs for scan in (pair.moving, pair.fixed)]
    warn(header_warnings(scan.path for scan in scans))
    warn(header_warnings((scan.labels for scan in scans), "label map"))


def protocol_for(
    table: Path,
    pairs: "Sequence[Pair]",
    structures: Path | None,
    regions: str | None,
    resampling: ResamplingName,
) -> "Protocol":
    """What is scored. The structures of a training are those of its YAML file by default.

    Raises:
        InputError: see ``protocol_of``.
    """
    from ..data.sources import read_training_data
    from ..evaluation.protocol import protocol_of

    scored: Any = structures
    if structures is None and table.suffix.lower() in (".yaml", ".yml"):
        scored = read_training_data(table).data.structures
    return protocol_of(pairs, structures=scored, regions=regions, labels=resampling.value)


def print_summary(rows: Sequence[dict[str, Any]], out: Path) -> int:
    """Print the means of each method, and the path of the table.

    Returns:
        The exit code: 3 if a pair failed.
    """
    from ..evaluation.summary import means_of, summary

    table = out / "pairs.csv"
    answer([*summary(rows), table], {"table": table, "methods": means_of(rows)})
    return DOUBTFUL if any(row["status"] != "ok" for row in rows) else DONE
