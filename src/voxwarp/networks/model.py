"""A model: a network, its weights, and the preparation its inputs had; safetensors and JSON."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ..device import bfloat16_convolutions, channels_last
from ..errors import InputError
from ..files import write_bytes
from ..folders import models_folder
from ..preparation.recipe import TEMPLATE_FILE, Recipe
from ..space.volume import write_volume
from .catalogue import ARCHITECTURES, Capabilities, build, with_todays_names
from .deformation import Deformation
from .pair_descent import KeptMaps, PairDescent
from .refine import Refinement, refined

FORMAT = "voxwarp-model-1"

_DAMAGED = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)


@dataclass
class Model:
    """A network with what is needed to use it.

    Args:
        network: maps (moving, fixed) to a ``Deformation``.
        architecture: name in ``catalogue.ARCHITECTURES`` and keyword arguments that rebuild it.
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
        return cls(build(architecture), architecture, recipe, **more)

    @property
    def capabilities(self) -> Capabilities:
        """What the network can do."""
        return ARCHITECTURES[self.architecture["name"]].capabilities

    def deform(
        self,
        *,
        moving: Tensor,
        fixed: Tensor,
        smoothness: float | None = None,
        kept: KeptMaps | None = None,
        weight: Tensor | None = None,
        **further: Tensor,
    ) -> Deformation:
        """Run the network for use, not for training.

        Args:
            moving, fixed: (B, 1, X, Y, Z) prepared images on the network's device.
            smoothness: of the deformation, for a network that obeys it; 1 is its own.
            kept: what a descent made of these images before, see ``PairDescent.forward``.
            weight: of a descent's forces, (B, 1, X, Y, Z), see ``PairDescent.forward``.
            further: the inputs that the network's capabilities name beside the images.

        Returns:
            Displacements in voxels, float32. Convolutions run in bf16 where the processor has
            instructions for it, everything else in float32.
        """
        self.network.eval()
        options: dict[str, Any] = dict(further)
        if self.capabilities.is_descent:
            options |= {"kept": kept, "weight": weight}
        if smoothness is not None:
            options["smoothness"] = smoothness
        with torch.inference_mode(), bfloat16_convolutions(moving.device):
            return self.network(moving=moving, fixed=fixed, **options)

    def refine(
        self,
        answer: Deformation,
        refinement: Refinement,
        *,
        moving: Tensor,
        fixed: Tensor,
        smoothness: float | None = None,
        kept: KeptMaps | None = None,
        weight: Tensor | None = None,
    ) -> Deformation:
        """Make an answer better by optimisation of the very pair; see ``refine.refined``."""
        with torch.inference_mode(), bfloat16_convolutions(moving.device):
            return refined(
                answer,
                refinement,
                moving=moving,
                fixed=fixed,
                descent=self.descent,
                smoothness=1.0 if smoothness is None else smoothness,
                kept=kept,
                weight=weight,
            )

    @property
    def descent(self) -> PairDescent:
        """The descent that goes on from its answers: its own, or one on the images alone."""
        return cast(PairDescent, self.network) if self.capabilities.is_descent else PairDescent()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``model.json`` and ``weights.safetensors`` into ``folder``."""
        weights = save(
            {k: v.detach().float().cpu().contiguous() for k, v in self.network.state_dict().items()}
        )
        description = {
            "format": FORMAT,
            "architecture": self.architecture,
            "preparation": self.recipe.described(),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "card": self.card,
        }
        if "template" in description["preparation"]:
            assert self.recipe.template is not None
            write_volume(self.recipe.template.image, Path(folder) / TEMPLATE_FILE)
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
            recipe = Recipe.from_record(description["preparation"], folder)
            built = cls.build(
                description["architecture"], recipe, card=description["card"], name=folder.name
            )
            payload = (folder / "weights.safetensors").read_bytes()
            built.network.load_state_dict(with_todays_names(load(payload)))
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def installed() -> dict[str, Path]:
    """Name and folder of every model in the package and in the user's folder; the user's win."""
    shelves = [Path(str(resources.files("voxwarp") / "models")), models_folder()]
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
