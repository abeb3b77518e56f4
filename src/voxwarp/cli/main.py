"""The command line put together: its commands, and how they end."""

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec, TypeVar

import typer

from ..allocation import freed_memory_kept
from ..errors import InputError
from . import cache, models
from .apply import apply
from .benchmark import benchmark
from .console import DONE, INTERRUPTED, fail, help_without_command
from .evaluate import evaluate
from .figures import figures
from .points import points
from .preprocess import preprocess
from .register import register
from .report import report
from .train import train
from .view import view

Options = ParamSpec("Options")
Answer = TypeVar("Answer")

# Older versions of typer stand on the click package, newer ones carry their own: either way,
# this is its ClickException, the base of every complaint about the command line's words.
_UsageProblem: type[typer.BadParameter] = typer.BadParameter.__mro__[2]

# What users have to know of what the library logs, commands tell by themselves.
logging.getLogger("voxwarp").addHandler(logging.NullHandler())

app = typer.Typer(
    help="Learning-based deformable registration of 3-D brain scans.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run a command; a wrong request is one line on stderr and exit code 2, a bug is 1."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        fail(str(error))
    except _UsageProblem as error:
        fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:  # as newer versions of typer return it
        fail("interrupted", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else DONE)


@app.callback(invoke_without_command=True)
def voxwarp(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Learning-based deformable registration of 3-D brain scans."""
    if version:
        from .. import __version__

        typer.echo(f"voxwarp {__version__}")
        raise typer.Exit
    help_without_command(context)


def computing(command: Callable[Options, Answer]) -> Callable[Options, Answer]:
    """A command that keeps the memory it frees for its next volume: the process is its own."""

    @wraps(command)
    def run(*words: Options.args, **options: Options.kwargs) -> Answer:
        with freed_memory_kept():
            return command(*words, **options)

    return run


app.command()(computing(register))
app.command()(computing(apply))
app.command()(computing(points))
app.command()(computing(report))
app.command()(view)  # goes on for hours with little of what it needs at first
app.command()(computing(preprocess))
app.command()(computing(train))
app.command()(computing(evaluate))
app.command()(computing(benchmark))
app.command()(figures)
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
