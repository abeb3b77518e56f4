"""A model: a network, its weights, and the preparation its inputs had; safetensors and JSON."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ..allocation import freed_memory_kept
from ..device import bfloat16_convolutions, channels_last
from ..errors import InputError
from ..files import write_bytes
from ..space.grid import Grid
from .network import NETWORKS, Deformation, PairDescent
from .refine import Refinement, refined

FORMAT = "voxwarp-model-1"

_DAMAGED = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)

# The paper's 160 × 192 × 224 at 1 mm with FreeSurfer's axes L, I, A, around the MNI152 brain.
WORKING_GRID = Grid(
    (160, 192, 224),
    [
        [-1.0, 0.0, 0.0, 79.5],
        [0.0, 0.0, 1.0, -128.0],
        [0.0, -1.0, 0.0, 101.0],
        [0.0, 0.0, 0.0, 1.0],
    ],
)


Alignment = Literal["mni152", "centre", "header"]


@dataclass(frozen=True)
class Recipe:
    """How a scan becomes the network's input.

    Args:
        grid: lattice that aligned scans are resampled onto, in their common world space.
        percentile: the intensity of the brain's voxels that becomes 1; larger ones are clipped.
        alignment: what the common space is: that of MNI152, where an affine map leads; that with
            the middle of each scan at its origin; or the one that the scans' headers tell of.
    """

    grid: Grid = WORKING_GRID
    percentile: float = 99.5
    alignment: Alignment = "mni152"


@dataclass
class Model:
    """A network with what is needed to use it.

    Args:
        network: maps (moving, fixed) to a ``Deformation``.
        architecture: name in ``network.NETWORKS`` and keyword arguments that rebuild it.
        recipe: preparation of the inputs.
        card: data, training recipe, scores, licence; free JSON, shown by ``voxwarp models show``.
    """

    network: nn.Module
    architecture: dict[str, Any]
    recipe: Recipe
    card: dict[str, Any] = field(default_factory=dict)
    name: str = "unnamed"
    sha256: str = ""

    @classmethod
    def build(cls, architecture: dict[str, Any], recipe: Recipe, **more: Any) -> "Model":
        """A model with fresh weights.

        Args:
            architecture: ``{"name": "diffeomorphic", "encoder": [...], ...}``.
        """
        arguments = {key: value for key, value in architecture.items() if key != "name"}
        return cls(NETWORKS[architecture["name"]](**arguments), architecture, recipe, **more)

    @freed_memory_kept()
    def deform(
        self, moving: Tensor, fixed: Tensor, *, smoothness: float | None = None
    ) -> Deformation:
        """Run the network for use, not for training.

        Args:
            moving, fixed: (B, 1, X, Y, Z) prepared images on the network's device.
            smoothness: of the deformation, for a network that is ``adjustable``; 1 is its own.

        Returns:
            Displacements in voxels, float32. Convolutions run in bf16 where the processor has
            instructions for it, everything else in float32.
        """
        self.network.eval()
        knob = {} if smoothness is None else {"smoothness": smoothness}
        with torch.inference_mode(), bfloat16_convolutions(moving.device):
            return self.network(moving, fixed, **knob)

    @freed_memory_kept()
    def refine(
        self,
        moving: Tensor,
        fixed: Tensor,
        answer: Deformation,
        refinement: Refinement,
        *,
        smoothness: float | None = None,
    ) -> Deformation:
        """Make an answer better by optimisation of the very pair; see ``refine.refined``."""
        with torch.inference_mode(), bfloat16_convolutions(moving.device):
            return refined(
                *(moving, fixed, answer, refinement),
                network=self.network,
                smoothness=1.0 if smoothness is None else smoothness,
            )

    @property
    def adjustable(self) -> bool:
        """Whether the smoothness of its deformations can be chosen."""
        return isinstance(self.network, PairDescent)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``model.json`` and ``weights.safetensors`` into ``folder``."""
        weights = save(
            {k: v.detach().float().cpu().contiguous() for k, v in self.network.state_dict().items()}
        )
        description = {
            "format": FORMAT,
            "architecture": self.architecture,
            "preparation": {
                "shape": list(self.recipe.grid.shape),
                "affine": self.recipe.grid.affine.tolist(),
                "percentile": self.recipe.percentile,
                "alignment": self.recipe.alignment,
            },
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "card": self.card,
        }
        # The weights first: a model.json that is there names weights that are there.
        write_bytes(Path(folder) / "weights.safetensors", weights)
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        write_bytes(Path(folder) / "model.json", text.encode())

    @classmethod
    def load(cls, model: str | os.PathLike[str], device: str | torch.device = "cpu") -> "Model":
        """Load a model by the name of one that is installed, or from its folder.

        Raises:
            InputError: no such model, or its files are not whole or do not belong together.
        """
        folder = find(model)
        try:
            description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            if description.get("format") != FORMAT:
                raise InputError(
                    f"model {folder}: format {description.get('format')!r}, wanted {FORMAT!r}"
                )
            preparation = description["preparation"]
            recipe = Recipe(
                Grid(preparation["shape"], preparation["affine"]),
                preparation["percentile"],
                _alignment(preparation.get("alignment", "mni152")),
            )
            built = cls.build(
                description["architecture"], recipe, card=description["card"], name=folder.name
            )
            payload = (folder / "weights.safetensors").read_bytes()
            built.network.load_state_dict(load(payload))
        except InputError:
            raise
        except (*_DAMAGED, SafetensorError) as error:
            raise InputError(
                f"model {folder}: the files are damaged or incomplete ({_one_line(error)})"
            ) from error
        built.sha256 = hashlib.sha256(payload).hexdigest()
        if built.sha256 != description.get("weights_sha256"):
            raise InputError(
                f"model {folder}: weights.safetensors is not the file model.json names"
            )
        channels_last(built.network.to(device)).requires_grad_(False)
        return built


def _alignment(name: Any) -> Alignment:
    if name not in get_args(Alignment):
        raise ValueError(f"alignment {name!r}")
    return name


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def user_folder() -> Path:
    """Where ``voxwarp models import`` puts models: $VOXWARP_MODELS, else the user's data folder."""
    if "VOXWARP_MODELS" in os.environ:
        return Path(os.environ["VOXWARP_MODELS"])
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "voxwarp" / "models"


def installed() -> dict[str, Path]:
    """Name and folder of every model in the package and in the user's folder; the user's win."""
    shelves = [Path(str(resources.files("voxwarp") / "models")), user_folder()]
    return {
        folder.name: folder
        for shelf in shelves
        if shelf.is_dir()
        for folder in sorted(shelf.iterdir())
        if (folder / "model.json").is_file()
    }


def find(model: str | os.PathLike[str]) -> Path:
    """The folder of a model given by name or by path.

    Raises:
        InputError: there is none; the message lists the names there are.
    """
    shelf = installed()
    if str(model) in shelf:
        return shelf[str(model)]
    if (Path(model) / "model.json").is_file():
        return Path(model)
    raise InputError(
        f"unknown model {str(model)!r}: neither a folder with a model.json nor one of: "
        f"{', '.join(shelf) or 'none installed'}"
    )
