"""Pairs as they are read: as register reads them, again when they change."""

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
    case_of,
    found,
    pair_scan,
    rowed,
    texture,
    warp_of,
)

from voxwarp.data.pairs import Pair
from voxwarp.errors import InputError
from voxwarp.evaluation.case import read_case, values_of
from voxwarp.evaluation.scoring import ScoredTransform
from voxwarp.space.grid import Grid


def test_a_file_that_changed_is_read_again(tmp_path):
    """A second evaluation in one session must not tell of the files of the first."""
    labels = box((5, 5, 5), (4, 4, 4))
    case = case_of(tmp_path, labels, labels)
    assert rowed(case, found())["dice"] == 1
    again = read_case(case.pair)
    assert again.moving is case.moving  # remembered
    write_scan(case.pair.moving.labels, np.roll(labels, 2, 0), AFFINE)
    os.utime(case.pair.moving.labels, ns=(1, 1))
    assert rowed(read_case(case.pair), found())["dice"] == pytest.approx(0.5)


def test_broken_files_are_refused(tmp_path):
    labels = box((5, 5, 5), (4, 4, 4))
    pair = case_of(tmp_path, labels, labels).pair
    cut(pair.fixed.labels)
    with pytest.raises(InputError, match=r"label map .*f_seg\.nii\.gz: .* cut off"):
        read_case(pair)
    write_scan(pair.fixed.labels, labels[1:], AFFINE)
    with pytest.raises(InputError, match=r"label map .*f_seg\.nii\.gz: its grid"):
        read_case(pair)
    pair.moving.path.unlink()
    with pytest.raises(InputError, match=r"image .*m\.nii\.gz: no such file"):
        read_case(pair)


def test_a_sheared_scan_is_read_as_register_reads_it(tmp_path):
    """Onto right angles, with its labels: warps that register finds are on that grid."""
    matrix = np.diag(SPACING)
    matrix[0, 1] = 0.3
    affine = homogeneous(matrix, (1, 2, 3))
    labels = box((5, 5, 5), (10, 10, 10))
    sides = [pair_scan(tmp_path, n, texture(), labels, affine=affine) for n in "mf"]
    case = read_case(Pair(*sides))
    straight = Grid(SHAPE, affine).unsheared()
    for volume in (case.moving, case.fixed, case.moving_labels, case.fixed_labels):
        assert volume.grid.matches(straight)
    assert case.brain.shape == case.fixed.grid.shape
    still = warp_of(np.zeros((3, *case.fixed.grid.shape)), case.fixed.grid)
    assert rowed(case, ScoredTransform(still, still))["dice"] == 1


def test_values_of_all_maps(tmp_path):
    """Each once, of either side of any pair; 0 is none of them."""
    subjects = [
        pair_scan(tmp_path, "a", texture(), box((5, 5, 5), (2, 2, 2), 2035)),
        pair_scan(tmp_path, "b", texture(), box((5, 5, 5), (2, 2, 2), 4)),
        pair_scan(tmp_path, "c", texture(), box((5, 5, 5), (2, 2, 2), 17)),
        pair_scan(tmp_path, "d", texture()),
    ]
    pairs = [Pair(subjects[0], subjects[3]), Pair(subjects[3], subjects[1])]
    assert values_of(pairs) == {4, 2035}
    assert values_of([]) == set()
