"""``voxwarp view``: show a result in the browser of this machine, until Ctrl-C."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from .console import say, warn
from .options import INPUTS, OTHER


def view(
    folder: Annotated[
        Path, typer.Argument(help="Folder of results, written by register.", metavar="OUT")
    ],
    *,
    fixed: Annotated[
        Path | None,
        typer.Option(
            help="The fixed scan, if its file was moved after the registration.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            help="Port of the page on this machine; 0 takes a free one.",
            metavar="N",
            min=0,
            max=65535,
            rich_help_panel=OTHER,
        ),
    ] = 0,
    browser: Annotated[
        bool,
        typer.Option(
            "--browser/--no-browser",
            help="Open the page in a browser, or only print its address.",
            rich_help_panel=OTHER,
        ),
    ] = True,
) -> None:
    """Show a result in the browser: fixed scan, moved scan and labels as layers (NiiVue).

    The page is served to this machine until you press Ctrl-C. On a remote server, forward a port
    with ssh and give it with --port. Needs NiiVue: pip install 'voxwarp[view]'.

    Examples:
    voxwarp view out
    voxwarp view out --port 8000 --no-browser
    """
    import threading
    import webbrowser

    from ..review.viewer import doubts_about
    from ..review.viewer import view as run

    viewer = run(folder, fixed, port=port)
    warn(doubts_about(viewer.shown))
    typer.echo(viewer.url)
    say("press Ctrl-C to stop")
    sys.stdout.flush()
    serving = threading.Thread(target=viewer.serve, daemon=True)
    serving.start()
    with suppress(KeyboardInterrupt):
        if browser:  # some browsers return only when they are closed
            webbrowser.open(viewer.url)
        while serving.is_alive():
            serving.join(1)
