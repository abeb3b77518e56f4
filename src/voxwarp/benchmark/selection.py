"""Which methods the user selected, and which of them can run."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..evaluation.rows import REFINE
from ..networks.installed import installed
from .catalogue import METHODS, MODEL_METHODS, find_method, missing_package
from .weights import load_model, locate_model

DEFAULT_METHODS = "affine", "ants-syn", "greedy", "elastix", "convexadam", "default"
AUTHORS_MODELS = "vm1-authors", "vm2-authors"  # published weights; the user gives their files


class SelectedMethod(NamedTuple):
    """A method that the user selected.

    Args:
        name: its name in the rows.
        method: its function, see ``job.Job``.
        weights: weights of a network: a model's folder or a Keras file.
    """

    name: str
    method: str
    weights: str | None = None


def select_methods(names: Sequence[str]) -> tuple[list[SelectedMethod], dict[str, str]]:
    """Select methods, and say why some of them cannot run.

    Args:
        names: names of ``METHODS``, names of installed models, NAME=WEIGHTS with a model's
            folder or a Keras file of the paper's authors, or NAME=MODULE:FUNCTION. After a
            model, ``+refine`` refines its results.

    Returns:
        The methods that can run, and for each of the others the reason, by name.

    Raises:
        InputError: an entry is none of these, a name occurs twice, or weights cannot be read.
    """
    selected, skipped = dict[str, SelectedMethod](), dict[str, str]()
    for text in names:
        name, _, weights = text.partition("=")
        if name in selected or name in skipped:
            raise InputError(f"methods: {name!r} is listed twice")
        if not is_file_name(name):
            raise InputError(
                f"methods: {name!r} cannot name a folder of results; choose a name without slashes "
                "and write NAME=WEIGHTS, such as mine=runs/mine"
            )
        if weights and name in METHODS:
            raise InputError(
                f"methods: {name!r} is the name of a built-in method; choose another name for "
                f"{weights}"
            )
        if weights:
            selected[name] = _own_method(name, weights)
        elif name in METHODS and name not in MODEL_METHODS:
            package = missing_package(name)
            if package:
                skipped[name] = f"{package} is not installed: pip install 'voxwarp[benchmark]'"
            else:
                selected[name] = SelectedMethod(name, name)
        elif name.removesuffix(REFINE) in installed():
            selected[name] = _model_method(name, name)
        elif name in AUTHORS_MODELS:
            skipped[name] = f"its weights are not part of voxwarp: give them as {name}=FILE.h5"
        else:
            known = ", ".join([*(m for m in METHODS if m not in MODEL_METHODS), *installed()])
            raise InputError(
                f"methods: unknown method {name!r}; choose from {known}, or write NAME=WEIGHTS or "
                "NAME=MODULE:FUNCTION"
            )
    return list(selected.values()), skipped


def _own_method(name: str, source: str) -> SelectedMethod:
    """A method of the user's own: weights or a function."""
    if ":" in source and not Path(source).exists():
        find_method(source)
        return SelectedMethod(name, source)
    return _model_method(name, source)


def _model_method(name: str, source: str) -> SelectedMethod:
    """A model, with or without refinement."""
    weights = source.removesuffix(REFINE)
    load_model(weights)
    return SelectedMethod(
        name, "network" if weights == source else "refined", locate_model(weights)
    )


def is_file_name(name: str) -> bool:
    """Whether a file can have this name, also as a part of MOVING_to_FIXED, and is not hidden.

    At most 120 bytes, because most file systems allow 255 bytes for MOVING_to_FIXED.
    """
    return bool(re.fullmatch(r"[^\s./\\][^/\\\0\r\n]*", name)) and len(name.encode()) <= 120
