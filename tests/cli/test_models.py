"""``voxwarp models``: which there are, what they are, and others' weights as one of them."""

import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from keras_weights import PUBLISHED, keras_layers, published

from voxwarp.networks.model import Model


@pytest.fixture
def shelf(monkeypatch, tmp_path) -> Path:
    """An empty folder for the user's models."""
    folder = tmp_path / "shelf"
    monkeypatch.setenv("VOXWARP_MODELS", str(folder))
    return folder


def listed(cli) -> dict[str, str]:
    outcome = cli("models", "list")
    assert outcome.code == 0
    return dict(line.split("\t") for line in outcome.out.splitlines())


def copy_of(model: Path, folder: Path) -> Path:
    Model.load(model).save(folder)
    return folder


def test_models_list_and_show(cli, shelf, tiny_model):
    before = listed(cli)
    folder = copy_of(tiny_model, shelf / "mine")
    (shelf / "not-a-model").mkdir()
    assert listed(cli) == {**before, "mine": str(folder)}
    for name in ("mine", folder):
        outcome = cli("models", "show", name)
        assert outcome.code == 0
        shown = json.loads(outcome.out)
        assert shown["architecture"]["name"] == "pyramid"
        assert shown["preparation"]["shape"] == [40, 48, 56]
        assert shown["card"]["licence"] == "none: random weights"


def test_model_of_the_user_is_used_by_name(cli, shelf, tiny_model, phantoms, make_grid, tmp_path):
    copy_of(tiny_model, shelf / "mine")
    scan = tmp_path / "scan.nii.gz"
    nib.save(phantoms.image(make_grid(spacing=6)), scan)
    words = "register", scan, scan, "--no-affine", "--model", "mine", "-o", tmp_path / "out"
    assert cli(*words).code == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["model"]["name"] == "mine"


def test_unknown_model_is_told_what_there_is(refuses, shelf, tiny_model):
    copy_of(tiny_model, shelf / "mine")
    line = refuses("models", "show", "yours")
    assert "'yours'" in line
    assert "mine" in line


# The weights of the paper's authors


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_models_import(cli, refuses, shelf, data: Path, name: str):
    weights = published(name, data)
    outcome = cli("models", "import", weights)
    assert outcome.code == 0, outcome.err
    folder = shelf / name
    assert outcome.out == f"{name}\t{folder}\n"
    assert listed(cli)[name] == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]

    model = Model.load(name)
    layers = keras_layers(weights)
    ours = [p for n, p in model.network.named_parameters() if n.endswith("weight")]
    assert sorted(tuple(p.shape) for p in ours) == sorted(
        tuple(k.shape) for k, _ in layers.values()
    )
    assert sum(p.numel() for p in model.network.parameters()) == sum(
        k.numel() + b.numel() for k, b in layers.values()
    )
    assert model.recipe.grid.shape == (160, 192, 224)
    assert model.recipe.grid.axes == "LIA"

    assert "--overwrite" in refuses("models", "import", weights)
    assert cli("models", "import", weights, "--overwrite").code == 0
    assert cli("models", "import", weights, "-o", shelf / "other").code == 0
    assert set(listed(cli)) >= {name, "other"}


@pytest.mark.parametrize(
    "kind", ["missing", "folder", "no HDF5", "empty HDF5", "other layers", "one layer changed"]
)
def test_models_import_refuses_other_files(refuses, shelf, tmp_path, kind: str):
    path = tmp_path / "weights.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "no HDF5":
        path.write_bytes(b"no HDF5" * 100)
    elif kind != "missing":
        shapes = {"other layers": [(3, 3, 3, 2, 4), (3, 3, 3, 4, 3)], "empty HDF5": []}.get(
            kind, [(3, 3, 3, 2, 16), *[(3, 3, 3, 7, 5)] * 9, (3, 3, 3, 8, 3)]
        )
        with h5py.File(path, "w") as file:
            for number, shape in enumerate(shapes, 1):
                name = "flow" if number == len(shapes) else f"conv3d_{number}"
                file[f"{name}/{name}/kernel:0"] = np.zeros(shape, np.float32)
                file[f"{name}/{name}/bias:0"] = np.zeros(shape[-1], np.float32)
    assert str(path) in refuses("models", "import", path)


def test_models_without_a_home_are_those_that_are_shipped(cli, homeless):
    outcome = cli("models", "list")
    assert (outcome.code, outcome.err) == (0, "")
    assert "default\t" in outcome.out
    assert cli("models", "show", "none").code == 0
