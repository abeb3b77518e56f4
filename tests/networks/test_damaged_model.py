"""Damaged models are refused in one line, and pickles are never loaded."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import edited, fresh, of_template, ours, with_its_hash

from voxwarp.errors import InputError
from voxwarp.networks.model import Model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    fresh().save(tmp_path / "mine")
    return tmp_path / "mine"


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
    """The file of a template that belongs to the model."""
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
    "template not described": _set("template", "preparation", "alignment"),
    "template gone": lambda folder: _with_template(folder).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_in_one_line(saved: Path, damage: str) -> None:
    DAMAGES[damage](saved)
    with pytest.raises(InputError) as error:
        Model.load(saved)
    assert str(saved) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_card_may_be_edited(saved: Path) -> None:
    edited(saved, lambda d: d.update(card={"note": "mine"}))
    assert Model.load(saved).card == {"note": "mine"}


def test_the_wrong_format_is_named(saved: Path) -> None:
    edited(saved, lambda d: d.update(format="voxwarp-model-9"))
    with pytest.raises(InputError, match="must be voxwarp-model-1, got 'voxwarp-model-9'"):
        Model.load(saved)


def test_a_damaged_template_is_named_when_it_is_read(tmp_path: Path) -> None:
    of_template(ours(tmp_path)).save(tmp_path / "mine")
    (tmp_path / "mine" / "template.nii.gz").write_bytes(b"no image")
    template = Model.load(tmp_path / "mine").recipe.template
    with pytest.raises(InputError, match=r"template .*mine/template\.nii\.gz: "):
        _ = template.image


class Exploit:
    """Unpickling it creates a file."""

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
    assert mark.exists()  # the exploit works
    mark.unlink()

    with open(saved / file, "wb") as stream:
        writer({"unet.flow.bias": Exploit(mark)}, stream)
    if file == "weights.safetensors":
        with_its_hash(saved)
    if file in ("weights.safetensors", "model.json"):
        with pytest.raises(InputError):
            Model.load(saved)
    else:  # ignored beside complete files; without them it is no model
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
