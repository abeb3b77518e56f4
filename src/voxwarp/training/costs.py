"""The costs that a training can minimise, by name: ours, and a user's own function.

A cost is a function. The names of its arguments say what it is given of a registered pair:

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
from ..fields import losses
from ..named import function_named

GIVEN = (
    *("fixed", "moved", "displacement", "inverse", "regularity"),
    *("fixed_labels", "moved_labels", "log_odds", "labels"),
)

Cost = Callable[..., Tensor]


def _diffusion(regularity: Tensor) -> Tensor:
    return losses.diffusion(regularity)


def _bending(regularity: Tensor) -> Tensor:
    return losses.bending(regularity)


def _dice(fixed_labels: Tensor, moved_labels: Tensor) -> Tensor:
    return losses.soft_dice(fixed_labels, moved_labels)


#: Costs that have a name. λ of the paper is the weight of ``diffusion`` where ``ncc`` weighs 1.
COSTS: dict[str, Cost] = {
    "ncc": losses.local_ncc,
    "mse": losses.mse,
    "mutual_information": losses.mutual_information,
    "diffusion": _diffusion,
    "bending": _bending,
    "dice": _dice,
    "inverse_consistency": losses.inverse_consistency,
    "recognition": losses.recognition,
}

#: Costs of the deformation alone: without another one nothing would be learnt.
REGULARISERS = {"diffusion", "bending", "inverse_consistency"}

#: What there is to train of a network that recognises: costs of nothing else.
OF_RECOGNITION = {"log_odds", "labels"}


@dataclass(frozen=True)
class Term:
    """One cost with its weight, ready to be evaluated.

    Args:
        name: as the configuration has it.
        weight: the factor in the sum.
        wants: names of what the function is given.
    """

    name: str
    weight: float
    function: Cost
    wants: tuple[str, ...]
    options: Mapping[str, Any]

    def __call__(self, given: Mapping[str, Tensor]) -> Tensor:
        """The unweighted cost.

        Raises:
            InputError: a user's function returns no scalar.
        """
        cost = self.function(**{name: given[name] for name in self.wants}, **self.options)
        if not isinstance(cost, Tensor) or cost.ndim:
            what = f"shape {tuple(cost.shape)}" if isinstance(cost, Tensor) else type(cost).__name__
            raise InputError(f"cost {self.name!r}: a tensor without axes is wanted, got {what}")
        return cost


def terms(costs: Mapping[str, Mapping[str, Any]]) -> list[Term]:
    """The terms of a sum of costs, from the ``costs`` of a configuration; weight 0 drops one.

    Raises:
        InputError: a user's own function cannot be found or used.
    """
    made = []
    for name, options in costs.items():
        function = cost_function(name)
        weight = float(options.get("weight", 1.0))
        others = {key: value for key, value in options.items() if key != "weight"}
        if weight > 0:
            made.append(Term(name, weight, function, _wants(function, name), others))
    return made


def cost_function(name: str) -> Cost:
    """The function behind a name, or behind ``module:function``.

    Raises:
        InputError: there is none.
    """
    if name in COSTS:
        return COSTS[name]
    found = function_named(name, "cost", COSTS)
    try:
        _wants(found, name)
    except (TypeError, ValueError) as error:  # what is written in C may not tell its arguments
        reason = str(error) if isinstance(error, InputError) else f"cost {name!r}: {error}"
        raise InputError(reason) from error
    return found


def wants_of(name: str) -> tuple[str, ...]:
    """What the function behind a name is given."""
    return _wants(cost_function(name), name)


def options_of(function: Cost) -> dict[str, Any]:
    """Options of a cost and their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Make sure that a cost can be evaluated with these values of its options.

    Raises:
        InputError: a value is not of the type that the default has, or is not allowed.
    """
    function = cost_function(name)
    for key, default in options_of(function).items():
        if key not in options and default is inspect.Parameter.empty:
            raise InputError(f"cost {name!r}: option {key} is missing")
        largest = LARGEST if name in COSTS else sys.float_info.max
        if key in options and not _is_like(options[key], default, largest):
            raise InputError(
                f"cost {name!r}: {key}: wanted is a value such as {default!r}, got "
                f"{str(options[key])[:60]!r}"
            )
    if name in COSTS and options:
        try:
            wants = _wants(function, name)
            given = torch.zeros(4, 4) if OF_RECOGNITION & {*wants} else torch.zeros(1, 1, 4, 4, 4)
            function(**dict.fromkeys(wants, given), **options)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"cost {name!r}: {error}") from error


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


def _wants(function: Cost, name: str) -> tuple[str, ...]:
    wants = []
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            continue
        if p.name not in GIVEN or p.kind is not p.POSITIONAL_OR_KEYWORD:
            raise InputError(
                f"cost {name!r}: its argument {p.name!r} is none of {', '.join(GIVEN)}; "
                f"options come after a *"
            )
        wants.append(p.name)
    return tuple(wants)
