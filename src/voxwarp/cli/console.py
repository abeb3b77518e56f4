"""Messages on stderr (stages, warnings, errors, log), and the exit codes."""

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from . import option_names

if TYPE_CHECKING:
    import typer

DONE, REFUSED, DOUBTFUL, INTERRUPTED = 0, 2, 3, 130  # 1 is a bug: Python's own, with a traceback


@dataclass(frozen=True)
class Manner:
    """How a command tells what it does.

    Args:
        quiet: neither progress nor results are printed, only warnings and errors.
        as_json: the results are printed as one JSON object, and nothing else on stdout.
    """

    quiet: bool = False
    as_json: bool = False


_manner = Manner()  # of the running command; a process runs one at a time


@contextmanager
def told(manner: Manner) -> Iterator[None]:
    """Within, tell things in this manner."""
    global _manner
    before, _manner = _manner, manner
    try:
        yield
    finally:
        _manner = before


def is_quiet() -> bool:
    """Whether progress is not to be shown."""
    return _manner.quiet


def say(message: str) -> None:
    """Print one line on stderr."""
    _write(f"voxwarp: {' '.join(message.split())}", sys.stderr)


def echo(message: str) -> None:
    """Print a line about the progress on stdout."""
    if not _manner.quiet and not _manner.as_json:
        _write(option_names.as_options(message), sys.stdout)


def answer(lines: Iterable[object], record: Mapping[str, Any] | list[Any]) -> None:
    """Print the results of a command on stdout: as lines, or as JSON if that was asked for.

    Args:
        lines: for people.
        record: the same for programs.
    """
    if _manner.as_json:
        text = json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False)
        _write(text, sys.stdout)
    elif not _manner.quiet:
        for line in lines:
            _write(str(line), sys.stdout)


def _plain(value: Any) -> Any:
    """A value in the types of JSON, which has no NaN: that is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, PathLike):
        return str(value)
    if hasattr(value, "item"):  # a number of NumPy's
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write(text: str, stream: TextIO) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def warn(warnings: list[str], strict: bool = False) -> int:
    """Print warnings, one line each.

    Returns:
        The exit code that they mean.
    """
    for warning in warnings:
        say(f"warning: {option_names.as_options(warning)}")
    return DOUBTFUL if warnings and strict else DONE


def complain(message: str) -> None:
    """Print an error, in one line."""
    say(f"error: {option_names.as_options(message)}")


def fail(message: str, code: int = REFUSED) -> NoReturn:
    """End with an error."""
    complain(message)
    sys.exit(code)


def help_without_command(context: "typer.Context") -> None:
    """If a group of commands is called without one of them, show the help and end with code 2.

    Typer's own option for this has an exit code that depends on its version.
    """
    import typer

    if context.invoked_subcommand is not None:
        return
    if text := context.get_help():  # some versions print it themselves
        typer.echo(text)
    raise typer.Exit(REFUSED)


def prepare_kernels() -> None:
    """If kernels must be compiled first, let a second process help, and say so in a terminal."""
    from ..fields.compiled import not_compiled_yet

    if not not_compiled_yet():
        return
    from ..networks.ahead import start

    start()
    if sys.stderr.isatty() and not _manner.quiet:
        say("this first run also compiles code for this processor, which takes up to half a minute")


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Show the running stage on stderr if it is a terminal; called with each as it begins."""
    prepare_kernels()
    if _manner.quiet or not sys.stderr.isatty():
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


# ----------------------------------------------------------------------------------------- Log


class _LogLines(logging.Handler):
    """Prints what the library logs: a line each, and the traceback if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        message = option_names.as_options(record.getMessage())
        say(f"{record.levelname.lower()}: {message}")
        if record.exc_info and self.level < logging.WARNING:
            _write(logging.Formatter().formatException(record.exc_info), sys.stderr)


@contextmanager
def log_on_stderr(verbose: bool) -> Iterator[None]:
    """Within, print what the library logs: all of it, or only warnings."""
    logger, handler = logging.getLogger("voxwarp"), _LogLines()
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING)
    level = logger.level
    logger.setLevel(handler.level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
