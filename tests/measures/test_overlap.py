"""Overlap and surfaces against counting, closed forms, and other implementations."""

import warnings
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import (
    indices,
    label_map,
)

from voxwarp.measures.overlap import dice, surface_distances
from voxwarp.space.region import bounding_box

SHAPE = (12, 13, 14)


# --------------------------------------------------------------------------------------- dice


def counted_dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    values = {*a.ravel().tolist(), *b.ravel().tolist()} - {0}
    return {
        v: 2 * sum(x == y == v for x, y in zip(a.flat, b.flat, strict=True))
        / (sum(x == v for x in a.flat) + sum(y == v for y in b.flat))
        for v in values
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_dice_is_counted_voxel_by_voxel(seed: int) -> None:
    values = np.array([-3, 0, 1, 2, 1035, 2**40])
    rng = np.random.default_rng(seed)
    a, b = (values[rng.integers(0, 6, (5, 6, 7))] for _ in range(2))
    assert dice(a, b) == pytest.approx(counted_dice(a, b))


def test_dice_of_label_maps_that_overlap() -> None:
    a, b = label_map(1, SHAPE), label_map(1, SHAPE)
    b = np.roll(b, 1, axis=0)
    scores = dice(a, b)
    assert scores == pytest.approx(counted_dice(a, b))
    assert min(scores.values()) < max(scores.values()) < 1
    assert dice(a, a) == dict.fromkeys(scores, 1.0)


def test_dice_of_a_label_in_one_map_is_zero_and_in_neither_is_left_out() -> None:
    a, b = np.zeros((4, 4, 4), int), np.zeros((4, 4, 4), int)
    a[0], b[1], a[2], b[2] = 5, 6, 7, 7
    assert dice(a, b) == {5: 0.0, 6: 0.0, 7: 1.0}
    assert dice(np.zeros_like(a), np.zeros_like(a)) == {}


def test_dice_of_maps_of_different_types() -> None:
    a = label_map(1, SHAPE)
    assert dice(a, a.astype(np.int64)) == dice(a.astype(np.uint8), a)


def as_itk(array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing)
    return image


def from_itk(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).T


@pytest.fixture(scope="module")
def monai() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        return pytest.importorskip("monai.metrics")


def moved_labels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ellipsoids, and the same after an uneven shift of a voxel or two."""
    labels = label_map(seed, (30, 32, 34))
    moved = np.roll(labels, (2, -1, 1), axis=(0, 1, 2))
    moved[:15] = np.roll(labels, (1, 1, 0), axis=(0, 1, 2))[:15]
    return moved, labels


@pytest.mark.parametrize("seed", range(3))
def test_dice_is_that_of_itk(seed: int) -> None:
    a, b = moved_labels(seed)
    theirs = sitk.LabelOverlapMeasuresImageFilter()
    theirs.Execute(as_itk(b), as_itk(a))
    expected = {v: theirs.GetDiceCoefficient(v) for v in (4, 10, 11, 49)}
    assert dice(a, b) == pytest.approx(expected)
    assert 0.3 < min(expected.values()) < max(expected.values()) < 0.95


@pytest.mark.parametrize("seed", range(3))
def test_dice_is_that_of_monai(seed: int, monai: ModuleType) -> None:
    a, b = moved_labels(seed)
    values = (4, 10, 11, 49)
    one_hot = [torch.from_numpy(np.stack([x == v for v in values]))[None] for x in (a, b)]
    theirs = monai.compute_dice(*one_hot, include_background=True)[0].tolist()
    assert dice(a, b) == pytest.approx(dict(zip(values, theirs, strict=True)))


# ----------------------------------------------------------------------------------- surfaces

SPACINGS = [(1.0, 1.0, 1.0), (1.5, 1.0, 2.5), (0.8, 2.0, 1.2)]


def box_of(low: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, int)
    mask[tuple(slice(i, i + n) for i, n in zip(low, size, strict=True))] = 1
    return mask


def hausdorff_of_itk(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    theirs = sitk.HausdorffDistanceImageFilter()
    theirs.Execute(*(as_itk(mask.astype(np.uint8), spacing) for mask in (a, b)))
    return theirs.GetHausdorffDistance()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("axis", range(3))
def test_a_shifted_box_is_off_by_the_shift(axis: int, spacing: tuple[float, ...]) -> None:
    """Its leading face, which is more than 5 % of it, is as far off as anything is."""
    size, steps = [12, 14, 16], [0, 0, 0]
    size[axis], steps[axis] = 8, 3
    a, b = box_of((4, 4, 4), size, (26, 26, 28)), box_of(np.add(4, steps), size, (26, 26, 28))
    got = surface_distances(spacing, [1], moved=b, fixed=a)[1]
    assert got.hausdorff_95 == pytest.approx(3 * spacing[axis])
    assert got.hausdorff_95 == pytest.approx(hausdorff_of_itk(a, b, spacing))
    assert 0 < got.mean < got.hausdorff_95


@pytest.mark.parametrize("spacing", SPACINGS)
def test_shifted_plates_are_off_by_the_shift_and_half_a_thickness_less(
    spacing: tuple[float, ...],
) -> None:
    """Of a plate 2 voxels thick, 6 further on: one side is off by 6, the other by 4."""
    a, b = (box_of((2, 2, low), (60, 61, 2), (64, 65, 20)) for low in (4, 10))
    got = surface_distances(spacing, [1], moved=a, fixed=b)[1]
    assert got.hausdorff_95 == pytest.approx(6 * spacing[2])
    assert got.mean == pytest.approx(5 * spacing[2], rel=0.01)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_concentric_balls_are_off_by_the_difference_of_their_radii(
    spacing: tuple[float, ...],
) -> None:
    """Less half a voxel: of a slanted surface, blocks on either side of it count."""
    shape = tuple(int(34 / s) + 3 for s in spacing)
    radius = np.linalg.norm((indices(shape) - (np.array(shape) - 1) / 2) * spacing, axis=-1)
    got = surface_distances(spacing, [7], moved=(radius <= 15) * 7, fixed=(radius <= 10) * 7)[7]
    voxel = np.cbrt(np.prod(spacing))
    assert got.mean == pytest.approx(5 - voxel / 2, abs=0.1 * voxel)
    assert got.hausdorff_95 == pytest.approx(5, abs=0.5 * voxel)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(2))
def test_surface_distances_equal_the_package_of_the_authors(
    seed: int, spacing: tuple[float, ...]
) -> None:
    import surface_distance as library

    a, b = moved_labels(seed)
    got = surface_distances(spacing, (4, 10, 11, 49), moved=a, fixed=b)
    assert len(got) == 4
    for value, ours in got.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy's, of names it gives up
            found = library.compute_surface_distances(a == value, b == value, spacing)
        of_a, of_b = found["surfel_areas_gt"], found["surfel_areas_pred"]
        mean = found["distances_gt_to_pred"] @ of_a + found["distances_pred_to_gt"] @ of_b
        assert ours.hausdorff_95 == pytest.approx(library.compute_robust_hausdorff(found, 95))
        assert ours.mean == pytest.approx(mean / (of_a.sum() + of_b.sum()))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(2))
def test_surface_distances_are_near_those_of_voxels_at_the_boundary(
    seed: int, spacing: tuple[float, ...]
) -> None:
    """By ITK's contours and distance maps: larger, by less than a voxel's longest side."""
    a, b = moved_labels(seed)
    got = surface_distances(spacing, (4, 10, 11, 49), moved=a, fixed=b)
    assert len(got) == 4
    for value, ours in got.items():
        contours = [sitk.LabelContour(as_itk((x == value) * 1, spacing)) for x in (a, b)]
        away = [
            np.abs(from_itk(sitk.SignedMaurerDistanceMap(c, False, False, True))) for c in contours
        ]
        on_a, on_b = (from_itk(c) > 0 for c in contours)
        directed = away[1][on_a], away[0][on_b]
        mean = np.concatenate(directed).mean()
        robust = max(np.percentile(d, 95) for d in directed)
        assert 0 < mean - ours.mean < 0.5 * max(spacing)
        assert -1e-6 < robust - ours.hausdorff_95 < max(spacing)
        assert ours.hausdorff_95 < hausdorff_of_itk(a == value, b == value, spacing) + max(spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_surface_distances_are_near_those_of_monai(
    spacing: tuple[float, ...], monai: ModuleType
) -> None:
    """Which are the same as ITK's above: larger, by less than a voxel's longest side."""
    a, b = moved_labels(0)
    got = surface_distances(spacing, (4, 10, 11, 49), moved=a, fixed=b)
    assert len(got) == 4
    for value, ours in got.items():
        masks = [torch.from_numpy(x == value)[None, None] for x in (a, b)]
        options = {"include_background": True, "spacing": spacing}
        robust = float(monai.compute_hausdorff_distance(*masks, percentile=95, **options))
        mean = float(monai.compute_average_surface_distance(*masks, symmetric=True, **options))
        assert 0 < mean - ours.mean < 0.5 * max(spacing)
        assert -1e-6 < robust - ours.hausdorff_95 < max(spacing)


def test_surface_distances_are_symmetric_and_zero_between_equal_maps() -> None:
    a, b = moved_labels(1)
    numbers = (4, 10, 11, 49)
    there, back = (
        surface_distances(SPACINGS[1], numbers, moved=a, fixed=b),
        surface_distances(SPACINGS[1], numbers, moved=b, fixed=a),
    )
    assert {n: tuple(d) for n, d in there.items()} == {
        n: pytest.approx(tuple(d)) for n, d in back.items()
    }
    assert surface_distances(SPACINGS[1], numbers, moved=a, fixed=a) == dict.fromkeys(
        numbers, (0.0, 0.0)
    )


def test_surface_distances_do_not_depend_on_what_is_around() -> None:
    """What touches the border of the array has a surface there, as if nothing came after it."""
    a, b = moved_labels(2)
    box = bounding_box((a > 0) | (b > 0), margin=0)
    assert (a[box][0] > 0).any() or (b[box][0] > 0).any()
    tight = surface_distances(SPACINGS[2], (4, 49), moved=a[box], fixed=b[box])
    assert tight == surface_distances(SPACINGS[2], (4, 49), moved=np.pad(a, 9), fixed=np.pad(b, 9))


def test_structures_of_one_map_have_no_distance_and_of_neither_are_left_out() -> None:
    a, b = moved_labels(0)
    a[a == 10], b[b == 49] = 0, 0
    got = surface_distances(SPACINGS[0], iter([4, 10, 49, 50]), moved=a, fixed=b)
    assert list(got) == [4, 10, 49]
    assert np.isfinite(got[4]).all()
    assert np.isnan([got[10], got[49]]).all()
    nothing = np.zeros_like(a)
    assert surface_distances(SPACINGS[0], [4], moved=nothing, fixed=nothing) == {}


def test_surface_distances_need_maps_of_one_shape() -> None:
    with pytest.raises(ValueError, match=r"moved must have the shape of fixed, \(4, 4, 4\), got"):
        surface_distances((1, 1, 1), [1], moved=np.ones((4, 4, 5)), fixed=np.ones((4, 4, 4)))
