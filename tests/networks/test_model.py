"""Models: what is saved is what is loaded, and what is not whole is refused in a sentence."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phantoms import blobs, oblique_affine
from safetensors.torch import load_file, save_file
from torch import nn

from voxwarp.device import has_bfloat16
from voxwarp.errors import InputError
from voxwarp.networks.model import Model, find, installed
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.template import Template, mni152
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume, write_volume

BUILT: dict[str, dict[str, Any]] = {
    "voxelmorph": {"name": "voxelmorph", "encoder": [4, 8], "decoder": [8, 8, 8, 6]},
    "diffeomorphic": {"name": "diffeomorphic", "encoder": [4, 8], "decoder": [8, 8, 8], "steps": 5},
    "pyramid": {"name": "pyramid", "channels": [4, 8, 8], "steps": 6},
    "anatomy": {"name": "anatomy", "structures": 4, "channels": [6, 8], "steps": [3, 3]},
}
CARD = {"licence": "CC0", "data": ["α", 3], "scores": {"dice": 0.5}}


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's model folder, empty."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("VOXWARP_MODELS", str(folder))
    return folder


def fresh(name: str = "voxelmorph", seed: int = 0) -> Model:
    """A model whose weights are all drawn at random, the last layer's too."""
    torch.manual_seed(seed)
    recipe = Recipe(Grid((16, 20, 24), oblique_affine(1)), percentile=98.25)
    model = Model.build(BUILT[name], recipe, card=CARD)
    for parameter in model.network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(blobs(s, (16, 20, 24)))[None, None] for s in (1, 2))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    fresh().save(tmp_path / "mine")
    return tmp_path / "mine"


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


# --------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("name", BUILT)
def test_a_saved_model_gives_the_same_answer(tmp_path: Path, name: str) -> None:
    model, images = fresh(name), pair()
    model.save(tmp_path / "mine")
    loaded = Model.load(tmp_path / "mine")
    model.network.eval()
    with torch.inference_mode():
        expected, got = model.network(*images), loaded.network(*images)
    assert expected.displacement.abs().max() > 0.01
    for before, after in zip(expected, got, strict=True):
        if before is not None:
            scale = float(before.abs().max())
            torch.testing.assert_close(after, before, atol=1e-4 * scale, rtol=0)
    again = Model.load(tmp_path / "mine")
    assert torch.equal(again.deform(*images).displacement, loaded.deform(*images).displacement)


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
    model.deform(*pair())
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
    model, images = fresh("diffeomorphic"), pair()
    with torch.inference_mode():
        expected = model.network(*images).displacement
    got = model.deform(*images)
    scale = float(expected.abs().max())
    assert got.displacement.dtype == torch.float32
    assert not got.displacement.requires_grad
    tolerance = 0.15 if has_bfloat16(torch.device("cpu")) else 1e-5
    torch.testing.assert_close(got.displacement, expected, atol=tolerance * scale, rtol=0)
    assert not model.network.training


# ----------------------------------------------------------------------------- names of weights


def with_former_names(folder: Path) -> Path:
    """The files as versions wrote them in which the segmentation was the descent's own."""
    weights = {}
    for name, value in load_file(folder / "weights.safetensors").items():
        name = name.replace("segmentation.network.", "recogniser.")
        weights[name.replace("segmentation.projection", "projection")] = value
    save_file(weights, folder / "weights.safetensors")
    return with_its_hash(folder)


def test_weights_under_former_names_load_and_are_saved_under_todays(tmp_path: Path) -> None:
    for name in ("today", "former"):
        fresh("anatomy").save(tmp_path / name)
    with_former_names(tmp_path / "former")
    former = load_file(tmp_path / "former" / "weights.safetensors")
    assert {name.partition(".")[0] for name in former} == {"recogniser", "projection"}
    today, loaded = (Model.load(tmp_path / name) for name in ("today", "former"))
    for one, other in zip(loaded.deform(*pair()), today.deform(*pair()), strict=True):
        assert torch.equal(one, other)
    loaded.save(tmp_path / "again")
    for file in ("weights.safetensors", "model.json"):
        written = (tmp_path / "again" / file).read_bytes()
        assert written == (tmp_path / "today" / file).read_bytes()


@pytest.mark.parametrize(
    ("more", "said"),
    [("recogniser.more", r"segmentation\.network\.more"), ("projection", "twice")],
)
def test_a_weight_that_is_unknown_or_there_under_both_names_is_refused(
    tmp_path: Path, more: str, said: str
) -> None:
    fresh("anatomy").save(tmp_path / "m")
    weights = load_file(tmp_path / "m" / "weights.safetensors")
    save_file(weights | {more: torch.zeros(3)}, tmp_path / "m" / "weights.safetensors")
    with_its_hash(tmp_path / "m")
    with pytest.raises(InputError, match=said):
        Model.load(tmp_path / "m")


# ------------------------------------------------------------------------ a template of its own


def ours(folder: Path) -> Template:
    """A template that has no name among those that are known."""
    grid = Grid((16, 20, 24), oblique_affine(1))
    write_volume(Volume(blobs(5, grid.shape), grid), folder / "ours.nii.gz")
    return Template("Ours", folder / "ours.nii.gz", title="Our 30 children")


def of_template(template: Template) -> Model:
    model = fresh()
    return replace(model, recipe=replace(model.recipe, alignment=template))


def test_a_template_of_its_own_goes_with_the_model(tmp_path: Path) -> None:
    template = ours(tmp_path)
    of_template(template).save(tmp_path / "mine")
    template.path.unlink()
    shutil.move(tmp_path / "mine", tmp_path / "elsewhere")
    found = Model.load(tmp_path / "elsewhere").recipe.template
    np.testing.assert_array_equal(found.image.data, blobs(5, (16, 20, 24)))
    np.testing.assert_allclose(found.grid.affine, oblique_affine(1), atol=1e-5)
    told = found.name, found.title, found.space_code, found.short_name, found.thresholds
    assert told == ("Ours", "Our 30 children", 2, "Ours", template.thresholds)


def test_models_of_mni152_carry_no_copy_of_it(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"model.json", "weights.safetensors"}
    assert Model.load(saved).recipe.template is mni152()


def test_a_damaged_template_is_named_when_it_is_wanted(tmp_path: Path) -> None:
    of_template(ours(tmp_path)).save(tmp_path / "mine")
    (tmp_path / "mine" / "template.nii.gz").write_bytes(b"no image")
    template = Model.load(tmp_path / "mine").recipe.template
    with pytest.raises(InputError, match=r"template .*mine/template\.nii\.gz: "):
        _ = template.image


# ----------------------------------------------------------------------------- what is refused


def _flip_a_bit(folder: Path) -> None:
    path = folder / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


def _cut(file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = (folder / file).read_bytes()
        (folder / file).write_bytes(raw[: len(raw) // 2])

    return damage


def _without(*keys: str) -> Callable[[Path], None]:
    def remove(description: dict[str, Any]) -> None:
        for key in keys[:-1]:
            description = description[key]
        del description[keys[-1]]

    return lambda folder: edited(folder, remove) and None


def _set(value: object, *keys: str) -> Callable[[Path], None]:
    def change(description: dict[str, Any]) -> None:
        for key in keys[:-1]:
            description = description[key]
        description[keys[-1]] = value

    return lambda folder: edited(folder, change) and None


def _json(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.json").write_text(text) and None


def _drop_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    weights.pop("unet.flow.bias")
    save_file(weights, folder / "weights.safetensors")
    with_its_hash(folder)


def _add_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    save_file(weights | {"unet.more": torch.zeros(3)}, folder / "weights.safetensors")
    with_its_hash(folder)


def _weights_of_another(folder: Path) -> None:
    fresh("voxelmorph", seed=1).save(folder.parent / "other")
    shutil.copy(folder.parent / "other" / "weights.safetensors", folder)


def _with_template(folder: Path) -> Path:
    """The file of a template of the model's own."""
    of_template(ours(folder)).save(folder)
    return folder / "template.nii.gz"


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit of the weights": _flip_a_bit,
    "weights cut": _cut("weights.safetensors"),
    "weights empty": lambda folder: (folder / "weights.safetensors").write_bytes(b"") and None,
    "weights gone": lambda folder: (folder / "weights.safetensors").unlink(),
    "weights of another training": _weights_of_another,
    "a tensor gone": _drop_a_tensor,
    "a tensor too many": _add_a_tensor,
    "json cut": _cut("model.json"),
    "json empty": _json(" "),
    "json a list": _json("[]"),
    "json a number": _json("3"),
    "json null": _json("null"),
    "json not text": lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe\x00") and None,
    "no format": _without("format"),
    "format of the future": _set("voxwarp-model-9", "format"),
    "no architecture": _without("architecture"),
    "no name of the architecture": _without("architecture", "name"),
    "no preparation": _without("preparation"),
    "no affine": _without("preparation", "affine"),
    "no percentile": _without("preparation", "percentile"),
    "no hash": _without("weights_sha256"),
    "no card": _without("card"),
    "wider encoder": _set([4, 16], "architecture", "encoder"),
    "deeper encoder": _set([4, 8, 8], "architecture", "encoder"),
    "empty encoder": _set([], "architecture", "encoder"),
    "encoder of words": _set(["four"], "architecture", "encoder"),
    "other decoder": _set([8, 8, 8, 8], "architecture", "decoder"),
    "other network": _set("diffeomorphic", "architecture", "name"),
    "unknown network": _set("resnet", "architecture", "name"),
    "unknown argument": _set(3, "architecture", "depth"),
    "architecture a word": _set("voxelmorph", "architecture"),
    "singular grid": _set(np.zeros((4, 4)).tolist(), "preparation", "affine"),
    "grid of two axes": _set([16, 20], "preparation", "shape"),
    "preparation a list": _set([1, 2], "preparation"),
    "alignment unknown": _set("talairach", "preparation", "alignment"),
    "alignment a file elsewhere": _set("/etc/hostname", "preparation", "alignment"),
    "alignment a list": _set([1, 2], "preparation", "alignment"),
    "no word of the template": _set("template", "preparation", "alignment"),
    "template gone": lambda folder: _with_template(folder).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_in_one_sentence(saved: Path, damage: str) -> None:
    DAMAGES[damage](saved)
    with pytest.raises(InputError) as error:
        Model.load(saved)
    assert str(saved) in str(error.value)
    assert "\n" not in str(error.value)


def test_editing_the_card_is_no_damage(saved: Path) -> None:
    edited(saved, lambda d: d.update(card={"note": "mine"}))
    assert Model.load(saved).card == {"note": "mine"}


def test_the_wrong_format_is_named(saved: Path) -> None:
    edited(saved, lambda d: d.update(format="voxwarp-model-9"))
    with pytest.raises(InputError, match=r"voxwarp-model-9.*voxwarp-model-1"):
        Model.load(saved)


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("writer", [pickle.dump, torch.save])
@pytest.mark.parametrize(
    "file", ["weights.safetensors", "weights.pt", "model.json", "model.pt", "model.pkl"]
)
def test_a_pickle_is_never_loaded(
    saved: Path, tmp_path: Path, writer: Callable[..., None], file: str
) -> None:
    mark = tmp_path / "executed"
    with open(tmp_path / "check.pkl", "wb") as stream:
        pickle.dump(Exploit(mark), stream)
    pickle.loads((tmp_path / "check.pkl").read_bytes())
    assert mark.exists()  # it would work
    mark.unlink()

    with open(saved / file, "wb") as stream:
        writer({"unet.flow.bias": Exploit(mark)}, stream)
    if file == "weights.safetensors":
        with_its_hash(saved)
    if file in ("weights.safetensors", "model.json"):
        with pytest.raises(InputError):
            Model.load(saved)
    else:  # beside whole files it is not looked at, and without them it is no model
        Model.load(saved)
        (saved / "weights.safetensors").unlink()
        with pytest.raises(InputError):
            Model.load(saved)
        (saved / "model.json").unlink()
        with pytest.raises(InputError):
            Model.load(saved)
    with pytest.raises(InputError):
        Model.load(saved / file)
    assert not mark.exists()


# --------------------------------------------------------------------------------------- names


def test_models_on_the_shelf_are_found_by_name(shelf: Path) -> None:
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


def test_an_unknown_name_lists_the_names_there_are(shelf: Path) -> None:
    fresh("pyramid").save(shelf / "ours")
    fresh("voxelmorph").save(shelf / "theirs")
    with pytest.raises(InputError, match=r"'nobodys'.*ours.*theirs") as error:
        Model.load("nobodys")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.json") as error:
        Model.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_the_users_folder_is_where_the_environment_says(
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
