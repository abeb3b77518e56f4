"""The command line put together from its commands."""

import logging
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..errors import InputError
from . import cache, models, option_names
from .apply import apply
from .benchmark import benchmark
from .cluster_options import CohortCommand
from .cohort import cohort
from .command import Command, Group, Question, with_manner
from .console import INTERRUPTED, fail, help_without_command
from .doctor import doctor
from .evaluate import evaluate
from .figures import figures
from .morphometry import morphometry
from .points import points
from .preprocess import preprocess
from .register import register
from .report import report
from .template import template
from .train import train
from .view import view

# Older versions of typer depend on the click package, newer ones contain their own: in both,
# this is its ClickException, the base of all errors about the command line itself.
_UsageProblem: type[typer.BadParameter] = typer.BadParameter.__mro__[2]

# Commands print warnings of the log themselves.
logging.getLogger("voxwarp").addHandler(logging.NullHandler())

app = typer.Typer(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def run() -> object:
    """Run the command that the program was called with; its exit code, if it has one."""
    option_names.use({})
    try:
        return app(standalone_mode=False)
    except InputError as error:
        fail(str(error))
    except _UsageProblem as error:
        fail(error.format_message())
    except typer.Abort:
        return INTERRUPTED


@app.callback(invoke_without_command=True)
def voxwarp(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Deformable registration of 3-D brain scans.

    voxwarp COMMAND --help explains a command and its options.

    Examples:
    voxwarp register sub-01_T1w.nii.gz -o out
    voxwarp register moving.nii.gz fixed.nii.gz -o pair --refine
    voxwarp apply bold.nii.gz -t out -o bold_mni.nii.gz
    """
    if version:
        from .. import __version__

        typer.echo(f"voxwarp {__version__}")
        raise typer.Exit
    help_without_command(context)


REGISTER = "Register and apply"
GROUPS = "Groups of people"
TRAIN = "Prepare scans and train"
SCORE = "Measure and compare"
MANAGE = "Models, cache, installation"


def _add(command: Callable[..., Any], panel: str, **manner: bool) -> None:
    app.command(cls=Command, rich_help_panel=panel)(with_manner(command, **manner))


_add(register, REGISTER)
_add(apply, REGISTER)
_add(points, REGISTER)
_add(report, REGISTER)
# The viewer runs for hours with little of the memory that it needs at first.
_add(view, REGISTER, has_results=False, keep_memory=False)
for _command in (cohort, template, morphometry):
    app.command(cls=CohortCommand, rich_help_panel=GROUPS)(with_manner(_command, keep_memory=False))
_add(preprocess, TRAIN)
_add(train, TRAIN)
_add(evaluate, SCORE)
_add(benchmark, SCORE)
_add(figures, SCORE, keep_memory=False)
app.add_typer(models.app, name="models", rich_help_panel=MANAGE)
app.add_typer(cache.app, name="cache", rich_help_panel=MANAGE)
app.command(cls=Question, rich_help_panel=MANAGE)(with_manner(doctor))
