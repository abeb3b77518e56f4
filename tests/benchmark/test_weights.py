"""Weights by the name of a model, its folder or a Keras file."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from voxwarp.benchmark.weights import load_model, locate_model
from voxwarp.errors import InputError
from voxwarp.networks.model import Model


def test_model_of_another_space_is_refused(tiny_model: Path, tmp_path: Path):
    """The affine map goes through MNI152 space: for such a model it would mean nothing."""
    model = Model.load(tiny_model)
    model.recipe = replace(model.recipe, alignment="centre")
    model.save(tmp_path / "centred")
    with pytest.raises(InputError, match="centre"):
        load_model(str(tmp_path / "centred"))


@pytest.mark.data
def test_weights_of_the_authors_have_a_hash(data: Path):
    path = data.parent / "peers" / "voxelmorph-cvpr2018" / "vm1_cc.h5"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    assert load_model(str(path)).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_where_models_are(tiny_model: Path, monkeypatch, tmp_path):
    monkeypatch.chdir(tiny_model.parent)
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path))
    assert Path(locate_model("tiny")) == tiny_model
    assert locate_model("weights.h5") == str(tiny_model.parent / "weights.h5")
    shelf = tmp_path / "tiny"  # an installed model comes before a folder here
    Model.load(tiny_model).save(shelf)
    assert Path(locate_model("tiny")) == shelf
    with pytest.raises(InputError, match="gone"):
        locate_model("gone")
