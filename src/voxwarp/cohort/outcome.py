"""What becomes of a job in a worker process: its outcome, whatever happens, and its log."""

import errno
import logging
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._provenance import version_of
from ..errors import InputError, NotEnoughMemoryError, NotEnoughSpaceError

LOGS = "logs"

_FULL = errno.ENOSPC, errno.EDQUOT
_PASSING = (
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOTCONN, errno.EBUSY),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET),
)
_log = logging.getLogger("voxwarp")


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Args:
        key: of the scan.
        state: "done" or "failed".
        outputs: the files of the result, relative to the derivatives, and their sizes in bytes.
        error: why it failed, a sentence.
        trace: the traceback, if the error is in voxwarp itself.
        is_full: it failed because the disk or a quota is full, as all others would.
        is_final: another attempt would fail for the same reason.
        is_death: its workers died, and nothing is known of why.
        warnings: about the scan and its result.
        seconds, peak_mb: that it took, and the largest memory of the worker so far.
    """

    key: str
    state: str
    outputs: Mapping[str, int]
    error: str = ""
    trace: str = ""
    is_full: bool = False
    is_final: bool = True
    is_death: bool = False
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_mb: float = 0.0


def check_version(wanted: str | None) -> None:
    """Check that a worker has the version of the command.

    Args:
        wanted: the version of the command; None if the job does not say.

    Raises:
        RuntimeError: it has another one.
    """
    own = version_of("voxwarp")
    if wanted not in (None, own):
        raise RuntimeError(f"this worker has voxwarp {own}, not {wanted}")


#: What a job does: it returns the files of its result with their sizes, and warnings.
Work = Callable[[], tuple[dict[str, int], list[str]]]


def outcome_of(key: str, work: Work, log: Path, *, attempt: int, about: str) -> dict[str, Any]:
    """Do the work of a job, and say what became of it.

    Args:
        key: of the scan.
        work: what the job does.
        log: the file that gets what the library logs meanwhile.
        attempt: the first one begins the log anew.
        about: the first line of the log.

    Returns:
        An ``Outcome`` as plain values, also if the work raised an error.
    """
    started = time.monotonic()
    with _log_file(log, attempt, about):
        outcome = _outcome(key, work)
    seconds = round(time.monotonic() - started, 3)
    return {**outcome, "seconds": seconds, "peak_mb": round(_peak_memory() / 1e6, 1)}


def _outcome(key: str, work: Work) -> dict[str, Any]:
    try:
        outputs, warnings = work()
        return asdict(Outcome(key, "done", outputs, warnings=tuple(warnings)))
    except InputError as error:
        _log.error("%s", error)
        full, passing = _is_full(error), _is_passing(error)
        return asdict(
            Outcome(key, "failed", {}, str(error), is_full=full, is_final=full or not passing)
        )
    except MemoryError:
        _log.exception("there is not enough memory")
        text = (
            "there was not enough memory for this scan; give each worker more (`mem_gb` with fewer "
            "`nprocs`), or resample the scan to larger voxels"
        )
        return asdict(Outcome(key, "failed", {}, text, traceback.format_exc(), is_final=False))
    except Exception as error:
        _log.exception("a bug, or a fault of the machine")
        text, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        full = _is_full(error)
        return asdict(Outcome(key, "failed", {}, text, trace, is_full=full, is_final=full))


def _is_full(error: BaseException) -> bool:
    """Whether a full disk or quota is behind an error."""
    return any(
        isinstance(one, NotEnoughSpaceError) or getattr(one, "errno", None) in _FULL
        for one in _causes(error)
    )


def _is_passing(error: BaseException) -> bool:
    """Whether a fault is behind an error that may be gone later: memory, or the network."""
    return any(
        isinstance(one, NotEnoughMemoryError) or getattr(one, "errno", None) in _PASSING
        for one in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _peak_memory() -> int:
    """The largest memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _log_file(path: Path, attempt: int, about: str) -> Iterator[None]:
    """Write what the library logs to a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, "w" if attempt == 1 else "a", encoding="utf-8")
    except OSError:  # the result will say why
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = _log.level
    _log.setLevel(logging.INFO)
    _log.addHandler(handler)
    try:
        _log.info("%s", about)
        yield
    finally:
        _log.removeHandler(handler)
        with suppress(OSError):
            handler.close()
        _log.setLevel(level)
