"""The program: it runs a command and ends with its exit code.

The commands are imported within, so that Ctrl-C is told from the beginning.
"""

import atexit
import errno
import gc
import os
import sys
from typing import Any, NoReturn

from .. import _process
from . import interruption, streams
from .console import DONE, INTERRUPTED, fail, say

BROKEN_PIPE = 120  # as Python itself ends if its output cannot be written


def run_and_exit() -> NoReturn:
    """Run a command as ``main`` does, and end the process at once.

    Python would free all objects one by one first, which takes up to a second after a
    registration; the system frees the memory of a process faster.
    """
    interruption.install()
    streams.install()
    # Imports make many objects that stay; looking for garbage among them takes a tenth of their
    # time at Python's own threshold of 700.
    gc.set_threshold(10_000)
    _process.belongs_to_command()
    code: object = DONE
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    atexit._run_exitfuncs()
    os._exit(_with_lost_output(code if isinstance(code, int) else DONE))


def main() -> None:
    """Run a command; a wrong request is one line on stderr and exit code 2, a bug is 1."""
    try:
        from .commands import run

        code = run()
    except KeyboardInterrupt:
        interruption.ignore()
        code = INTERRUPTED
    if code == INTERRUPTED:  # as newer versions of typer return it
        fail(interruption.INTERRUPTED, INTERRUPTED)
    sys.exit(code if isinstance(code, int) else DONE)


def _with_lost_output(code: int) -> int:
    """The exit code, which lost output changes only where it was all that there was to do."""
    sys.stdout.flush()
    sys.stderr.flush()
    error = streams.lost()
    if error is None:
        return code
    only_prints = _process.only_prints()
    # A reader that ends early is usual, as behind ``head``, and closed output is meant.
    if error.errno != errno.EPIPE and (only_prints or error.errno != errno.EBADF):
        say(f"warning: what this command prints was lost: {error.strerror}")
    return code or (BROKEN_PIPE if only_prints else DONE)


def __getattr__(name: str) -> Any:
    if name == "app":  # for programs that ask typer what commands there are
        from .commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
