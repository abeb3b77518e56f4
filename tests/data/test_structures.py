"""The structures: which label values count, their names, numbers and other sides."""

from pathlib import Path

import numpy as np
import pytest
from cohorts import table

from voxwarp.data.sources import Split, Structures
from voxwarp.data.structures import Table, label_values, mirror_of, structures_of
from voxwarp.errors import InputError
from voxwarp.evaluation.protocol import protocol_of

NAMED = """value,note,structure
2035,x,thing_R
40,x,
3,y,thing_L
41,y,thing_L
9,,a third
"""


def nothing(split: Split) -> set[int]:
    raise AssertionError(f"the label maps of {split} must not be read")


def test_left_and_right_belong_together():
    names = ["Left Hippocampus", "Right Hippocampus", "ctx-lh-insula", "ctx-rh-insula"]
    names += ["cortex_L", "cortex_R", "LEFT.a", "RIGHT.a", "l_x", "r_x", "brain stem", "left only"]
    names += ["Lateral", "Rateral", "cleft", "cright", "lesion", "resion"]
    expected = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, *range(11, 19)]
    np.testing.assert_array_equal(mirror_of(names), expected)
    assert mirror_of([]).tolist() == [0]
    assert mirror_of([str(i) for i in range(300)]).dtype == np.uint16


def test_structures_of_a_table_are_in_alphabetical_order(tmp_path: Path) -> None:
    """Rows without a name are none; several values may be one structure."""
    path = table(tmp_path / "names.csv", NAMED)
    found = structures_of(Structures(table=str(path)), nothing)
    assert found == Table(["a third", "thing_L", "thing_R"], {2035: 3, 3: 2, 41: 2, 9: 1})
    other = table(tmp_path / "other.tsv", "index\tname\n007\tb\n3\ta\n7\tb\n")
    wanted = Structures(table=str(other), value="index", name="name")
    assert structures_of(wanted, nothing) == Table(["a", "b"], {7: 2, 3: 1})


def test_a_value_may_stand_for_voxels_that_are_not_labelled(tmp_path: Path) -> None:
    path = str(table(tmp_path / "names.csv", NAMED))
    found = structures_of(Structures(table=path, ignore=255), nothing)
    assert found.numbered(np.array([0, 3, 255, 254, 9])).tolist() == [0, 2, 4, 0, 1]
    assert found.mirror.tolist() == [0, 1, 3, 2, 4]
    listed = structures_of(Structures(ignore=7), {"train": {7, 2, 3}}.__getitem__)
    assert listed == Table(["2", "3"], {2: 1, 3: 2}, 7)
    assert listed.numbered(np.array([7, 3, 2, 0])).tolist() == [3, 2, 1, 0]
    many = Table([str(i) for i in range(1, 256)], {i: i for i in range(1, 256)}, 1000)
    assert many.dtype == np.uint16
    assert many.numbered(np.array([1000, 255])).tolist() == [256, 255]
    with pytest.raises(InputError, match=r"ignore must not be .* got 2035, which is 'thing_R' in"):
        structures_of(Structures(table=path, ignore=2035), nothing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "value,name\n1,x\n",
            r"table .*names\.csv: it has no column 'structure'; its columns are value, name",
        ),
        (
            "value,structure\nx,a\n",
            r"names\.csv row 2: a label value must be a whole number .* got 'x'",
        ),
        ("value,structure\n0,a\n", r"row 2: a label value must be .* got '0'"),
        ("value,structure\n1.0,a\n", r"row 2: a label value must be .* got '1.0'"),
        ("value,structure\n9999999999,a\n", r"row 2: a label value must be .* got '9999999999'"),
        (
            "value,structure\n1,a\n01,b\n",
            r"row 3: label value 01 is named 'b', but an earlier row names it 'a', in",
        ),
        ("value,structure\n1,\n", r"names\.csv: the column structure is empty in every row"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path / "names.csv", text)
    with pytest.raises(InputError, match=message):
        structures_of(Structures(table=str(path)), nothing)


def test_structures_without_names_are_called_by_their_values() -> None:
    expected = Table(["3", "40", "2035"], {3: 1, 40: 2, 2035: 3})
    assert structures_of(Structures(values=[2035, 3, 40, 3]), nothing) == expected
    assert structures_of(Structures(), {"train": {40, 2035, 3}}.__getitem__) == expected


def test_structures_are_those_of_the_training_scans_or_else_of_validation() -> None:
    maps: dict[str, set[int]] = {"train": {3}, "val": {3, 77}}
    assert structures_of(Structures(), maps.__getitem__).names == ["3"]
    maps["train"] = set()
    assert structures_of(Structures(), maps.__getitem__).names == ["3", "77"]
    maps["val"] = set()
    assert structures_of(Structures(), maps.__getitem__) == Table([], {})


def test_more_values_than_numbers_are_no_structures() -> None:
    most = structures_of(Structures(), lambda _: set(range(1, 1 << 16)))
    assert (len(most.names), most.dtype) == (65535, np.uint16)
    with pytest.raises(
        InputError, match=r"data\.structures: .* hold 65536 different values, more than 65535"
    ):
        structures_of(Structures(), lambda _: set(range(1, (1 << 16) + 1)))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_numbers_take_the_place_of_values(kind: type) -> None:
    found = Table(["a", "b"], {3: 2, 40: 1, 41: 1})
    labels = np.array([[[0, 3, 40], [41, 42, 2]]], kind)
    np.testing.assert_array_equal(found.numbered(labels), [[[0, 2, 1], [1, 0, 0]]])
    assert found.numbered(labels).dtype == np.uint8
    assert not Table([], {}).numbered(labels).any()
    assert Table([str(i) for i in range(256)], {1: 256}).numbered(np.ones(1, kind)).tolist() == [
        256
    ]


def test_structures_that_are_missing_are_named() -> None:
    found = Table(["a", "b", "c"], {3: 1, 4: 1, 5: 2, 6: 3})
    assert found.missing([4, 6, 99]) == ["b"]
    assert found.missing([]) == ["a", "b", "c"]
    assert found.missing([3, 5, 6]) == []


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_label_values_are_those_above_zero(kind: type) -> None:
    assert label_values(np.array([0, 5, 5, 7], kind)) == {5, 7}
    assert label_values(np.zeros(3, kind)) == set()


def test_label_values_may_be_large_or_below_zero_but_no_fractions() -> None:
    assert label_values(np.array([-3, 0, 1 << 21, 4])) == {4, 1 << 21}
    assert label_values(np.array([0, 1.0, 2.5])) == set()


def test_scores_count_voxels_that_a_training_ignores_as_background(tmp_path: Path) -> None:
    path = str(table(tmp_path / "names.csv", NAMED))
    found = protocol_of([], structures=Structures(table=path, ignore=255)).structures
    assert found.numbered(np.array([3, 255, 0, 9])).tolist() == [2, 0, 0, 1]
