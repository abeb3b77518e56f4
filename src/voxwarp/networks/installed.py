"""The models that are installed, and their files; nothing is loaded."""

import os
from contextlib import suppress
from importlib import resources
from pathlib import Path

from .._folders import models_folder
from ..errors import InputError

#: The files of a model: its description and its weights.
MODEL, WEIGHTS = "model.json", "weights.safetensors"


def installed() -> dict[str, Path]:
    """Names and folders of all installed models.

    A model in the user's folder replaces a shipped one with the same name.
    """
    places = [shipped_folder()]
    with suppress(InputError):  # there is no folder of the user's, as without a home
        places.append(models_folder())
    return {
        folder.name: folder
        for place in places
        if place.is_dir()
        for folder in sorted(place.iterdir())
        if os.path.lexists(folder / MODEL)
    }


def shipped_folder() -> Path:
    """The folder of the models that come with voxwarp."""
    return Path(str(resources.files("voxwarp") / "models"))


def is_shipped(folder: Path) -> bool:
    """Whether a model's folder is one of those that come with voxwarp."""
    return folder.parent == shipped_folder()


def find(model: str | os.PathLike[str]) -> Path:
    """The folder of a model, from its name or its path.

    Raises:
        InputError: there is no such model; the message lists the installed ones.
    """
    models = installed()
    if str(model) in models:
        return models[str(model)]
    if os.path.lexists(Path(model) / MODEL):
        return Path(model)
    raise InputError(
        f"unknown model {str(model)!r}: give a folder that holds a model.json, or the name of an "
        f"installed model: {', '.join(models) or 'none is installed'}"
    )
