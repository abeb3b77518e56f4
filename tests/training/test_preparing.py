"""Scans as they are prepared: where closed forms and ``register`` say; by more processes, too."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from cohorts import (
    SHAPES,
    centred,
    crop,
    crop_labels,
    crops_config,
    gathered,
    without_labels,
    write_scan,
)

from voxwarp.errors import InputError
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.space.grid import Grid
from voxwarp.space.volume import write_volume
from voxwarp.training.cohort import prepare_cohort
from voxwarp.training.working_grid import recipe_of


def test_processes_prepare_what_one_does(crops):
    """One of the scans is damaged, which must come through to here."""
    (crops / "t1/3.nii.gz").write_bytes(b"no image")
    alone = crops_config(crops)
    together = crops_config(crops, data={"cache": str(crops.parent / "other")})
    scans, calls = gathered(alone), []
    one = prepare_cohort(alone, scans)
    two = prepare_cohort(together, scans, processes=2, progress=lambda *done: calls.append(done))
    assert sorted(calls) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert two.skipped == one.skipped
    for i in range(3):
        np.testing.assert_array_equal(one.image(i), two.image(i))
        np.testing.assert_array_equal(one.labels(i), two.labels(i))


def test_centred_scans_are_where_they_should_be(crops):
    config = crops_config(crops)
    scans = gathered(config)
    cohort = prepare_cohort(config, scans)
    assert cohort.recipe == Recipe(recipe_of(config, scans).grid, 100, "centre")
    assert cohort.skipped == []
    for i, shape in enumerate(SHAPES):
        expected = centred(crop(i, shape))
        image = cohort.image(i)
        assert image.dtype == np.uint8
        assert np.abs(image - 255 * expected / expected.max()).max() <= 0.501
    labels = crop_labels(0, SHAPES[0])
    numbers = np.select([labels == v for v in (3, 40, 2035)], [1, 2, 3])
    np.testing.assert_array_equal(cohort.labels(0), centred(numbers))
    assert set(np.unique(cohort.labels(1))) == {0, 1, 2, 3}


def test_brains_are_prepared_as_register_does(brains, label_values):
    wanted = {"alignment": "mni152", "spacing": 5, "percentile": 99}
    config = crops_config(brains, preparation=wanted)
    cohort = prepare_cohort(config, gathered(config))
    grid, numbers = cohort.recipe.grid, {v: i for i, v in enumerate(sorted(label_values))}
    for i, scan in enumerate(cohort.scans):
        whole = Scan.read(scan.path)
        expected = whole.prepared(cohort.recipe, whole.examined(cohort.recipe))
        assert np.abs(cohort.image(i) / 255 - expected.image.numpy()).max() <= 0.5 / 255 + 1e-6
        labels = nib.load(scan.labels)
        at = expected.template_to_scan.map(grid.nodes())
        voxels = np.rint(nib.affines.apply_affine(np.linalg.inv(labels.affine), at)).astype(int)
        inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=-1)
        values = np.asarray(labels.dataobj)[tuple(np.moveaxis(voxels * inside[..., None], -1, 0))]
        oracle = np.vectorize(numbers.get)(np.where(inside, values, 0))
        assert (cohort.labels(i) != oracle).mean() < 1e-4  # ties of rounding
        assert len(np.unique(oracle)) == 9


def test_a_scan_outside_the_working_grid_is_left_out(crops):
    far = nib.load(crops / "t1/3.nii.gz").affine
    far[0, 3] = 500
    write_scan(crops / "t1/3.nii.gz", crop(3, SHAPES[3]), far)
    wanted = {"alignment": "header", "shape": [16, 16, 16]}
    config = crops_config(crops, preparation=wanted)
    scans = [without_labels(scan) for scan in gathered(config)]
    with pytest.raises(InputError, match="it is zero everywhere on the working grid"):
        prepare_cohort(config, scans)


def test_brains_are_aligned_with_a_template_of_ones_own(brains, phantoms, tmp_path) -> None:
    """One that stands 20 mm from MNI152: there the brains lie as they lie on MNI152 here."""
    moved = phantoms.template.grid.affine.copy()
    moved[:3, 3] += 20
    shifted = replace(phantoms.template, grid=Grid(phantoms.template.grid.shape, moved))
    for name, template in (("here", phantoms.template), ("there", shifted)):
        write_volume(template, tmp_path / f"{name}.nii.gz")
    images = []
    for name in ("here", "there"):
        wanted = {"alignment": str(tmp_path / f"{name}.nii.gz"), "spacing": 5}
        config = crops_config(brains, preparation=wanted)
        cohort = prepare_cohort(config, gathered(config))
        images.append([cohort.image(i).astype(float) / 255 for i in range(2)])
    for here, there in zip(*images, strict=True):
        assert here.shape == there.shape
        assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.99
