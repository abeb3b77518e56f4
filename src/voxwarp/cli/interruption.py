"""Ctrl-C ends the program where it can end, and is not lost.

Python raises KeyboardInterrupt wherever the main thread is. Two places are bad: in a callback of
LLVM, which waits for ever after it; and where nobody can catch it, as in a finaliser, so that
Python prints a traceback and goes on.
"""

import signal
import sys
from types import FrameType
from typing import Any

INTERRUPTED = "interrupted"
AGAIN = 0.05  # s until it is tried again


def _tell(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print one line if Ctrl-C comes before ``install``: the traceback would be of an import."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(f"voxwarp: error: {INTERRUPTED}\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _tell


def install() -> None:
    """Handle Ctrl-C from now on, unless it is ignored, as for programs in the background."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _unraisable


def ignore() -> None:
    """From now on, the program ends anyway."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("llvmlite."):
            return _try_again()
        frame = frame.f_back
    raise KeyboardInterrupt


def _unraisable(about: Any) -> None:
    if issubclass(about.exc_type, KeyboardInterrupt):
        return _try_again()
    sys.__unraisablehook__(about)


def _try_again() -> None:
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
