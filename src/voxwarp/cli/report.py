"""``voxwarp report``: an index of many results, or the report of one written again."""

from pathlib import Path
from typing import Annotated

import typer

from .._files import check_writable, write_bytes
from .._layout import METRICS, REPORT
from . import options
from .console import answer, warn


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of results, written by register, or folders that contain such folders at "
            "any depth.",
            metavar="DIR",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="HTML file for the index of results.",
            metavar="FILE",
            show_default="index.html in the folder that contains them all",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a file that voxwarp did not write. Its own pages are always replaced.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
) -> None:
    """Write an index page of many results, or the report of one result again.

    The index has measurements to sort by, thumbnails and links to the reports. Results with
    warnings come first, then outliers. For a single folder of register, without -o, report.html
    in that folder is written again.

    Examples:
    voxwarp report results
    voxwarp report study/sub-* -o study/index.html
    voxwarp report out
    """
    if len(folders) == 1 and out is None and (folders[0] / METRICS).is_file():
        page = _write_again(folders[0], overwrite)
    else:
        from ..review.overview import write_overview

        page = write_overview(folders, out, overwrite=overwrite)
    answer([page], {"page": page})


def _write_again(folder: Path, overwrite: bool) -> Path:
    """Draw the report of a result again; a page written by voxwarp may be replaced."""
    from ..pictures.pages import is_generated
    from ..pictures.report import report as render
    from ..registration.loading import load
    from ..registration.saved_transform import one_of_each

    page = folder / REPORT
    check_writable(folder, (REPORT,), overwrite=overwrite or is_generated(page))
    result = load(folder)
    warn(list(one_of_each(result.header_warnings)))
    written = render(result.scene, result.metrics, name=folder.resolve().name)
    write_bytes(page, written.encode())
    return page
