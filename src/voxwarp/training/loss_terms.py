"""The losses that a training can minimise, by name: ours, and a user's own function.

A loss is a function. The names of its arguments say what it is given of a registered pair:

========================  =======================================================
fixed, moved              images, (B, 1, X, Y, Z) in [0, 1]
displacement              u, φ = Id + u, (B, 3, X, Y, Z) in voxels
inverse                   the displacement of φ⁻¹, or of the registration of fixed to moving
regularity                the velocity where there is one, else the displacement
fixed_labels              structures, (B, K, X, Y, Z), 1 inside and 0 outside
moved_labels              structures of the moving scan after the deformation, in [0, 1]
log_odds                  of the classes of N voxels that ``anatomy`` looked at, (N, classes)
labels                    the numbers of their structures in the label map, (N, S)
========================  =======================================================

Its keyword-only arguments are options that the configuration may set. It returns a scalar, of
which less is better, and which for a batch is the mean of what it is for the pairs.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..fields import losses as field_losses
from ..named import function_named

GIVEN = (
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


#: Losses that have a name. λ of the paper is the weight of ``diffusion`` where ``ncc`` weighs 1.
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

#: Losses of the deformation alone: without another one nothing would be learnt.
REGULARISERS = {"diffusion", "bending", "inverse_consistency"}

#: What there is to train of a network that recognises: losses of nothing else.
OF_SEGMENTATION = {"log_odds", "labels"}


@dataclass(frozen=True)
class LossTerm:
    """One loss with its weight, ready to be evaluated.

    Args:
        name: as the configuration has it.
        weight: the factor in the sum.
        wants: names of what the function is given.
    """

    name: str
    weight: float
    function: Loss
    wants: tuple[str, ...]
    options: Mapping[str, Any]

    def __call__(self, given: Mapping[str, Tensor]) -> Tensor:
        """The unweighted loss.

        Raises:
            InputError: a user's function returns no scalar.
        """
        loss = self.function(**{name: given[name] for name in self.wants}, **self.options)
        if not isinstance(loss, Tensor) or loss.ndim:
            what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(f"loss {self.name!r}: a tensor without axes is wanted, got {what}")
        return loss


def terms(losses: Mapping[str, Mapping[str, Any]]) -> list[LossTerm]:
    """The terms of a sum of losses, from the ``losses`` of a configuration; weight 0 drops one.

    Raises:
        InputError: a user's own function cannot be found or used.
    """
    made = []
    for name, options in losses.items():
        function = loss_function(name)
        weight = float(options.get("weight", 1.0))
        others = {key: value for key, value in options.items() if key != "weight"}
        if weight > 0:
            made.append(LossTerm(name, weight, function, _wants(function, name), others))
    return made


def loss_function(name: str) -> Loss:
    """The function behind a name, or behind ``module:function``.

    Raises:
        InputError: there is none.
    """
    if name in LOSSES:
        return LOSSES[name]
    found = function_named(name, "loss", LOSSES)
    try:
        _wants(found, name)
    except (TypeError, ValueError) as error:  # what is written in C may not tell its arguments
        reason = str(error) if isinstance(error, InputError) else f"loss {name!r}: {error}"
        raise InputError(reason) from error
    return found


def wants_of(name: str) -> tuple[str, ...]:
    """What the function behind a name is given."""
    return _wants(loss_function(name), name)


def options_of(function: Loss) -> dict[str, Any]:
    """Options of a loss and their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if _is_option(p)}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Make sure that a loss can be evaluated with these values of its options.

    Raises:
        InputError: a value is not of the type that the default has, or is not allowed.
    """
    function = loss_function(name)
    for key, default in options_of(function).items():
        if key not in options and default is inspect.Parameter.empty:
            raise InputError(f"loss {name!r}: option {key} is missing")
        largest = LARGEST if name in LOSSES else sys.float_info.max
        if key in options and not _is_like(options[key], default, largest):
            raise InputError(
                f"loss {name!r}: {key}: wanted is a value such as {default!r}, got "
                f"{str(options[key])[:60]!r}"
            )
    if name in LOSSES and options:
        try:
            wants = _wants(function, name)
            given = torch.zeros(4, 4) if OF_SEGMENTATION & {*wants} else torch.zeros(1, 1, 4, 4, 4)
            function(**dict.fromkeys(wants, given), **options)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"loss {name!r}: {error}") from error


LARGEST = 1024  # whole number of an option of ours: of the window and of the bins


def _is_like(value: Any, default: Any, largest: float) -> bool:
    """Whether a value is of the type of a default; a float may be a whole number."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and (default is None or isinstance(default, bool))
    if isinstance(default, int):
        return isinstance(value, int) and abs(value) <= largest
    if isinstance(default, float):
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    return not isinstance(default, str) or isinstance(value, str)


def _is_option(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is an option, and not one of the inputs."""
    is_input = parameter.name in GIVEN and parameter.default is parameter.empty
    return parameter.kind is parameter.KEYWORD_ONLY and not is_input


def _wants(function: Loss, name: str) -> tuple[str, ...]:
    wants = []
    for p in inspect.signature(function).parameters.values():
        if _is_option(p):
            continue
        if p.name not in GIVEN or p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            raise InputError(
                f"loss {name!r}: its argument {p.name!r} is none of {', '.join(GIVEN)}; "
                f"options come after a *"
            )
        wants.append(p.name)
    return tuple(wants)
