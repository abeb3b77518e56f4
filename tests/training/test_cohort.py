"""The scans of a training as a cohort: who is in it, who is left out, whether it is enough."""

import json
import pickle

import nibabel as nib
import numpy as np
import pytest
from cohorts import (
    SHAPES,
    crop_labels,
    crops_config,
    cut,
    gathered,
    table,
    without_labels,
    write_scan,
)

from voxwarp.errors import InputError
from voxwarp.training.cohort import describe_cohort, prepare_atlas, prepare_cohort
from voxwarp.training.inspection import check


def test_the_properties_of_a_cohort(crops):
    config = crops_config(crops)
    scans = gathered(config)
    scans[1] = without_labels(scans[1])
    cohort = prepare_cohort(config, scans)
    assert [cohort.indices(split) for split in ("train", "val", "test")] == [[0, 1], [2], [3]]
    assert cohort.subjects == [f"crops/p{i}" for i in range(4)]
    assert [cohort.is_labelled(i) for i in range(4)] == [True, False, True, True]
    assert cohort.labels(1) is None
    with pytest.raises(ValueError, match="read-only"):
        cohort.image(0)[0, 0, 0] = 1
    other = pickle.loads(pickle.dumps(cohort))  # as the workers of a loader get it
    np.testing.assert_array_equal(other.image(3), cohort.image(3))
    cohort.files[0][0].unlink()
    with pytest.raises(InputError, match="the file is missing or damaged"):
        cohort.image(0)
    about = json.loads(json.dumps(describe_cohort(cohort)))
    assert about["counts"]["crops"]["train"] == {"scans": 2, "subjects": 2, "labelled": 1}
    assert [row["subject"] for row in about["scans"]["train"]] == ["p0", "p1"]
    assert about["scans"]["val"][0]["path"] == str(crops / "t1/2.nii.gz")
    assert about["lattice"] == cohort.recipe.grid.described()


def test_the_atlas_is_prepared_as_the_scans_are(crops):
    atlas = {"mode": "atlas", "atlas": str(crops / "t1/0.nii.gz")}
    for labels in (None, str(crops / "labels/0.nii.gz")):
        config = crops_config(crops, sampling={**atlas, "atlas_labels": labels})
        cohort = prepare_cohort(config, gathered(config))
        image, numbers = prepare_atlas(config, cohort)
        np.testing.assert_allclose(image[0].numpy() * 255, cohort.image(0), atol=1e-4)
        assert (numbers is None) == (labels is None)
    np.testing.assert_array_equal(numbers.numpy(), cohort.labels(0))
    assert prepare_atlas(crops_config(crops), cohort) is None


def test_a_scan_that_cannot_be_prepared_is_left_out(crops):
    cut(crops / "t1/3.nii.gz")
    config = crops_config(crops)
    scans = gathered(config)
    cohort = prepare_cohort(config, scans)
    assert cohort.scans == scans[:3]
    (line,) = cohort.skipped
    assert line.startswith(f"scans.csv row 5: image {crops}/t1/3.nii.gz: ")
    assert describe_cohort(cohort)["skipped"] == [line]
    (problem,) = check(config, scans).problems
    assert problem == line
    (crops / "labels/2.nii.gz").unlink()
    with pytest.raises(InputError, match=r"2 of 4 scans .*first one: scans\.csv row 4: label map"):
        prepare_cohort(config, scans)


def test_too_few_scans_for_pairs_are_refused(crops):
    config = crops_config(crops)
    scans = gathered(config)
    atlas = {"mode": "atlas", "atlas": "template"}
    cases = [
        (config, "mode pairwise needs at least 2 train subjects, but there are 1"),
        (crops_config(crops, sampling={"labelled": 0.5}), "needs at least 2 train subjects"),
        (crops_config(crops, sampling=atlas), None),
    ]
    for each, message in cases:
        if message is None:
            assert len(prepare_cohort(each, scans[1:]).scans) == 3
        else:
            with pytest.raises(InputError, match=message):
                prepare_cohort(each, scans[1:])
            assert any(message in problem for problem in check(each, scans[1:]).problems)
    bare = [without_labels(scans[0]), *scans[1:]]
    with pytest.raises(InputError, match="needs at least 2 train subjects with labels"):
        prepare_cohort(cases[1][0], bare)


def test_a_loss_of_labels_without_labels_is_refused(crops):
    """Only where it counts, and only for labels to learn from."""
    losses = {"mse": {}, "dice": {}}
    atlas = {"mode": "atlas", "atlas": str(crops / "t1/0.nii.gz")}
    labelled = {**atlas, "atlas_labels": str(crops / "labels/0.nii.gz")}
    scans = gathered(crops_config(crops))
    bare = [without_labels(scan) if scan.split == "train" else scan for scan in scans]
    one = [without_labels(scans[0]), *scans[1:]]
    two, enough = "needs at least 2 train subjects with labels, but there are ", None
    cases = [
        (crops_config(crops, losses=losses), bare, two + "0"),
        (crops_config(crops, losses=losses), one, two + "1"),
        (crops_config(crops, losses=losses), scans, enough),
        (crops_config(crops, losses={"mse": {}, "dice": {"weight": 0}}), bare, enough),
        (crops_config(crops, losses=losses, sampling=atlas), scans, "the atlas has none"),
        (
            crops_config(crops, losses=losses, sampling=labelled),
            bare,
            "at least 1 train subjects with labels",
        ),
        (crops_config(crops, losses=losses, sampling=labelled), one, enough),
    ]
    for config, those, message in cases:
        problems = [p for p in check(config, those).problems if "label" in p]
        if message is enough:
            assert len(prepare_cohort(config, those).scans) == 4
            assert problems == []
            continue
        with pytest.raises(InputError, match=message):
            prepare_cohort(config, those)
        assert [message in problem for problem in problems] == [True]


# ---------------------------------------------------------------------------------- Structures

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
        ("value,name\n1,x\n", "no column 'structure'; its columns are value, name"),
        ("value,structure\nx,a\n", "names.csv row 2: a label value must be .* got 'x'"),
        ("value,structure\n0,a\n", "row 2: a label value must be .* got '0'"),
        ("value,structure\n1,a\n1,b\n", "row 3: label value 1 is named 'b', but an earlier row"),
        ("value,structure\n1,\n", "the column structure is empty in every row"),
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
