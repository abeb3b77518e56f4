"""The model for a pair: other contrasts than it knows go to the model that it names."""

import pytest
import torch

from voxwarp.networks.model import Model
from voxwarp.networks.segmentation import Segmentation
from voxwarp.preparation.examination import Examination
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Prepared
from voxwarp.registration import contrast
from voxwarp.registration.contrast import KNOWN, choose_model
from voxwarp.space.transform import Affine

SHAPE = (16, 16, 16)
CPU = torch.device("cpu")
ANATOMY = {"name": "anatomy", "structures": 3, "channels": [4, 4], "steps": [1, 1]}


def prepared(value: float) -> Prepared:
    image = torch.zeros(1, 1, *SHAPE)
    image[..., 4:12, 4:12, 4:12] = value
    recipe = Recipe(Recipe().grid.resized(SHAPE))
    examination = Examination("brain", recipe.grid, Affine(torch.eye(4).double().numpy()))
    return Prepared(image, examination)


@pytest.fixture
def asked(monkeypatch) -> Model:
    """A model that is as unsure of an image as its brightest voxel is bright."""
    recipe = Recipe(Recipe().grid.resized(SHAPE))
    model = Model.build(ANATOMY, recipe, name="asked", other_contrasts="other")
    monkeypatch.setattr(
        model.network.segmentation,
        "forward",
        lambda images, factor: Segmentation(images, images.flatten(1).amax(dim=1)),
    )
    return model


@pytest.fixture
def other(monkeypatch) -> Model:
    """What is loaded in its place."""
    recipe = Recipe(Recipe().grid.resized(SHAPE))
    model = Model.build(ANATOMY, recipe, name="other")
    loaded = {"other": model}
    monkeypatch.setattr(contrast, "_loaded", lambda name, device: loaded[name])
    return model


@pytest.mark.parametrize(
    ("moving", "fixed", "is_known"),
    [
        (KNOWN - 0.01, KNOWN - 0.02, (True, True)),
        (KNOWN + 0.01, KNOWN - 0.02, (False, True)),
        (0.01, 0.5, (True, False)),
    ],
)
def test_one_unknown_scan_is_enough(asked, other, moving, fixed, is_known):
    choice = choose_model(asked, moving=prepared(moving), fixed=prepared(fixed), device=CPU)
    assert choice.model is (asked if all(is_known) else other)
    assert choice.unsure == pytest.approx({"moving": moving, "fixed": fixed})
    record = choice.described(asked)
    assert record["asked_model"] == "asked"
    assert tuple(record["known"].values()) == is_known


def test_segmentations_are_kept_for_the_model_that_made_them(asked, other):
    known = choose_model(asked, moving=prepared(0.01), fixed=prepared(0.01), device=CPU)
    assert len(known.map_cache) == 1
    unknown = choose_model(asked, moving=prepared(0.9), fixed=prepared(0.01), device=CPU)
    assert not unknown.map_cache


def test_the_segmentation_is_not_computed_again(asked):
    choice = choose_model(asked, moving=prepared(0.01), fixed=prepared(0.02), device=CPU)
    before = dict(choice.map_cache)
    asked.deform(
        moving=prepared(0.01).image, fixed=prepared(0.02).image, map_cache=choice.map_cache
    )
    assert choice.map_cache.keys() == before.keys()
    assert all(choice.map_cache[key] is value for key, value in before.items())


def test_a_model_that_names_no_other_takes_everything():
    recipe = Recipe(Recipe().grid.resized(SHAPE))
    model = Model.build(ANATOMY, recipe)
    choice = choose_model(model, moving=prepared(0.9), fixed=prepared(0.9), device=CPU)
    assert choice.model is model
    assert choice.described(model) is None


def test_the_name_of_the_other_model_is_stored(asked, tmp_path):
    asked.save(tmp_path)
    assert Model.load(tmp_path).other_contrasts == "other"
    recipe = Recipe(Recipe().grid.resized(SHAPE))
    Model.build(ANATOMY, recipe).save(tmp_path / "plain")
    assert Model.load(tmp_path / "plain").other_contrasts is None
