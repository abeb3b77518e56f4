"""``voxwarp points``: points of a CSV file through a saved registration."""

from pathlib import Path
from typing import Annotated

import typer

from ..files import check_writable
from .options import InverseOption, OverwriteOption, TransformOption


def points(
    source: Annotated[
        Path, typer.Argument(help="CSV file with columns x, y, z in mm.", metavar="FILE.csv")
    ],
    *,
    transform: TransformOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="Output CSV file.")],
    inverse: InverseOption = False,
    lps: Annotated[
        bool, typer.Option("--lps", help="Coordinates are LPS (ANTs, ITK), not RAS.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Carry points of the moving scan to the fixed scan, as apply carries its images."""
    from ..registration.points import apply_to_csv

    check_writable(out.parent, (out.name,), overwrite=overwrite)
    number = apply_to_csv(source, out, transform, inverse=inverse, is_lps=lps)
    typer.echo(f"{out}  ({number} points)")
