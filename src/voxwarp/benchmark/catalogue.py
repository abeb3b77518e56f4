"""The methods by name, and those of the user's own."""

from collections.abc import Callable
from typing import NamedTuple

from ..named import function_named
from ..provenance import version_of
from .job import Run
from .methods.ants import ants_syn, ants_syncc
from .methods.convexadam import convexadam
from .methods.elastix import elastix
from .methods.greedy import greedy
from .methods.ours import affine, network, refined


class Method(NamedTuple):
    """How a method is run, and the package on PyPI that it needs."""

    run: Callable[[Run], None]
    package: str | None = None


METHODS = {
    "affine": Method(affine),
    "ants-syn": Method(ants_syn, "antspyx"),
    "ants-syncc": Method(ants_syncc, "antspyx"),
    "greedy": Method(greedy, "picsl-greedy"),
    "elastix": Method(elastix, "itk-elastix"),
    "convexadam": Method(convexadam, "convexAdam"),
    "network": Method(network),  # any model, under the model's name
    "refined": Method(refined),  # and under that with rows.REFINE behind it
}
OF_MODELS = "network", "refined"


def method_of(name: str) -> Callable[[Run], None]:
    """A method's function: a key of ``METHODS``, or ``module:function``.

    A function of the user's gets a ``Run`` and does as those above do: it takes paths and
    threads from ``run.job``, finds its affine map in ``run.job.place``, hands its deformable
    stage to ``run.deform``, and ends with ``run.write``.

    Raises:
        InputError: there is no such function.
    """
    return METHODS[name].run if name in METHODS else function_named(name, "method", METHODS)


def missing(method: str) -> str | None:
    """The package that a method lacks here, if it does."""
    package = METHODS[method].package
    return package if package and version_of(package) is None else None
