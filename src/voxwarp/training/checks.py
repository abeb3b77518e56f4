"""Whether a network and losses can be what a configuration asks for; nothing is built for it."""

from collections.abc import Mapping
from typing import Any

import torch

from ..data.messages import nearest, short
from ..networks.catalogue import ARCHITECTURES, build
from .loss_terms import LOSSES, REGULARISERS, check_options, loss_function, options_of

#: Weights of a network, more than which are a mistake: 1 GB, where ours have a few MB.
LARGEST_NETWORK = 1 << 28
#: Numbers among a network's arguments, at most; 2^-16 is the least step of an exponential.
LARGEST_ARGUMENT = {"steps": 16}
LARGEST_WIDTH, LARGEST_DEPTH = 4096, 16


def learning_from(*sources: str) -> list[str]:
    """Names of the networks that learn from "images", "labels" or "nothing"."""
    return [n for n, a in ARCHITECTURES.items() if a.capabilities.learns_from in sources]


def with_defaults(network: Mapping[str, Any]) -> dict[str, Any]:
    """A network's name and all its arguments, in lists where there are several numbers."""
    parameters = ARCHITECTURES[network["name"]].parameters
    defaults = {key: p.default for key, p in parameters.items()}
    return {**{k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}, **network}


def check_network(network: Mapping[str, Any]) -> None:
    """Make sure that a network can be built so; it is not, but for the shapes of its weights.

    Args:
        network: its name and arguments.

    Raises:
        ValueError: there is no such network, or not with such arguments.
    """
    name = network.get("name")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(f"name {name!r}{nearest(str(name), ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    can, parameters = architecture.capabilities, architecture.parameters
    if can.learns_from == "nothing":
        raise ValueError(f"network {name} has no weights, so there is nothing to train")
    if can.further_inputs:
        raise ValueError(f"network {name} wants {', '.join(can.further_inputs)}, which no pair has")
    for key, value in network.items():
        if key == "name":
            continue
        if key not in parameters:
            raise ValueError(f"{name} has no argument {key!r}{nearest(key, parameters)}")
        _check_argument(key, value, parameters[key].default)
    used = with_defaults(network)
    if "decoder" in used:
        # A displacement is of the images' resolution, to which two more convolutions lead.
        wanted = len(used["encoder"]) + (0 if can.has_velocity else 2)
        if len(used["decoder"]) < wanted:
            raise ValueError(f"decoder: {wanted} numbers or more are wanted for that encoder")
    with torch.device("meta"):
        weights = sum(p.numel() for p in build(network).parameters())
    if weights > LARGEST_NETWORK:
        raise ValueError(f"{weights / 1e6:.0f} million weights are too many; take fewer channels")


def _check_argument(key: str, value: Any, default: Any) -> None:
    """Whole numbers, as many and as large as makes sense."""
    largest = LARGEST_ARGUMENT.get(key, LARGEST_WIDTH)
    many = isinstance(default, tuple)
    if isinstance(value, list) != many:
        wanted = "a list of whole numbers" if many else "a whole number"
        raise ValueError(f"{key}: {wanted} is wanted, got {short(value)}")
    numbers = value if many else [value]
    if not all(type(n) is int and 0 < n <= largest for n in numbers):
        raise ValueError(f"{key}: whole numbers from 1 to {largest} are wanted, got {short(value)}")
    if not 1 <= len(numbers) <= LARGEST_DEPTH:
        raise ValueError(f"{key}: 1 to {LARGEST_DEPTH} numbers are wanted, got {len(numbers)}")


def check_losses(losses: Mapping[str, Mapping[str, Any]]) -> None:
    """Make sure that losses are known, and that something is learnt by them.

    Args:
        losses: their options by their names.

    Raises:
        ValueError: one is not known or has no such option, or none of them compares anything.
    """
    for name, options in losses.items():
        _check_loss(name, options)
    counted = [name for name, options in losses.items() if options.get("weight", 1.0) > 0]
    if not counted:
        raise ValueError("one of them at least must have a weight above 0")
    if not set(counted) - REGULARISERS:
        raise ValueError(f"{', '.join(losses)}: none of them compares images or labels")


def _check_loss(name: str, options: Mapping[str, Any]) -> None:
    """Make sure that there is a loss of that name, and that it has these options."""
    if name not in LOSSES and ":" not in name:
        raise ValueError(f"no loss {name!r}{nearest(name, LOSSES)}, or module:function")
    weight = options.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise ValueError(f"{name}.weight: a number is wanted, got {short(weight)}")
    if not 0 <= weight <= 1e12:  # not so for NaN
        raise ValueError(f"{name}.weight: a number from 0 to 1e12 is wanted, got {short(weight)}")
    known = options_of(loss_function(name))
    for key in options:
        if key != "weight" and key not in known:
            raise ValueError(f"{name} has no option {key!r}{nearest(key, ['weight', *known])}")
    check_options(name, {key: value for key, value in options.items() if key != "weight"})
