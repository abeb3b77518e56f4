"""``voxwarp figures``: tables and figures of evaluations and benchmarks."""

from pathlib import Path
from typing import Annotated

import typer


def figures(
    rows: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of evaluate or benchmark.", metavar="[ROWS]..."),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables and figures.")],
    learning: Annotated[
        Path | None,
        typer.Option(help="Rows of benchmarks/learning.py: sweep of λ, number of subjects."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Method that the others are compared with.",
            show_default="the first that deforms",
        ),
    ] = None,
) -> None:
    """Make tables and figures (PNG, SVG) from the rows of evaluations and benchmarks."""
    from ..evaluation.figures.draw import draw

    for path in draw(rows or [], out, learning=learning, reference=reference):
        typer.echo(path)
