"""voxwarp: learning-based deformable registration of 3-D brain scans.

Names are loaded when first used: importing voxwarp does not import PyTorch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.pairs import Pair, read_pairs
    from .errors import InputError
    from .evaluation.evaluation import evaluate
    from .evaluation.scoring import Protocol, protocol_of
    from .networks.model import Model
    from .preparation.prepare import Settings
    from .preparation.preprocessing import Preprocessed, preprocess
    from .registration.apply import SavedTransform, apply_to_image, apply_to_points, load_transform
    from .registration.registration import Registration, register
    from .registration.saved import load_registration
    from .space.grid import Grid
    from .space.volume import Volume, read_volume, write_volume

_HOME = {
    "Grid": "space.grid",
    "InputError": "errors",
    "Model": "networks.model",
    "Pair": "data.pairs",
    "Preprocessed": "preparation.preprocessing",
    "Protocol": "evaluation.scoring",
    "Registration": "registration.registration",
    "SavedTransform": "registration.apply",
    "Settings": "preparation.prepare",
    "Volume": "space.volume",
    "apply_to_image": "registration.apply",
    "apply_to_points": "registration.apply",
    "evaluate": "evaluation.evaluation",
    "load_registration": "registration.saved",
    "load_transform": "registration.apply",
    "preprocess": "preparation.preprocessing",
    "protocol_of": "evaluation.scoring",
    "read_pairs": "data.pairs",
    "read_volume": "space.volume",
    "register": "registration.registration",
    "write_volume": "space.volume",
}

__all__ = [
    "Grid",
    "InputError",
    "Model",
    "Pair",
    "Preprocessed",
    "Protocol",
    "Registration",
    "SavedTransform",
    "Settings",
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
