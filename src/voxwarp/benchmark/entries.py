"""Which methods were asked for, in words, and which of them can be had."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..evaluation.rows import REFINE
from ..networks.model import installed
from .catalogue import METHODS, OF_MODELS, method_of, missing
from .weights import located, model_of

USUAL = "affine", "ants-syn", "greedy", "elastix", "convexadam", "default"
AUTHORS = "vm1-authors", "vm2-authors"  # published weights, which have to be pointed at


class Entry(NamedTuple):
    """A method as it was asked for.

    Args:
        name: in the rows.
        method: see ``job.Job``.
        weights: of a network.
    """

    name: str
    method: str
    weights: str | None = None


def entries(words: Sequence[str]) -> tuple[list[Entry], dict[str, str]]:
    """The methods that words ask for, and why some of them cannot be had.

    Args:
        words: names of ``METHODS``, names of installed models, NAME=WEIGHTS with a model's
            folder or a Keras file of the paper's authors, or NAME=MODULE:FUNCTION. Behind a
            model, ``+refine`` has its answers refined.

    Raises:
        InputError: a word is none of these, two have one name, or weights cannot be read.
    """
    found, skipped = dict[str, Entry](), dict[str, str]()
    for word in words:
        name, _, weights = word.partition("=")
        if name in found or name in skipped:
            raise InputError(f"methods: {name} is there twice")
        if not names_a_file(name) or (weights and name in METHODS):
            raise InputError(f"methods: {word!r}: give it a name of its own, as NAME=WEIGHTS")
        if weights:
            found[name] = _own(name, weights)
        elif name in METHODS and name not in OF_MODELS:
            package = missing(name)
            if package:
                skipped[name] = f"{package} is not installed: pip install 'voxwarp[benchmark]'"
            else:
                found[name] = Entry(name, name)
        elif name.removesuffix(REFINE) in installed():
            found[name] = _of_model(name, name)
        elif name in AUTHORS:
            skipped[name] = f"its weights are not here: {name}=FILE.h5"
        else:
            known = ", ".join([*(m for m in METHODS if m not in OF_MODELS), *installed()])
            raise InputError(f"methods: there is no {name!r}; there are {known}, and NAME=WEIGHTS")
    return list(found.values()), skipped


def _own(name: str, source: str) -> Entry:
    """A method of the user's: weights, or a function."""
    if ":" in source and not Path(source).exists():
        method_of(source)
        return Entry(name, source)
    return _of_model(name, source)


def _of_model(name: str, source: str) -> Entry:
    """A model, and whether its answers are refined."""
    weights = source.removesuffix(REFINE)
    model_of(weights)
    return Entry(name, "network" if weights == source else "refined", located(weights))


def names_a_file(name: str) -> bool:
    """Whether a file can have this name, beside another in one name, and is not hidden then."""
    return bool(re.fullmatch(r"[^\s./\\][^/\\\0\r\n]*", name)) and len(name.encode()) <= 120
