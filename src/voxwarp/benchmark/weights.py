"""The weights of a network in a benchmark: a voxwarp model, or a Keras file."""

from pathlib import Path
from typing import TYPE_CHECKING

from .._files import sha256_of
from ..errors import InputError

if TYPE_CHECKING:
    from ..networks.model import Model


KERAS = ".h5", ".hdf5"  # file endings of the weights that the paper's authors published


def load_model(weights: str) -> "Model":
    """Load an installed model, the model in a folder, or one from a Keras file.

    Raises:
        InputError: it does not exist, or its working space is not MNI152 space.
    """
    from ..networks.keras import import_keras
    from ..networks.model import Model
    from ..preparation.template import mni152

    if weights.lower().endswith(KERAS):
        model = import_keras(weights)
        model.sha256 = sha256_of(weights)
        return model
    model = Model.load(weights)
    if model.recipe.template is not mni152():
        raise InputError(
            f"model {weights}: does not work in MNI152 space (its alignment is "
            f"{model.recipe.alignment_name}), but all methods of a benchmark start from an affine "
            "alignment with MNI152; use voxwarp evaluate for this model"
        )
    return model


def locate_model(weights: str) -> str:
    """The absolute path of an installed model, a model's folder or a Keras file.

    Raises:
        InputError: the model does not exist.
    """
    from ..networks.installed import find

    path = Path(weights) if weights.lower().endswith(KERAS) else find(weights)
    return str(path.absolute())
