"""The models in the package: their cards are complete, and their weights load."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

import voxwarp
from voxwarp.errors import InputError
from voxwarp.networks.catalogue import Capabilities
from voxwarp.networks.installed import files_of, find
from voxwarp.networks.model import Model
from voxwarp.preparation.recipe import WORKING_GRID
from voxwarp.preparation.template import mni152

SHIPPED = sorted((Path(voxwarp.__file__).parent / "models").iterdir())


def test_models_that_share_weights_differ_in_the_hash_of_their_settings() -> None:
    default, fast = Model.load("default"), Model.load("fast")
    assert default.sha256 == fast.sha256
    assert default.settings_sha256 == Model.load("default").settings_sha256
    assert default.settings_sha256 != fast.settings_sha256
    default.other_contrasts = None
    assert default.settings_sha256 != Model.load("default").settings_sha256


def test_the_documented_models_are_shipped() -> None:
    assert {"default", "fast", "any", "none", "vm1", "vm2"} <= {folder.name for folder in SHIPPED}
    assert all((folder / "README.md").is_file() for folder in SHIPPED)


#: What each can do.
CAPABILITIES = {
    **dict.fromkeys(("default", "fast", "any"), Capabilities("labels", is_descent=True)),
    "none": Capabilities("nothing", is_descent=True),
    "pyramid": Capabilities("images", has_velocity=True, has_levels=True),
    **dict.fromkeys(("vm1", "vm2"), Capabilities("images")),
}


def test_what_each_can_do() -> None:
    assert {folder.name: Model.load(folder).capabilities for folder in SHIPPED} == CAPABILITIES
    assert {name for name, can in CAPABILITIES.items() if can.has_smoothness} == {
        *("default", "fast", "any", "none")
    }


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_weights_are_those_of_the_file(folder: Path) -> None:
    path = files_of(folder)["weights.safetensors"]
    model, file = Model.load(folder), load_file(path)
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    weights = model.network.state_dict()
    assert len(weights) == len(file)
    for name, value in file.items():
        assert torch.equal(weights[name], value)
    assert model.recipe.template is mni152()


def test_files_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """In which weights had other names."""
    folder = next(folder for folder in SHIPPED if folder.name == "fast")
    former = {
        name.replace("segmentation.network.", "recogniser.").replace(
            "segmentation.projection", "projection"
        ): value
        for name, value in load_file(files_of(folder)["weights.safetensors"]).items()
    }
    assert {name.partition(".")[0] for name in former} == {"recogniser", "projection"}
    payload = save(former)
    (tmp_path / "weights.safetensors").write_bytes(payload)
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    description["weights_sha256"] = hashlib.sha256(payload).hexdigest()
    (tmp_path / "model.json").write_text(json.dumps(description))
    read, expected = (Model.load(x).network.state_dict() for x in (tmp_path, folder))
    torch.testing.assert_close(read, expected, rtol=0, atol=0)


def test_weights_are_stored_once() -> None:
    files = [file for folder in SHIPPED for file in folder.glob("*.safetensors")]
    assert len({file.read_bytes() for file in files}) == len(files)
    assert not (find("fast") / "weights.safetensors").exists()


def test_fast_is_saved_with_its_weights(tmp_path: Path) -> None:
    """So what is saved loads wherever it is copied to, and has the bytes of ``default``."""
    Model.load("fast").save(tmp_path / "mine")
    own = (tmp_path / "mine" / "weights.safetensors").read_bytes()
    assert own == (find("default") / "weights.safetensors").read_bytes()
    description = json.loads((tmp_path / "mine" / "model.json").read_text(encoding="utf-8"))
    shipped = json.loads((find("fast") / "model.json").read_text(encoding="utf-8"))
    assert "weights_of" not in description
    assert description["weights_sha256"] == shipped["weights_sha256"]
    assert description["architecture"] == shipped["architecture"]


def copy_of_fast(folder: Path, **changes: object) -> Path:
    """Its folder without the one of ``default``."""
    shutil.copytree(find("fast"), folder)
    description = json.loads((folder / "model.json").read_text(encoding="utf-8")) | changes
    (folder / "model.json").write_text(json.dumps(description))
    return folder


def test_a_copy_of_fast_takes_the_weights_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the user has another model of that name."""
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path / "shelf"))
    Model.load("none").save(tmp_path / "shelf" / "default")
    copy = Model.load(copy_of_fast(tmp_path / "mine"))
    assert copy.sha256 == Model.load(find("fast")).sha256


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gone", "'gone', which is not installed"),
        ("any", "'any', but .*any.weights.safetensors holds others"),
        ("fast", "'fast', which has none of its own"),
        ("../default", "'../default', which is not installed"),
        ("/etc/hostname", "'/etc/hostname', which is not installed"),
        (["default"], r"\['default'\], which is not installed"),
        (3, "3, which is not installed"),
    ],
)
def test_weights_of_another_model_that_are_not_there(
    tmp_path: Path, name: object, problem: str
) -> None:
    """The message says what is missing and how to copy the model with it; no path is followed."""
    copy = copy_of_fast(tmp_path / "mine", weights_of=name)
    with pytest.raises(InputError, match=rf"mine: .*{problem}.*\.save\(FOLDER\)") as error:
        Model.load(copy)
    assert "\n" not in str(error.value)
    if name != "any":
        with pytest.raises(InputError, match=problem):
            files_of(copy)


def test_weights_of_its_own_come_first(tmp_path: Path) -> None:
    """And are compared with the hash as ever."""
    copy = copy_of_fast(tmp_path / "mine", weights_of="gone")
    shutil.copy(find("default") / "weights.safetensors", copy)
    assert Model.load(copy).sha256 == Model.load("default").sha256
    shutil.copy(find("any") / "weights.safetensors", copy)
    with pytest.raises(InputError, match="do not belong together"):
        Model.load(copy)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_card_is_filled_in(folder: Path) -> None:
    model = Model.load(folder)
    card = model.card
    trained = any(True for _ in model.network.parameters())
    assert bool(card["data"]) == trained
    trained_keys = ("data", "scores", "credit") if trained else ()  # with credit for the scans
    for key in ("task", "recipe", "licence", "limits", *trained_keys):
        assert card.get(key), f"the card of {folder.name} has no {key}"
    if any("BY-NC" in source for source in card["data"]):
        assert card["licence"] == "CC BY-NC 4.0"
        assert any("OASIS" in line for line in card["credit"])
        assert any("Neuromorphometrics" in line for line in card["credit"])
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10e6


def test_default_moves_a_blob_onto_a_shifted_one() -> None:
    """With trained weights, a blob that is 6 mm away is moved most of the way."""
    x = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in (96, 96, 96)), indexing="ij"))

    def brain(center: float) -> torch.Tensor:
        radius = (x - torch.tensor([center, 48.0, 48.0]).view(3, 1, 1, 1)).norm(dim=0)
        return ((36 - radius) / 4).clamp(0, 0.6)[None, None] + 0.4 * (radius < 15)

    model = Model.load("default")
    assert model.recipe.grid == WORKING_GRID
    displacement = model.deform(moving=brain(51.0), fixed=brain(45.0)).displacement[0]
    inside = brain(45.0)[0, 0] > 0.9  # the bright core of the fixed one
    assert 3 < displacement[0][inside].mean() < 8
    assert displacement[1:, inside].mean(dim=1).abs().max() < 1
