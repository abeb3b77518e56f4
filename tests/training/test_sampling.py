"""Pairs: who is drawn how often, to the bit from seed and number, and changed as they should be."""

import dataclasses
import itertools
import math
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_cohort import MIRROR, SHAPE, Blank, Cohort, grid_of
from phantoms import blobs, homogeneous, indices, label_map, rotation
from scipy.ndimage import affine_transform
from scipy.stats import chi2
from torch.utils.data import DataLoader

from voxwarp.errors import InputError
from voxwarp.fields.field import lattice
from voxwarp.space.grid import Grid
from voxwarp.training import augmentation
from voxwarp.training.batch import ATLAS, Batch, Sample, collate
from voxwarp.training.config import Augmentation, Sampling
from voxwarp.training.sampling import Pairs

ALL = Augmentation(flip=0.5, rotation=10, scaling=0.1, shift=2, gamma=0.3, bias=0.3, noise=0.05)


def blank(people: str, labelled: tuple[int, ...] = ()) -> Blank:
    return Blank(list(people), frozenset(labelled), grid_of(shape=(1, 1, 1)))


def pairs(cohort: Cohort, augmentation: Augmentation | None = None, **more) -> Pairs:
    drawn = more.pop("sampling", Sampling())
    return Pairs(cohort, drawn, augmentation or Augmentation(), **{"seed": 3, **more})


@pytest.fixture
def cohort() -> Cohort:
    return Cohort(list("aabcdz"), frozenset({0, 2, 3}))


@pytest.fixture
def atlas() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(blobs(99, SHAPE))[None]
    return image, torch.from_numpy(label_map(99, SHAPE, (1, 2, 3)))


ATLAS_MODE = Sampling(mode="atlas", atlas="template")


def images(sample: Sample) -> list[torch.Tensor]:
    return [sample.moving, sample.fixed]


def both_labels(sample: Sample) -> list[torch.Tensor | None]:
    return [sample.moving_labels, sample.fixed_labels]


def seen_images(sample: Sample) -> list[torch.Tensor]:
    return [sample.seen_moving, sample.seen_fixed]


def tensors(sample: Sample) -> list[torch.Tensor]:
    values = (getattr(sample, name.name) for name in dataclasses.fields(sample))
    return [value for value in values if isinstance(value, torch.Tensor)]


def same(a: Sample, b: Sample) -> bool:
    if (a.names, a.skipped) != (b.names, b.skipped):
        return False
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


# ------------------------------------------------------------------------------------ which two


def is_uniform(counts: Counter, kinds: int) -> bool:
    """Whether a χ² test at one in ten thousand lets uniform counts of so many kinds pass."""
    mean = counts.total() / kinds
    statistic = sum((n - mean) ** 2 / mean for n in counts.values())
    statistic += (kinds - len(counts)) * mean
    return statistic < chi2.ppf(1 - 1e-4, kinds - 1)


def test_ordered_pairs_of_people_are_equally_frequent_however_often_they_were_scanned() -> None:
    cohort = blank("aaabcddz")
    data = pairs(cohort)
    drawn = [data[n].names for n in range(3000)]
    people = Counter((cohort.people[m], cohort.people[f]) for m, f in drawn)
    assert set(people) == set(itertools.permutations("abcd", 2))
    assert is_uniform(people, 12)
    assert is_uniform(Counter(m for m, _ in drawn if m < 3), 3)
    assert is_uniform(Counter(f for _, f in drawn if f < 3), 3)


def test_the_share_of_labelled_pairs_is_drawn_among_the_labelled_scans_alone() -> None:
    cohort = blank("aabcdefz", labelled=(1, 2))
    count = 3000
    data = pairs(cohort, sampling=Sampling(labelled=0.3))
    found = [data[n] for n in range(count)]
    labelled = [s for s in found if s.moving_labels is not None and s.fixed_labels is not None]
    assert {s.names for s in labelled} == {(1, 2), (2, 1)}
    # Two of six people have labels, one of them on every second scan: chance adds to the share.
    expected = 0.3 + 0.7 * 2 / 30 / 2
    deviation = math.sqrt(expected * (1 - expected) / count)
    assert len(labelled) / count == pytest.approx(expected, abs=4 * deviation)
    always = pairs(cohort, sampling=Sampling(labelled=1))
    assert {always[n].names for n in range(50)} == {(1, 2), (2, 1)}


def test_both_have_labels_or_none(cohort: Cohort) -> None:
    data = pairs(cohort)
    for sample in (data[n] for n in range(40)):
        both = cohort.labelled.issuperset(sample.names)
        assert (sample.moving_labels is not None) == both == (sample.fixed_labels is not None)
        if both:
            for i, labels in zip(sample.names, both_labels(sample), strict=True):
                assert labels.dtype == torch.uint8
                np.testing.assert_array_equal(labels, cohort.labels(i))


def test_labels_are_left_unread_where_nothing_compares_them(cohort: Cohort) -> None:
    read, unread = pairs(cohort, ALL), pairs(cohort, ALL, labels=False)
    assert any(read[n].moving_labels is not None for n in range(10))
    for n in range(10):
        assert unread[n].moving_labels is None
        assert torch.equal(unread[n].seen_fixed, read[n].seen_fixed)


def test_unchanged_pairs_are_the_scans(cohort: Cohort) -> None:
    for sample in (pairs(cohort)[n] for n in range(10)):
        for i, image in zip(sample.names, images(sample), strict=True):
            assert image.dtype == torch.float32
            np.testing.assert_array_equal(image[0], cohort.image(i).astype(np.float32) / 255)
        assert sample.seen_moving is sample.moving
        assert sample.seen_fixed is sample.fixed


@pytest.mark.parametrize(
    ("people", "labelled", "share", "message"),
    [
        ("aaaz", (), 0.0, "split train: 2 people are wanted, there is 1"),
        ("abcz", (0,), 0.1, "2 people of split train with labelled scans"),
        ("aabz", (0, 1, 3), 0.1, "2 people of split train with labelled scans"),
    ],
)
def test_too_few_people_are_refused(people, labelled, share, message) -> None:
    with pytest.raises(InputError, match=message):
        pairs(blank(people, labelled), sampling=Sampling(labelled=share))


def test_only_people_of_the_split_are_drawn(cohort: Cohort) -> None:
    data = pairs(Cohort(list("abcz")))
    assert {i for n in range(40) for i in data[n].names} == {0, 1, 2}
    with pytest.raises(InputError, match="split val"):
        pairs(cohort, split="val")


# --------------------------------------------------------------------------- seed and number


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
        assert batch.names == here.names
        assert torch.equal(batch.seen_moving, here.seen_moving)
        assert torch.equal(batch.fixed, here.fixed)
        assert batch.labelled == here.labelled


def test_there_are_as_many_pairs_as_was_said(cohort: Cohort) -> None:
    data = pairs(cohort, length=3)
    assert len(data) == 3
    assert len(list(data)) == 3  # ends with an IndexError
    for number in (3, -1):
        with pytest.raises(IndexError):
            data[number]


# ------------------------------------------------------------------------------------- mirrors


@pytest.mark.parametrize(("axes", "axis"), [("RAS", 0), ("LIA", 0), ("PSR", 2), ("ILA", 1)])
def test_mirrors_exchange_left_and_right_and_the_names_of_structures(axes: str, axis: int) -> None:
    cohort = Cohort(list("abz"), frozenset({0, 1}), grid_of(axes))
    plain, mirrored = pairs(cohort), pairs(cohort, Augmentation(flip=1))
    for n in range(4):
        a, b = plain[n], mirrored[n]
        assert a.names == b.names
        for before, after in zip(images(a), images(b), strict=True):
            np.testing.assert_array_equal(after[0], np.flip(before[0].numpy(), axis))
        for before, after in zip(both_labels(a), both_labels(b), strict=True):
            np.testing.assert_array_equal(after, MIRROR[np.flip(before.numpy(), axis)])
        assert {1, 2, 3} <= set(np.unique(b.moving_labels))


def test_a_mirror_of_a_mirror_is_the_scan() -> None:
    class Mirrored(Cohort):
        def image(self, i: int) -> np.ndarray:
            return np.flip(super().image(i), 0)

        def labels(self, i: int) -> np.ndarray | None:
            return MIRROR[np.flip(super().labels(i), 0)]

    people, labelled = list("abz"), frozenset({0, 1})
    there = pairs(Mirrored(people, labelled), Augmentation(flip=1))
    plain = pairs(Cohort(people, labelled))
    assert all(same(there[n], plain[n]) for n in range(4))


def test_mirrors_are_as_frequent_as_was_said(cohort: Cohort) -> None:
    plain, data = pairs(cohort), pairs(cohort, Augmentation(flip=0.25))
    count = sum(not torch.equal(plain[n].moving, data[n].moving) for n in range(300))
    assert count / 300 == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(("degrees", "is_fine"), [(9.9, True), (-9.9, True), (11, False)])
def test_mirrors_want_a_lattice_along_left_right(degrees: float, is_fine: bool) -> None:
    cohort = Cohort(list("abz"), grid=Grid(SHAPE, homogeneous(rotation(0, 0, degrees))))
    pairs(cohort)
    if is_fine:
        pairs(cohort, Augmentation(flip=0.5))
    else:
        with pytest.raises(InputError, match="left-right, the nearest is 11° off"):
            pairs(cohort, Augmentation(flip=0.5))


def test_a_lattice_may_be_tilted_about_left_right() -> None:
    tilted = Grid(SHAPE, homogeneous(rotation(30, 0, 0)))
    pairs(Cohort(list("abz"), grid=tilted), Augmentation(flip=1))[0]


# ------------------------------------------------------------------------------ affine changes

JITTER = Augmentation(rotation=15, scaling=0.15, shift=2)


@pytest.fixture
def motions(monkeypatch) -> list[tuple]:
    """Arguments and results of ``motion``, as it is called."""
    calls, original = [], augmentation.motion

    def recorded(*arguments: np.ndarray) -> np.ndarray:
        calls.append((*arguments, original(*arguments)))
        return calls[-1][-1]

    monkeypatch.setattr(augmentation, "motion", recorded)
    return calls


def test_jitter_is_the_affine_transform_of_scipy(motions: list[tuple]) -> None:
    cohort = Cohort(list("abz"), grid=grid_of("LIA", (1, 1.5, 2)))
    plain, jittered = pairs(cohort), pairs(cohort, JITTER)
    for n in range(3):
        motions.clear()
        changed = images(jittered[n])
        for before, after, (*_, matrix) in zip(images(plain[n]), changed, motions, strict=True):
            expected = affine_transform(
                before[0].numpy().astype(np.float64), matrix, order=1, mode="grid-constant"
            )
            assert np.abs(expected - before[0].numpy()).max() > 0.1
            np.testing.assert_allclose(after[0], expected, atol=1e-4)


def test_jitter_is_as_large_as_was_said_and_of_each_scan_alone(motions: list[tuple]) -> None:
    data = pairs(blank("abz"), JITTER)
    for n in range(100):
        data[n]
    degrees, factors, shift = (np.array([call[i] for call in motions]) for i in (1, 2, 3))
    largest = (degrees, 15), (factors - 1, 0.15), (shift, 2)
    for drawn, most in largest:
        assert drawn.shape == (200, 3)
        assert (np.abs(drawn).max(axis=0) <= most).all()
        assert (drawn.max(axis=0) > 0.9 * most).all()
        assert (drawn.min(axis=0) < -0.9 * most).all()
        assert np.abs(drawn.mean(axis=0)).max() < 0.15 * most
        assert abs(np.corrcoef(drawn[::2].ravel(), drawn[1::2].ravel())[0, 1]) < 0.2


@pytest.fixture
def reached(monkeypatch) -> list[torch.Tensor]:
    """Where the voxels of each scan come from, (3, X, Y, Z) displacements in voxels."""
    found, original = [], augmentation.sample

    def recorded(volume: torch.Tensor, at: torch.Tensor, **options: bool) -> torch.Tensor:
        if not options.get("nearest"):
            found.append((at - lattice(at.shape[2:], at))[0])
        return original(volume, at, **options)

    monkeypatch.setattr(augmentation, "sample", recorded)
    return found


def test_bending_is_as_large_as_was_said_and_linear_between_its_nodes(reached) -> None:
    cohort = Cohort(list("abz"), grid=grid_of(spacing=(1, 1.5, 2)))
    data = pairs(cohort, Augmentation(bending=3))
    for n in range(100):
        data[n]
    every = torch.stack(reached)
    assert len(every) == 200
    corners = every[..., [0, -1], :, :][..., [0, -1], :][..., [0, -1]]  # are nodes
    deviation = corners.flatten(2).std(dim=(0, 2)).numpy()
    np.testing.assert_allclose(deviation, [3, 2, 1.5], rtol=0.1)
    nodes = augmentation.BENDING_NODES[0]
    inner = every.diff(n=2, dim=2).abs() > 1e-3
    assert float(inner.float().mean()) < 2 * nodes / SHAPE[0]
    assert abs(np.corrcoef(every[::2].ravel(), every[1::2].ravel())[0, 1]) < 0.2


def test_bending_changes_no_other_draw(motions: list[tuple]) -> None:
    cohort, both = Cohort(list("abz")), []
    for bending in (0.0, 2.0):
        motions.clear()
        one = pairs(cohort, JITTER.model_copy(update={"bending": bending}))[5]
        both.append((one.names, [call[:3] for call in motions]))
    assert both[0][0] == both[1][0]
    for plain, bent in zip(*(calls for _, calls in both), strict=True):
        for before, after in zip(plain[1:], bent[1:], strict=True):
            np.testing.assert_array_equal(before, after)


def test_a_motion_is_about_the_middle_and_in_millimetres() -> None:
    grid = grid_of(spacing=(1, 2, 3))
    factors, shift = np.array([0.9, 1.0, 1.2]), np.array([1.0, -2, 4])
    matrix = augmentation.motion(grid, np.array([10, -20, 5]), factors, shift)
    world = grid.affine @ matrix @ np.linalg.inv(grid.affine)
    np.testing.assert_allclose(world[:3, :3], rotation(10, -20, 5) @ np.diag(factors), atol=1e-12)
    middle = np.append(grid.to_world((np.asarray(SHAPE) - 1) / 2), 1)
    np.testing.assert_allclose((world @ middle - middle)[:3], shift, atol=1e-12)


def with_motion(monkeypatch, cohort: Cohort, degrees, factors, shift) -> tuple[Sample, Sample]:
    """A pair without and with one motion in place of random ones."""
    matrix = augmentation.motion(
        cohort.grid, *(np.asarray(x, float) for x in (degrees, factors, shift))
    )
    monkeypatch.setattr(augmentation, "motion", lambda *_: matrix)
    return pairs(cohort)[0], pairs(cohort, JITTER)[0]


def test_a_shift_by_whole_voxels_moves_them(monkeypatch) -> None:
    cohort = Cohort(list("abz"), frozenset({0, 1}), grid_of(spacing=(0.7, 2, 3)))
    before, after = with_motion(monkeypatch, cohort, (0, 0, 0), (1, 1, 1), (1.4, -2, 0))
    for a, b in zip(tensors(before), tensors(after), strict=True):
        expected = torch.zeros_like(a)
        expected[..., :-2, 1:, :] = a[..., 2:, :-1, :]
        torch.testing.assert_close(b, expected, atol=1e-5 if a.is_floating_point() else 0, rtol=0)


def test_a_quarter_turn_is_that_of_the_array(monkeypatch) -> None:
    cohort = Cohort(list("abz"), frozenset({0, 1}), grid_of(shape=(9, 12, 12)))
    before, after = with_motion(monkeypatch, cohort, (90, 0, 0), (1, 1, 1), (0, 0, 0))
    for a, b in zip(images(before), images(after), strict=True):
        torch.testing.assert_close(b, torch.rot90(a, -1, (2, 3)), atol=1e-4, rtol=0)


def test_images_and_labels_move_together() -> None:
    class Binary(Cohort):
        def image(self, i: int) -> np.ndarray:
            return np.where(self.labels(i) == 3, 255, 0).astype(np.uint8)

        def labels(self, i: int) -> np.ndarray:
            return np.where(label_map(i, self.grid.shape) > 0, 3, 0).astype(np.uint8)

    cohort = Binary(list("abz"), frozenset({0, 1}), grid_of("LIA", (1, 1.5, 2), (20, 22, 24)))
    data = pairs(cohort, JITTER.model_copy(update={"flip": 0.5}))
    for n in range(5):
        sample = data[n]
        for image, labels in zip(images(sample), both_labels(sample), strict=True):
            one, zero = image[0] > 1 - 1e-5, image[0] < 1e-5
            assert one.sum() > 0.3 * (labels == 3).sum() > 0
            assert (labels[one] == 3).all()
            assert (labels[zero] == 0).all()


# --------------------------------------------------------------------------- intensity changes


def test_the_costs_do_not_see_intensity_changes(cohort: Cohort) -> None:
    plain = pairs(cohort, ALL.model_copy(update={"gamma": 0, "bias": 0, "noise": 0}))
    changed = pairs(cohort, ALL)
    for n in range(8):
        a, b = plain[n], changed[n]
        assert torch.equal(a.moving, b.moving)
        assert torch.equal(a.fixed, b.fixed)
        assert (b.seen_moving - b.moving).abs().max() > 0.01
        assert (b.seen_fixed - b.fixed).abs().max() > 0.01


def test_background_stays_zero_and_values_within_the_range(cohort: Cohort) -> None:
    wild = Augmentation(rotation=30, scaling=0.3, shift=5, gamma=1, bias=1, noise=0.5)
    data = pairs(cohort, wild)
    for n in range(8):
        s = data[n]
        for image, seen in zip(images(s), seen_images(s), strict=True):
            assert 0.2 < (image == 0).float().mean() < 0.95
            assert (seen[image == 0] == 0).all()
            for x in (image, seen):
                assert x.dtype == torch.float32
                assert 0 <= x.min() <= x.max() <= 1


class Middling(Cohort):
    """Intensities that no change brings to the ends of the range; half of it background."""

    def image(self, i: int) -> np.ndarray:
        x = 90 + 30 * blobs(i, self.grid.shape)
        x[:, ::2] = 0
        return x.astype(np.uint8)


def ratios(change: Callable, augmentation: Augmentation, count: int, shape=SHAPE) -> list:
    """Of both scans of each pair, what they see after to before, inside."""
    data = pairs(Middling(list("abz"), grid=grid_of(shape=shape)), augmentation)
    found = []
    for s in (data[n] for n in range(count)):
        for image, seen in zip(images(s), seen_images(s), strict=True):
            inside = image > 0
            found.append(change(seen[inside].double(), image[inside].double()).numpy())
    return found


def test_gamma_is_one_power_for_each_scan() -> None:
    found = ratios(lambda y, x: torch.log(y.log() / x.log()), Augmentation(gamma=0.4), 60)
    powers = np.array([values.mean() for values in found])
    assert max(np.ptp(values) for values in found) < 1e-5
    assert np.abs(powers).max() <= 0.4 + 1e-5
    assert powers.min() < -0.35 < 0.35 < powers.max()
    assert abs(np.corrcoef(powers[::2], powers[1::2])[0, 1]) < 0.3


def test_bias_is_a_smooth_factor() -> None:
    shape = (31, 32, 33)
    found = ratios(lambda y, x: torch.log(y / x), Augmentation(bias=0.3), 6, shape)
    x = indices(shape)[:, 1::2].reshape(-1, 3)
    for values in found:
        assert np.abs(values).max() <= 0.3 + 1e-5
        assert np.ptp(values) > 0.2
        # Linear between nodes 10 voxels apart: neighbours differ by a tenth of the range at most.
        field = values.reshape(31, 16, 33)
        assert np.abs(np.diff(field, axis=0)).max() <= 0.06 + 1e-5
        assert np.abs(np.diff(field, axis=2)).max() <= 0.06 * 30 / 32 + 1e-5
        cell = (x[:, 0] <= 10) & (x[:, 1] <= 10) & (x[:, 2] <= 10)
        i, j, k = x[cell].T
        basis = np.stack([i**0, i, j, k, i * j, j * k, i * k, i * j * k], axis=1)
        rest = values[cell] - basis @ np.linalg.lstsq(basis, values[cell], rcond=None)[0]
        assert np.abs(rest).max() < 1e-5
    assert abs(np.corrcoef(found[0], found[1])[0, 1]) < 0.9


def test_noise_is_white_and_of_random_strength() -> None:
    found = ratios(lambda y, x: y - x, Augmentation(noise=0.05), 40)
    strengths = np.array([values.std() for values in found])
    assert strengths.max() < 0.05 * 1.05
    assert strengths.mean() == pytest.approx(0.025, abs=0.005)
    for values, strength in zip(found, strengths, strict=True):
        assert abs(values.mean()) < 4 * strength / math.sqrt(values.size) + 1e-7
        neighbours = np.corrcoef(values[1:], values[:-1])[0, 1]
        assert abs(neighbours) < 5 / math.sqrt(values.size)


def test_no_change_of_intensity_depends_on_the_others() -> None:
    """After gamma comes bias, then noise, each as it is alone."""
    knobs = {"gamma": 0.4, "bias": 0.3, "noise": 0.02}
    together = ratios(lambda y, x: y, Augmentation(**knobs), 3)
    power = ratios(lambda y, x: y, Augmentation(gamma=0.4), 3)
    bias = ratios(lambda y, x: y / x, Augmentation(bias=0.3), 3)
    noise = ratios(lambda y, x: y - x, Augmentation(noise=0.02), 3)
    for found, *parts in zip(together, power, bias, noise, strict=True):
        expected = parts[0] * parts[1] + parts[2]
        assert np.ptp(expected) > 0.05
        np.testing.assert_allclose(found, expected.clip(0, 1), atol=1e-6)


# --------------------------------------------------------------------------- unreadable scans


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
    "other lattice": lambda path: np.save(path, np.ones((3, 3, 3), np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_another_pair_takes_the_place_of_one_that_cannot_be_read(stored, damage: str) -> None:
    data = pairs(stored, ALL)
    whole = [data[n] for n in range(40)]
    DAMAGE[damage](stored.folder / "2.npy")
    for n, before in enumerate(whole):
        after = data[n]
        assert 2 not in after.names
        if 2 in before.names:
            assert after.skipped
            assert all(message.startswith("image scan2.nii.gz: ") for message in after.skipped)
            assert same(after, data[n])
        else:
            assert same(after, before)
    assert 5 < sum(2 in before.names for before in whole) < 35


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


# ---------------------------------------------------------------------------------- atlas mode


def test_the_atlas_is_the_fixed_image(cohort: Cohort, atlas) -> None:
    data = pairs(cohort, sampling=ATLAS_MODE, atlas=atlas)
    found = [data[n] for n in range(200)]
    assert {s.names[1] for s in found} == {ATLAS}
    assert all(torch.equal(s.fixed, atlas[0]) for s in found)
    assert is_uniform(Counter(cohort.people[s.names[0]] for s in found), 4)
    for s in found:
        assert (s.moving_labels is not None) == cohort.is_labelled(s.names[0])
        assert s.fixed_labels is None or torch.equal(s.fixed_labels, atlas[1].byte())


def test_either_direction_is_equally_frequent(cohort: Cohort, atlas) -> None:
    either = ATLAS_MODE.model_copy(update={"fixed": "either"})
    data = pairs(cohort, sampling=either, atlas=atlas)
    found = [data[n] for n in range(400)]
    assert is_uniform(Counter(s.names.index(ATLAS) for s in found), 2)
    for s in found:
        assert torch.equal(images(s)[s.names.index(ATLAS)], atlas[0])


def test_the_atlas_is_mirrored_and_changed_in_no_other_way(cohort: Cohort, atlas) -> None:
    either = ATLAS_MODE.model_copy(update={"fixed": "either"})
    data = pairs(cohort, ALL, sampling=either, atlas=atlas)
    kept, mirrored = 0, 0
    for s in (data[n] for n in range(30)):
        at = s.names.index(ATLAS)
        image, seen, labels = images(s)[at], seen_images(s)[at], both_labels(s)[at]
        assert seen is image
        if torch.equal(image, atlas[0]):
            kept += 1
            assert labels is None or torch.equal(labels, atlas[1].byte())
        else:
            mirrored += 1
            np.testing.assert_array_equal(image[0], np.flip(atlas[0][0].numpy(), 0))
            assert labels is None or np.array_equal(labels, MIRROR[np.flip(atlas[1].numpy(), 0)])
        assert not torch.equal(images(s)[1 - at], seen_images(s)[1 - at])
    assert min(kept, mirrored) > 5


def test_one_labelled_person_is_enough_beside_an_atlas(atlas) -> None:
    cohort = Cohort(list("abz"), frozenset({1}))
    share = ATLAS_MODE.model_copy(update={"labelled": 1.0})
    data = pairs(cohort, sampling=share, atlas=atlas)
    assert {data[n].names for n in range(10)} == {(1, ATLAS)}
    with pytest.raises(InputError, match="the atlas has no labels"):
        pairs(cohort, sampling=share, atlas=(atlas[0], None))
    with pytest.raises(InputError, match="1 people of split train with labelled"):
        pairs(Cohort(list("abz")), sampling=share, atlas=atlas)


def test_an_atlas_without_labels_has_none(cohort: Cohort, atlas) -> None:
    data = pairs(cohort, sampling=ATLAS_MODE, atlas=(atlas[0], None))
    assert all(data[n].moving_labels is None for n in range(10))


def test_mode_and_atlas_come_together_and_on_the_lattice(cohort: Cohort, atlas) -> None:
    with pytest.raises(ValueError, match="mode atlas wants an atlas"):
        pairs(cohort, sampling=ATLAS_MODE)
    with pytest.raises(ValueError, match="mode atlas wants an atlas"):
        pairs(cohort, atlas=atlas)
    with pytest.raises(ValueError, match="atlas must be"):
        pairs(cohort, sampling=ATLAS_MODE, atlas=(atlas[0][:, 1:], None))


# ------------------------------------------------------------------------------------- batches


def test_a_batch_has_the_pairs_side_by_side(cohort: Cohort) -> None:
    data = pairs(cohort, ALL)
    samples = [data[n] for n in range(6)]
    samples[1].skipped, samples[4].skipped = ["one"], ["two", "three"]
    batch = collate(samples)
    assert batch.moving.shape == batch.seen_fixed.shape == (6, 1, *SHAPE)
    assert batch.labelled == [i for i, s in enumerate(samples) if s.fixed_labels is not None]
    assert 0 < len(batch.labelled) < 6
    for row, i in enumerate(batch.labelled):
        assert torch.equal(batch.moving_labels[row], samples[i].moving_labels)
        assert torch.equal(batch.fixed_labels[row], samples[i].fixed_labels)
    for i, s in enumerate(samples):
        assert torch.equal(batch.moving[i], s.moving)
        assert torch.equal(batch.fixed[i], s.fixed)
        assert torch.equal(batch.seen_moving[i], s.seen_moving)
        assert torch.equal(batch.seen_fixed[i], s.seen_fixed)
    assert batch.names == [s.names for s in samples]
    assert batch.skipped == ["one", "two", "three"]


def test_what_is_seen_is_what_is_compared_where_nothing_changes_it(cohort: Cohort) -> None:
    data = pairs(Cohort(list("abcz")), Augmentation(flip=0.5, rotation=5))
    batch: Batch = collate([data[0], data[1]])
    assert batch.seen_moving is batch.moving
    assert batch.seen_fixed is batch.fixed
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
    assert (there.seen_moving is there.moving) == (batch.seen_moving is batch.moving)
    assert (there.seen_fixed is there.fixed) == (batch.seen_fixed is batch.fixed)
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
