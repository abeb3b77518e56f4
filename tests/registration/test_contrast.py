"""Contrasts that a model does not know: another model, and intensities that are adapted."""

from typing import Any

import numpy as np
import pytest
import torch

import voxwarp
from voxwarp.networks.deformation import Deformation
from voxwarp.networks.model import Model
from voxwarp.networks.segmentation import Segmentation
from voxwarp.preparation.examination import Examination
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Prepared
from voxwarp.registration import contrast
from voxwarp.registration.contrast import KNOWN, Choice, adapt, choose_model, with_contrast
from voxwarp.registration.deform import compute_deformation
from voxwarp.space.transform import Affine

SHAPE = (16, 16, 16)
RECIPE = Recipe(Recipe().grid.resized(SHAPE))
CPU = torch.device("cpu")
ANATOMY = {"name": "anatomy", "structures": 3, "channels": [4, 4], "steps": [1, 1]}


def cube(value: float) -> torch.Tensor:
    """An image whose brightest voxel tells how unsure the models below are of it."""
    image = torch.zeros(1, 1, *SHAPE)
    image[..., 4:12, 4:12, 4:12] = value * torch.linspace(0.5, 1, 8)
    return image


def pair(moving: float, fixed: float) -> dict[str, torch.Tensor]:
    return {"moving": cube(moving), "fixed": cube(fixed)}


def prepared(image: torch.Tensor) -> Prepared:
    return Prepared(image, Examination("brain", RECIPE.grid, Affine(np.eye(4))))


def simple(name: str, **more: Any) -> Model:
    """A model that is as unsure of an image as its brightest voxel is bright."""
    model = Model.build(ANATOMY, RECIPE, name=name, **more)

    def segment(images: torch.Tensor, factor: int) -> Segmentation:
        maps = torch.nn.functional.avg_pool3d(images, factor)
        return Segmentation(maps.expand(-1, 6, -1, -1, -1), images.flatten(1).amax(dim=1))

    model.network.segmentation.forward = segment
    return model


@pytest.fixture
def asked() -> Model:
    return simple("asked", other_contrasts="other")


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Model:
    """What is loaded in its place."""
    loaded = {"other": simple("other")}
    monkeypatch.setattr(contrast, "_loaded", lambda name, device: loaded[name])
    return loaded["other"]


# ----------------------------------------------------------------------------------- The choice


@pytest.mark.parametrize(
    ("moving", "fixed", "is_known"),
    [
        (KNOWN - 0.01, KNOWN - 0.02, (True, True)),
        (KNOWN + 0.01, KNOWN - 0.02, (False, True)),
        (0.01, 0.5, (True, False)),
    ],
)
def test_one_unknown_scan_is_enough(asked, other, moving, fixed, is_known):
    choice = choose_model(asked, pair(moving, fixed), CPU)
    assert choice.model is (asked if all(is_known) else other)
    assert choice.unsure == pytest.approx({"moving": moving, "fixed": fixed})
    record = choice.described()
    assert record["asked_model"] == "asked"
    assert tuple(record["known"].values()) == is_known
    assert record["adapted"] is None
    assert choice.contrasts_may_differ is not all(is_known)


def test_segmentations_are_kept_for_the_model_that_made_them(asked, other):
    known = choose_model(asked, pair(0.01, 0.01), CPU)
    assert len(known.map_cache) == 1
    assert not choose_model(asked, pair(0.9, 0.01), CPU).map_cache


def test_the_segmentation_is_not_computed_again(asked):
    choice = choose_model(asked, pair(0.01, 0.02), CPU)
    before = dict(choice.map_cache)
    asked.deform(**choice.images, map_cache=choice.map_cache)
    assert choice.map_cache.keys() == before.keys()
    assert all(choice.map_cache[key] is value for key, value in before.items())


def test_a_model_that_names_no_other_takes_everything():
    model = Model.build(ANATOMY, RECIPE)
    choice = choose_model(model, pair(0.9, 0.9), CPU)
    assert choice.model is model
    assert choice.described() is None
    assert not choice.contrasts_may_differ
    of_any = Model.build(ANATOMY, RECIPE, takes_any_contrast=True)
    assert choose_model(of_any, pair(0.9, 0.9), CPU).contrasts_may_differ


def test_the_name_of_the_other_model_is_stored(tmp_path):
    named = {"other_contrasts": "other", "takes_any_contrast": True}
    Model.build(ANATOMY, RECIPE, **named).save(tmp_path)
    loaded = Model.load(tmp_path)
    assert (loaded.other_contrasts, loaded.takes_any_contrast) == ("other", True)
    Model.build(ANATOMY, RECIPE).save(tmp_path / "plain")
    plain = Model.load(tmp_path / "plain")
    assert (plain.other_contrasts, plain.takes_any_contrast) == (None, False)


# ---------------------------------------------------------------------------------- Adaptation


@pytest.fixture(scope="module")
def brain() -> torch.Tensor:
    """Smooth intensities from 0.1 to 1 within a ball."""
    draw = torch.Generator().manual_seed(2)
    nodes = torch.rand(1, 1, 6, 6, 6, generator=draw)
    values = torch.nn.functional.interpolate(nodes, size=(48, 48, 48), mode="trilinear")
    values = 0.1 + 0.9 * (values - values.amin()) / (values.amax() - values.amin())
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, 48)] * 3, indexing="ij")
    return torch.where((x**2 + y**2 + z**2 < 0.8)[None, None], values, torch.zeros(()))


CURVES = {
    "inverted": lambda x: 1.05 - x,
    "not monotonous": lambda x: 0.2 + 2.5 * (x - 0.5) ** 2,
    "a step": lambda x: torch.where(x > 0.5, 0.9, 0.2),
}


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_of_intensities_comes_back(brain, name):
    """Where the images lie on each other, each intensity becomes that of the other image."""
    like = torch.where(brain > 0, CURVES[name](brain), torch.zeros(()))
    like = like / like[brain > 0].quantile(0.995)
    found = with_contrast(brain, like, 99.5)
    assert not found[brain == 0].any()
    assert (found[brain > 0] > 0).all()
    own, true = found[brain > 0], like[brain > 0]
    own = own * float((own * true).sum() / (own * own).sum())  # both have their own white
    assert float((own - true).abs().mean()) < 0.02
    assert float((own - true).abs().quantile(0.95)) < 0.06


def test_noise_and_a_shift_do_little_harm(brain):
    inverted = torch.where(brain > 0, 1.05 - brain, torch.zeros(()))
    noise = 0.05 * torch.randn(brain.shape, generator=torch.Generator().manual_seed(1))
    shifted = torch.where(brain > 0, (inverted + noise).roll(1, dims=3).clamp(0.01, 1), brain)
    found = with_contrast(brain, shifted, 99.5)
    scale = float(inverted[brain > 0].quantile(0.995))
    error = (found - inverted / scale).abs()[brain > 0]
    assert float(error.mean()) < 0.05


def test_images_with_nothing_in_common_stay(brain):
    assert torch.equal(with_contrast(brain, torch.zeros_like(brain), 99.5), brain)


@pytest.mark.parametrize("side", ["moving", "fixed"])
def test_the_other_scan_is_laid_on_the_unknown_one(asked, other, side, monkeypatch):
    """Through the deformation of the first model, in the right direction."""
    laid: list[torch.Tensor] = []

    def noted(image: torch.Tensor, like: torch.Tensor, percentile: float) -> torch.Tensor:
        laid.append(like)
        return cube(0.03)

    monkeypatch.setattr(contrast, "with_contrast", noted)
    known, unknown = cube(0.04), cube(0.9).roll(2, dims=2)
    images = {side: unknown, {"moving": "fixed", "fixed": "moving"}[side]: known}
    displacement = torch.zeros(1, 3, *SHAPE)
    # What is at x in the fixed image is at x + u in the moving one.
    displacement[:, 0] = 2 if side == "moving" else -2
    choice = choose_model(asked, images, CPU)
    found = adapt(choice, Deformation(displacement, displacement))
    torch.testing.assert_close(laid[0][:, :, 4:], known.roll(2, dims=2)[:, :, 4:])
    assert found.model is asked
    assert found.adapted == (side, pytest.approx(0.03))


def test_only_one_unknown_scan_can_be_adapted(asked, other):
    still = torch.zeros(1, 3, *SHAPE)
    for moving, fixed in ((0.01, 0.01), (0.9, 0.9)):
        choice = choose_model(asked, pair(moving, fixed), CPU)
        assert adapt(choice, Deformation(still, still)) is None


def test_what_stays_unknown_stays_with_the_other_model(asked, other, monkeypatch):
    monkeypatch.setattr(contrast, "with_contrast", lambda image, like, percentile: image)
    still = torch.zeros(1, 3, *SHAPE)
    choice = choose_model(asked, pair(0.9, 0.01), CPU)
    assert adapt(choice, Deformation(still, still)) is None
    found = compute_deformation(
        asked, moving=prepared(cube(0.9)), fixed=prepared(cube(0.01)), device=CPU
    )
    assert found.choice.model is other
    assert found.choice.adapted is None


def test_an_adapted_pair_is_registered_by_the_model_that_was_asked_for(asked, other, monkeypatch):
    adapted = cube(0.03)
    monkeypatch.setattr(contrast, "with_contrast", lambda image, like, percentile: adapted)
    images = {"moving": cube(0.9), "fixed": cube(0.02)}
    found = compute_deformation(
        asked, **{side: prepared(image) for side, image in images.items()}, device=CPU
    )
    assert found.choice.model is asked
    assert found.choice.adapted == ("moving", pytest.approx(0.03))
    assert found.choice.described()["adapted"]["scan"] == "moving"
    plain = asked.deform(moving=adapted, fixed=images["fixed"])
    assert torch.equal(found.displacement, plain.displacement)


def test_a_choice_without_a_scan_of_unknown_contrast_says_so():
    model = simple("asked")
    assert Choice(model, model, pair(0.1, 0.1)).known == {}
    assert voxwarp.Model is Model
