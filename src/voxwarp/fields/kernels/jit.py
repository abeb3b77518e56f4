"""How kernels are compiled, and where the code is kept."""

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

from ..._folders import kernels_folder, ready_kernels_folder
from . import processor

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)

# Sums may be fused with products. Not "nnan" and "ninf": NaN must stay NaN, and be no index.
_FAST = {"contract", "nsz", "arcp"}

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a function at its first call, to run without Python's lock.

    The code is kept in the cache folder, so that the next process need not compile it.
    """
    return _compiled(function, _FAST)


def jit(function: F) -> F:
    """Compile a function for kernels to call, but not Python, which takes less time."""
    return _compiled(function, _FAST, **_INNER)


def jit_sum(function: F) -> F:
    """As ``jit``, of a sum whose terms may be added in any order, so that it is vectorised."""
    return _compiled(function, _FAST | {"reassoc"}, **_INNER)


_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _compiled(function: F, fastmath: set[str], **options: bool) -> F:
    config: Any = numba.config
    njit: Any = numba.njit
    before, config.CACHE_DIR = config.CACHE_DIR, str(_FOLDER or "")
    try:
        compiled = njit(
            function,
            nogil=True,
            fastmath=fastmath,
            error_model="numpy",
            boundscheck=False,
            cache=_FOLDER is not None,
            **options,
        )
    finally:  # other users of Numba in this process keep their own folder
        config.CACHE_DIR = before
    if _FOLDER is not None:
        _keep_if_possible(compiled)
    return cast(F, compiled)


def _keep_if_possible(compiled: Any) -> None:
    """Take code from the folder of this machine, else from that of ready code.

    Compile where kept code is damaged or cannot be kept, as on a full disk; Numba would fail.
    """
    kept = compiled._cache
    loads = [kept.load_overload]
    with suppress(Exception):  # these names are Numba's own, and may change
        kept._cache_file = _file_in(_FOLDER, kept)
        if _READY is not None:
            ready = copy(kept)
            ready._cache_file = _file_in(_READY, kept)
            loads.append(ready.load_overload)
    kept.load_overload = _first_of(loads)
    kept.save_overload = _first_of([kept.save_overload])


def _file_in(folder: Path | None, kept: Any) -> Any:
    """Where Numba looks for the code of a function.

    Numba has a folder for each place of the source, and takes code to be old if the time of the
    source differs, which it does from one layer of a container to another. The folder here is that
    of a state of all sources (``_digest``), so neither matters.
    """
    return type(kept._cache_file)(
        cache_path=str(folder), filename_base=kept._impl.filename_base, source_stamp=_DIGEST
    )


def _first_of(steps: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """What the first of these functions returns that neither fails nor returns None; else None."""

    def attempt(*arguments: object) -> Any:
        for step in steps:
            with suppress(Exception):
                if (found := step(*arguments)) is not None:
                    return found
        return None

    return attempt


def _digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _private_folder() -> Path | None:
    """An empty folder for this process, without which Numba does not look for code at all."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="voxwarp-kernels-"))
    except OSError:
        return None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# Numba takes code to be valid as long as the file of the function has not changed. Kernels call
# those of other files, so each state of all files has a folder of its own.
_DIGEST = _digest()
_READY = ready_kernels_folder(_DIGEST)
if _READY is not None and not processor.use(_READY):
    _READY = None
_KEPT = kernels_folder(_DIGEST)
_FOLDER = _private_folder() if _KEPT is None and _READY is not None else _KEPT
_FIRST_USE = not any(any(f.glob("*.nbi")) for f in (_KEPT, _READY) if f is not None)


def folder() -> Path | None:
    """Where compiled code is kept; None if it is not."""
    return _FOLDER


def keeps_code() -> bool:
    """Whether compiled code is kept for other processes."""
    return _KEPT is not None


def is_first_use() -> bool:
    """Whether no code for these kernels was there when this process began."""
    return _FIRST_USE
