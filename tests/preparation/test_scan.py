"""A scan is read whole, and what is found in it is found once, whoever asks."""

import gc
import weakref

import nibabel as nib
import numpy as np
import pytest
from brains import OTHER, UPRIGHT

from voxwarp.errors import InputError
from voxwarp.preparation import cache
from voxwarp.preparation import scan as module
from voxwarp.preparation.examination import placed_at
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.settings import Preparation
from voxwarp.preparation.template import Template, mni152
from voxwarp.space.transform import Affine

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


def test_it_is_prepared_once_for_all_who_ask(quick_affine, files, small, calls):
    scan = Scan.read(files / "brain.nii.gz")
    seen = [scan.prepared(small, scan.examined(small, QUICK, cache=False)) for _ in range(3)]
    assert calls == {"examine": 1, "prepare": 1}
    assert seen[0] is seen[1] is seen[2]
    finer = Recipe(small.grid.resized((44, 52, 60)))
    scan.prepared(finer, scan.examined(finer, QUICK, cache=False))
    assert calls == {"examine": 1, "prepare": 2}, "another grid, the same template"
    scan.examined(small, Preparation(bias=True, conform=False), cache=False)
    assert calls["examine"] == 2, "other steps"


def test_what_nobody_holds_any_more_is_let_go(quick_affine, files, small):
    scan = Scan.read(files / "brain.nii.gz")
    found = placed_at(scan.examined(small, QUICK, cache=False), scan.image, Affine(np.eye(4)))
    prepared = scan.prepared(small, found)
    image = weakref.ref(prepared.image)
    del found, prepared
    gc.collect()
    assert image() is None


def test_another_template_is_another_examination(phantoms, quick_affine, files, small, calls):
    scan = Scan.read(files / "brain.nii.gz")
    own = Recipe(small.grid, alignment=Template("own", phantoms.template))
    first, other = (scan.examined(recipe, QUICK, cache=False) for recipe in (small, own))
    assert calls["examine"] == 2
    assert (first.template, other.template) == (mni152(), own.template)
    np.testing.assert_array_equal(
        first.template_to_scan.fixed_to_moving, other.template_to_scan.fixed_to_moving
    )


@pytest.mark.parametrize("what", ["labels", "mask"])
def test_what_lies_on_another_grid_is_refused(files, what):
    with pytest.raises(InputError, match=r"elsewhere\.nii\.gz: its grid"):
        Scan.read(files / "brain.nii.gz", **{what: files / "elsewhere.nii.gz"})


def test_it_knows_where_it_comes_from(files):
    scan = Scan.read(files / "brain.nii.gz", labels=files / "labels.nii.gz")
    assert scan.origins["image"]["path"] == str(files / "brain.nii.gz")
    assert len(scan.origins["labels"]["sha256"]) == 64
    assert scan.origins["mask"] is None
    assert Scan.of_template(mni152()).origins["image"] == {
        "template": "MNI152, ICBM 2009a symmetric"
    }


def test_the_mask_is_given_to_whoever_examines(phantoms, quick_affine, make_grid, files, small):
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
    with pytest.raises(ValueError, match="mask is wanted"):
        scan.prepared(small, found).further("edges")


def test_an_upright_brain_lies_on_the_template(phantoms, quick_affine, make_grid, small):
    scan = Scan.read(phantoms.image(make_grid(), UPRIGHT))
    found = scan.examined(small, QUICK, cache=False)
    points = small.grid.nodes()[::9, ::9, ::9].reshape(-1, 3)
    moved = found.template_to_scan.map(points)
    assert np.abs(moved - points).max() < 1.5
