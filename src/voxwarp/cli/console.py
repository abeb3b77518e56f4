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


def help_without_command(context: typer.Context) -> None:
    """Where a group of commands is called without one of them, show the help and end with 2.

    Typer could do so by itself, with an exit code that depends on its version.
    """
    if context.invoked_subcommand is not None:
        return
    if text := context.get_help():  # some versions print it by themselves
        typer.echo(text)
    raise typer.Exit(REFUSED)


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
