"""Models small enough for tests, and their files with other things in them."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from phantoms import blobs, oblique_affine
from torch import nn

from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.template import Template
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume, write_volume

BUILT: dict[str, dict[str, Any]] = {
    "voxelmorph": {"name": "voxelmorph", "encoder": [4, 8], "decoder": [8, 8, 8, 6]},
    "diffeomorphic": {"name": "diffeomorphic", "encoder": [4, 8], "decoder": [8, 8, 8], "steps": 5},
    "pyramid": {"name": "pyramid", "channels": [4, 8, 8], "steps": 6},
    "anatomy": {"name": "anatomy", "structures": 4, "channels": [6, 8], "steps": [3, 3]},
}


CARD = {"licence": "CC0", "data": ["α", 3], "scores": {"dice": 0.5}}


def fresh(name: str = "voxelmorph", seed: int = 0) -> Model:
    """A model whose weights are all drawn at random, the last layer's too."""
    torch.manual_seed(seed)
    recipe = Recipe(Grid((16, 20, 24), oblique_affine(1)), percentile=98.25)
    model = Model.build(BUILT[name], recipe, card=CARD)
    for parameter in model.network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    path = folder / "model.json"
    description = json.loads(path.read_text())
    edit(description)
    path.write_text(json.dumps(description))
    return folder


def with_its_hash(folder: Path) -> Path:
    """Let model.json name the weights that are there, so that the hash is not what refuses."""
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    return edited(folder, lambda d: d.update(weights_sha256=digest))


def ours(folder: Path) -> Template:
    """A template that has no name among those that are known."""
    grid = Grid((16, 20, 24), oblique_affine(1))
    write_volume(Volume(blobs(5, grid.shape), grid), folder / "ours.nii.gz")
    return Template("Ours", folder / "ours.nii.gz", title="Our 30 children")


def of_template(template: Template) -> Model:
    model = fresh()
    return replace(model, recipe=replace(model.recipe, alignment=template))
