"""The methods of a benchmark by name, and methods of the user's own."""

from collections.abc import Callable
from typing import NamedTuple

from .._named import function_named
from .._provenance import version_of
from .job import Run
from .methods.ants import ants_syn, ants_syncc, ants_syncc_100x70x50x20
from .methods.convexadam import convexadam
from .methods.elastix import elastix
from .methods.greedy import greedy, greedy_nmi
from .methods.ours import affine, network, refined
from .methods.syntx import syntx


class Method(NamedTuple):
    """The function that runs a method, and the PyPI package that it needs."""

    run: Callable[[Run], None]
    package: str | None = None


METHODS = {
    "affine": Method(affine),
    "ants-syn": Method(ants_syn, "antspyx"),
    "ants-syncc": Method(ants_syncc, "antspyx"),
    "ants-syncc-100x70x50x20": Method(ants_syncc_100x70x50x20, "antspyx"),
    "greedy": Method(greedy, "picsl-greedy"),
    "greedy-nmi": Method(greedy_nmi, "picsl-greedy"),
    "elastix": Method(elastix, "itk-elastix"),
    "convexadam": Method(convexadam, "convexAdam"),
    "syntx": Method(syntx, "syntx"),
    "network": Method(network),  # any model; in rows under the model's name
    "refined": Method(refined),  # the same with rows.REFINE after the name
}
MODEL_METHODS = "network", "refined"


def find_method(name: str) -> Callable[[Run], None]:
    """The function of a method: a key of ``METHODS``, or ``module:function``.

    A function of your own gets a ``Run`` and works like those in ``methods``: it reads paths and
    threads from ``run.job``, finds the affine map in the folder ``run.job.path``, passes its
    deformable stage to ``run.deform``, and ends with ``run.write``.

    Raises:
        InputError: the function does not exist.
    """
    return METHODS[name].run if name in METHODS else function_named(name, "method", METHODS)


def missing_package(method: str) -> str | None:
    """The package that a method needs and that is not installed, or None."""
    package = METHODS[method].package
    return package if package and version_of(package) is None else None
