"""Signals of regions, by nilearn's masker and by NumPy; the template is nilearn's."""

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template
from nilearn.maskers import NiftiLabelsMasker

import voxwarp
from voxwarp.preparation.template import mni152


def test_the_template_is_that_of_nilearn() -> None:
    theirs = load_mni152_template(resolution=1)
    image = mni152().image
    np.testing.assert_allclose(image.grid.affine, theirs.affine)
    assert image.grid.shape == theirs.shape
    assert image.grid.space_code == 4


@pytest.fixture
def bold(pair) -> nib.Nifti1Image:
    """A series of the moving scan, in whose frames each label has a known value."""
    labels = pair.image("moving_labels")
    values = np.asarray(labels.dataobj)
    frames = np.stack([values * (1.0 + t) for t in range(3)], axis=-1).astype(np.float32)
    return nib.Nifti1Image(frames, labels.affine)


def test_signals_after_the_series_was_moved(pair, bold) -> None:
    atlas = pair.image("pair/WarpedLabels")
    moved = voxwarp.apply_to_image(bold, pair.result, interpolation="nearest").to_nibabel()
    masker = NiftiLabelsMasker(atlas, standardize=None)
    signals = masker.fit_transform(moved)
    values = np.unique(np.asarray(atlas.dataobj))[1:]
    expected = np.outer([1, 2, 3], values)  # the labels themselves: nothing leaks between them
    np.testing.assert_allclose(signals, expected, rtol=1e-5)


def test_signals_after_the_atlas_was_moved(pair, bold) -> None:
    atlas = voxwarp.apply_to_image("fixed_labels.nii.gz", pair.result, inverse=True, reference=bold)
    image = atlas.to_nibabel()
    assert image.shape == bold.shape[:3]
    assert image.header.get_intent()[0] == "label"
    signals = NiftiLabelsMasker(image, standardize=None).fit_transform(bold)
    data, regions = np.asarray(bold.dataobj), np.asarray(image.dataobj)
    expected = [[data[regions == v, t].mean() for v in np.unique(regions)[1:]] for t in range(3)]
    np.testing.assert_allclose(signals, expected, rtol=1e-4)
    for value in np.unique(regions)[1:]:  # they are the right regions
        found, counts = np.unique(data[regions == value, 0], return_counts=True)
        assert found[counts.argmax()] == value
