"""``voxwarp report``: an index of many results, or the report of one anew."""

from pathlib import Path
from typing import Annotated

import typer

from ..files import check_writable, write_bytes
from ..layout import METRICS, REPORT
from .options import OverwriteOption


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Folders that register wrote, or that hold such.", metavar="DIR..."),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The page; else index.html in the folder of them all."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write an index of many results, outliers first; of a single one, its report anew."""
    if len(folders) == 1 and out is None and (folders[0] / METRICS).is_file():
        typer.echo(_anew(folders[0], overwrite))
        return
    from ..review.overview import write_overview

    typer.echo(write_overview(folders, out, overwrite=overwrite))


def _anew(folder: Path, overwrite: bool) -> Path:
    """Draw the report of a result again; a page that we have made may be replaced."""
    from ..pictures.pages import is_ours
    from ..pictures.report import report as render
    from ..registration.result import load

    page = folder / REPORT
    check_writable(folder, (REPORT,), overwrite=overwrite or is_ours(page))
    result = load(folder)
    written = render(result.scene, result.metrics, name=folder.resolve().name)
    write_bytes(page, written.encode())
    return page
