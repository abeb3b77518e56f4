"""Folders for the user's cache and models: from the environment, or the usual place."""

import os
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from .errors import InputError


def cache_folder() -> Path:
    """$VOXWARP_CACHE, else ``voxwarp`` in the user's cache folder ($XDG_CACHE_HOME, ~/.cache).

    Raises:
        InputError: the user has no home folder, or the folder can neither be read nor made.
    """
    usual = _usual(user_cache_path)
    return _usable("cache", "VOXWARP_CACHE", usual)


def kernels_folder(version: str) -> Path | None:
    """The folder of compiled code; None if it cannot be written to.

    It is in $NUMBA_CACHE_DIR, else in ``kernels`` in the cache folder.
    """
    try:
        parent = _from_environment("NUMBA_CACHE_DIR") or cache_folder() / "kernels"
        folder = parent / version
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, InputError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def ready_kernels_folder(version: str) -> Path | None:
    """The folder of code that was compiled before, as in a container; None if there is none.

    It is in $VOXWARP_READY_KERNELS, and need not be writable.
    """
    parent = _from_environment("VOXWARP_READY_KERNELS")
    if parent is None or not os.access(parent / version, os.R_OK | os.X_OK):
        return None
    return parent / version


def models_folder() -> Path:
    """$VOXWARP_MODELS, else ``voxwarp/models`` in the user's data folder.

    The data folder is $XDG_DATA_HOME, else ~/.local/share.

    Raises:
        InputError: the user has no home folder, or the folder can neither be read nor made.
    """
    usual = _usual(user_data_path)
    return _usable("folder for models", "VOXWARP_MODELS", usual and usual / "models")


def _from_environment(variable: str) -> Path | None:
    """The folder named by an environment variable; None if it is not set or empty."""
    name = os.environ.get(variable)
    return Path(name) if name else None


def _usual(place: Callable[..., Path]) -> Path | None:
    """The folder of voxwarp in the user's home; None if the user has no home."""
    try:
        folder = place("voxwarp", appauthor=False)
    except RuntimeError:
        return None
    # Older versions of platformdirs return a literal ~ without a home.
    return None if folder.parts[0].startswith("~") else folder


def _usable(what: str, variable: str, usual: Path | None) -> Path:
    """The folder from the environment, else the usual one, if it can be read or made.

    In containers there may be no home, or one of another user.
    """
    folder = _from_environment(variable) or usual
    problem = "you have no home folder" if folder is None else _problem(folder)
    if folder is None or problem:
        raise InputError(
            f"there is no {what}: {problem}; set the environment variable {variable} to a folder "
            f"that you can write to"
        )
    return folder


def _problem(folder: Path) -> str | None:
    """Why a folder can be neither read nor made; None if it can."""
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{folder} cannot be used ({error.strerror or error})"
        if not place.is_dir():
            return f"{folder} cannot be used ({place} is not a folder)"
        needed = os.R_OK if place == folder.absolute() else os.W_OK
        if os.access(place, needed | os.X_OK):
            return None
        return f"{folder} cannot be {'read' if needed == os.R_OK else 'made'} (Permission denied)"
    return None
