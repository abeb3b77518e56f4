"""``voxwarp view``: a result in the browser, served to this machine until Ctrl-C."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from .console import say


def view(
    folder: Annotated[Path, typer.Argument(help="Folder that register wrote.", metavar="OUT")],
    *,
    fixed: Annotated[
        Path | None, typer.Option(help="The fixed scan, where it is at its place no more.")
    ] = None,
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page; else its address is told.")] = True,
) -> None:
    """Show a result in the browser: fixed and moved in layers, with linked cross-hairs."""
    import threading
    import webbrowser

    from ..review.viewer import view as run

    viewer = run(folder, fixed, port=port)
    typer.echo(viewer.url)
    say("Ctrl-C ends it")
    sys.stdout.flush()
    serving = threading.Thread(target=viewer.serve, daemon=True)
    serving.start()
    with suppress(KeyboardInterrupt):
        if browser:  # some return only when they are closed
            webbrowser.open(viewer.url)
        while serving.is_alive():
            serving.join(1)
