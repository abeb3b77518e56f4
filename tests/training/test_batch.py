"""Batches: pairs side by side, the same on every device."""

import dataclasses

import numpy as np
import pytest
import torch
from phantom_cohort import ALL, SHAPE, Cohort, pairs

from voxwarp.training.batch import Batch, collate
from voxwarp.training.config import Augmentation


def test_a_batch_has_the_pairs_side_by_side(cohort: Cohort) -> None:
    data = pairs(cohort, ALL)
    samples = [data[n] for n in range(6)]
    samples[1].skipped, samples[4].skipped = ["one"], ["two", "three"]
    batch = collate(samples)
    assert batch.moving.shape == batch.fixed_input.shape == (6, 1, *SHAPE)
    assert batch.labelled == [i for i, s in enumerate(samples) if s.fixed_labels is not None]
    assert 0 < len(batch.labelled) < 6
    for row, i in enumerate(batch.labelled):
        assert torch.equal(batch.moving_labels[row], samples[i].moving_labels)
        assert torch.equal(batch.fixed_labels[row], samples[i].fixed_labels)
    for i, s in enumerate(samples):
        assert torch.equal(batch.moving[i], s.moving)
        assert torch.equal(batch.fixed[i], s.fixed)
        assert torch.equal(batch.moving_input[i], s.moving_input)
        assert torch.equal(batch.fixed_input[i], s.fixed_input)
    assert batch.numbers == [s.numbers for s in samples]
    assert batch.skipped == ["one", "two", "three"]


def test_what_is_seen_is_what_is_compared_where_nothing_changes_it(cohort: Cohort) -> None:
    data = pairs(Cohort(list("abcz")), Augmentation(flip=0.5, rotation=5))
    batch: Batch = collate([data[0], data[1]])
    assert batch.moving_input is batch.moving
    assert batch.fixed_input is batch.fixed
    assert batch.labelled == []
    assert batch.moving_labels is batch.fixed_labels is None


@pytest.mark.parametrize("augmentation", [Augmentation(flip=0.5), ALL])
def test_a_batch_goes_to_a_device_as_it_is(cohort: Cohort, augmentation: Augmentation) -> None:
    data = pairs(cohort, augmentation)
    batch = collate([data[n] for n in range(6)])
    # The device meta has shapes and types only, but unlike the processor it makes new tensors.
    there = batch.to("meta")
    for name in (f.name for f in dataclasses.fields(Batch)):
        before, after = getattr(batch, name), getattr(there, name)
        if isinstance(before, torch.Tensor):
            assert after.device.type == "meta"
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
        else:
            assert after == before
    assert (there.moving_input is there.moving) == (batch.moving_input is batch.moving)
    assert (there.fixed_input is there.fixed) == (batch.fixed_input is batch.fixed)
    bare = collate([pairs(Cohort(list("abcz")))[0]]).to("meta")
    assert bare.moving_labels is bare.fixed_labels is None


@pytest.mark.parametrize(
    ("count", "dtype"), [(200, torch.uint8), (300, torch.int16), (40000, torch.int32)]
)
def test_many_structures_have_wide_numbers(count: int, dtype: torch.dtype) -> None:
    class Many(Cohort):
        def labels(self, i: int) -> np.ndarray:
            return np.full(self.grid.shape, count, np.uint16)

    mirror = np.arange(count + 1)
    mirror[[count - 1, count]] = count, count - 1
    cohort = Many(list("abz"), frozenset({0, 1}), mirror=mirror)
    for flip, value in ((0, count), (1, count - 1)):
        labels = pairs(cohort, Augmentation(flip=flip, shift=1e-6))[0].moving_labels
        assert labels.dtype == dtype
        assert (labels == value).all()
