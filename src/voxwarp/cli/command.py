"""What all commands have in common: the form of their help, and how they tell what they do."""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

from typer.core import TyperCommand, TyperGroup

from .. import _process
from .._allocation import keep_freed_memory
from ..errors import InputError
from . import option_names
from .console import Manner, log_on_stderr, told
from .options import OTHER, AsJson, Quiet, Verbose

EXAMPLES = "Examples:"


class Command(TyperCommand):
    """A command; messages name its options while it runs, and until another one does."""

    only_prints = False

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        option_names.use(option_names.options_of(self.params))
        if not self.only_prints:
            _process.has_other_results()
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write its help."""
        _prepare(self, ctx)
        super().format_help(ctx, formatter)


class Question(Command):
    """A command whose answer, which it prints, is all that it does."""

    only_prints = True


class Group(TyperGroup):
    """A group of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write its help."""
        _prepare(self, ctx)
        super().format_help(ctx, formatter)


def _prepare(command: Any, ctx: Any) -> None:
    """Bring a command's docstring and options into the form in which the help shows them.

    The examples at the docstring's end become the end of the help. Lines are joined, because
    those of a docstring are longer than the help's. Brackets are printed as written, although
    Rich would take some of them for markup.
    """
    from rich.markup import escape

    text, _, examples = (command.help or "").partition(f"\n\n{EXAMPLES}\n")
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    command.help = escape("\n\n".join(paragraphs))
    if examples:
        command.epilog = escape(f"{EXAMPLES}\n{inspect.cleandoc(examples)}")
    for param in command.get_params(ctx):
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: ""  # instead of <list[Path]>
        else:
            param.rich_help_panel = getattr(param, "rich_help_panel", None) or OTHER
            if getattr(param, "is_flag", False):
                param.metavar = ""  # instead of <bool>
        param.help = escape(param.help or "")
        if isinstance(param.show_default, str):  # typer would put it in parentheses
            param.help += f" [dim]{escape(f'[default: {param.show_default}]')}[/dim]"
            param.show_default = False


def with_manner(
    command: Callable[..., Any], *, has_results: bool = True, keep_memory: bool = True
) -> Callable[..., Any]:
    """A command with the options ``--verbose``, ``--quiet`` and, if it has results, ``--json``.

    Args:
        command: the function of a command.
        has_results: it ends with ``console.answer``.
        keep_memory: keep the memory that it frees for its next volume; see ``allocation``.
    """

    @wraps(command)
    def run(
        *args: Any, verbose: bool = False, quiet: bool = False, json: bool = False, **options: Any
    ) -> Any:
        if verbose and quiet:
            raise InputError("`verbose` and `quiet` exclude each other: leave one out")
        with ExitStack() as stack:
            stack.enter_context(log_on_stderr(verbose))
            stack.enter_context(told(Manner(quiet=quiet, as_json=json)))
            if keep_memory:
                stack.enter_context(keep_freed_memory())
            return command(*args, **options)

    added = {"json": AsJson} if has_results else {}
    added |= {"quiet": Quiet, "verbose": Verbose}
    signature = inspect.signature(command)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in added.items()
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *parameters]
    )
    run.__annotations__ = {**command.__annotations__, **added}
    return run
