"""Loaded pairs: read as register reads them, and again when a file changes."""

import os

import numpy as np
import pytest
from cohorts import cut, write_scan
from phantoms import homogeneous
from scored_pairs import (
    AFFINE,
    SHAPE,
    SPACING,
    box,
    loaded_pair_of,
    pair_scan,
    scored_transform,
    scores,
    texture,
    warp_of,
)

from voxwarp.data.pairs import Pair
from voxwarp.errors import InputError
from voxwarp.evaluation.loaded_pair import label_values_in, load_pair
from voxwarp.evaluation.scoring import ScoredTransform
from voxwarp.space.grid import Grid


def test_a_file_that_changed_is_read_again(tmp_path):
    """A second evaluation in one session must not use the old contents."""
    labels = box((5, 5, 5), (4, 4, 4))
    loaded = loaded_pair_of(tmp_path, labels, labels)
    assert scores(loaded, scored_transform())["dice"] == 1
    again = load_pair(loaded.pair)
    assert again.moving is loaded.moving  # remembered
    write_scan(loaded.pair.moving.labels, np.roll(labels, 2, 0), AFFINE)
    os.utime(loaded.pair.moving.labels, ns=(1, 1))
    assert scores(load_pair(loaded.pair), scored_transform())["dice"] == pytest.approx(0.5)


def test_broken_files_are_refused(tmp_path):
    labels = box((5, 5, 5), (4, 4, 4))
    pair = loaded_pair_of(tmp_path, labels, labels).pair
    cut(pair.fixed.labels)
    with pytest.raises(InputError, match=r"label map .*f_seg\.nii\.gz: .* cut off"):
        load_pair(pair)
    write_scan(pair.fixed.labels, labels[1:], AFFINE)
    with pytest.raises(InputError, match=r"label map .*f_seg\.nii\.gz: its grid"):
        load_pair(pair)
    pair.moving.path.unlink()
    with pytest.raises(InputError, match=r"image .*m\.nii\.gz: no such file"):
        load_pair(pair)


def test_a_sheared_scan_is_read_as_register_reads_it(tmp_path):
    """On the orthogonal grid, with its labels, as the warps of register are."""
    matrix = np.diag(SPACING)
    matrix[0, 1] = 0.3
    affine = homogeneous(matrix, (1, 2, 3))
    labels = box((5, 5, 5), (10, 10, 10))
    sides = [pair_scan(tmp_path, n, texture(), labels, affine=affine) for n in "mf"]
    loaded = load_pair(Pair(*sides))
    straight = Grid(SHAPE, affine).unsheared()
    for volume in (loaded.moving, loaded.fixed, loaded.moving_labels, loaded.fixed_labels):
        assert volume.grid.matches(straight)
    assert loaded.brain.shape == loaded.fixed.grid.shape
    still = warp_of(np.zeros((3, *loaded.fixed.grid.shape)), loaded.fixed.grid)
    assert scores(loaded, ScoredTransform(still, still))["dice"] == 1


def test_values_of_all_maps(tmp_path):
    """Each value once, from both sides of all pairs, without 0."""
    subjects = [
        pair_scan(tmp_path, "a", texture(), box((5, 5, 5), (2, 2, 2), 2035)),
        pair_scan(tmp_path, "b", texture(), box((5, 5, 5), (2, 2, 2), 4)),
        pair_scan(tmp_path, "c", texture(), box((5, 5, 5), (2, 2, 2), 17)),
        pair_scan(tmp_path, "d", texture()),
    ]
    pairs = [Pair(subjects[0], subjects[3]), Pair(subjects[3], subjects[1])]
    assert label_values_in(pairs) == {4, 2035}
    assert label_values_in([]) == set()
