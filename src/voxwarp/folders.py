"""Where voxwarp keeps things of the user's: the environment says so, or the system's custom."""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path


def cache_folder() -> Path:
    """$VOXWARP_CACHE, else ``voxwarp`` in the user's cache folder ($XDG_CACHE_HOME, ~/.cache).

    Raises:
        RuntimeError: the user has no home.
    """
    return _named("VOXWARP_CACHE") or _of_a_home(user_cache_path("voxwarp", appauthor=False))


def models_folder() -> Path:
    """$VOXWARP_MODELS, else ``voxwarp/models`` in the user's data folder.

    That is in $XDG_DATA_HOME or ~/.local/share.

    Raises:
        RuntimeError: the user has no home.
    """
    return _named("VOXWARP_MODELS") or _of_a_home(
        user_data_path("voxwarp", appauthor=False) / "models"
    )


def _named(variable: str) -> Path | None:
    """The folder that a variable names; an empty name is none."""
    name = os.environ.get(variable)
    return Path(name) if name else None


def _of_a_home(folder: Path) -> Path:
    """Refuse a ``~`` that nothing stands for, as earlier versions of platformdirs return it."""
    if folder.parts[0].startswith("~"):
        raise RuntimeError(f"there is no home to keep {folder} in")
    return folder
