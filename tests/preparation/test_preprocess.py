"""``voxwarp preprocess``: its files as other tools read them, and the inputs that it refuses."""

import errno
import hashlib
import json
import os
import types
from collections.abc import Callable
from pathlib import Path

import extractors
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine
from odd_headers import TWO, coded
from scipy import ndimage

import voxwarp
from voxwarp.preparation import preprocess as preprocessing
from voxwarp.preparation.brain import EXTRACTORS
from voxwarp.preparation.preprocess import OUTPUTS, Preprocessed, preprocess
from voxwarp.preparation.recipe import WORKING_GRID, Recipe
from voxwarp.preparation.settings import Preparation
from voxwarp.space.grid import Grid

RNG = np.random.default_rng(4)
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module", autouse=True)
def _known_brains(phantoms, poses):
    with pytest.MonkeyPatch.context() as patch:
        known = extractors.knowing(phantoms, moving=poses.moving, fixed=poses.fixed)
        patch.setitem(EXTRACTORS, "knowing", known)
        patch.setitem(EXTRACTORS, "never", extractors.never)
        patch.setitem(EXTRACTORS, "nothing", extractors.nothing)
        phantoms.stand_in_for_mni152(patch)
        yield


@pytest.fixture(scope="module")
def scans(phantoms, poses, make_grid, tmp_path_factory) -> types.SimpleNamespace:
    """Paths of a head, its labels and its true brain, of the brain alone, and of another head."""
    folder = tmp_path_factory.mktemp("heads")
    paths = types.SimpleNamespace(folder=folder)
    grid = make_grid("LPI", (4, 4.5, 4), turn=(5, -4, 8), room=25)
    labels, brain = (f(grid, poses.moving) for f in (phantoms.labels, phantoms.image))
    inside = (np.asarray(brain.dataobj) > 0).astype(np.uint8)
    for name, image in {
        "head": phantoms.head(grid, poses.moving, np.int16),
        "labels": labels,
        "mask": nib.Nifti1Image(inside, brain.affine),
        "brain": phantoms.image(grid, poses.moving, np.int16),
        "other": phantoms.head(make_grid(spacing=6, room=25), poses.fixed, np.int16),
    }.items():
        setattr(paths, name, folder / f"{'fixed' if name == 'other' else 'moving'}-{name}.nii.gz")
        nib.save(image, getattr(paths, name))
    return paths


@pytest.fixture
def small(monkeypatch) -> Grid:
    """The aligned grid at 4 mm, where its size does not matter."""
    grid = WORKING_GRID.resized((40, 48, 56))
    monkeypatch.setattr(preprocessing, "Recipe", lambda: Recipe(grid))
    return grid


def settings(**more: object) -> Preparation:
    return Preparation(**{"extractor": "knowing", "bias": False, "conform": False, **more})


@pytest.fixture(scope="module")
def whole(scans) -> Preprocessed:
    """All steps, as by default."""
    return preprocess(scans.head, labels=scans.labels, preparation=Preparation(extractor="knowing"))


@pytest.fixture(scope="module")
def saved(whole, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prep") / "moving-head"
    whole.save(folder)
    return folder


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def some_voxels(shape: tuple[int, ...], number: int = 40000) -> np.ndarray:
    return np.stack([RNG.integers(0, n, number) for n in shape], axis=-1)


def sampled(data: np.ndarray, affine: np.ndarray, points: np.ndarray, mode="constant"):
    """SciPy's linear interpolation of an image at RAS points."""
    at = apply_affine(np.linalg.inv(affine), points).T
    return ndimage.map_coordinates(data.astype(np.float64), at, order=1, mode=mode)


def ras_matrix(path: Path) -> np.ndarray:
    """The written affine, as SimpleITK reads it, in RAS."""
    transform = sitk.AffineTransform(sitk.ReadTransform(str(path)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return FLIP @ matrix @ FLIP


def inside_by(affine: np.ndarray, shape: tuple[int, ...], points: np.ndarray) -> np.ndarray:
    """Where all eight neighbours are in the image."""
    at = apply_affine(np.linalg.inv(affine), points)
    return ((at >= 0) & (at <= np.array(shape) - 1)).all(axis=-1)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


# The files


def test_all_files_exist_under_their_names(saved, whole, scans, tmp_path):
    assert sorted(path.name for path in saved.iterdir()) == sorted(OUTPUTS)
    without = preprocess(scans.head, mask=scans.mask, preparation=settings())
    names = [path.name for path in without.save(tmp_path / "out")]
    assert names == [name for name in OUTPUTS if name != "AlignedLabels.nii.gz"]
    assert whole.record["warnings"] == []


def test_conformed_is_the_scan_at_1_mm_over_its_bias_field(saved, whole, scans):
    """SciPy's values of scan / bias; 256³ voxels, axes as FreeSurfer has them."""
    image = nib.load(saved / "Conformed.nii.gz")
    assert image.shape == (256, 256, 256)
    assert nib.aff2axcodes(image.affine) == ("L", "I", "A")
    np.testing.assert_allclose(image.header.get_zooms(), 1, atol=1e-6)
    data, affine = load(scans.head)
    voxels = some_voxels(image.shape)
    points = apply_affine(image.affine, voxels)
    points, voxels = (x[inside_by(affine, data.shape, points)] for x in (points, voxels))
    field = whole.examination.log_bias
    log = sampled(field.data, field.grid.affine, points, mode="nearest")
    expected = sampled(data, affine, points) / np.exp(log)
    found = np.asarray(image.dataobj)[tuple(voxels.T)]
    assert len(points) > 10000
    np.testing.assert_allclose(found, expected, atol=1e-3 * data.max(), rtol=1e-3)
    assert log.std() > 0.01  # there is a field that could have been forgotten


def test_masks_are_the_brain(saved, phantoms, poses, scans):
    native, affine = load(saved / "BrainMask.nii.gz")
    scan, scan_affine = load(scans.head)
    assert native.shape == scan.shape
    np.testing.assert_allclose(affine, scan_affine, atol=1e-5)
    assert set(np.unique(native)) == {0, 1}
    assert dice(native > 0, load(scans.mask)[0] > 0) > 0.97
    conformed, affine = load(saved / "ConformedBrainMask.nii.gz")
    np.testing.assert_array_equal(affine, nib.load(saved / "Conformed.nii.gz").affine)
    third = Grid((86, 86, 86), affine @ np.diag([3, 3, 3, 1]))
    assert dice(conformed[::3, ::3, ::3] > 0, phantoms.values(third, poses.moving) > 0) > 0.97


def test_aligned_is_scan_times_mask_over_bias_through_the_written_affine(saved, whole, scans):
    aligned, affine = load(saved / "Aligned.nii.gz")
    assert aligned.shape == (160, 192, 224)
    np.testing.assert_array_equal(affine, WORKING_GRID.affine)
    assert (aligned.min(), aligned.max()) == (0, 1)
    data, scan_affine = load(scans.head)
    voxels = some_voxels(aligned.shape)
    there = apply_affine(ras_matrix(saved / "0GenericAffine.mat"), apply_affine(affine, voxels))
    field, mask = whole.examination.log_bias, whole.examination.mask
    bias = np.exp(sampled(field.data, field.grid.affine, there, mode="nearest"))
    soft = sampled(mask.data, mask.grid.affine, there)
    brain = np.where(soft >= 0.5, sampled(data, scan_affine, there) / bias, 0)
    white = whole.record["found"]["white"]
    expected = np.clip(brain / white, 0, 1)
    clear = inside_by(scan_affine, data.shape, there) & (np.abs(soft - 0.5) > 1e-3)
    found = aligned[tuple(voxels.T)]
    assert (found[clear] > 0).sum() > 5000
    np.testing.assert_allclose(found[clear], expected[clear], atol=2e-3)
    assert white == pytest.approx(np.percentile(brain[brain > 0], 99.5), rel=0.02)


def test_aligned_brain_lies_on_the_template(saved, phantoms, poses):
    """The written affine undoes the pose of the head, but for the bend of at most 5 mm."""
    affine = ras_matrix(saved / "0GenericAffine.mat")
    points = phantoms.template.grid.nodes()[phantoms.template.data > 60]
    away = np.linalg.norm(poses.moving(apply_affine(affine, points)) - points, axis=1)
    assert np.linalg.norm(poses.moving(points) - points, axis=1).mean() > 8
    assert away.mean() < 3


def test_aligned_labels_are_those_of_simpleitk(saved, scans, label_values):
    labels, onto = (sitk.ReadImage(str(p)) for p in (scans.labels, saved / "Aligned.nii.gz"))
    through = sitk.ReadTransform(str(saved / "0GenericAffine.mat"))
    theirs = sitk.Resample(labels, onto, through, sitk.sitkNearestNeighbor)
    expected = sitk.GetArrayFromImage(theirs).T
    ours, _ = load(saved / "AlignedLabels.nii.gz")
    assert (ours != expected).mean() < 1e-4  # ties go another way
    assert set(np.unique(ours)) == label_values
    assert ours.dtype == np.int32


def test_apply_brings_aligned_labels_back(cli, saved, scans, label_values, tmp_path):
    out = tmp_path / "back.nii.gz"
    outcome = cli("apply", saved / "AlignedLabels.nii.gz", "-t", saved, "--inverse", "-o", out)
    assert outcome.code == 0, outcome.err
    (back, affine), (native, native_affine) = load(out), load(scans.labels)
    assert back.shape == native.shape
    np.testing.assert_allclose(affine, native_affine, atol=1e-5)
    for value in label_values - {0}:
        assert dice(back == value, native == value) > 0.95


def test_record_of_inputs_outputs_and_results(saved, scans):
    record = json.loads((saved / "preprocess.json").read_text())
    for name, path in (("scan", scans.head), ("labels", scans.labels)):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        assert record["inputs"][name] == {"path": str(path), "sha256": sha256}
    assert record["inputs"]["mask"] is None
    assert record["outputs"] == {
        name: hashlib.sha256((saved / name).read_bytes()).hexdigest() for name in OUTPUTS[:-1]
    }
    assert record["versions"]["voxwarp"] == voxwarp.__version__
    assert record["versions"]["SimpleITK"] == sitk.Version.VersionString().split("-")[0]
    assert record["settings"] == {
        **{"extractor": "knowing", "brain_extract": "auto", "bias": None, "affine": True},
        **{"conform": True, "crop": True, "normalise": True, "white_percentile": 99.5},
    }
    found = record["found"]
    assert (found["seen_as"], found["bias_corrected"], found["from_cache"]) == ("head", True, False)
    assert {"conform", "bias", "extract", "affine"} == set(found["seconds"])
    assert all(seconds >= 0 for seconds in found["seconds"].values())
    np.testing.assert_allclose(
        found["template_to_scan"], ras_matrix(saved / "0GenericAffine.mat"), atol=1e-9
    )
    for name, file in (("scan", scans.head), ("aligned", saved / "Aligned.nii.gz")):
        image = nib.load(file)
        assert record["grids"][name]["shape"] == list(image.shape)
        np.testing.assert_allclose(record["grids"][name]["affine"], image.affine, atol=1e-5)
    true = load(scans.mask)[0].sum() * 4 * 4.5 * 4 / 1000
    assert found["brain_mask_ml"] == pytest.approx(true, rel=0.04)
    assert record["warnings"] == []


def test_a_second_run_is_from_the_cache_and_the_same(scans, small, tmp_path):
    chosen = settings(bias=True)
    for name, cache in (("one", True), ("two", True), ("three", False)):
        result = preprocess(scans.other, preparation=chosen, cache=cache)
        assert result.record["found"]["from_cache"] is (name == "two")
        result.save(tmp_path / name)
    for name in set(OUTPUTS[:-1]) - {"AlignedLabels.nii.gz"}:
        files = {(tmp_path / run / name).read_bytes() for run in ("one", "two", "three")}
        assert len(files) == 1, name


# Steps left out


def test_no_crop_is_256_voxels_that_hold_the_crop(scans):
    one, other = (
        preprocess(scans.brain, preparation=settings(), crop=crop, normalise=False)
        for crop in (True, False)
    )
    assert other.aligned.data.shape == (256, 256, 256)
    start = other.aligned.grid.to_voxel(one.aligned.grid.affine[:3, 3])
    np.testing.assert_allclose(start, np.rint(start), atol=1e-9)
    block = tuple(
        slice(s, s + n) for s, n in zip(np.rint(start).astype(int), (160, 192, 224), strict=True)
    )
    np.testing.assert_allclose(other.aligned.data[block], one.aligned.data, atol=1e-2)
    assert one.aligned.data.max() > 500


def test_no_normalise_keeps_the_intensities(scans, small):
    one, other = (
        preprocess(scans.head, preparation=settings(), normalise=normalise)
        for normalise in (True, False)
    )
    white = np.percentile(other.aligned.data[other.aligned.data > 0], 99.5)
    assert white == pytest.approx(other.record["found"]["white"])
    assert white > 500
    expected = np.clip(other.aligned.data / white, 0, 1)
    np.testing.assert_allclose(one.aligned.data, expected, atol=1e-6)


def test_no_affine_assumes_that_the_scan_is_aligned(scans, small, tmp_path):
    result = preprocess(
        scans.head, mask=scans.mask, preparation=settings(affine=False), normalise=False
    )
    result.save(tmp_path / "out")
    np.testing.assert_array_equal(ras_matrix(tmp_path / "out" / "0GenericAffine.mat"), np.eye(4))
    (data, affine), (mask, _) = load(scans.head), load(scans.mask)
    points = small.nodes()
    soft = sampled(mask, affine, points.reshape(-1, 3))
    expected = np.where(soft >= 0.5, sampled(data, affine, points.reshape(-1, 3)), 0)
    clear = np.abs(soft - 0.5) > 1e-3
    found = result.aligned.data.ravel()
    np.testing.assert_allclose(found[clear], expected[clear], atol=1)
    assert (found > 0).sum() > 5000


def test_no_conform_and_no_bias_leave_the_scan_as_it_is(scans, small, tmp_path):
    """Its own voxels, with axes as near to R, A, S as can be."""
    result = preprocess(scans.head, preparation=settings())
    result.save(tmp_path / "out")
    scan = nib.as_closest_canonical(nib.load(scans.head))
    found, affine = load(tmp_path / "out" / "Conformed.nii.gz")
    np.testing.assert_allclose(affine, scan.affine, atol=1e-4)
    np.testing.assert_allclose(found, np.asarray(scan.dataobj), atol=0.02)
    assert result.record["found"]["bias_corrected"] is False
    native = nib.as_closest_canonical(nib.load(tmp_path / "out" / "BrainMask.nii.gz"))
    mask, _ = load(tmp_path / "out" / "ConformedBrainMask.nii.gz")
    np.testing.assert_array_equal(mask, np.asarray(native.dataobj))


def test_bias_field_of_a_coil_is_removed(phantoms, make_grid, small):
    """A head brighter at its front than at its back by a factor of about two."""
    grid = make_grid(spacing=6, room=25)
    clean, brain = np.asarray(phantoms.head(grid).dataobj), phantoms.values(grid)
    field = np.exp(grid.nodes()[..., 1] / 250)
    biased, mask = (
        nib.Nifti1Image(data.astype(np.float32), grid.affine) for data in (clean * field, brain > 0)
    )
    result = preprocess(biased, mask=mask, preparation=settings(bias=None, affine=False))
    assert result.record["found"]["bias_corrected"] is True
    inside = brain > 50
    left = np.log(result.conformed.data[inside] / clean[inside])
    assert left.std() < 0.5 * np.log(field[inside]).std()


def test_a_brain_is_not_extracted_again(scans, small, tmp_path):
    result = preprocess(scans.brain, preparation=settings(extractor="never", bias=None))
    assert result.record["found"]["seen_as"] == "brain"
    assert result.record["found"]["bias_corrected"] is False
    result.save(tmp_path / "out")
    mask, _ = load(tmp_path / "out" / "BrainMask.nii.gz")
    np.testing.assert_array_equal(mask > 0, load(scans.brain)[0] > 0)


def test_the_background_of_a_brain_may_have_any_value(scans, small):
    """Shifted so that the background is -1000: the scan counts as a brain, with the same mask."""
    data, affine = load(scans.brain)
    shifted = nib.Nifti1Image((data - 1000).astype(np.int16), affine)
    result = preprocess(shifted, preparation=settings(extractor="never"))
    assert result.record["found"]["seen_as"] == "brain"
    mask = result.brain_mask(result.scan.grid).data > 0
    assert dice(mask, data > 0) > 0.97


# Masks and extractors of the user's own


def test_mask_is_taken_in_place_of_an_extraction(cli, scans, small, tmp_path):
    outcome = cli(
        *("preprocess", scans.head, "--mask", scans.mask, "--extractor", "never"),
        *("--no-bias", "--no-conform", "-o", tmp_path),
    )
    assert outcome.code == 0, outcome.err
    ours, _ = load(tmp_path / "moving-head" / "BrainMask.nii.gz")
    np.testing.assert_array_equal(ours, load(scans.mask)[0])
    record = json.loads((tmp_path / "moving-head" / "preprocess.json").read_text())
    sha256 = hashlib.sha256(scans.mask.read_bytes()).hexdigest()
    assert record["inputs"]["mask"]["sha256"] == sha256


@pytest.fixture
def module(tmp_path, monkeypatch) -> Callable[[str, str], str]:
    """Write a module of the user's; returns the name of its function ``find``."""

    def write(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(code)
        return f"{name}:find"

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    return write


def test_the_users_extractor_gets_the_head(cli, scans, small, module, tmp_path):
    find = module(
        "voxwarp_test_known",
        "import nibabel, numpy\n"
        "def find(head):\n"
        f"    mask = nibabel.as_closest_canonical(nibabel.load({str(scans.mask)!r}))\n"
        "    numpy.testing.assert_allclose(mask.affine, head.grid.affine, atol=1e-3)\n"
        "    return mask.get_fdata() > 0\n",
    )
    words = "preprocess", scans.head, "--extractor", find, "--no-bias", "--no-conform"
    outcome = cli(*words, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    ours, _ = load(tmp_path / "out" / "moving-head" / "BrainMask.nii.gz")
    np.testing.assert_array_equal(ours, load(scans.mask)[0])


WRONG_EXTRACTORS = {
    "voxwarp_test_gone": (None, "voxwarp_test_gone"),
    "voxwarp_test_empty": ("def other(head): ...\n", "find"),
    "voxwarp_test_shape": ("def find(head): return head.data[1:] > 0\n", "shape"),
    "voxwarp_test_number": ("find = 3\n", "function"),
}


@pytest.mark.parametrize("name", WRONG_EXTRACTORS)
def test_wrong_extractor(refuses, scans, module, tmp_path, name):
    code, said = WRONG_EXTRACTORS[name]
    find = f"{name}:find" if code is None else module(name, code)
    words = "preprocess", scans.head, "--no-bias", "--no-conform", "-o", tmp_path / "out"
    line = refuses(*words, "--extractor", find)
    assert find in line
    assert said in line
    assert "deepbet" in refuses(*words, "--extractor", "no-such-name")


def test_an_extractor_that_has_changed_is_called_again(scans, small, monkeypatch):
    """The cache must not return the results of another function of the same name."""
    monkeypatch.setattr(extractors, "find", EXTRACTORS["knowing"], raising=False)
    asked = settings(extractor="extractors:find")
    assert preprocess(scans.head, preparation=asked).record["found"]["seen_as"] == "head"
    monkeypatch.setattr(extractors, "find", EXTRACTORS["nothing"])
    with pytest.raises(voxwarp.InputError, match="the extracted mask is empty"):
        preprocess(scans.head, preparation=asked)


def bad_masks(scans: types.SimpleNamespace) -> dict[str, tuple[bytes, str]]:
    data, affine = load(scans.mask)
    away = affine.copy()
    away[0, 3] += 10
    speck = np.zeros_like(data)
    speck[20:24, 20:24, 20:24] = 1
    return {
        "empty": (nib.Nifti1Image(data * 0, affine).to_bytes(), "empty"),
        "speck": (nib.Nifti1Image(speck, affine).to_bytes(), "it has 5 mL, a brain has"),
        "everything": (nib.Nifti1Image(data * 0 + 1, affine).to_bytes(), " mL, a brain has"),
        "other shape": (nib.Nifti1Image(data[1:], affine).to_bytes(), "grid"),
        "other place": (nib.Nifti1Image(data, away).to_bytes(), "grid"),
        "text": (b"no image", "not an image"),
        "missing": (b"", "no such file"),
    }


@pytest.mark.parametrize("command", ["preprocess", "register"])
@pytest.mark.parametrize(
    "kind", ["empty", "speck", "everything", "other shape", "other place", "text", "missing"]
)
def test_bad_mask(refuses, scans, tiny_model, tmp_path, kind: str, command: str):
    payload, said = bad_masks(scans)[kind]
    path = tmp_path / "mask.nii"
    if payload:
        path.write_bytes(payload)
    words = [command, scans.head, "--mask", path, "--extractor", "never", "-o", tmp_path / "out"]
    line = refuses(*words, *(["--model", tiny_model] if command == "register" else []))
    assert said in line
    assert str(path) in line


# Scans that are not heads


def no_heads(scans: types.SimpleNamespace) -> dict[str, np.ndarray]:
    x, y, _ = np.indices((50, 55, 60)) - np.array([25, 27, 30]).reshape(3, 1, 1, 1)
    noise = np.random.default_rng(8).rayleigh(10, x.shape)
    away = np.hypot(x, y)
    return {
        "one slice": load(scans.head)[0][:, :, 30:31],
        "noise": noise,
        "limb": np.select([away < 4, away < 6, away < 18], [180.0, 20, 90], 0) + noise,
    }


def written(data: np.ndarray, path: Path) -> Path:
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([4.0, 4, 4, 1])), path)
    return path


@pytest.mark.parametrize("kind", ["one slice", "noise", "limb"])
def test_scan_of_something_else(refuses, scans, tmp_path, kind):
    """With the extractor that users have."""
    path = written(no_heads(scans)[kind], tmp_path / "scan.nii")
    line = refuses("preprocess", path, "--no-bias", "--no-conform", "-o", tmp_path / "out")
    assert str(path) in line
    assert ("3-D" if kind == "one slice" else f"no brain found in {path}: ") in line


def test_one_slice_cannot_be_registered(refuses, scans, tiny_model, tmp_path):
    path = written(no_heads(scans)["one slice"], tmp_path / "scan.nii")
    for pair in ((path, scans.brain), (scans.brain, path)):
        line = refuses("register", *pair, "--model", tiny_model, "-o", tmp_path / "out")
        assert f"{path}: " in line
        assert "3-D" in line


def test_an_extracted_object_that_is_not_a_brain_is_refused(
    refuses, scans, small, monkeypatch, tmp_path
):
    """An extractor that finds an egg of a brain's size everywhere."""

    def egg(head: voxwarp.Volume) -> np.ndarray:
        at = (np.indices(head.data.shape).T / np.array(head.data.shape)).T - 0.5
        return (at**2).sum(axis=0) < 0.3**2

    monkeypatch.setitem(EXTRACTORS, "egg", egg)
    path = written(no_heads(scans)["limb"], tmp_path / "scan.nii")
    words = "preprocess", path, "--extractor", "egg", "--no-bias", "--no-conform", "--strict"
    line = refuses(*words, "-o", tmp_path / "out")
    assert f"no brain found in {path}: " in line
    assert "does not fit the MNI152 template" in line


@pytest.mark.parametrize("command", ["preprocess", "register"])
def test_a_head_in_which_no_brain_is_found(refuses, scans, tiny_model, tmp_path, command):
    words = [command, scans.other, "--extractor", "nothing", "--no-bias", "-o", tmp_path / "out"]
    line = refuses(*words, *(["--model", tiny_model] if command == "register" else []))
    assert f"no brain found in {scans.other}: the extracted mask is empty" in line
    assert "give a brain mask with --mask" in line


# Several scans, and the output folder


@pytest.fixture
def quick_words(small) -> list[object]:
    return ["--extractor", "knowing", "--no-conform", "--no-bias"]


def test_a_bad_scan_is_reported_and_the_others_are_prepared(cli, scans, quick_words, tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    out = tmp_path / "out"
    outcome = cli("preprocess", scans.head, bad, scans.other, "-o", out, *quick_words)
    assert outcome.code == 2
    errors = [line for line in outcome.err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert str(bad) in errors[0]
    assert sorted(path.name for path in out.iterdir()) == ["fixed-other", "moving-head"]
    for name, scan in (("moving-head", scans.head), ("fixed-other", scans.other)):
        record = json.loads((out / name / "preprocess.json").read_text())
        assert record["inputs"]["scan"]["path"] == str(scan)
        assert nib.load(out / name / "BrainMask.nii.gz").shape == nib.load(scan).shape


def test_labels_and_masks_go_with_their_scans(cli, scans, quick_words, phantoms, tmp_path):
    image = nib.load(scans.other)
    data = np.asarray(image.dataobj)
    brain = phantoms.values(Grid(data.shape, image.affine)) > 0
    mask = nib.Nifti1Image(brain.astype(np.int16), image.affine)
    nib.save(mask, tmp_path / "mask.nii.gz")
    outcome = cli(
        *("preprocess", scans.head, scans.other, "-o", tmp_path / "out", *quick_words),
        *("--labels", scans.labels, "--labels", tmp_path / "mask.nii.gz"),
        *("--mask", scans.mask, "--mask", tmp_path / "mask.nii.gz", "--extractor", "never"),
    )
    assert outcome.code == 0, outcome.err
    native, _ = load(tmp_path / "out" / "fixed-other" / "BrainMask.nii.gz")
    np.testing.assert_array_equal(native, np.asarray(mask.dataobj))
    values = [
        set(np.unique(load(tmp_path / "out" / name / "AlignedLabels.nii.gz")[0]))
        for name in ("moving-head", "fixed-other")
    ]
    assert values == [set(np.unique(load(scans.labels)[0])), {0, 1}]


def test_contradictory_requests_are_refused(refuses, scans, tmp_path):
    out = "-o", tmp_path / "out"
    assert "two of the scans" in refuses("preprocess", scans.head, scans.head, *out)
    for option in ("--labels", "--mask"):
        line = refuses("preprocess", scans.head, scans.other, option, scans.mask, *out)
        assert option in line
        assert "1 file for 2 scans" in line
    assert "SCAN" in refuses("preprocess", *out)
    assert "--out" in refuses("preprocess", scans.head)
    assert "maybe" in refuses("preprocess", scans.head, "--brain-extract", "maybe", *out)


def test_existing_results_are_refused_or_replaced(cli, refuses, scans, quick_words, tmp_path):
    words = ["preprocess", scans.head, "-o", tmp_path, *quick_words]
    folder = tmp_path / "moving-head"
    assert cli(*words, "--labels", scans.labels).code == 0
    (folder / "notes.txt").write_text("mine")
    assert "--overwrite" in refuses(*words)
    (folder / "Aligned.nii.gz").write_bytes(b"old")
    assert cli(*words, "--overwrite").code == 0
    assert nib.load(folder / "Aligned.nii.gz").get_fdata().max() == 1
    # Labels of the earlier run do not stand beside results they have nothing to do with.
    expected = {*OUTPUTS, "notes.txt"} - {"AlignedLabels.nii.gz"}
    assert {path.name for path in folder.iterdir()} == expected


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_that_fills_up(refuses, scans, quick_words, monkeypatch, tmp_path, call: str):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    line = refuses("preprocess", scans.head, "-o", tmp_path / "new" / "out", *quick_words)
    assert "No space left on device" in line
    assert str(tmp_path) in line


# Warnings


def with_two_affines(source: Path, target: Path) -> Path:
    """The scan with a qform that contradicts its sform."""
    image = nib.load(source)
    shifted = image.affine.copy()
    shifted[0, 3] += 10
    image.set_sform(image.affine, code=4)
    image.set_qform(shifted, code=1)
    nib.save(image, target)
    return target


def test_strict_is_exit_code_3_and_all_is_written(cli, scans, quick_words, tmp_path):
    scan = with_two_affines(scans.head, tmp_path / "moving-doubtful.nii.gz")
    for out, strict, code in (("a", [], 0), ("b", ["--strict"], 3)):
        outcome = cli("preprocess", scan, "-o", tmp_path / out, *quick_words, *strict)
        assert outcome.code == code
        lines = outcome.err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("voxwarp: warning: ")
        assert "qform and sform differ; the sform was used" in lines[0]
        assert str(scan) in lines[0]
    files = [sorted(p.name for p in (tmp_path / x / "moving-doubtful").iterdir()) for x in "ab"]
    assert files[0] == files[1]
    assert "preprocess.json" in files[0]
    words = "preprocess", scans.head, "-o", tmp_path / "c", *quick_words, "--strict"
    assert (cli(*words).code, cli(*words, "--overwrite").err) == (0, "")


def test_files_have_the_code_of_their_space(cli, scans, quick_words, tmp_path):
    """What is aligned is in MNI152 space; all else, and what apply leads back, is in the scan's."""
    scan, labels = tmp_path / "moving.nii.gz", tmp_path / "labels.nii.gz"
    for source, path in ((scans.head, scan), (scans.labels, labels)):
        coded(source, path, 3)
    for cache in (["--no-cache"], [], []):  # filled, and then used
        words = "preprocess", scan, "-o", tmp_path / "out", "--labels", labels, *quick_words
        outcome = cli(*words, *cache, "--overwrite")
        assert outcome.code == 0, outcome.err
        files = (tmp_path / "out" / "moving").glob("*.nii.gz")
        codes = {path.name: int(nib.load(path).header["sform_code"]) for path in files}
        assert codes == {
            **dict.fromkeys(("Aligned.nii.gz", "AlignedLabels.nii.gz"), 4),
            **dict.fromkeys(("Conformed.nii.gz", "ConformedBrainMask.nii.gz"), 3),
            "BrainMask.nii.gz": 3,
        }
    aligned, back = tmp_path / "out" / "moving" / "Aligned.nii.gz", tmp_path / "back.nii.gz"
    assert cli("apply", aligned, "-t", aligned.parent, "--inverse", "-o", back).code == 0
    assert nib.load(back).header["sform_code"] == 3
    assert cli("apply", scan, "-t", aligned.parent, "-o", tmp_path / "there.nii.gz").code == 0
    assert nib.load(tmp_path / "there.nii.gz").header["sform_code"] == 4


def test_apply_repeats_what_is_in_doubt(cli, scans, quick_words, tmp_path):
    """Of the folder of a prepared scan, which is the moving side of it."""
    scan = with_two_affines(scans.head, tmp_path / "doubtful.nii.gz")
    assert cli("preprocess", scan, "-o", tmp_path / "out", *quick_words).code == 0
    record = json.loads((tmp_path / "out/doubtful/preprocess.json").read_text())
    (recorded,) = record["inputs"]["scan"]["header_warnings"]
    points = tmp_path / "points.csv"
    points.write_text("x,y,z\n1,2,3\n")
    words = "points", points, "-t", tmp_path / "out" / "doubtful", "-o", tmp_path / "moved.csv"
    outcome = cli(*words, "--strict")
    assert (outcome.code, outcome.err) == (3, f"voxwarp: warning: {recorded}\n")
    assert TWO in recorded


def test_warnings_of_every_scan_are_printed(cli, scans, quick_words, tmp_path):
    """Also after a scan that had warnings itself or could not be used."""
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    doubtful = [
        with_two_affines(scans.head, tmp_path / f"moving-{name}.nii.gz") for name in ("one", "two")
    ]
    outcome = cli("preprocess", bad, *doubtful, "-o", tmp_path / "out", *quick_words)
    assert outcome.code == 2
    assert outcome.err.count("voxwarp: warning: ") == 2
    outcome = cli("preprocess", *doubtful, "-o", tmp_path / "o", *quick_words, "--strict")
    assert outcome.code == 3
    assert outcome.err.count("voxwarp: warning: ") == 2


def test_two_commands_do_not_share_a_folder(refuses, scans, tmp_path) -> None:
    """Both write an affine, of which one would be taken for the other."""
    small = "--no-conform", "--no-bias", "--extractor", "never", "--overwrite"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "preprocess.json").write_text("{}")
    line = refuses("register", scans.brain, "-o", tmp_path / "one", "--overwrite")
    assert "preprocess.json" in line
    name = scans.brain.name.removesuffix(".nii.gz").removesuffix(".nii")
    (tmp_path / "two" / name).mkdir(parents=True)
    (tmp_path / "two" / name / "metrics.json").write_text("{}")
    line = refuses("preprocess", scans.brain, "-o", tmp_path / "two", *small)
    assert "metrics.json" in line
    (tmp_path / "one" / "metrics.json").write_text("{}")
    line = refuses("apply", scans.brain, "-t", tmp_path / "one", "-o", tmp_path / "o.nii.gz")
    assert "register and of preprocess" in line
