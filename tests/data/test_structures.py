"""The structures of a training: their names, numbers and other sides."""

import nibabel as nib
import numpy as np
import pytest
from cohorts import (
    SHAPES,
    crop_labels,
    crops_config,
    gathered,
    table,
    without_labels,
    write_scan,
)

from voxwarp.data.structures import mirror_of
from voxwarp.errors import InputError
from voxwarp.training.cohort import prepare_cohort
from voxwarp.training.inspection import check


def test_left_and_right_belong_together():
    names = ["Left Hippocampus", "Right Hippocampus", "ctx-lh-insula", "ctx-rh-insula"]
    names += ["cortex_L", "cortex_R", "LEFT.a", "RIGHT.a", "l_x", "r_x", "brain stem", "left only"]
    names += ["Lateral", "Rateral", "cleft", "cright", "lesion", "resion"]
    expected = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, *range(11, 19)]
    np.testing.assert_array_equal(mirror_of(names), expected)
    assert mirror_of([]).tolist() == [0]
    assert mirror_of([str(i) for i in range(300)]).dtype == np.uint16


STRUCTURES = """value,note,structure
2035,x,thing_R
40,x,
3,y,thing_L
41,y,thing_L
9,,a third
"""


def test_structures_of_a_table_are_in_alphabetical_order(crops):
    path = table(crops / "names.csv", STRUCTURES)
    config = crops_config(crops, data={"structures": {"table": str(path)}})
    cohort = prepare_cohort(config, gathered(config))
    assert cohort.structures == ["a third", "thing_L", "thing_R"]
    np.testing.assert_array_equal(cohort.mirror, [0, 1, 3, 2])
    expected = np.zeros(SHAPES[0], np.uint8)
    labels = crop_labels(0, SHAPES[0])
    expected[labels == 3], expected[labels == 2035] = 2, 3
    np.testing.assert_array_equal(cohort.labels(0)[5:11, 4:12, 3:13], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("value,name\n1,x\n", "no 'structure' .*there are value, name"),
        ("value,structure\nx,a\n", "names.csv row 2: 'x': a label value from 1"),
        ("value,structure\n0,a\n", "row 2: '0': a label value from 1"),
        ("value,structure\n1,a\n1,b\n", "row 3: value 1 has another name already"),
        ("value,structure\n1,\n", "no row has a structure"),
    ],
)
def test_wrong_structures_are_refused(crops, text, message):
    path = table(crops / "names.csv", text)
    config = crops_config(crops, data={"structures": {"table": str(path)}})
    with pytest.raises(InputError, match=message):
        prepare_cohort(config, gathered(config))
    (problem,) = check(config, gathered(config)).problems
    assert "names.csv" in problem


def test_structures_are_those_of_the_training_scans(crops):
    """But where these have no labels, those of validation; without either there are none."""
    labels = crops / "labels"
    affine = nib.load(labels / "2.nii.gz").affine
    write_scan(labels / "2.nii.gz", crop_labels(2, SHAPES[2], (3, 77)), affine)
    config = crops_config(crops)
    scans = gathered(config)
    assert prepare_cohort(config, scans).structures == ["3", "40", "2035"]
    assert check(config, scans).structures == ["3", "40", "2035"]
    bare = [s if s.split == "val" else without_labels(s) for s in scans]
    assert prepare_cohort(config, bare).structures == ["3", "77"]
    assert check(config, bare).structures == ["3", "77"]
    none = prepare_cohort(config, [*map(without_labels, scans[:3]), scans[3]])
    assert none.structures == []
    assert not any(none.is_labelled(i) for i in range(4))


def test_many_structures_take_two_bytes(crops):
    values = list(range(1, 401))
    affine = nib.load(crops / "t1/0.nii.gz").affine
    data = np.resize(values, SHAPES[0]).astype(np.int32)
    write_scan(crops / "labels/0.nii.gz", data, affine)
    config = crops_config(crops, data={"structures": {"values": [*values, 2035]}})
    cohort = prepare_cohort(config, gathered(config))
    assert cohort.labels(0).dtype == cohort.mirror.dtype == np.uint16
    np.testing.assert_array_equal(cohort.labels(0)[5:11, 4:12, 3:13], data)
