"""``voxwarp cache``: show and clear the cache of prepared scans."""

from pathlib import Path

import typer

from .._folders import cache_folder
from ..errors import InputError
from .command import Command, Group, Question

app = typer.Typer(cls=Group, invoke_without_command=True)


@app.callback()
def cache(context: typer.Context) -> None:
    """Show or clear the cache of brain masks, bias fields and affine alignments.

    register, preprocess and evaluate store what they compute for each scan, so that the next
    command with the same scan and options does not compute it again. Without a command, show the
    cache. $VOXWARP_CACHE sets its folder, $VOXWARP_CACHE_SIZE its largest size in MB.

    Examples:
    voxwarp cache
    voxwarp cache clear
    """
    if context.invoked_subcommand is None:
        show()


@app.command("show", cls=Question)
def show() -> None:
    """Show the folder, the number of scans and the size of the cache."""
    from ..preparation.cache import contents

    if _folder_or_reason() is None:
        return
    cached = contents()
    typer.echo(cached.folder)
    size = f"{cached.size / 1e6:.1f} MB of at most {cached.limit / 1e6:.0f} MB"
    typer.echo(f"{cached.entries} scans, {size}")


@app.command("clear", cls=Command)
def clear() -> None:
    """Remove all scans from the cache."""
    from ..preparation.cache import clear as clear_cache

    if folder := _folder_or_reason():
        typer.echo(f"{folder}: {clear_cache()} scans removed")


def _folder_or_reason() -> Path | None:
    """The folder of the cache; if there is no cache, print why: commands work without one."""
    try:
        return cache_folder()
    except InputError as error:
        typer.echo(str(error))
        return None
