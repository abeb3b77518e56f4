"""What is told beside the results: the stage that runs, warnings, errors; and exit codes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

DONE, REFUSED, DOUBTFUL, INTERRUPTED = 0, 2, 3, 130  # 1 is a bug: Python's own, with a traceback


def say(message: str) -> None:
    """Tell something on stderr, in one line."""
    typer.echo(f"voxwarp: {' '.join(message.split())}", err=True)


def warn(warnings: list[str], strict: bool = False) -> int:
    """Tell warnings, a line each.

    Returns:
        The exit code that they mean.
    """
    for warning in warnings:
        say(f"warning: {warning}")
    return DOUBTFUL if warnings and strict else DONE


def fail(message: str, code: int = REFUSED) -> NoReturn:
    """End with an error, in one line."""
    say(f"error: {message}")
    sys.exit(code)


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Show the running stage on stderr when it is a terminal; called with each as it begins."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: list = []

        def show(stage: str) -> None:
            if tasks:
                progress.update(tasks[-1], total=1, completed=1)
            tasks.append(progress.add_task(stage, total=None))

        yield show
