"""Start a training from the weights of another model."""

from torch import nn

from ..errors import InputError
from ..networks.model import Model
from .checks import with_defaults
from .config import Config


def network_to_start_from(config: Config) -> nn.Module:
    """Load the network of the model that ``start_from`` names.

    Raises:
        InputError: the model does not exist, or its network is another one.
    """
    model = Model.load(str(config.start_from))
    theirs, ours = (with_defaults(network) for network in (model.architecture, config.network))
    for network in (theirs, ours):
        network.pop("steps", None)  # of an exponential or a descent, which have no weights
    if theirs != ours:
        raise InputError(
            f"start_from {config.start_from}: its network is {theirs}, but the configuration has "
            f"{ours}; set network to the first"
        )
    return model.network
