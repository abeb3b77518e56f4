"""voxwarp: learning-based deformable registration of 3-D brain scans.

Names are loaded when first used: importing voxwarp does not import PyTorch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .apply import SavedTransform, apply_to_image, apply_to_points, load_transform
    from .errors import InputError
    from .evaluation import evaluate
    from .grid import Grid
    from .model import Model
    from .pairs import Pair, read_pairs
    from .prepare import Settings
    from .preprocessing import Preprocessed, preprocess
    from .registration import Registration, register
    from .saved import load_registration
    from .scoring import Protocol, protocol_of
    from .volume import Volume, read_volume, write_volume

_HOME = {
    "Grid": "grid",
    "InputError": "errors",
    "Model": "model",
    "Pair": "pairs",
    "Preprocessed": "preprocessing",
    "Protocol": "scoring",
    "Registration": "registration",
    "SavedTransform": "apply",
    "Settings": "prepare",
    "Volume": "volume",
    "apply_to_image": "apply",
    "apply_to_points": "apply",
    "evaluate": "evaluation",
    "load_registration": "saved",
    "load_transform": "apply",
    "preprocess": "preprocessing",
    "protocol_of": "scoring",
    "read_pairs": "pairs",
    "read_volume": "volume",
    "register": "registration",
    "write_volume": "volume",
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
