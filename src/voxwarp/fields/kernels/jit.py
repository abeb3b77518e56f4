"""How kernels are compiled, and where the code is kept."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

from ..._folders import kernels_folder

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
    """Compile where kept code is damaged or cannot be kept, as on a full disk; Numba would fail."""
    kept = compiled._cache
    for name in ("load_overload", "save_overload"):
        setattr(kept, name, _tried(getattr(kept, name)))


def _tried(step: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with None for an error."""

    def attempt(*arguments: object) -> Any:
        with suppress(Exception):
            return step(*arguments)
        return None

    return attempt


def _digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# Numba takes code to be valid as long as the file of the function has not changed. Kernels call
# those of other files, so each state of all files has a folder of its own.
_FOLDER = kernels_folder(_digest())
_FIRST_USE = _FOLDER is None or not any(_FOLDER.iterdir())


def folder() -> Path | None:
    """Where compiled code is kept; None if it is not."""
    return _FOLDER


def keeps_code() -> bool:
    """Whether compiled code is kept for other processes."""
    return _FOLDER is not None


def is_first_use() -> bool:
    """Whether no code for these kernels was kept when this process began."""
    return _FIRST_USE
