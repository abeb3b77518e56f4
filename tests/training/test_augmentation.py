"""Random changes of pairs: as large as was said, of each scan alone, none of them of another."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from phantom_cohort import (
    ALL,
    ATLAS_MODE,
    MIRROR,
    SHAPE,
    Cohort,
    blank,
    both_labels,
    grid_of,
    images,
    input_images,
    pairs,
    same,
    tensors,
)
from phantoms import blobs, homogeneous, indices, label_map, rotation
from scipy.ndimage import affine_transform

from voxwarp.errors import InputError
from voxwarp.fields.field import identity_grid
from voxwarp.space.grid import Grid
from voxwarp.training import augmentation
from voxwarp.training.batch import ATLAS, Sample
from voxwarp.training.config import Augmentation


@pytest.mark.parametrize(("axes", "axis"), [("RAS", 0), ("LIA", 0), ("PSR", 2), ("ILA", 1)])
def test_mirrors_exchange_left_and_right_and_the_names_of_structures(axes: str, axis: int) -> None:
    cohort = Cohort(list("abz"), frozenset({0, 1}), grid_of(axes))
    plain, mirrored = pairs(cohort), pairs(cohort, Augmentation(flip=1))
    for n in range(4):
        a, b = plain[n], mirrored[n]
        assert a.numbers == b.numbers
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

    subjects, labelled = list("abz"), frozenset({0, 1})
    there = pairs(Mirrored(subjects, labelled), Augmentation(flip=1))
    plain = pairs(Cohort(subjects, labelled))
    assert all(same(there[n], plain[n]) for n in range(4))


def test_mirrors_are_as_frequent_as_was_said(cohort: Cohort) -> None:
    plain, data = pairs(cohort), pairs(cohort, Augmentation(flip=0.25))
    count = sum(not torch.equal(plain[n].moving, data[n].moving) for n in range(300))
    assert count / 300 == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize(("degrees", "is_fine"), [(9.9, True), (-9.9, True), (11, False)])
def test_flips_need_a_grid_along_left_right(degrees: float, is_fine: bool) -> None:
    cohort = Cohort(list("abz"), grid=Grid(SHAPE, homogeneous(rotation(0, 0, degrees))))
    pairs(cohort)
    if is_fine:
        pairs(cohort, Augmentation(flip=0.5))
    else:
        with pytest.raises(InputError, match="the nearest axis is 11° off"):
            pairs(cohort, Augmentation(flip=0.5))


def test_a_grid_may_be_tilted_about_left_right() -> None:
    cohort = Cohort(list("abz"), grid=Grid(SHAPE, homogeneous(rotation(30, 0, 0))))
    plain, mirrored = pairs(cohort)[0], pairs(cohort, Augmentation(flip=1))[0]
    np.testing.assert_array_equal(mirrored.moving[0], np.flip(plain.moving[0].numpy(), 0))


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
            found.append((at - identity_grid(at.shape[2:], at))[0])
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
        both.append((one.numbers, [call[:3] for call in motions]))
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


def test_the_losses_do_not_see_intensity_changes(cohort: Cohort) -> None:
    plain = pairs(cohort, ALL.model_copy(update={"gamma": 0, "bias": 0, "noise": 0}))
    changed = pairs(cohort, ALL)
    for n in range(8):
        a, b = plain[n], changed[n]
        assert torch.equal(a.moving, b.moving)
        assert torch.equal(a.fixed, b.fixed)
        assert (b.moving_input - b.moving).abs().max() > 0.01
        assert (b.fixed_input - b.fixed).abs().max() > 0.01


def test_background_stays_zero_and_values_within_the_range(cohort: Cohort) -> None:
    wild = Augmentation(rotation=30, scaling=0.3, shift=5, gamma=1, bias=1, noise=0.5)
    data = pairs(cohort, wild)
    for n in range(8):
        s = data[n]
        for image, seen in zip(images(s), input_images(s), strict=True):
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
        for image, seen in zip(images(s), input_images(s), strict=True):
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
    settings = {"gamma": 0.4, "bias": 0.3, "noise": 0.02}
    together = ratios(lambda y, x: y, Augmentation(**settings), 3)
    power = ratios(lambda y, x: y, Augmentation(gamma=0.4), 3)
    bias = ratios(lambda y, x: y / x, Augmentation(bias=0.3), 3)
    noise = ratios(lambda y, x: y - x, Augmentation(noise=0.02), 3)
    for found, *parts in zip(together, power, bias, noise, strict=True):
        expected = parts[0] * parts[1] + parts[2]
        assert np.ptp(expected) > 0.05
        np.testing.assert_allclose(found, expected.clip(0, 1), atol=1e-6)


def test_the_atlas_is_mirrored_and_changed_in_no_other_way(cohort: Cohort, atlas) -> None:
    either = ATLAS_MODE.model_copy(update={"fixed": "either"})
    data = pairs(cohort, ALL, sampling=either, atlas=atlas)
    kept, mirrored, labelled = 0, 0, 0
    for s in (data[n] for n in range(30)):
        at = s.numbers.index(ATLAS)
        image, seen, labels = images(s)[at], input_images(s)[at], both_labels(s)[at]
        assert seen is image
        labelled += labels is not None
        if torch.equal(image, atlas[0]):
            kept += 1
            assert labels is None or torch.equal(labels, atlas[1].byte())
        else:
            mirrored += 1
            np.testing.assert_array_equal(image[0], np.flip(atlas[0][0].numpy(), 0))
            assert labels is None or np.array_equal(labels, MIRROR[np.flip(atlas[1].numpy(), 0)])
        assert not torch.equal(images(s)[1 - at], input_images(s)[1 - at])
    assert min(kept, mirrored, labelled) > 5
