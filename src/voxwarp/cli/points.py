"""``voxwarp points``: transform the points of a CSV file by a saved registration."""

from pathlib import Path
from typing import Annotated

import typer

from .._files import check_writable
from ..errors import InputError
from . import options
from .console import warn


def points(
    source: Annotated[
        Path,
        typer.Argument(
            help="CSV file with columns x, y and z in mm; other columns stay as they are.",
            metavar="FILE.csv",
        ),
    ],
    *,
    transform: options.Transforms,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="CSV file to write.", metavar="FILE", rich_help_panel=options.OUTPUT
        ),
    ],
    inverse: options.Inverse = False,
    lps: Annotated[
        bool,
        typer.Option(
            "--lps",
            help="Coordinates are LPS, as in ANTs and ITK. Without it they are RAS.",
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
    voxwarp points electrodes.csv -t out -o electrodes_mni.csv
    voxwarp points mni_peaks.csv -t out --inverse -o native_peaks.csv
    """
    from ..registration.points import apply_to_csv

    if out.name.endswith((".nii", ".nii.gz", ".mat", ".json")):
        raise InputError(f"output {out}: points are written as CSV; give a name such as points.csv")
    check_writable(out.parent, (out.name,), overwrite=overwrite)
    warnings = list[str]()
    number = apply_to_csv(
        source, out, transform, inverse=inverse, is_lps=lps, on_warning=warnings.append
    )
    typer.echo(f"{out}  ({number} point{'s' * (number != 1)})")
    return warn(warnings, strict)
