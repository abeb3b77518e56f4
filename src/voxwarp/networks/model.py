"""A model: a network, its weights, and the recipe for its inputs; safetensors and JSON files."""

import hashlib
import json
import os
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .._device import bfloat16_convolutions, channels_last
from .._files import check_readable, write_bytes
from .._json import read_json
from ..errors import InputError
from ..preparation.recipe import TEMPLATE_FILE, Recipe
from ..space.volume import write_volume
from .catalogue import ARCHITECTURES, Capabilities, build, with_current_names
from .deformation import Deformation
from .descent import Weights
from .installed import COPY_WHOLE, MODEL, WEIGHTS, find, weights_file
from .pair_descent import MapCache, PairDescent
from .refine import Refinement, refine

FORMAT = "voxwarp-model-1"

_DAMAGED = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)


@dataclass
class Model:
    """A network with everything that is needed to use it.

    Args:
        network: takes the images ``moving`` and ``fixed``, and returns a ``Deformation``.
        architecture: name in ``catalogue.ARCHITECTURES``, and the arguments that rebuild it.
        recipe: how the scans are prepared.
        card: data, training, scores, licence; free JSON, printed by ``voxwarp models show``.
        other_contrasts: name of the installed model that registers scans of which this one does
            not know the contrast; None: it registers them itself.
        takes_any_contrast: whether it is made for pairs of two contrasts.
        name: of the model's folder.
        sha256: hash of the file of weights; empty if the model was not loaded.

    Example:
        >>> import voxwarp
        >>> model = voxwarp.Model.load("default")
        >>> model.name, model.recipe.grid.shape
        ('default', (160, 192, 224))
    """

    network: nn.Module
    architecture: dict[str, Any]
    recipe: Recipe
    card: dict[str, Any] = dataclass_field(default_factory=dict)
    other_contrasts: str | None = None
    takes_any_contrast: bool = False
    name: str = "unnamed"
    sha256: str = ""

    @classmethod
    def build(cls, architecture: dict[str, Any], recipe: Recipe, **more: Any) -> "Model":
        """Build a model with random weights.

        Args:
            architecture: such as ``{"name": "diffeomorphic", "encoder": [16, 32], ...}``.
            recipe: how the scans are prepared.
            more: further fields of the model.
        """
        return cls(build(architecture), architecture, recipe, **more)

    @property
    def capabilities(self) -> Capabilities:
        """What the network can do."""
        return ARCHITECTURES[self.architecture["name"]].capabilities

    @property
    def settings_sha256(self) -> str:
        """Hash of what the result depends on beside the weights.

        These are the architecture, the preparation, and the model for other contrasts. Two models
        may have the same weights and other steps, as ``default`` and ``fast`` do.
        """
        settings = [self.architecture, self.recipe.described(), self.other_contrasts]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def deform(
        self,
        *,
        moving: Tensor,
        fixed: Tensor,
        smoothness: float | None = None,
        map_cache: MapCache | None = None,
        weights: Weights | None = None,
        **further_inputs: Tensor,
    ) -> Deformation:
        """Run the network in evaluation mode, without gradients.

        Convolutions run in bf16 if the processor has instructions for it, everything else runs in
        float32.

        Args:
            moving, fixed: prepared images, (B, 1, X, Y, Z), on the device of the network.
            smoothness: factor on the smoothness, for networks whose smoothness can be chosen.
            map_cache: segmentations of this pair, for a descent, see ``PairDescent.forward``.
            weights: of the forces of a descent, see ``descent.Weights``.
            further_inputs: the inputs that ``capabilities.further_inputs`` names.

        Returns:
            The deformation, in voxels, float32.
        """
        self.network.eval()
        options: dict[str, Any] = dict(further_inputs)
        if self.capabilities.is_descent:
            options |= {"map_cache": map_cache, "weights": weights}
        if smoothness is not None:
            options["smoothness"] = smoothness
        with torch.inference_mode(), bfloat16_convolutions(moving.device):
            return self.network(moving=moving, fixed=fixed, **options)

    def unsure(self, *, moving: Tensor, fixed: Tensor, map_cache: MapCache) -> Tensor | None:
        """How unsure the network is of the structures in two images.

        Args:
            moving, fixed: prepared images, (1, 1, X, Y, Z), on the device of the network.
            map_cache: the segmentations are added to it, for ``deform``.

        Returns:
            (2,) shares of the voxels of the moving and the fixed brain, see
            ``segmentation.Segmentation``; None if the network recognises no structures.
        """
        if not self.capabilities.is_descent:
            return None
        with torch.inference_mode(), bfloat16_convolutions(moving.device):
            found = self.descent.segmented(moving=moving, fixed=fixed, map_cache=map_cache)
        return None if found is None else found.unsure

    def refine(
        self,
        deformation: Deformation,
        refinement: Refinement,
        *,
        moving: Tensor,
        fixed: Tensor,
        smoothness: float | None = None,
        map_cache: MapCache | None = None,
        weights: Weights | None = None,
    ) -> Deformation:
        """Continue from a deformation by optimising this pair."""
        with torch.inference_mode(), bfloat16_convolutions(moving.device):
            return refine(
                deformation,
                refinement,
                moving=moving,
                fixed=fixed,
                descent=self.descent,
                smoothness=1.0 if smoothness is None else smoothness,
                map_cache=map_cache,
                weights=weights,
            )

    def continued(
        self,
        start: Tensor,
        *,
        moving: Tensor,
        fixed: Tensor,
        smoothness: float = 1.0,
        weights: Weights | None = None,
    ) -> Deformation:
        """Continue from a displacement by the last stages of the descent, from 2 mm on.

        Args:
            start: the displacement, (1, 3, X, Y, Z), voxels.
            moving, fixed, smoothness, weights: see ``deform``.
        """
        with torch.inference_mode(), bfloat16_convolutions(moving.device):
            return self.descent.descend(
                self.descent.last_settings.smoother(smoothness),
                moving=moving,
                fixed=fixed,
                start=start,
                weights=weights,
            )

    @property
    def descent(self) -> PairDescent:
        """The descent that refines its deformations, its own or one on the images alone."""
        return cast(PairDescent, self.network) if self.capabilities.is_descent else PairDescent()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``model.json`` and ``weights.safetensors`` into ``folder``.

        The weights are written also where the model was loaded with those of another one.
        """
        weights = save(
            {k: v.detach().float().cpu().contiguous() for k, v in self.network.state_dict().items()}
        )
        description: dict[str, Any] = {
            "format": FORMAT,
            "architecture": self.architecture,
            "preparation": self.recipe.described(),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "card": self.card,
        }
        if self.other_contrasts:
            description["other_contrasts"] = self.other_contrasts
        if self.takes_any_contrast:
            description["takes_any_contrast"] = True
        if "template" in description["preparation"]:
            assert self.recipe.template is not None
            write_volume(self.recipe.template.image, Path(folder) / TEMPLATE_FILE)
        # The weights come first, so that a complete model.json never lacks its weights.
        write_bytes(Path(folder) / WEIGHTS, weights)
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        write_bytes(Path(folder) / MODEL, text.encode())

    @classmethod
    def load(cls, model: str | os.PathLike[str], device: str | torch.device = "cpu") -> "Model":
        """Load an installed model by its name, or a model from its folder.

        Args:
            model: name or folder.
            device: where the network will run.

        Raises:
            InputError: there is no such model, or its files are damaged or do not belong together.
        """
        folder = find(model)
        if os.path.lexists(folder / MODEL):
            check_readable(folder / MODEL, "model")
        try:
            description = read_json(folder / MODEL)
            if description.get("format") != FORMAT:
                raise InputError(
                    f"model {folder}: the format in model.json must be {FORMAT}, got "
                    f"{description.get('format')!r}; a newer version of voxwarp may have written it"
                )
            recipe = Recipe.from_record(description["preparation"], folder)
            loaded = cls.build(
                description["architecture"],
                recipe,
                card=description["card"],
                other_contrasts=description.get("other_contrasts"),
                takes_any_contrast=bool(description.get("takes_any_contrast", False)),
                name=folder.name,
            )
            payload = _weights(folder, description)
            loaded.network.load_state_dict(with_current_names(load(payload)))
            loaded.sha256 = description["weights_sha256"]
        except InputError:
            raise
        except (*_DAMAGED, SafetensorError) as error:
            raise InputError(
                f"model {folder}: its files are damaged or incomplete ({_one_line(error)}); copy "
                f"the whole folder again"
            ) from error
        channels_last(loaded.network.to(device)).requires_grad_(False)
        return loaded


def _weights(folder: Path, description: dict[str, Any]) -> bytes:
    """The file of weights, if its hash is that of the description.

    Raises:
        InputError: they do not belong together, or the weights are those of a missing model.
        OSError: there is no such file.
    """
    path = weights_file(folder, description)
    if os.path.lexists(path):
        check_readable(path, "model")
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() == description.get("weights_sha256"):
        return payload
    if path.parent != folder:
        raise InputError(
            f"model {folder}: its weights should be those of the model "
            f"{description['weights_of']!r}, but {path} holds others (the SHA-256 differs), as "
            f"another version of voxwarp may have them. {COPY_WHOLE}"
        )
    raise InputError(
        f"model {folder}: weights.safetensors and model.json do not belong together (the SHA-256 "
        f"differs); copy the whole folder again"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
