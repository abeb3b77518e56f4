"""Splits: subjects are shared out by lots that hang on nothing but seeds and names."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxwarp.data.splits import draw_splits, first_subjects, split_sizes
from voxwarp.errors import InputError

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}
EVERYBODY = [("set", f"p{i}") for i in range(40)]


@settings(deadline=None)
@given(
    number=st.integers(0, 500),
    parts=st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)),
)
def test_shares_are_near_the_fractions(number, parts):
    fractions = {split: part / sum(parts) for split, part in zip(FRACTIONS, parts, strict=True)}
    sizes = split_sizes(number, fractions)
    assert sum(sizes.values()) == number
    for split, fraction in fractions.items():
        if number >= 3 and fraction > 0:
            assert sizes[split] >= 1
        if all(number * f >= 1 or f == 0 for f in fractions.values()):
            assert abs(sizes[split] - number * fraction) < 1
        assert fraction > 0 or sizes[split] == 0


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *[(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (10, (8, 1, 1)), (20, (16, 2, 2))],
        *[(15, (12, 2, 1)), (100, (80, 10, 10)), (27, (21, 3, 3)), (30, (24, 3, 3))],
    ],
)
def test_shares_of_round_numbers(number, expected):
    assert tuple(split_sizes(number, FRACTIONS).values()) == expected


def test_the_seed_and_the_name_decide():
    splits = [draw_splits(EVERYBODY, FRACTIONS, seed) for seed in range(8)]
    assert len({tuple(sorted(each.items())) for each in splits}) == 8
    ever = {subject for each in splits for subject, split in each.items() if split == "test"}
    assert len(ever) > 15  # of 32 draws from 40
    for seed, each in enumerate(splits):
        assert draw_splits(EVERYBODY[::-1], FRACTIONS, seed) == each
        assert Counter(each.values()) == split_sizes(40, FRACTIONS)


def test_each_data_set_is_shared_out_for_itself():
    other = [("other", name) for _, name in EVERYBODY[:10]]
    both = draw_splits([*EVERYBODY, *other], FRACTIONS, 3)
    alone = draw_splits(EVERYBODY, FRACTIONS, 3)
    assert {subject: split for subject, split in both.items() if subject[0] == "set"} == alone
    assert Counter(both[subject] for subject in other) == split_sizes(10, FRACTIONS)


def test_first_subjects_are_among_more_and_as_many_as_there_are_at_most():
    before: set[tuple[str, str]] = set()
    for number in (1, 5, 20, 40):
        chosen = first_subjects(EVERYBODY, number, 2)
        assert first_subjects(EVERYBODY[::-1], number, 2) == chosen
        assert len(chosen) == number
        assert before < chosen
        before = chosen
    assert len({frozenset(first_subjects(EVERYBODY, 5, seed)) for seed in range(6)}) == 6
    with pytest.raises(InputError, match=r"data\.subjects must be at most 40, .* got 41"):
        first_subjects(EVERYBODY, 41, 2)
