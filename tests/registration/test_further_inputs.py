"""A network with more inputs than two images: a file, and a line in the catalogue."""

import numpy as np
import pytest
import torch
from image_files import brain_points
from torch import nn

from voxwarp.networks.catalogue import ARCHITECTURES, Architecture, Capabilities
from voxwarp.networks.deformation import Deformation
from voxwarp.networks.model import Model
from voxwarp.preparation.scan import Scan, prepare
from voxwarp.registration.register import register


class Shifting(nn.Module):
    """Moves the mask by a voxel along the last axis, and remembers its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, torch.Tensor] = {}

    def forward(
        self, moving: torch.Tensor, fixed: torch.Tensor, *, fixed_mask: torch.Tensor
    ) -> Deformation:
        self.given = {"moving": moving, "fixed": fixed, "fixed_mask": fixed_mask}
        displacement = torch.cat([0 * fixed_mask, 0 * fixed_mask, fixed_mask], dim=1)
        return Deformation(displacement, displacement)


def test_a_network_is_given_what_it_declares_to_want(scans, quick_affine, tiny_model, monkeypatch):
    """A file and a line in the catalogue are all that a third input takes."""
    declared = Capabilities("nothing", further_inputs=("fixed_mask",))
    monkeypatch.setitem(ARCHITECTURES, "shifting", Architecture(Shifting, declared))
    recipe = Model.load(tiny_model).recipe
    model = Model.build({"name": "shifting"}, recipe)
    result = register(scans.moving, scans.fixed, model)
    given = model.network.given
    fixed = Scan.read(scans.fixed)
    on_fixed = prepare(fixed.image, recipe, fixed.examined(recipe)).image
    assert torch.equal(given["fixed"], on_fixed)
    assert torch.equal(given["fixed_mask"], (on_fixed > 0).float())
    assert 0.1 < given["fixed_mask"].mean() < 0.5
    assert not torch.equal(given["fixed_mask"], (given["moving"] > 0).float())
    # What came of it: a voxel of 4 mm in the middle of the brain, nothing far from it.
    points = brain_points(scans.fixed)
    moved = np.linalg.norm(result.warp.map(points) - points, axis=1)
    scale = np.linalg.norm(result.metrics["preparation"]["fixed"]["template_to_scan"], ord=2)
    assert 3 < np.median(moved) < 4 * scale
    corners = result.fixed_grid.to_world(result.fixed_grid.corners())
    assert np.linalg.norm(result.warp.map(corners) - corners, axis=1).max() == 0


def test_a_further_input_that_is_not_there_is_an_error(
    scans, quick_affine, tiny_model, monkeypatch
):
    declared = Capabilities("nothing", further_inputs=("moving_age",))
    monkeypatch.setitem(ARCHITECTURES, "shifting", Architecture(Shifting, declared))
    model = Model.build({"name": "shifting"}, Model.load(tiny_model).recipe)
    with pytest.raises(ValueError, match="'age'"):
        register(scans.moving, scans.fixed, model)
