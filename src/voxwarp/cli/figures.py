"""``voxwarp figures``: tables and figures of evaluations and benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from .console import answer
from .options import INPUTS, OUTPUT


def figures(
    rows: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders written by evaluate or benchmark.", metavar="ROWS"),
    ] = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="Folder for tables and figures.",
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
        ),
    ],
    learning: Annotated[
        Path | None,
        typer.Option(
            help="Rows of benchmarks/learning.py (a script in the repository): Dice against λ and "
            "against the number of training subjects.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Method to compare the others with.",
            metavar="METHOD",
            show_default="the first method with a deformation",
            rich_help_panel=INPUTS,
        ),
    ] = None,
) -> None:
    """Draw tables and figures (PNG, SVG) from the results of evaluate and benchmark.

    Dice of each method and structure, Dice against time, pairs of scans of one subject, and paired
    differences with confidence intervals. Needs matplotlib: pip install 'voxwarp[benchmark]'.

    Examples:
    voxwarp figures bench -o figures
    voxwarp figures bench scores -o figures --reference ants-syn
    """
    from ..evaluation.figures.draw import draw

    files = draw(rows or [], out, learning=learning, reference=reference)
    answer(files, {"files": files})
