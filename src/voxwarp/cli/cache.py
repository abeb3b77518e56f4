"""``voxwarp cache``: what is kept of scans, shown and cleared."""

import typer

from ..folders import cache_folder

app = typer.Typer(help="Show and clear what is kept of scans.", invoke_without_command=True)


@app.callback()
def cache(context: typer.Context) -> None:
    """What was found in scans, kept for the next time; shows it without a further word."""
    if context.invoked_subcommand is None:
        show()


@app.command("show")
def show() -> None:
    """Folder, entries and size."""
    from ..preparation.cache import contents

    held = contents()
    typer.echo(held.folder)
    size = f"{held.size / 1e6:.1f} MB of at most {held.limit / 1e6:.0f} MB"
    typer.echo(f"{held.entries} scans, {size}")


@app.command("clear")
def clear() -> None:
    """Forget them all."""
    from ..preparation.cache import clear as forget

    typer.echo(f"{cache_folder()}: {forget()} scans removed")
