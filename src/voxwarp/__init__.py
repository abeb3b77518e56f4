"""voxwarp: learning-based deformable registration of 3-D brain scans.

Names are loaded when first used: importing voxwarp does not import PyTorch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.pairs import Pair, read_pairs
    from .errors import InputError
    from .evaluation.evaluate import evaluate
    from .evaluation.protocol import Protocol, protocol_of
    from .networks.model import Model
    from .networks.refine import Refinement
    from .preparation.preprocess import Preprocessed, preprocess
    from .preparation.scan import Scan
    from .preparation.settings import Preparation
    from .preparation.template import Template
    from .registration.apply import SavedTransform, apply_to_image, load_transform
    from .registration.points import apply_to_points
    from .registration.register import register
    from .registration.result import Registration, load_registration
    from .runtime import Runtime
    from .space.grid import Grid
    from .space.volume import Volume, read_volume, write_volume

_HOME = {
    "Grid": "space.grid",
    "InputError": "errors",
    "Model": "networks.model",
    "Pair": "data.pairs",
    "Preparation": "preparation.settings",
    "Preprocessed": "preparation.preprocess",
    "Protocol": "evaluation.protocol",
    "Refinement": "networks.refine",
    "Registration": "registration.result",
    "Runtime": "runtime",
    "SavedTransform": "registration.apply",
    "Scan": "preparation.scan",
    "Template": "preparation.template",
    "Volume": "space.volume",
    "apply_to_image": "registration.apply",
    "apply_to_points": "registration.points",
    "evaluate": "evaluation.evaluate",
    "load_registration": "registration.result",
    "load_transform": "registration.apply",
    "preprocess": "preparation.preprocess",
    "protocol_of": "evaluation.protocol",
    "read_pairs": "data.pairs",
    "read_volume": "space.volume",
    "register": "registration.register",
    "write_volume": "space.volume",
}

__all__ = [
    "Grid",
    "InputError",
    "Model",
    "Pair",
    "Preparation",
    "Preprocessed",
    "Protocol",
    "Refinement",
    "Registration",
    "Runtime",
    "SavedTransform",
    "Scan",
    "Template",
    "Volume",
    "__version__",
    "apply_to_image",
    "apply_to_points",
    "evaluate",
    "load_registration",
    "load_transform",
    "preprocess",
    "protocol_of",
    "read_pairs",
    "read_volume",
    "register",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("voxwarp")
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
