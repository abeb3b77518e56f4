"""``voxwarp points``: transform the points of a file by a saved registration."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .console import answer, warn


def points(
    source: Annotated[
        Path,
        typer.Argument(
            help="CSV or TSV file with columns x, y and z in mm (n/a stays), or a point list of 3D "
            "Slicer (.fcsv, .mrk.json). All else in it stays as it is.",
            metavar="FILE.csv",
        ),
    ],
    *,
    transform: options.Transforms,
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            help="File to write, in the format of FILE.csv.",
            metavar="FILE",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    inverse: options.Inverse = False,
    lps: Annotated[
        bool,
        typer.Option(
            "--lps",
            help="Coordinates are LPS, as in ANTs and ITK. Without it they are RAS, unless the "
            "file says what they are, as those of 3D Slicer do.",
            rich_help_panel=options.TRANSFORM,
        ),
    ] = False,
    strict: options.Strict = False,
    overwrite: options.Overwrite = False,
) -> int:
    """Transform points from the moving space to the fixed space.

    A point moves with the image that it is drawn on: the same options take an image (voxwarp
    apply) and its points to the same place. antsApplyTransformsToPoints needs the inverse
    transforms for that.

    Examples:
    voxwarp points sub-01_electrodes.tsv -t out -o electrodes_mni.tsv
    voxwarp points mni_peaks.csv -t out --inverse -o native_peaks.csv
    """
    from ..registration.points import apply_to_point_file

    target = options.out_file(out, "the points")
    moved = apply_to_point_file(
        source, target, transform, inverse=inverse, lps=lps, overwrite=overwrite
    )
    answer(
        [f"{target}  ({moved.number} point{'s' * (moved.number != 1)})"],
        {"file": target, "points": moved.number, "warnings": moved.warnings},
    )
    return warn(moved.warnings, strict)
