"""Models: they are loaded as they were saved, by any version, and found by name."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from phantoms import blobs, oblique_affine
from safetensors.torch import load_file, save_file
from small_models import BUILT, CARD, fresh, of_template, ours, with_its_hash

from voxwarp._device import has_bfloat16
from voxwarp.errors import InputError
from voxwarp.fields import field, losses
from voxwarp.networks.installed import find, installed
from voxwarp.networks.model import Model
from voxwarp.networks.refine import Refinement
from voxwarp.preparation.template import mni152


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's model folder, empty."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("VOXWARP_MODELS", str(folder))
    return folder


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(blobs(s, (16, 20, 24)))[None, None] for s in (1, 2))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    fresh().save(tmp_path / "mine")
    return tmp_path / "mine"


# --------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", BUILT)
def test_a_saved_model_gives_the_same_result(tmp_path: Path, name: str) -> None:
    model, (moving, fixed) = fresh(name), pair()
    model.save(tmp_path / "mine")
    loaded = Model.load(tmp_path / "mine")
    model.network.eval()
    with torch.inference_mode():
        expected = model.network(moving=moving, fixed=fixed)
        got = loaded.network(moving=moving, fixed=fixed)
    assert expected.displacement.abs().max() > 0.01
    for before, after in zip(expected, got, strict=True):
        if before is not None:
            scale = float(before.abs().max())
            torch.testing.assert_close(after, before, atol=1e-4 * scale, rtol=0)
    again = Model.load(tmp_path / "mine")
    one, other = (m.deform(moving=moving, fixed=fixed).displacement for m in (again, loaded))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", BUILT)
def test_weights_recipe_and_card_survive_bit_by_bit(tmp_path: Path, name: str) -> None:
    model = fresh(name)
    model.save(tmp_path / "mine")
    loaded = Model.load(tmp_path / "mine")
    before, after = model.network.state_dict(), loaded.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert loaded.recipe == model.recipe
    assert loaded.architecture == BUILT[name]
    assert loaded.card == CARD
    assert loaded.name == "mine"


@pytest.mark.parametrize("name", BUILT)
def test_a_loaded_model_is_saved_as_the_same_bytes(tmp_path: Path, name: str) -> None:
    fresh(name).save(tmp_path / "one")
    loaded = Model.load(tmp_path / "one")
    loaded.save(tmp_path / "two")
    for file in ("weights.safetensors", "model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]


def test_the_hash_is_that_of_the_weights_file(saved: Path) -> None:
    digest = hashlib.sha256((saved / "weights.safetensors").read_bytes()).hexdigest()
    assert Model.load(saved).sha256 == digest
    fresh(seed=1).save(saved)
    assert Model.load(saved).sha256 != digest


def test_the_weights_can_be_read_without_voxwarp(saved: Path) -> None:
    weights = load_file(saved / "weights.safetensors")
    expected = fresh().network.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_a_loaded_model_is_not_trained_by_accident(saved: Path) -> None:
    model = Model.load(saved)
    assert not any(p.requires_grad for p in model.network.parameters())
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    moving, fixed = pair()
    model.deform(moving=moving, fixed=fixed)
    assert all(torch.equal(before[key], value) for key, value in model.network.state_dict().items())


def test_saving_over_a_model_fails_without_harm(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        fresh(seed=1).save(saved)
    assert {name: (saved / name).read_bytes() for name in before} == before


def test_deform_is_the_network_in_evaluation() -> None:
    """Up to bf16 convolutions, where the processor has them."""
    model, (moving, fixed) = fresh("diffeomorphic"), pair()
    with torch.inference_mode():
        expected = model.network(moving=moving, fixed=fixed).displacement
    got = model.deform(moving=moving, fixed=fixed)
    scale = float(expected.abs().max())
    assert got.displacement.dtype == torch.float32
    assert not got.displacement.requires_grad
    tolerance = 0.15 if has_bfloat16(torch.device("cpu")) else 1e-5
    torch.testing.assert_close(got.displacement, expected, atol=tolerance * scale, rtol=0)
    assert not model.network.training


@pytest.mark.parametrize("smoothness", [None, 2.0])
@pytest.mark.parametrize("name", [name for name in BUILT if name != "anatomy"])
def test_the_result_of_any_network_can_be_refined(name: str, smoothness: float | None) -> None:
    model, (moving, fixed) = fresh(name), pair()
    options = {"moving": moving, "fixed": fixed, "smoothness": smoothness}
    deformation = model.deform(moving=moving, fixed=fixed)
    refined = model.refine(deformation, Refinement(6), **options)
    before, after = (
        losses.local_ncc(moved=field.warp(moving, one.displacement), fixed=fixed, window=3)
        for one in (deformation, refined)
    )
    assert after < before - 0.01


def test_a_descent_refines_its_own_results() -> None:
    for name in BUILT:
        model = fresh(name)
        assert (model.descent is model.network) == model.capabilities.is_descent
        assert model.descent.segmentation is getattr(model.network, "segmentation", None)


# ----------------------------------------------------------------------------- names of weights


def with_former_names(folder: Path) -> Path:
    """The files as earlier versions wrote them."""
    weights = {}
    for name, value in load_file(folder / "weights.safetensors").items():
        name = name.replace("segmentation.network.", "recogniser.")
        weights[name.replace("segmentation.projection", "projection")] = value
    save_file(weights, folder / "weights.safetensors")
    return with_its_hash(folder)


def test_weights_under_former_names_load_and_are_saved_under_current_ones(tmp_path: Path) -> None:
    for name in ("today", "former"):
        fresh("anatomy").save(tmp_path / name)
    with_former_names(tmp_path / "former")
    former = load_file(tmp_path / "former" / "weights.safetensors")
    assert {name.partition(".")[0] for name in former} == {"recogniser", "projection"}
    today, loaded = (Model.load(tmp_path / name) for name in ("today", "former"))
    moving, fixed = pair()
    answers = (model.deform(moving=moving, fixed=fixed) for model in (loaded, today))
    one, other = (answer.displacement for answer in answers)
    assert torch.equal(one, other)
    loaded.save(tmp_path / "again")
    for file in ("weights.safetensors", "model.json"):
        written = (tmp_path / "again" / file).read_bytes()
        assert written == (tmp_path / "today" / file).read_bytes()


@pytest.mark.parametrize(
    ("more", "said"),
    [("recogniser.more", r"segmentation\.network\.more"), ("projection", "twice, once under")],
)
def test_unknown_and_repeated_weights_are_refused(tmp_path: Path, more: str, said: str) -> None:
    fresh("anatomy").save(tmp_path / "m")
    weights = load_file(tmp_path / "m" / "weights.safetensors")
    save_file(weights | {more: torch.zeros(3)}, tmp_path / "m" / "weights.safetensors")
    with_its_hash(tmp_path / "m")
    with pytest.raises(InputError, match=said):
        Model.load(tmp_path / "m")


# ------------------------------------------------------------------------ a template of its own


def test_a_model_is_saved_with_its_own_template(tmp_path: Path) -> None:
    template = ours(tmp_path)
    of_template(template).save(tmp_path / "mine")
    template.path.unlink()
    shutil.move(tmp_path / "mine", tmp_path / "elsewhere")
    found = Model.load(tmp_path / "elsewhere").recipe.template
    np.testing.assert_array_equal(found.image.data, blobs(5, (16, 20, 24)))
    np.testing.assert_allclose(found.grid.affine, oblique_affine(1), atol=1e-5)
    values = found.name, found.title, found.space_code, found.short_name, found.thresholds
    assert values == ("Ours", "Our 30 children", 2, "Ours", template.thresholds)


def test_models_for_mni152_have_no_copy_of_it(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"model.json", "weights.safetensors"}
    assert Model.load(saved).recipe.template is mni152()


# --------------------------------------------------------------------------------------- names


def test_installed_models_are_found_by_name(shelf: Path) -> None:
    fresh("pyramid").save(shelf / "ours")
    fresh("voxelmorph").save(shelf / "theirs")
    (shelf / "empty").mkdir()
    (shelf / "note.txt").write_text("no model")
    names = installed()
    assert names["ours"] == shelf / "ours"
    assert names["theirs"] == shelf / "theirs"
    assert not {"empty", "note.txt"} & names.keys()
    assert find("ours") == shelf / "ours"
    assert Model.load("theirs").architecture["name"] == "voxelmorph"


def test_the_error_for_an_unknown_name_lists_the_installed_models(shelf: Path) -> None:
    fresh("pyramid").save(shelf / "ours")
    fresh("voxelmorph").save(shelf / "theirs")
    with pytest.raises(InputError, match=r"unknown model 'other'.*ours.*theirs") as error:
        Model.load("other")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.json") as error:
        Model.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_the_environment_names_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOXWARP_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    fresh().save(tmp_path / "data" / "voxwarp" / "models" / "xdg")
    assert find("xdg") == tmp_path / "data" / "voxwarp" / "models" / "xdg"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    home = tmp_path / "home" / ".local" / "share" / "voxwarp" / "models"
    fresh().save(home / "homely")
    assert find("homely") == home / "homely"
