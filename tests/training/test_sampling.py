"""PairDataset: who is drawn how often, to the bit from seed and number."""

import dataclasses
import itertools
import math
import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_cohort import (
    ALL,
    ATLAS_MODE,
    Cohort,
    blank,
    both_labels,
    grid_of,
    images,
    pairs,
    same,
)
from scipy.stats import chi2
from torch.utils.data import DataLoader

from voxwarp.errors import InputError
from voxwarp.training.batch import ATLAS, collate
from voxwarp.training.config import Sampling


def is_uniform(counts: Counter, kinds: int) -> bool:
    """Whether a χ² test at one in ten thousand lets uniform counts of so many kinds pass."""
    mean = counts.total() / kinds
    statistic = sum((n - mean) ** 2 / mean for n in counts.values())
    statistic += (kinds - len(counts)) * mean
    return statistic < chi2.ppf(1 - 1e-4, kinds - 1)


def test_ordered_pairs_of_subjects_are_equally_frequent_however_often_they_were_scanned() -> None:
    cohort = blank("aaabcddz")
    data = pairs(cohort)
    drawn = [data[n].numbers for n in range(3000)]
    subjects = Counter((cohort.subjects[m], cohort.subjects[f]) for m, f in drawn)
    assert set(subjects) == set(itertools.permutations("abcd", 2))
    assert is_uniform(subjects, 12)
    assert is_uniform(Counter(m for m, _ in drawn if m < 3), 3)
    assert is_uniform(Counter(f for _, f in drawn if f < 3), 3)


def test_the_share_of_labelled_pairs_is_drawn_among_the_labelled_scans_alone() -> None:
    cohort = blank("aabcdefz", labelled=(1, 2))
    count = 3000
    data = pairs(cohort, sampling=Sampling(labelled=0.3))
    found = [data[n] for n in range(count)]
    labelled = [s for s in found if s.moving_labels is not None and s.fixed_labels is not None]
    assert {s.numbers for s in labelled} == {(1, 2), (2, 1)}
    # Two of six subjects have labels, one of them on every second scan: chance adds to the share.
    expected = 0.3 + 0.7 * 2 / 30 / 2
    deviation = math.sqrt(expected * (1 - expected) / count)
    assert len(labelled) / count == pytest.approx(expected, abs=4 * deviation)
    always = pairs(cohort, sampling=Sampling(labelled=1))
    assert {always[n].numbers for n in range(50)} == {(1, 2), (2, 1)}


def test_both_have_labels_or_none(cohort: Cohort) -> None:
    data = pairs(cohort)
    for sample in (data[n] for n in range(40)):
        both = cohort.labelled.issuperset(sample.numbers)
        assert (sample.moving_labels is not None) == both == (sample.fixed_labels is not None)
        if both:
            for i, labels in zip(sample.numbers, both_labels(sample), strict=True):
                assert labels.dtype == torch.uint8
                np.testing.assert_array_equal(labels, cohort.labels(i))


def test_labels_are_left_unread_where_nothing_compares_them(cohort: Cohort) -> None:
    read, unread = pairs(cohort, ALL), pairs(cohort, ALL, labels=False)
    assert any(read[n].moving_labels is not None for n in range(10))
    for n in range(10):
        assert unread[n].moving_labels is None
        assert torch.equal(unread[n].fixed_input, read[n].fixed_input)


def test_unchanged_pairs_are_the_scans(cohort: Cohort) -> None:
    for sample in (pairs(cohort)[n] for n in range(10)):
        for i, image in zip(sample.numbers, images(sample), strict=True):
            assert image.dtype == torch.float32
            np.testing.assert_array_equal(image[0], cohort.image(i).astype(np.float32) / 255)
        assert sample.moving_input is sample.moving
        assert sample.fixed_input is sample.fixed


@pytest.mark.parametrize(
    ("subjects", "labelled", "share", "message"),
    [
        ("aaaz", (), 0.0, "split train must have at least 2 subjects, but has 1"),
        ("abcz", (0,), 0.1, "at least 2 subjects with labels, but has"),
        ("aabz", (0, 1, 3), 0.1, "at least 2 subjects with labels, but has"),
    ],
)
def test_too_few_subjects_are_refused(subjects, labelled, share, message) -> None:
    with pytest.raises(InputError, match=message):
        pairs(blank(subjects, labelled), sampling=Sampling(labelled=share))


def test_only_subjects_of_the_split_are_drawn(cohort: Cohort) -> None:
    data = pairs(Cohort(list("abcz")))
    assert {i for n in range(40) for i in data[n].numbers} == {0, 1, 2}
    with pytest.raises(InputError, match="split val"):
        pairs(cohort, split="val")


def test_a_pair_is_a_function_of_seed_and_number(cohort: Cohort) -> None:
    first, again = pairs(cohort, ALL), pickle.loads(pickle.dumps(pairs(cohort, ALL)))
    state = torch.get_rng_state()
    numbers = [0, 7, 2**31 - 1]
    for n, m in zip(numbers, reversed(numbers), strict=True):
        first[m]  # history does not matter
        assert same(first[n], again[n])
    assert torch.equal(torch.get_rng_state(), state)
    other = pairs(cohort, ALL, seed=4)
    assert not any(same(first[n], other[n]) for n in range(5))
    assert not any(same(first[n], first[n + 1]) for n in range(5))


def test_a_pair_does_not_depend_on_the_number_of_threads(cohort: Cohort) -> None:
    # Large enough for torch to share the work, and no multiple of a vector's length.
    data = pairs(dataclasses.replace(cohort, grid=grid_of(shape=(37, 41, 43))), ALL)
    alone = [data[n] for n in range(3)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert all(same(sample, data[n]) for n, sample in enumerate(alone))
    finally:
        torch.set_num_threads(threads)


def test_processes_that_read_change_nothing(cohort: Cohort) -> None:
    data, numbers = pairs(cohort, ALL), [5, 6, 7, 8, 9, 10]
    loader = DataLoader(
        data,
        batch_size=2,
        sampler=numbers,
        num_workers=2,
        collate_fn=collate,
        multiprocessing_context="spawn",
    )
    batches = list(loader)
    for batch, i in zip(batches, (0, 2, 4), strict=True):
        here = collate([data[n] for n in numbers[i : i + 2]])
        assert batch.numbers == here.numbers
        assert torch.equal(batch.moving_input, here.moving_input)
        assert torch.equal(batch.fixed, here.fixed)
        assert batch.labelled == here.labelled


def test_there_are_as_many_pairs_as_was_said(cohort: Cohort) -> None:
    data = pairs(cohort, length=3)
    assert len(data) == 3
    assert len(list(data)) == 3  # ends with an IndexError
    for number in (3, -1):
        with pytest.raises(IndexError):
            data[number]


@dataclass
class Stored(Cohort):
    """Scans in files, as a cohort in its cache has them."""

    folder: Path = Path()

    def image(self, i: int) -> np.ndarray:
        return np.load(self.folder / f"{i}.npy", mmap_mode="r")


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    cohort = Stored(list("abcdefz"), folder=tmp_path)
    for i in range(6):
        np.save(tmp_path / f"{i}.npy", Cohort.image(cohort, i))
    return cohort


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "missing": Path.unlink,
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "other grid": lambda path: np.save(path, np.ones((3, 3, 3), np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_another_pair_takes_the_place_of_one_that_cannot_be_read(stored, damage: str) -> None:
    data = pairs(stored, ALL)
    whole = [data[n] for n in range(40)]
    DAMAGE[damage](stored.folder / "2.npy")
    for n, before in enumerate(whole):
        after = data[n]
        assert 2 not in after.numbers
        if 2 in before.numbers:
            assert after.skipped
            assert all(message.startswith("image scan2.nii.gz: ") for message in after.skipped)
            assert same(after, data[n])
        else:
            assert same(after, before)
    assert 5 < sum(2 in before.numbers for before in whole) < 35


def test_when_nothing_can_be_read_the_message_names_the_last_file(stored) -> None:
    for i in range(6):
        (stored.folder / f"{i}.npy").unlink()
    with pytest.raises(InputError, match=r"10 pairs in a row .* scan\d.nii.gz: .*\d\.npy"):
        pairs(stored)[0]


def test_a_mistake_in_the_code_is_not_taken_for_a_damaged_file(cohort, monkeypatch) -> None:
    def broken(self, i: int) -> np.ndarray:
        raise TypeError("a bug")

    monkeypatch.setattr(Cohort, "image", broken)
    with pytest.raises(TypeError, match="a bug"):
        pairs(cohort)[0]


def test_the_atlas_is_the_fixed_image(cohort: Cohort, atlas) -> None:
    data = pairs(cohort, sampling=ATLAS_MODE, atlas=atlas)
    found = [data[n] for n in range(200)]
    assert {s.numbers[1] for s in found} == {ATLAS}
    assert all(torch.equal(s.fixed, atlas[0]) for s in found)
    assert is_uniform(Counter(cohort.subjects[s.numbers[0]] for s in found), 4)
    for s in found:
        assert (s.moving_labels is not None) == cohort.is_labelled(s.numbers[0])
        assert (s.fixed_labels is None) == (s.moving_labels is None)
        assert s.fixed_labels is None or torch.equal(s.fixed_labels, atlas[1].byte())
    assert any(s.fixed_labels is not None for s in found)


def test_either_direction_is_equally_frequent(cohort: Cohort, atlas) -> None:
    either = ATLAS_MODE.model_copy(update={"fixed": "either"})
    data = pairs(cohort, sampling=either, atlas=atlas)
    found = [data[n] for n in range(400)]
    assert is_uniform(Counter(s.numbers.index(ATLAS) for s in found), 2)
    for s in found:
        assert torch.equal(images(s)[s.numbers.index(ATLAS)], atlas[0])


def test_one_labelled_subject_is_enough_beside_an_atlas(atlas) -> None:
    cohort = Cohort(list("abz"), frozenset({1}))
    share = ATLAS_MODE.model_copy(update={"labelled": 1.0})
    data = pairs(cohort, sampling=share, atlas=atlas)
    assert {data[n].numbers for n in range(10)} == {(1, ATLAS)}
    with pytest.raises(InputError, match="the atlas has no labels"):
        pairs(cohort, sampling=share, atlas=(atlas[0], None))
    with pytest.raises(InputError, match="at least 1 subjects with labels, but has 0"):
        pairs(Cohort(list("abz")), sampling=share, atlas=atlas)


def test_an_atlas_without_labels_has_none(cohort: Cohort, atlas) -> None:
    data = pairs(cohort, sampling=ATLAS_MODE, atlas=(atlas[0], None))
    assert all(data[n].moving_labels is None for n in range(10))


def test_mode_and_atlas_come_together_and_on_the_working_grid(cohort: Cohort, atlas) -> None:
    with pytest.raises(ValueError, match="atlas must be given in mode atlas"):
        pairs(cohort, sampling=ATLAS_MODE)
    with pytest.raises(ValueError, match="atlas must be given in mode atlas"):
        pairs(cohort, atlas=atlas)
    with pytest.raises(ValueError, match="atlas must have shape"):
        pairs(cohort, sampling=ATLAS_MODE, atlas=(atlas[0][:, 1:], None))
