"""Check the network and the losses of a configuration, without building the network."""

from collections.abc import Mapping
from typing import Any

import torch

from ..data.messages import short, suggestion
from ..networks.catalogue import ARCHITECTURES, build
from .loss_terms import LOSSES, REGULARISERS, check_options, loss_function, options_of

# The limits catch typing errors before memory is allocated. All are set by hand, far above the
# networks of our configurations, which have a few MB.
LARGEST_NETWORK = 1 << 28  # weights: 1 GB
LARGEST_ARGUMENT = {"steps": 16}  # 2^16 steps of an exponential
LARGEST_WIDTH, LARGEST_DEPTH = 4096, 16  # channels of a layer, layers
LARGEST_NUMBER = 100  # voxels, of a step or a Gaussian


def learning_from(*sources: str) -> list[str]:
    """Names of the networks that learn from these sources: "images", "labels" or "nothing"."""
    return [n for n, a in ARCHITECTURES.items() if a.capabilities.learns_from in sources]


def with_defaults(network: Mapping[str, Any]) -> dict[str, Any]:
    """A network's name with all its arguments; sequences are lists, as in files."""
    parameters = ARCHITECTURES[network["name"]].parameters
    defaults = {key: p.default for key, p in parameters.items()}
    return {**{k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}, **network}


def check_network(network: Mapping[str, Any]) -> None:
    """Make sure that a network can be built; only the shapes of its weights are computed.

    Args:
        network: name and arguments of the network.

    Raises:
        ValueError: the network is unknown, or an argument is not valid.
    """
    name = network.get("name")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(f"unknown name {name!r}{suggestion(str(name), ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    can, parameters = architecture.capabilities, architecture.parameters
    if can.learns_from == "nothing":
        raise ValueError(
            f"{name} has no weights to train; choose {', '.join(learning_from('images', 'labels'))}"
        )
    if can.further_inputs:
        raise ValueError(
            f"{name} needs {', '.join(can.further_inputs)}, which the pairs of a training do not "
            f"have"
        )
    for key, value in network.items():
        if key == "name":
            continue
        if key not in parameters:
            raise ValueError(f"{name} has no argument {key!r}{suggestion(key, parameters)}")
        _check_argument(key, value, parameters[key].default)
    used = with_defaults(network)
    if "decoder" in used:
        # A displacement has the resolution of the images, which takes two more convolutions.
        least = len(used["encoder"]) + (0 if can.has_velocity else 2)
        if len(used["decoder"]) < least:
            raise ValueError(
                f"decoder must have {least} numbers or more for an encoder with "
                f"{len(used['encoder'])}, got {len(used['decoder'])}"
            )
    with torch.device("meta"):
        weights = sum(p.numel() for p in build(network).parameters())
    if weights > LARGEST_NETWORK:
        raise ValueError(
            f"{weights / 1e6:.0f} million weights are too many (at most "
            f"{LARGEST_NETWORK / 1e6:.0f} million); use fewer channels"
        )


def _check_argument(key: str, value: Any, default: Any) -> None:
    """Make sure that an argument has a sensible number of numbers of sensible size."""
    largest = LARGEST_ARGUMENT.get(key, LARGEST_WIDTH)
    is_list = isinstance(default, tuple)
    if isinstance(default[0] if is_list else default, float):
        _check_numbers(key, value, is_list=is_list)
        return
    expected = "a list of whole numbers" if is_list else "a whole number"
    if isinstance(value, list) != is_list:
        raise ValueError(f"{key} must be {expected}, got {short(value)}")
    numbers = value if is_list else [value]
    if not all(type(n) is int and 0 < n <= largest for n in numbers):
        raise ValueError(f"{key} must be {expected} from 1 to {largest}, got {short(value)}")
    if not 1 <= len(numbers) <= LARGEST_DEPTH:
        raise ValueError(f"{key} must have 1 to {LARGEST_DEPTH} numbers, got {len(numbers)}")


def _check_numbers(key: str, value: Any, *, is_list: bool) -> None:
    """Make sure that an argument is a number, or a list of some, from 0 to ``LARGEST_NUMBER``."""
    expected = "a list of numbers" if is_list else "a number"
    numbers = value if isinstance(value, list) else [value]
    are_valid = all(type(n) in (int, float) and 0 <= n <= LARGEST_NUMBER for n in numbers)
    if isinstance(value, list) != is_list or not numbers or not are_valid:
        raise ValueError(f"{key} must be {expected} from 0 to {LARGEST_NUMBER}, got {short(value)}")


def check_losses(losses: Mapping[str, Mapping[str, Any]]) -> None:
    """Make sure that losses are known, and that one of them compares images or labels.

    Args:
        losses: weight and options of each loss, by its name.

    Raises:
        ValueError: a loss or an option is unknown, or no loss compares anything.
    """
    for name, options in losses.items():
        _check_loss(name, options)
    active = [name for name, options in losses.items() if options.get("weight", 1.0) > 0]
    if not active:
        raise ValueError("at least one loss must have a weight above 0")
    if not set(active) - REGULARISERS:
        raise ValueError(
            f"no loss compares images or labels ({', '.join(active)}); add one such as ncc, mse or "
            f"dice"
        )


def _check_loss(name: str, options: Mapping[str, Any]) -> None:
    """Make sure that a loss exists and has these options."""
    if name not in LOSSES and ":" not in name:
        raise ValueError(
            f"unknown loss {name!r} (your own is written module:function){suggestion(name, LOSSES)}"
        )
    weight = options.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise ValueError(f"{name}.weight must be a number, got {short(weight)}")
    if not 0 <= weight <= 1e12:  # NaN fails, too
        raise ValueError(f"{name}.weight must be from 0 to 1e12, got {short(weight)}")
    known = options_of(loss_function(name))
    for key in options:
        if key != "weight" and key not in known:
            raise ValueError(f"{name} has no option {key!r}{suggestion(key, ['weight', *known])}")
    check_options(name, {key: value for key, value in options.items() if key != "weight"})
