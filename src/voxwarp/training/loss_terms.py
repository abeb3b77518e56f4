"""The losses that a training can minimise, by name: built-in ones, or a user's own function.

A loss is a function. The names of its parameters decide which inputs it gets for a batch of pairs:

========================  =======================================================
fixed, moved              images, (B, 1, X, Y, Z) in [0, 1]
displacement              u, φ = Id + u, (B, 3, X, Y, Z) in voxels
inverse                   the displacement of φ⁻¹, or of the registration of fixed to moving
regularity                the velocity if the network has one, else the displacement
fixed_labels              structures, (B, K, X, Y, Z), 1 inside and 0 outside
moved_labels              structures of the moving scan after the deformation, in [0, 1]
log_odds                  log-odds of the classes in N voxels of ``anatomy``, (N, classes)
labels                    structure numbers in the S voxels of the label map behind each, (N, S)
========================  =======================================================

Its other keyword-only parameters are options that the configuration can set. It returns a scalar
to be minimised; for a batch, this is the mean over the pairs.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._named import function_named
from ..errors import InputError
from ..fields import losses as field_losses

#: Names of the inputs, see above.
INPUTS = (
    *("fixed", "moved", "displacement", "inverse", "regularity"),
    *("fixed_labels", "moved_labels", "log_odds", "labels"),
)

Loss = Callable[..., Tensor]


def _diffusion(regularity: Tensor) -> Tensor:
    return field_losses.diffusion(regularity)


def _bending(regularity: Tensor) -> Tensor:
    return field_losses.bending(regularity)


def _dice(fixed_labels: Tensor, moved_labels: Tensor) -> Tensor:
    return field_losses.soft_dice(moved=moved_labels, fixed=fixed_labels)


#: Built-in losses. If ``ncc`` has weight 1, the weight of ``diffusion`` is λ of the paper.
LOSSES: dict[str, Loss] = {
    "ncc": field_losses.local_ncc,
    "mse": field_losses.mse,
    "mutual_information": field_losses.mutual_information,
    "diffusion": _diffusion,
    "bending": _bending,
    "dice": _dice,
    "inverse_consistency": field_losses.inverse_consistency,
    "segmentation": field_losses.segmentation,
}

#: Losses of the deformation alone, which do not compare scans.
REGULARISERS = {"diffusion", "bending", "inverse_consistency"}

#: Inputs of the losses that train a segmentation.
SEGMENTATION_INPUTS = {"log_odds", "labels"}

#: The current name of each loss that had another one in an earlier version.
_FORMER_LOSSES = {"recognition": "segmentation"}


@dataclass(frozen=True)
class LossTerm:
    """One loss with its weight and options.

    Args:
        name: name in the configuration.
        weight: factor in the sum of losses.
        function: the loss itself.
        inputs: names of its inputs.
        options: values of its options.
    """

    name: str
    weight: float
    function: Loss
    inputs: tuple[str, ...]
    options: Mapping[str, Any]

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Compute the loss, without its weight.

        Args:
            tensors: inputs by name; may hold more than the loss uses.

        Raises:
            InputError: a user's function does not return a scalar tensor.
        """
        loss = self.function(**{name: tensors[name] for name in self.inputs}, **self.options)
        if not isinstance(loss, Tensor) or loss.ndim:
            is_tensor = isinstance(loss, Tensor)
            got = f"one of shape {tuple(loss.shape)}" if is_tensor else f"a {type(loss).__name__}"
            raise InputError(f"loss {self.name!r} must return a tensor without axes, got {got}")
        return loss


def build_terms(losses: Mapping[str, Mapping[str, Any]]) -> list[LossTerm]:
    """Build the terms of the section ``losses``; those with weight 0 are left out.

    Raises:
        InputError: a user's own function cannot be found or used.
    """
    terms = []
    for name, options in losses.items():
        function = loss_function(name)
        weight = float(options.get("weight", 1.0))
        others = {key: value for key, value in options.items() if key != "weight"}
        if weight > 0:
            terms.append(LossTerm(name, weight, function, _input_names(function, name), others))
    return terms


def loss_function(name: str) -> Loss:
    """The loss of a name, or a user's ``module:function``.

    Raises:
        InputError: there is no such function, or it cannot be a loss.
    """
    if name in LOSSES:
        return LOSSES[name]
    function = function_named(name, "loss", LOSSES)
    try:
        _input_names(function, name)
    except (TypeError, ValueError) as error:  # functions written in C may hide their parameters
        reason = str(error) if isinstance(error, InputError) else f"loss {name!r}: {error}"
        raise InputError(reason) from error
    return function


def with_current_losses(losses: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the names of losses from earlier versions."""
    current = {name: _FORMER_LOSSES.get(name, name) for name in losses}
    return {
        name if current[name] in losses else current[name]: options
        for name, options in losses.items()
    }


def inputs_of(name: str) -> tuple[str, ...]:
    """The names of the inputs of a loss."""
    return _input_names(loss_function(name), name)


def options_of(function: Loss) -> dict[str, Any]:
    """The options of a loss with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if _is_option(p)}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Make sure that a loss accepts these values of its options.

    Raises:
        InputError: an option is missing, or a value is of another type than the default or not
            allowed.
    """
    function = loss_function(name)
    for key, default in options_of(function).items():
        if key not in options and default is inspect.Parameter.empty:
            raise InputError(f"loss {name!r}: its option {key} has no default, so it must be set")
        largest = LARGEST if name in LOSSES else sys.float_info.max
        if key in options and not _is_like(options[key], default, largest):
            raise InputError(
                f"loss {name!r}: {key} must be a value such as {default!r}, got "
                f"{str(options[key])[:60]!r}"
            )
    if name in LOSSES and options:
        try:
            names = _input_names(function, name)
            tensor = (
                torch.zeros(4, 4) if SEGMENTATION_INPUTS & {*names} else torch.zeros(1, 1, 4, 4, 4)
            )
            function(**dict.fromkeys(names, tensor), **options)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"loss {name!r}: {error}") from error


LARGEST = 1024  # for a window or a number of bins; set by hand, images are not larger


def _is_like(value: Any, default: Any, largest: float) -> bool:
    """Whether a value has the type of a default; a whole number may stand for a float."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and (default is None or isinstance(default, bool))
    if isinstance(default, int):
        return isinstance(value, int) and abs(value) <= largest
    if isinstance(default, float):
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    return not isinstance(default, str) or isinstance(value, str)


def _is_option(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is an option: keyword-only and not one of the inputs."""
    is_input = parameter.name in INPUTS and parameter.default is parameter.empty
    return parameter.kind is parameter.KEYWORD_ONLY and not is_input


def _input_names(function: Loss, name: str) -> tuple[str, ...]:
    names = []
    for p in inspect.signature(function).parameters.values():
        if _is_option(p):
            continue
        if p.name not in INPUTS or p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            raise InputError(
                f"loss {name!r}: its parameter {p.name!r} is not one of the inputs "
                f"{', '.join(INPUTS)}; put options after a * in its definition"
            )
        names.append(p.name)
    return tuple(names)
