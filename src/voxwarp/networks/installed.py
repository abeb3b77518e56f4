"""The models that are installed, and their files; nothing is loaded."""

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from .._folders import models_folder
from .._json import read_json
from ..errors import InputError

#: The files of a model: its description and its weights.
MODEL, WEIGHTS = "model.json", "weights.safetensors"


def installed() -> dict[str, Path]:
    """Names and folders of all installed models.

    A model in the user's folder replaces a shipped one with the same name.
    """
    models = shipped()
    with suppress(InputError):  # there is no folder of the user's, as without a home
        models |= _models_in(models_folder())
    return models


def shipped() -> dict[str, Path]:
    """Names and folders of the models in the package."""
    return _models_in(Path(str(resources.files("voxwarp") / "models")))


def _models_in(place: Path) -> dict[str, Path]:
    folders = sorted(place.iterdir()) if place.is_dir() else []
    return {folder.name: folder for folder in folders if os.path.lexists(folder / MODEL)}


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


#: What to do where the weights that a model shares with another one are not there.
COPY_WHOLE = (
    "Where the model works, voxwarp.Model.load(NAME).save(FOLDER) writes it with its weights; copy "
    "that folder"
)


def weights_file(folder: Path, description: Mapping[str, Any]) -> Path:
    """The file of a model's weights: its own, or that of the model that it shares them with.

    Models of the package whose weights are the same store them once: ``weights_of`` in the
    ``model.json`` of one names the other, which has the file. It is a name and no path, so that a
    model cannot lead to other files; one in the package comes before one of the user's. Whoever
    loads the weights compares their hash with ``weights_sha256``.

    Args:
        folder: of the model.
        description: what its ``model.json`` holds.

    Raises:
        InputError: the model that it names is not there, or has no weights of its own.
    """
    own, name = folder / WEIGHTS, description.get("weights_of")
    if name is None or os.path.lexists(own):
        return own
    other = {**installed(), **shipped()}.get(name) if isinstance(name, str) else None
    if other is None or not os.path.lexists(other / WEIGHTS):
        problem = "is not installed" if other is None else "has none of its own"
        raise InputError(
            f"model {folder}: has no {WEIGHTS}; its {MODEL} says that its weights are those of the "
            f"model {name!r}, which {problem}. {COPY_WHOLE}"
        )
    return other / WEIGHTS


def files_of(folder: Path) -> dict[str, Path]:
    """The files that the results of a model depend on, by their names ``MODEL`` and ``WEIGHTS``.

    Raises:
        InputError: the description cannot be read, or the weights are those of a missing model.
    """
    try:
        return {MODEL: folder / MODEL, WEIGHTS: weights_file(folder, read_json(folder / MODEL))}
    except InputError:
        raise
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"model {folder}: its {MODEL} cannot be read ({error})") from error
