"""Start a training from the weights of another model, and a phase on a finer grid."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..networks.model import Model
from .checks import with_defaults
from .config import Config

# Arguments of networks that neither shape nor use what is trained: the steps of an exponential, the
# settings of a descent, and what mirrored images show.
WITHOUT_WEIGHTS = (
    *("steps", "full_steps", "step_length", "smoothing", "momentum", "force_smoothing"),
    *("factor", "weight", "trust", "mirror"),
)


class Start(NamedTuple):
    """The weights that a training starts from, by their names in its network.

    Args:
        weights: all weights of the network.
        spacing: of the grid on which they were trained, mm.
    """

    weights: dict[str, Tensor]
    spacing: float


def read_start(config: Config) -> Start:
    """Load the weights of the model that ``config.start_from`` names.

    Raises:
        InputError: the model does not exist, or its network is another one.
    """
    model = Model.load(str(config.start_from))
    theirs, ours = (with_defaults(network) for network in (model.architecture, config.network))
    for network in (theirs, ours):
        for name in WITHOUT_WEIGHTS:
            network.pop(name, None)
    if theirs != ours:
        raise InputError(
            f"start_from {config.start_from}: its network is {theirs}, but the configuration has "
            f"{ours}; set network to the first"
        )
    return Start(model.network.state_dict(), model.recipe.grid.spacing[0])


def scale_output(network: nn.Module, factor: float) -> None:
    """Scale what a network predicts in voxels, when they become ``factor`` times smaller.

    So its displacements keep their length in mm where the grid is refined.
    """
    with torch.no_grad():
        for layer in getattr(network, "last_layers", ()):  # a descent has none
            for parameter in layer.parameters():
                parameter.mul_(factor)
