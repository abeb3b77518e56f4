"""Protocols: ranges of label values, structures from label maps, and their record."""

import pytest
from crop_study import pairs_of
from scored_pairs import structures

from voxwarp.errors import InputError
from voxwarp.evaluation.protocol import Protocol, parse_ranges, protocol_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", [(4, 4)]),
        ("4-41,44,47-62", [(4, 41), (44, 44), (47, 62)]),
        (" 4 - 41 , 044 ", [(4, 41), (44, 44)]),
        ("1003-2035", [(1003, 2035)]),
    ],
)
def test_ranges(text, expected):
    assert parse_ranges(text) == expected


@pytest.mark.parametrize(
    "text", ["", ",", "4,", "4-", "-4", "4-5-6", "a", "4;5", "4 5", "1.5", "41-4", "9" * 10, "4–5"]
)
def test_wrong_ranges(text):
    with pytest.raises(InputError, match="regions must be label values and ranges such as"):
        parse_ranges(text)


def test_the_protocol_in_records():
    assert Protocol(structures(1, 2), [(4, 5)], "linear").described() == {
        "structures": ["s1", "s2"],
        "regions": [[4, 5]],
        "labels": "linear",
    }
    assert Protocol(structures()).described()["regions"] == "all"


def test_structures_without_a_table_are_those_of_the_maps(study):
    table = protocol_of(pairs_of(study)).structures
    assert (table.names, table.numbers) == (["1", "2", "3", "4"], {1: 1, 2: 2, 3: 3, 4: 4})
