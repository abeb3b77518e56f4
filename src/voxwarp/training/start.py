"""The weights that a training starts from, where they are those of another model."""

from torch import nn

from ..errors import InputError
from ..networks.model import Model
from .checks import with_defaults
from .config import Config


def network_to_start_from(config: Config) -> nn.Module:
    """The network of the model that ``start_from`` names.

    Raises:
        InputError: there is no such model, or its weights do not fit.
    """
    model = Model.load(str(config.start_from))
    theirs, ours = (with_defaults(network) for network in (model.architecture, config.network))
    for network in (theirs, ours):
        network.pop("steps", None)  # of an exponential or a descent: no weight hangs on them
    if theirs != ours:
        raise InputError(f"start_from {config.start_from}: its network is {theirs}, and not {ours}")
    return model.network
