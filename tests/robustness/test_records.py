"""Hostile records: models, results, configurations, checkpoints and cache entries.

Whatever is in them, commands end in a result or in one sentence, and nothing in them is executed.
"""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from attempts import Attempt, both
from hypothesis import strategies as st
from mutations import STRANGE, mutated, mutated_json

from voxwarp.errors import InputError
from voxwarp.networks.model import Model
from voxwarp.preparation import cache
from voxwarp.preparation.recipe import Recipe
from voxwarp.registration.saved_transform import load_transform
from voxwarp.space.grid import Grid

seeds = st.integers(0, 2**32)
SIZE = 4e6  # bytes of what the records describe


def small_model(folder: Path) -> Path:
    architecture = {"name": "pyramid", "channels": [2, 2]}
    Model.build(architecture, Recipe(Grid((16, 16, 16), np.eye(4)))).save(folder)
    return folder


def identity(path: Path) -> Path:
    sitk.WriteTransform(sitk.AffineTransform(3), str(path))
    return path


@pytest.fixture(scope="session")
def linear_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder of a linear registration, by hand."""
    folder = tmp_path_factory.mktemp("records") / "out"
    folder.mkdir()
    identity(folder / "0GenericAffine.mat")
    grid = {"shape": [6, 7, 8], "affine": np.eye(4).tolist()}
    scan = {"path": "scan.nii", "sha256": "0" * 64, "header_warnings": ["left and right"]}
    record = {
        "versions": {"voxwarp": "0.1.0"},
        "inputs": {"moving": scan, "fixed": scan, "labels": None},
        "settings": {"transform": "affine", "initial": None},
        "grids": {"fixed": grid, "moving": grid},
        "similarity": {"local_ncc": {"before": 0.5, "after": 0.6}},
        "dice": {"mean": 0.7, "structures": {"1": 0.7}},
        "jacobian": {"folds": 0, "least": 1.0},
        "seconds": {"total": 1.0},
        "warnings": ["one"],
    }
    (folder / "metrics.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(autouse=True)
def _everything_is_imported(cli: Callable[..., Any], tmp_path: Path, linear_result: Path) -> None:
    """So that no case is charged for it."""
    cli("models", "show", small_model(tmp_path / "m"))
    cli("report", shutil.copytree(linear_result, tmp_path / "r"), "-o", tmp_path / "i.html")
    cli("train", tmp_path / "no.yaml", "--check")


def model(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, case: tuple[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("case")
    part, seed = case
    made = small_model(folder / "model")
    if part == "model.json":
        text = mutated_json(json.loads((made / part).read_text()), seed)
        (made / part).write_text(text)
    else:
        (made / part).write_bytes(mutated((made / part).read_bytes(), seed))
    Attempt(cli, folder, "models", "show", made, size=SIZE).done  # noqa: B018
    scan = folder / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.eye(4)), scan)
    words = ("register", scan, scan, "--model", made, "-o", folder / "out")
    assert not Attempt(cli, folder, *words, size=SIZE).done  # a constant image


def result(
    cli: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    linear_result: Path,
    case: tuple[str, int],
) -> None:
    folder = tmp_path_factory.mktemp("case")
    name, seed = case
    out = shutil.copytree(linear_result, folder / "result")
    record = json.loads((out / "metrics.json").read_text())
    if name == "preprocess.json":
        (out / "metrics.json").unlink()
        record["grids"] = {"aligned": record["grids"]["fixed"], "scan": record["grids"]["moving"]}
    (out / name).write_text(mutated_json(record, seed))
    (folder / "p.csv").write_text("x,y,z\n1,2,3\n")
    words = ("points", folder / "p.csv", "-t", out, "-o", folder / "q.csv")
    if Attempt(cli, folder, *words, size=SIZE).done:
        assert (folder / "q.csv").read_text() == "x,y,z\n1.000000,2.000000,3.000000\n"
    scan = folder / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.eye(4)), scan)
    words = ("apply", scan, "-t", out, "-o", folder / "moved.nii")
    Attempt(cli, folder, *words, size=SIZE).done  # noqa: B018
    page = folder / "index.html"
    if Attempt(cli, folder, "report", out, folder, "-o", page, size=SIZE).done and page.exists():
        assert "<script>alert(1)" not in page.read_text()


CONFIGURATION = yaml.safe_load(
    """
task: x
data:
  sources: [{folder: scans, split: train, licence: CC0, credit: [me]}]
  structures: {values: [1, 2]}
  cache: cache
network: {name: pyramid, channels: [4, 8], steps: 7}
losses: {ncc: {weight: 1.0, window: 5}, diffusion: {weight: 1.0}}
optimiser: {learning_rate: 1.0e-4, final: 0.1, warm_up: 5, clip: 1.0}
augmentation: {flip: 0.5}
sampling: {pairs: 1}
phases: [{steps: 3, downsample: 2}]
validation: {every: 5}
log: {checkpoint: 5}
seed: 1
"""
)


def configuration(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, case: int
) -> None:
    folder = tmp_path_factory.mktemp("case")
    path = folder / "train.yaml"
    path.write_text(mutated_json(CONFIGURATION, case))
    assert not Attempt(cli, folder, "train", path, "--check", size=SIZE).done  # there are no scans


test_models, test_many_models = both(
    st.tuples(st.sampled_from(["model.json", "model.json", "weights.safetensors"]), seeds), 30, 300
)(model)
test_results, test_many_results = both(
    st.tuples(st.sampled_from(["metrics.json", "metrics.json", "preprocess.json"]), seeds), 30, 300
)(result)
test_configurations, test_many_configurations = both(seeds, 30, 200)(configuration)


# ------------------------------------------------------------------- what would be executed


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_pickle_is_loaded(refuses, tmp_path: Path) -> None:
    exploded = tmp_path.parent / f"{tmp_path.name}-exploded"
    bomb = pickle.dumps(Bomb(exploded))
    made = small_model(tmp_path / "model")
    said = {"weights.safetensors": "do not belong together", "model.json": "damaged"}
    for name, what in said.items():
        kept = (made / name).read_bytes()
        (made / name).write_bytes(bomb)
        with pytest.raises(InputError, match=what):
            Model.load(made)
        (made / name).write_bytes(kept)
    (tmp_path / "a.mat").write_bytes(bomb)
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    refuses("points", tmp_path / "p.csv", "-t", tmp_path / "a.mat", "-o", tmp_path / "q.csv")
    assert not exploded.exists()
    pickle.loads(bomb)
    assert exploded.exists()  # it would have


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch exploded']",
        "seed: !!python/name:os.system",
        "a: &a [x, x]\nb: &b [*a, *a]\nextends: *b",
        "extends: ../../../../etc/passwd",
        "extends: train.yaml",
        "a: " + "[" * 3000,
    ],
)
def test_configurations_that_want_more(
    refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text(text)
    refuses("train", "train.yaml", "--check")


def test_a_cache_entry_is_no_more_than_a_hint(
    phantoms, make_grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spoiled, oversized or with a pickle: it is made again, with the same result."""
    from voxwarp.preparation.settings import Preparation
    from voxwarp.space.volume import Volume

    monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / "cache"))
    grid = make_grid()
    scan = Volume(phantoms.values(grid), grid)
    settings = Preparation(affine=False, brain_extract="no", bias=False)
    first, was_cached = cache.examined(scan, settings)
    assert not was_cached
    assert cache.examined(scan, settings)[1]
    (entry,) = (tmp_path / "cache").rglob(f"*{cache.ENDING}")
    good, exploded = entry.read_bytes(), tmp_path / "exploded"
    with np.load(io.BytesIO(good)) as arrays:
        about = json.loads(str(arrays["about"]))

    def packed(**changes: Any) -> bytes:
        stream = io.BytesIO()
        np.savez_compressed(stream, about=np.array(json.dumps({**about, **changes})))
        return stream.getvalue()

    huge = {"shape": [30000] * 3, "affine": np.eye(4).tolist()}
    stream = io.BytesIO()
    np.savez(stream, about=np.array([Bomb(exploded)], dtype=object), allow_pickle=True)
    spoiled = [
        *(mutated(good, seed) for seed in range(30)),
        *(packed(window=strange) for strange in STRANGE),
        *(packed(kind=strange) for strange in STRANGE),
        *(packed(template_to_scan=strange) for strange in STRANGE),
        packed(mask=huge),
        packed(log_bias=huge),
        stream.getvalue(),
        b"",
    ]
    for payload in spoiled:
        entry.write_bytes(payload)
        again, _ = cache.examined(scan, settings)
        assert again.kind == first.kind
        assert again.conformed_grid == first.conformed_grid
        np.testing.assert_array_equal(again.template_to_scan.matrix, first.template_to_scan.matrix)
    assert not exploded.exists()


def test_a_loaded_folder_does_not_reach_out_of_it(linear_result: Path, tmp_path: Path) -> None:
    """Paths in a record name what is shown; no file outside is read for a transform."""
    out = shutil.copytree(linear_result, tmp_path / "out")
    record = json.loads((out / "metrics.json").read_text())
    record["inputs"]["moving"]["path"] = "/dev/zero"
    (out / "metrics.json").write_text(json.dumps(record))
    assert isinstance(load_transform(out).fixed_grid, Grid)
