"""The weights that a training starts from, where they are those of another model."""

import inspect
from typing import Any

from torch import nn

from ..errors import InputError
from ..networks.model import Model
from ..networks.network import NETWORKS
from .config import Config


def network_to_start_from(config: Config) -> nn.Module:
    """The network of the model that ``start_from`` names.

    Raises:
        InputError: there is no such model, or its weights do not fit.
    """
    model = Model.load(str(config.start_from))
    theirs, ours = (_with_defaults(network) for network in (model.architecture, config.network))
    if theirs != ours:
        raise InputError(f"start_from {config.start_from}: its network is {theirs}, and not {ours}")
    return model.network


def _with_defaults(network: dict[str, Any]) -> dict[str, Any]:
    """What decides the shapes of a network's weights."""
    known = inspect.signature(NETWORKS[network["name"]]).parameters
    defaults = {name: p.default for name, p in known.items()}
    whole = {**{k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}, **network}
    return {key: value for key, value in whole.items() if key != "steps"}
