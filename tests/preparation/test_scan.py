"""Scans are read with labels and masks, examined once and prepared once."""

import gc
import weakref
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from brains import OTHER, UPRIGHT
from phantoms import near_identity
from scipy import ndimage

from voxwarp.errors import InputError
from voxwarp.preparation import cache
from voxwarp.preparation import scan as module
from voxwarp.preparation.examination import Examination, placed_at
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan, prepare, prepare_scans
from voxwarp.preparation.settings import Preparation
from voxwarp.preparation.template import Template, mni152
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import read_volume

QUICK = Preparation(bias=False, conform=False)


@pytest.fixture
def files(phantoms, make_grid, tmp_path):
    grid = make_grid()
    for name, image in {
        "brain": phantoms.image(grid, OTHER),
        "labels": phantoms.labels(grid, OTHER),
        "elsewhere": phantoms.labels(make_grid(spacing=5.0), OTHER),
    }.items():
        nib.save(image, tmp_path / f"{name}.nii.gz")
    return tmp_path


@pytest.fixture
def small() -> Recipe:
    return Recipe(Recipe().grid.resized((40, 48, 56)))


@pytest.fixture
def calls(monkeypatch):
    """How often a scan was examined and put on a grid."""
    count = {"examine": 0, "prepare": 0}
    for where, name in ((cache, "examine"), (module, "prepare")):
        former = getattr(where, name)

        def counted(*words, name=name, former=former, **more):
            count[name] += 1
            return former(*words, **more)

        monkeypatch.setattr(where, name, counted)
    return count


# ------------------------------------------------------------------------------------ Reading


@pytest.mark.parametrize("what", ["labels", "mask"])
def test_labels_and_masks_on_another_grid_are_refused(files, what):
    with pytest.raises(InputError, match=r"elsewhere\.nii\.gz: its grid"):
        Scan.read(files / "brain.nii.gz", **{what: files / "elsewhere.nii.gz"})


def test_messages_name_its_role(files):
    with pytest.raises(InputError, match=r"^fixed label map "):
        Scan.read(files / "brain.nii.gz", labels=files / "elsewhere.nii.gz", role="fixed")
    with pytest.raises(InputError, match=r"^fixed image "):
        Scan.read(files / "nowhere.nii.gz", role="fixed")


def test_a_scan_is_read_as_it_is_stored(files):
    scan = Scan.read(files / "brain.nii.gz", labels=files / "labels.nii.gz")
    for volume, name in ((scan.image, "brain"), (scan.labels, "labels")):
        stored = nib.load(files / f"{name}.nii.gz")
        np.testing.assert_array_equal(volume.data, np.asarray(stored.dataobj))
        assert volume.grid == Grid(stored.shape, stored.affine)
    assert (scan.grid, scan.name) == (scan.image.grid, str(files / "brain.nii.gz"))
    assert scan.mask is None


def test_a_scan_has_its_origins(files):
    scan = Scan.read(files / "brain.nii.gz", labels=files / "labels.nii.gz")
    assert scan.origins["image"]["path"] == str(files / "brain.nii.gz")
    assert len(scan.origins["labels"]["sha256"]) == 64
    assert scan.origins["mask"] is None


def test_sheared_axes_are_straightened_with_labels_and_mask(phantoms, make_grid):
    grid = make_grid(spacing=5, shear=0.1)
    image, labels = phantoms.image(grid), phantoms.labels(grid)
    mask = nib.Nifti1Image((phantoms.values(grid) > 0).astype(np.uint8), grid.affine)
    for header in (image, labels):
        header.set_qform(None, code=0)  # a qform cannot store shear
    scan = Scan.read(image, labels=labels, mask=mask)
    assert not scan.grid.is_sheared()
    assert scan.labels.grid == scan.mask.grid == scan.grid
    assert set(np.unique(scan.labels.data)) == set(np.unique(np.asarray(labels.dataobj)))
    inside = scan.mask.data > 0
    assert (inside == (phantoms.values(scan.grid) > 0)).mean() > 0.97
    (warning,) = (x for x in scan.image.header_warnings if "shear" in x)
    assert "resampled onto an orthogonal grid" in warning


# ----------------------------------------------------------------------------------- Templates


def test_a_template_as_a_scan(phantoms, files):
    own = Template("Ours", phantoms.template, title="Our 30 children")
    scan = Scan.of_template(own, files / "labels.nii.gz")
    assert scan.image is own.image
    assert scan.mask is None
    stored = np.asarray(nib.load(files / "labels.nii.gz").dataobj)
    np.testing.assert_array_equal(scan.labels.data, stored)
    assert scan.origins["labels"]["path"] == str(files / "labels.nii.gz")
    assert scan.origins["image"] == {
        "template": "Our 30 children",
        "name": "Ours",
        "sha256": own.sha256,
    }
    usual = {"template": "MNI152, ICBM 2009a symmetric"}
    assert Scan.of_template(mni152()).origins == {"image": usual, "labels": None}
    with pytest.raises(InputError, match=r"fixed label map .*elsewhere\.nii\.gz: its grid"):
        Scan.of_template(own, files / "elsewhere.nii.gz")


def test_a_template_as_a_scan_is_not_moved_and_prepared_once(phantoms, small, calls):
    recipe = Recipe(small.grid, alignment=Template("Ours", phantoms.template))
    scan = Scan.of_template(recipe.template)
    images = [scan.prepared(recipe, scan.examined(recipe, QUICK)) for _ in range(2)]
    assert calls == {"examine": 0, "prepare": 1}
    assert images[0] is images[1]
    np.testing.assert_array_equal(images[0].template_to_scan.matrix, np.eye(4))


def test_for_models_of_another_template_it_is_a_scan_like_others(
    phantoms, small, quick_affine, calls
):
    scan = Scan.of_template(Template("Ours", replace(phantoms.template, name="ours")))
    found = scan.examined(small, QUICK, cache=False)
    assert calls["examine"] == 1
    assert (found.kind, found.template) == ("brain", mni152())


# --------------------------------------------------------------------------------- Only once


def test_a_scan_is_prepared_once(quick_affine, files, small, calls):
    scan = Scan.read(files / "brain.nii.gz")
    images = [scan.prepared(small, scan.examined(small, QUICK, cache=False)) for _ in range(3)]
    (together,) = prepare_scans(small, (scan, scan.examined(small, QUICK, cache=False)))
    assert calls == {"examine": 1, "prepare": 1}
    assert images[0] is images[1] is images[2] is together
    finer = Recipe(small.grid.resized((44, 52, 60)))
    scan.prepared(finer, scan.examined(finer, QUICK, cache=False))
    assert calls == {"examine": 1, "prepare": 2}, "another grid, the same template"
    brighter = replace(small, percentile=90.0)
    scan.prepared(brighter, scan.examined(brighter, QUICK, cache=False))
    assert calls == {"examine": 1, "prepare": 3}, "another scale of intensities"
    other = scan.examined(small, replace(QUICK, affine=False), cache=False)
    assert calls == {"examine": 2, "prepare": 3}, "other steps"
    assert scan.prepared(small, other).examination is other
    assert calls == {"examine": 2, "prepare": 4}


def test_what_is_kept_equals_what_a_fresh_scan_gives(quick_affine, files, small):
    """To the last bit."""
    scan = Scan.read(files / "brain.nii.gz")
    choices = [
        (recipe, steps)
        for recipe in (small, replace(small, percentile=90.0), replace(small, alignment="centre"))
        for steps in (QUICK, replace(QUICK, affine=False))
    ]
    images = []
    for recipe, steps in choices:
        got = scan.prepared(recipe, scan.examined(recipe, steps, cache=False)).image
        fresh = Scan.read(files / "brain.nii.gz")
        expected = fresh.prepared(recipe, fresh.examined(recipe, steps, cache=False)).image
        np.testing.assert_array_equal(got, expected)
        images.append(got.numpy().tobytes())
    assert len(set(images)) == 5, "without a template, affine makes no difference"


def test_memory_is_released(quick_affine, files, small):
    """Examinations from elsewhere go with their owner, those of the scan go with the scan."""
    scan = Scan.read(files / "brain.nii.gz")
    own = scan.examined(small, QUICK, cache=False)
    found = placed_at(own, scan.image, Affine(np.eye(4)))
    kept = [weakref.ref(x) for x in (found, scan.prepared(small, found).image)]
    del found
    gc.collect()
    assert [x() for x in kept] == [None, None]
    kept = [weakref.ref(x) for x in (own, scan.prepared(small, own), scan)]
    del own
    gc.collect()
    assert None not in [x() for x in kept]
    del scan
    gc.collect()
    assert [x() for x in kept] == [None, None, None]


def test_another_template_is_another_examination(phantoms, quick_affine, files, small, calls):
    scan = Scan.read(files / "brain.nii.gz")
    own = Recipe(small.grid, alignment=Template("own", phantoms.template))
    first, other = (scan.examined(recipe, QUICK, cache=False) for recipe in (small, own))
    assert calls["examine"] == 2
    assert (first.template, other.template) == (mni152(), own.template)
    np.testing.assert_array_equal(first.template_to_scan.matrix, other.template_to_scan.matrix)


def test_the_cache_distinguishes_templates(phantoms, files, small, calls, monkeypatch, tmp_path):
    """Two templates of one name, the second 30 mm to the right; scans are read again each time."""
    monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / "cache"))
    away = Grid(phantoms.template.grid.shape, phantoms.template.grid.affine + 30 * np.eye(4, k=3))
    usual, shifted = (
        Recipe(small.grid, alignment=Template("T", image))
        for image in (phantoms.template, replace(phantoms.template, grid=away))
    )
    matrices = {}
    for recipe, was_known in ((usual, False), (shifted, False), (usual, True), (shifted, True)):
        scan = Scan.read(files / "brain.nii.gz")
        found, from_cache = scan.examined_or_cached(recipe, QUICK, cache=True)
        assert from_cache is was_known
        assert found.template is recipe.template
        matrices.setdefault(recipe, []).append(found.template_to_scan.matrix)
    assert calls["examine"] == 2
    for first, again in matrices.values():
        np.testing.assert_array_equal(first, again)
    shift = Affine(np.eye(4) + 30 * np.eye(4, k=3))
    expected = Affine(matrices[shifted][0]).after(shift)
    np.testing.assert_allclose(
        expected.map(phantoms.corners), Affine(matrices[usual][0]).map(phantoms.corners), atol=0.05
    )


# ------------------------------------------------------------------------------------- Masks


def test_a_given_mask_is_used(phantoms, quick_affine, make_grid, files, small):
    grid = make_grid()
    half = phantoms.values(grid, OTHER) > 0
    half[:, :, : half.shape[2] // 5] = False
    mask = nib.Nifti1Image(half.astype(np.uint8), grid.affine)
    scan = Scan.read(files / "brain.nii.gz", mask=mask)
    found = scan.examined(small, QUICK, cache=False)
    np.testing.assert_array_equal(scan.brain_mask(found).data != 0, half)
    inside = scan.prepared(small, found).further("mask")
    assert inside.shape == (1, 1, *small.grid.shape)
    assert ((scan.prepared(small, found).image > 0) == (inside > 0)).all()
    with pytest.raises(ValueError, match="ask for mask beside the image, got 'edges'"):
        scan.prepared(small, found).further("edges")


# ------------------------------------------------------------------------------ Prepared images


def test_an_upright_brain_lies_on_the_template(phantoms, quick_affine, make_grid, small):
    scan = Scan.read(phantoms.image(make_grid(), UPRIGHT))
    found = scan.examined(small, QUICK, cache=False)
    points = small.grid.nodes()[::9, ::9, ::9].reshape(-1, 3)
    moved = found.template_to_scan.map(points)
    assert np.abs(moved - points).max() < 1.5


def test_the_prepared_image_is_the_brain_in_working_space(phantoms, make_grid, small):
    """The values of the phantom at the mapped points, scaled so that the percentile is 1."""
    grid = make_grid("LPI", (4, 4.5, 4), turn=(5, -4, 8), room=25)
    volume = read_volume(phantoms.image(grid))
    space = Affine(near_identity(3, strength=0.05))
    prepared = prepare(volume, small, Examination("brain", grid, space))
    at = np.moveaxis(grid.to_voxel(space.map(small.grid.nodes())), -1, 0)
    values = ndimage.map_coordinates(volume.data.astype(np.float64), at, order=1)
    bright = np.percentile(values[values > 1e-3], small.percentile)
    expected = np.clip(values / bright, 0, 1)
    np.testing.assert_allclose(prepared.image[0, 0].numpy(), expected, atol=2e-3)
    assert prepared.template_to_scan is space
    assert expected.max() == 1
