"""``voxwarp cache``: show and clear the cache of prepared scans."""

from dataclasses import asdict

import typer

from .._folders import cache_folder
from ..errors import InputError
from . import options
from .command import Command, Group, Question
from .console import Manner, answer, told

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
def show(json: options.AsJson = False) -> None:
    """Show the folder, the number of scans and the size of the cache."""
    from ..preparation.cache import contents

    with told(Manner(as_json=json)):
        try:
            cache_folder()
        except InputError as error:  # commands work without a cache
            answer([error], {"folder": None, "reason": str(error)})
            return
        cached = contents()
        size = f"{cached.size / 1e6:.1f} MB of at most {cached.limit / 1e6:.0f} MB"
        answer([cached.folder, f"{cached.entries} scans, {size}"], asdict(cached))


@app.command("clear", cls=Command)
def clear() -> None:
    """Remove all scans from the cache."""
    from ..preparation.cache import clear as clear_cache

    try:
        folder = cache_folder()
    except InputError as error:
        typer.echo(str(error))
        return
    typer.echo(f"{folder}: {clear_cache()} scans removed")
