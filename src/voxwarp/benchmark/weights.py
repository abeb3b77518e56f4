"""Weights that a benchmark is pointed at: a model of voxwarp's, or a Keras file."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import sha256_of

if TYPE_CHECKING:
    from ..networks.model import Model


KERAS = ".h5", ".hdf5"  # endings of the weights of the paper's authors


def model_of(weights: str) -> "Model":
    """The model of that name or folder, or the one in a Keras file.

    Raises:
        InputError: there is none, or its scans lie elsewhere than in MNI152 space.
    """
    from ..networks.keras import import_keras
    from ..networks.model import Model
    from ..preparation.template import mni152

    if weights.endswith(KERAS):
        model = import_keras(weights)
        model.sha256 = sha256_of(weights)
        return model
    model = Model.load(weights)
    if model.recipe.template is not mni152():
        raise InputError(
            f"model {weights}: it takes scans as they lie ({model.recipe.alignment_name}), and all "
            f"methods of a benchmark start from an affine map through MNI152 space"
        )
    return model


def located(weights: str) -> str:
    """Where the model of that name, folder or Keras file is, wherever one looks from.

    Raises:
        InputError: there is no such model.
    """
    from ..networks.model import find

    path = Path(weights) if weights.endswith(KERAS) else find(weights)
    return str(path.absolute())
