"""``metrics.json``: it records what was done, is read back, and leads to the scans."""

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from voxwarp._device import has_bfloat16, torch_device
from voxwarp._layout import METRICS
from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.networks.refine import Refinement
from voxwarp.preparation.settings import Preparation
from voxwarp.preparation.template import Template, mni152
from voxwarp.registration.loading import load
from voxwarp.registration.record import MAX_TEXT, input_path, read_record
from voxwarp.registration.register import register

# What it holds


def test_metrics_record_what_was_done(saved, tiny_model):
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    found = json.loads((saved.out / METRICS).read_text(), parse_constant=refuse)
    for role, path in (
        ("moving", saved.moving),
        ("fixed", saved.fixed),
        ("labels", saved.moving_labels),
        ("fixed_labels", saved.fixed_labels),
    ):
        assert found["inputs"].pop(role) == {
            "path": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    others = "mask", "lesion_masks", "companion"
    assert found["inputs"] == dict.fromkeys([*others, *(f"fixed_{name}" for name in others)])
    assert found["lesions"] is None
    assert found["contrast"] is None  # a model that segments nothing
    for name in ("voxwarp", "torch", "numpy", "nibabel", "SimpleITK"):
        assert found["versions"][name] == version(name)
    assert "python" in found["versions"]
    weights = (tiny_model / "weights.safetensors").read_bytes()
    assert found["model"] == {
        "name": "tiny",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "licence": "none: random weights",
    }
    stages = ["read", "prepare", "network", "compose", "resample", "measure", "write"]
    assert list(found["seconds"]) == stages
    for when in ("before", "after"):
        assert 0 < found["similarity"][when]["local_ncc"] <= 1
        assert -1 <= found["similarity"][when]["correlation"] <= 1
    assert found["warnings"] == saved.result.warnings
    for role in ("fixed", "moving"):
        image = nib.load(getattr(saved, role))
        assert found["grids"][role]["shape"] == list(image.shape)
        np.testing.assert_allclose(found["grids"][role]["affine"], image.affine)


def how_it_ran() -> dict[str, Any]:
    device = torch_device("auto")
    precision = "bf16 convolutions" if has_bfloat16(device) else "float32"
    threads = torch.get_num_threads()
    return {"device": str(device), "precision": precision, "threads": threads}


def test_settings_are_all_that_was_asked_for(result):
    """Made of the values themselves: what is added to them is on record."""
    assert result.metrics["settings"] == {
        "brain_extract": "auto",
        "extractor": "deepbet",
        "bias": None,
        "affine": True,
        "conform": True,
        "transform": "deformable",
        "initial": None,
        "refine": None,
        "smoothness": None,
        **how_it_ran(),
    }


def test_other_settings_are_on_record_as_they_were_asked_for(scans, register_quickly):
    preparation = Preparation(brain_extract="no", bias=False, affine=False, conform=False)
    refinement = Refinement(2, seconds=60.0)
    found = register_quickly(
        *(scans.moving, scans.fixed),
        **{"preparation": preparation, "refine": refinement, "smoothness": 1.5},
    )
    assert found.metrics["settings"] == {
        **asdict(preparation),
        "transform": "deformable",
        "initial": None,
        "refine": {"steps": 2, "seconds": 60.0},
        "smoothness": 1.5,
        **how_it_ran(),
    }


# Read back


def test_a_record_is_read_as_it_was_written(saved):
    assert read_record(saved.out) == json.loads((saved.out / METRICS).read_text())


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "not the record of a registration"),
        (b"{", "not the record of a registration"),
        (b"\xff\xfe\x00", "not the record of a registration"),
        (b"[" * 100_000, "not the record of a registration"),
        (b"[1, 2]", "not the record of a registration"),
        (b"3", "not the record of a registration"),
        (b"{}", "not the record of a registration"),
        (b'{"inputs": []}', "not the record of a registration"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, payload: bytes, said: str):
    (tmp_path / METRICS).write_bytes(payload)
    with pytest.raises(InputError, match=said) as error:
        read_record(tmp_path)
    assert str(tmp_path / METRICS) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(InputError, match=rf"{tmp_path}: metrics\.json is missing; give a folder"):
        read_record(tmp_path)
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        read_record(tmp_path / "nowhere")


def test_what_no_registration_writes_is_cut(tmp_path):
    """Whoever reads a record need not expect texts without end, or numbers that are none."""
    deep: Any = "bottom"
    for _ in range(30):
        deep = {"in": [deep]}
    wild = {
        "inputs": {},
        "long": "x" * (MAX_TEXT + 5),
        "half a character": "a\udcffb",
        "large": [10**400, -1e300, 12.5, True, None],
        "\udcff": 1,
        "deep": deep,
    }
    (tmp_path / METRICS).write_text(json.dumps(wild))
    found = read_record(tmp_path)
    assert found["long"] == "x" * MAX_TEXT
    assert found["half a character"] == "a?b"
    assert found["large"] == [None, None, 12.5, True, None]
    assert found["?"] == 1
    text = json.dumps(found["deep"], ensure_ascii=False)
    assert "bottom" not in text
    assert "…" in text


# The files that it names


@pytest.fixture
def of_file(tmp_path, scans) -> tuple[dict[str, Any], Path]:
    """A record of a copy of the moving scan, and the copy."""
    copy = tmp_path / "copy.nii.gz"
    shutil.copy(scans.moving, copy)
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    return {"inputs": {"moving": {"path": str(copy), "sha256": digest}}}, copy


def test_the_file_is_found_while_it_is_the_same(of_file):
    record, copy = of_file
    assert input_path(record, "moving") == copy
    assert input_path(record, "labels") is None
    copy.write_bytes(copy.read_bytes() + b"0")
    with pytest.raises(InputError, match=r"moving .*the file has changed since the registration"):
        input_path(record, "moving")
    copy.unlink()
    with pytest.raises(InputError, match=r"moving .*copy\.nii\.gz: no such file"):
        input_path(record, "moving")
    copy.mkdir()
    with pytest.raises(InputError, match=r"moving .*copy\.nii\.gz: this is not a regular file"):
        input_path(record, "moving")


@pytest.mark.parametrize(
    "entry", ["scan.nii", 3, [], {}, {"path": "scan.nii"}, {"path": 3, "sha256": "0"}]
)
def test_an_entry_that_does_not_name_the_file_is_refused(entry):
    with pytest.raises(InputError, match=r"labels of the fixed scan: .* does not name its file"):
        input_path({"inputs": {"fixed_labels": entry}}, "fixed_labels")


def test_a_name_that_no_system_takes_is_refused():
    record = {"inputs": {"moving": {"path": "a\0b", "sha256": "0"}}}
    with pytest.raises(InputError, match="moving"):
        input_path(record, "moving")


def test_mni152_is_found_wherever_it_is_today():
    entry = {"template": "MNI152, ICBM 2009a symmetric"}
    assert input_path({"inputs": {"fixed": entry}}, "fixed") == mni152().path


def test_a_template_of_a_models_own_is_not_taken_for_mni152(scans, phantoms, tiny_model, tmp_path):
    template = Template("Ours", phantoms.template, title="Our 30 children")
    model = Model.load(tiny_model)
    model = replace(model, recipe=replace(model.recipe, alignment=template))
    register(scans.moving, model=model).save(tmp_path / "out")
    with pytest.raises(InputError, match=r"fixed scan: this is the template .*Our 30 children"):
        load(tmp_path / "out")
