"""voxwarp: learning-based deformable registration of 3-D brain scans.

Names are loaded when first used: importing voxwarp does not import PyTorch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .apply import SavedTransform, apply_to_image, apply_to_points, load_transform
    from .errors import InputError
    from .grid import Grid
    from .model import Model
    from .prepare import Settings
    from .preprocessing import Preprocessed, preprocess
    from .registration import Registration, register
    from .volume import Volume, read_volume, write_volume

_HOME = {
    "Grid": "grid",
    "InputError": "errors",
    "Model": "model",
    "Preprocessed": "preprocessing",
    "Registration": "registration",
    "SavedTransform": "apply",
    "Settings": "prepare",
    "Volume": "volume",
    "apply_to_image": "apply",
    "apply_to_points": "apply",
    "load_transform": "apply",
    "preprocess": "preprocessing",
    "read_volume": "volume",
    "register": "registration",
    "write_volume": "volume",
}

__all__ = [
    "Grid",
    "InputError",
    "Model",
    "Preprocessed",
    "Registration",
    "SavedTransform",
    "Settings",
    "Volume",
    "__version__",
    "apply_to_image",
    "apply_to_points",
    "load_transform",
    "preprocess",
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
