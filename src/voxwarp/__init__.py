"""voxwarp: learning-based deformable registration of 3-D brain scans.

    import voxwarp

    result = voxwarp.register("moving.nii.gz", "fixed.nii.gz")  # paths, nibabel images, volumes
    result.save("out")  # Warped.nii.gz, ITK transforms, metrics.json, report.html
    labels = voxwarp.apply_to_image("moving_seg.nii.gz", result).to_nibabel()

Names are loaded when first used: importing voxwarp does not import PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.pairs import Pair, read_pairs
    from .dbm.api import morphometry
    from .dbm.settings import MorphometrySettings
    from .errors import InputError
    from .evaluation.evaluate import evaluate
    from .evaluation.protocol import Protocol, protocol_of
    from .networks.model import Model
    from .networks.refine import Refinement
    from .preparation.preprocess import Preprocessed, preprocess
    from .preparation.scan import Scan
    from .preparation.settings import Preparation
    from .preparation.template import Template
    from .registration.apply import apply_to_image
    from .registration.line import RegisteredScan
    from .registration.loading import load
    from .registration.many import register_many
    from .registration.points import apply_to_points
    from .registration.register import register
    from .registration.result import Registration
    from .registration.saved_transform import SavedTransform, chain_of, load_transform
    from .runtime import Runtime
    from .space.grid import Grid
    from .space.transform import Affine, Chain, Warp
    from .space.volume import Volume, read_volume, write_volume
    from .templates.api import build_template
    from .templates.settings import TemplateSettings
    from .training.config import read_config
    from .training.train import train

_HOME = {
    "Affine": "space.transform",
    "Chain": "space.transform",
    "Grid": "space.grid",
    "InputError": "errors",
    "Model": "networks.model",
    "MorphometrySettings": "dbm.settings",
    "Pair": "data.pairs",
    "Preparation": "preparation.settings",
    "Preprocessed": "preparation.preprocess",
    "Protocol": "evaluation.protocol",
    "Refinement": "networks.refine",
    "RegisteredScan": "registration.line",
    "Registration": "registration.result",
    "Runtime": "runtime",
    "SavedTransform": "registration.saved_transform",
    "Scan": "preparation.scan",
    "Template": "preparation.template",
    "TemplateSettings": "templates.settings",
    "Volume": "space.volume",
    "Warp": "space.transform",
    "apply_to_image": "registration.apply",
    "apply_to_points": "registration.points",
    "build_template": "templates.api",
    "chain_of": "registration.saved_transform",
    "evaluate": "evaluation.evaluate",
    "load": "registration.loading",
    "load_transform": "registration.saved_transform",
    "morphometry": "dbm.api",
    "preprocess": "preparation.preprocess",
    "protocol_of": "evaluation.protocol",
    "read_config": "training.config",
    "read_pairs": "data.pairs",
    "read_volume": "space.volume",
    "register": "registration.register",
    "register_many": "registration.many",
    "train": "training.train",
    "write_volume": "space.volume",
}

__all__ = [
    "Affine",
    "Chain",
    "Grid",
    "InputError",
    "Model",
    "MorphometrySettings",
    "Pair",
    "Preparation",
    "Preprocessed",
    "Protocol",
    "Refinement",
    "RegisteredScan",
    "Registration",
    "Runtime",
    "SavedTransform",
    "Scan",
    "Template",
    "TemplateSettings",
    "Volume",
    "Warp",
    "__version__",
    "apply_to_image",
    "apply_to_points",
    "build_template",
    "chain_of",
    "evaluate",
    "load",
    "load_transform",
    "morphometry",
    "preprocess",
    "protocol_of",
    "read_config",
    "read_pairs",
    "read_volume",
    "register",
    "register_many",
    "train",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slower than all else that is imported here

        return version("voxwarp")
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
