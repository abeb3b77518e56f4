"""Folders for the user's cache and models: from the environment, or the usual place."""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def cache_folder() -> Path:
    """$VOXWARP_CACHE, else ``voxwarp`` in the user's cache folder ($XDG_CACHE_HOME, ~/.cache).

    Raises:
        RuntimeError: the user has no home folder.
    """
    return _from_environment("VOXWARP_CACHE") or _in_home(
        user_cache_path("voxwarp", appauthor=False), "VOXWARP_CACHE"
    )


def kernels_folder(version: str) -> Path | None:
    """The folder of compiled code; None if it cannot be written to.

    It is in $NUMBA_CACHE_DIR, else in ``kernels`` in the cache folder.
    """
    try:
        parent = _from_environment("NUMBA_CACHE_DIR") or cache_folder() / "kernels"
        folder = parent / version
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def models_folder() -> Path:
    """$VOXWARP_MODELS, else ``voxwarp/models`` in the user's data folder.

    The data folder is $XDG_DATA_HOME, else ~/.local/share.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return _from_environment("VOXWARP_MODELS") or _in_home(
        user_data_path("voxwarp", appauthor=False) / "models", "VOXWARP_MODELS"
    )


def _from_environment(variable: str) -> Path | None:
    """The folder named by an environment variable; None if it is not set or empty."""
    name = os.environ.get(variable)
    return Path(name) if name else None


def _in_home(folder: Path, variable: str) -> Path:
    """Refuse a literal ``~``, which older versions of platformdirs return without a home."""
    if folder.parts[0].startswith("~"):
        raise RuntimeError(f"no home folder for {folder}; set ${variable} to another folder")
    return folder
