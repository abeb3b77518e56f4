"""What the commands that run over pairs share: which pairs, what is counted, how it ended."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import DONE, DOUBTFUL

if TYPE_CHECKING:
    from ..data.pairs import Pair
    from ..evaluation.protocol import Protocol


class Resampling(str, Enum):
    """How label maps are resampled."""

    nearest = "nearest"
    linear = "linear"


PairsArgument = Annotated[
    Path,
    typer.Argument(
        help="Table of pairs (columns moving, fixed), table of scans, or a training's YAML file: "
        "then all ordered pairs of a split.",
        metavar="PAIRS",
    ),
]
RowsOption = Annotated[Path, typer.Option("-o", "--out", help="Folder for the rows.")]
SplitOption = Annotated[
    str, typer.Option(help="Whose scans: train, val, test or all; of a table that names splits.")
]
KindOption = Annotated[
    str, typer.Option(help="Pairs of two subjects (inter), scans of one (retest), or all.")
]
ScanOption = Annotated[
    str | None, typer.Option(help="Paths in a table of scans, such as t1/{id}.nii.gz.")
]
ScanLabelsOption = Annotated[
    str | None, typer.Option(help="Of their label maps, such as labels/{id}.nii.gz.")
]
FirstOption = Annotated[int | None, typer.Option(help="Only so many pairs.", min=1)]
StructuresOption = Annotated[
    Path | None,
    typer.Option(
        help="CSV table with columns value and structure; without it every value is a structure."
    ),
]
RegionsOption = Annotated[
    str | None,
    typer.Option(
        help="Label values of Dice-regions, such as 4-41,44,47-62.", show_default="all of them"
    ),
]
ResamplingOption = Annotated[
    Resampling, typer.Option(help="How labels are resampled: linear is one value at a time.")
]
RetryOption = Annotated[bool, typer.Option("--retry", help="Try again what failed.")]


def pairs_of(
    table: Path,
    split: str,
    scan: str | None,
    labels: str | None,
    kind: str,
    first: int | None,
) -> "list[Pair]":
    """The pairs that were asked for.

    Raises:
        InputError: see ``read_pairs``.
    """
    from ..data.pairs import read_pairs

    return read_pairs(table, split=split, scan=scan, labels=labels, kind=kind)[:first]


def protocol_for(
    table: Path,
    pairs: "Sequence[Pair]",
    structures: Path | None,
    regions: str | None,
    resampling: Resampling,
) -> "Protocol":
    """The protocol; of a training, its structures count unless others are named.

    Raises:
        InputError: see ``protocol_of``.
    """
    from ..data.sources import read_training_data
    from ..evaluation.protocol import protocol_of

    wanted: Any = structures
    if structures is None and table.suffix.lower() in (".yaml", ".yml"):
        wanted = read_training_data(table).data.structures
    return protocol_of(pairs, structures=wanted, regions=regions, labels=resampling.value)


def told(rows: Sequence[dict[str, Any]], out: Path) -> int:
    """Tell the means of each method and where the rows are.

    Returns:
        The exit code: 3 where a pair could not be done.
    """
    from ..evaluation.summary import summary

    for words in summary(rows):
        typer.echo(words)
    typer.echo(out / "pairs.csv")
    return DOUBTFUL if any(row["status"] != "ok" for row in rows) else DONE
