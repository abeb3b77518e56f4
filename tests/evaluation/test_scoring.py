"""Scores of known transforms, compared with closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest
from cohorts import table
from earlier_protocol import OF_REGIONS, evaluate_pairs
from phantoms import label_map, rotation, smooth_field
from scipy import ndimage
from scored_pairs import (
    GRID,
    SHAPE,
    STILL,
    about_the_middle,
    box,
    loaded_pair_of,
    pair_scan,
    scored_transform,
    scores,
    shift,
    structures,
    texture,
    warp_of,
)

from voxwarp.data.pairs import Pair
from voxwarp.data.structures import Table
from voxwarp.evaluation.loaded_pair import load_pair
from voxwarp.evaluation.protocol import Protocol, parse_ranges
from voxwarp.evaluation.rows import PAIR_COLUMNS, STRUCTURE_COLUMNS
from voxwarp.evaluation.scoring import ScoredTransform, score_registration
from voxwarp.space.transform import Chain

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_moved(tmp_path):
    """Perfect scores; sizes are those of voxels of 2 x 1.5 x 1 mm."""
    labels = label_map(3, SHAPE, (4, 10, 11, 49))
    protocol = Protocol(Table(["a", "b"], {4: 1, 10: 2, 11: 2}))
    row, parts = score_registration(
        loaded_pair_of(tmp_path, labels, labels),
        scored_transform(inverse=STILL),
        protocol,
        reverse=Chain([STILL]),
    )
    perfect = {"dice": 1, "dice_regions": 1, "hd95_mm": 0, "surface_mm": 0}
    perfect |= {"folds": 0, "folds_percent": 0, "folds_any": 0, "nondiffeomorphic_percent": 0}
    perfect |= {"std_log_jacobian": 0, "inverse_error_mm": 0, "consistency_mm": 0}
    assert {column: row[column] for column in perfect} == perfect
    assert row["minimum_determinant"] == pytest.approx(1)
    assert row["correlation"] == pytest.approx(1)
    assert row["local_ncc"] == pytest.approx(1, abs=1e-3)
    assert math.isnan(row["tre_mm"])
    counts = [(labels == 4).sum(), np.isin(labels, (10, 11)).sum()]
    assert [part["structure"] for part in parts] == ["a", "b"]
    assert [part["fixed_ml"] for part in parts] == pytest.approx([n * 3 / 1000 for n in counts])
    assert all((p["dice"], p["hd95_mm"], p["surface_mm"]) == (1, 0, 0) for p in parts)


def test_columns(tmp_path):
    """All columns except those about the method."""
    labels = label_map(3, SHAPE)
    loaded = loaded_pair_of(tmp_path, labels, labels)
    row, parts = score_registration(
        loaded, scored_transform(inverse=STILL), Protocol(structures(4, 10)), reverse=Chain([STILL])
    )
    others = {"method", "reason", "first_s", "affine_s", "deform_s", "whole_s", "memory_mb"}
    assert set(PAIR_COLUMNS) - row.keys() == others | {"device", "threads", "timed"}
    assert all(part.keys() | {"method"} == set(STRUCTURE_COLUMNS) for part in parts)
    about = {"kind": "inter", "moving": "m", "fixed": "f", "labels": "nearest"}
    assert about | {"moving_subject": "m", "fixed_subject": "f", "status": "ok"} | row == row
    assert all(about | part == part for part in parts)


def test_a_box_that_is_elsewhere(tmp_path):
    """2 of 12 voxels of 2 mm apart: Dice 10/12; its ends stand 4 mm apart, the sides do not.

    The mean distance is that of two boxes (24 x 21 x 16 mm) in closed form: over a surface, ends
    are 4 mm away (where no side is nearer), a stretch of 4 mm of the sides 2 mm on average.
    """
    moving, fixed = box((8, 8, 8), (12, 14, 16)), box((6, 8, 8), (12, 14, 16))
    loaded = loaded_pair_of(tmp_path, moving, fixed)
    row, (part,) = score_registration(loaded, scored_transform(), Protocol(structures(1)))
    assert row["dice"] == part["dice"] == pytest.approx(10 / 12)
    assert row["hd95_mm"] == part["hd95_mm"] == pytest.approx(4)
    a, b, c, t = 24.0, 21.0, 16.0, 4.0
    sides = (np.linspace(0, length, 201) for length in (b, c))
    depth = np.minimum.outer(*(np.minimum(x, x[::-1]) for x in sides))  # of the end inside
    inner = np.minimum(depth, t).mean() * b * c
    mean = (t * b * c + inner + 2 * (b + c) * t * t / 2) / (2 * (a * b + b * c + c * a))
    assert row["surface_mm"] == part["surface_mm"] == pytest.approx(mean, rel=0.1)
    assert part["fixed_ml"] == pytest.approx(12 * 14 * 16 * 3 / 1000)
    exact = scores(loaded, scored_transform(shift(4, 0, 0)))
    assert (exact["dice"], exact["hd95_mm"], exact["surface_mm"]) == (1, 0, 0)
    worse = scores(loaded, scored_transform(shift(-4, 0, 0)))
    assert worse["dice"] == pytest.approx(8 / 12)


def test_images_are_compared_in_the_fixed_brain_after_the_motion(tmp_path):
    """A scan moved by whole voxels comes back as it was; the wrong way it is unlike."""
    image = texture(1)
    moved = np.roll(image, (2, -1, 3), (0, 1, 2))
    loaded = load_pair(Pair(pair_scan(tmp_path, "m", moved), pair_scan(tmp_path, "f", image)))
    motion = shift(4, -1.5, 3)
    right, wrong = (
        scores(loaded, scored_transform(motion)),
        scores(loaded, scored_transform(motion.inverse())),
    )
    assert right["correlation"] == pytest.approx(1, abs=1e-5)
    assert right["local_ncc"] == pytest.approx(1, abs=1e-3)
    unmoved = scores(loaded, scored_transform())
    assert wrong["correlation"] < unmoved["correlation"] < 0.9
    assert wrong["local_ncc"] < unmoved["local_ncc"] < 0.9


def test_intensities_do_not_matter(tmp_path):
    """Scale and offset of a scan's intensities are the scanner's."""
    image, labels = texture(1), None
    z_scored = np.where(image > 0, (image - image.mean()) / image.std(), 0).astype(np.float32)
    pair = Pair(pair_scan(tmp_path, "m", 7 * image, labels), pair_scan(tmp_path, "f", z_scored))
    row = scores(load_pair(pair), scored_transform())
    assert row["correlation"] > 0.99


def test_errors_of_inverses_are_mm(tmp_path):
    loaded = loaded_pair_of(tmp_path)
    motion = shift(3, -4, 12)
    row = scores(
        loaded, scored_transform(motion, inverse=motion.inverse()), reverse=shift(-3, 4, -11)
    )
    assert row["inverse_error_mm"] == pytest.approx(0, abs=1e-9)
    assert row["consistency_mm"] == pytest.approx(1)
    row = scores(loaded, scored_transform(motion, inverse=shift(0, 0, 0)))
    assert row["inverse_error_mm"] == pytest.approx(13)
    assert "consistency_mm" not in row
    assert "inverse_error_mm" not in scores(loaded, scored_transform(motion))


def test_folds_are_counted(tmp_path):
    """x goes back where φ does; by hand: differences of φ along x, nothing along y and z."""
    phi = np.arange(SHAPE[0], dtype=float)
    phi[10:16] = [10, 14, 13, 12.5, 11, 15]
    voxels = np.zeros((3, *SHAPE))
    voxels[0] = (phi - np.arange(SHAPE[0]))[:, None, None]
    warp = warp_of(voxels)
    image = texture()
    loaded = loaded_pair_of(tmp_path, image=image)
    row = scores(loaded, ScoredTransform(warp, warp))
    brain = (image > 0).sum(axis=(1, 2)) / (image > 0).sum()  # share of the brain by x
    central, ahead = np.gradient(phi), np.diff(phi, append=phi[-1] + 1)
    behind = np.diff(phi, prepend=phi[0] - 1)
    assert row["folds_percent"] == pytest.approx(100 * brain[central <= 0].sum())
    assert row["folds"] == round(brain[central <= 0].sum() * (image > 0).sum()) > 0
    any_ = (central <= 1e-6) | (ahead <= 1e-6) | (behind <= 1e-6)
    assert row["folds_any"] == round(brain[any_].sum() * (image > 0).sum()) > row["folds"]
    assert row["minimum_determinant"] == pytest.approx(central.min(), abs=1e-5)
    turned = (np.maximum(-ahead, 0) + np.maximum(-behind, 0)) / 2
    assert row["nondiffeomorphic_percent"] == pytest.approx(100 * (turned * brain).sum(), rel=1e-4)
    unfolded = central > 0
    logs = np.log(central[unfolded])
    weights = brain[unfolded] / brain[unfolded].sum()
    spread = np.sqrt((weights * logs**2).sum() - (weights * logs).sum() ** 2)
    assert row["std_log_jacobian"] == pytest.approx(spread, rel=1e-3)


def test_folds_outside_of_the_brain_do_not_count(tmp_path):
    voxels = np.zeros((3, *SHAPE))
    voxels[1, :, :2] = 5 * np.array([1, -1])[:, None]
    warp = warp_of(voxels)
    row = scores(loaded_pair_of(tmp_path), ScoredTransform(warp, warp))
    assert row["folds"] == row["folds_any"] == row["nondiffeomorphic_percent"] == 0
    given = np.zeros(SHAPE, bool)
    given[4:9, 0:3, 5:9] = True
    pair = loaded_pair_of(tmp_path).pair
    assert scores(load_pair(pair, given), ScoredTransform(warp, warp))["folds_any"] > 0


def test_structures_of_one_map_or_of_none(tmp_path):
    """In one map: Dice 0 and no distance; in neither: no row, and no part in the mean."""
    moving = box((5, 5, 5), (4, 4, 4), 1) + box((15, 15, 15), (4, 4, 4), 2)
    fixed = box((5, 5, 5), (4, 4, 4), 1) + box((15, 5, 5), (4, 4, 4), 3)
    row, parts = score_registration(
        loaded_pair_of(tmp_path, moving, fixed),
        scored_transform(),
        Protocol(structures(1, 2, 3, 4)),
    )
    assert [(p["structure"], p["dice"]) for p in parts] == [("s1", 1), ("s2", 0), ("s3", 0)]
    assert [math.isnan(p["hd95_mm"]) for p in parts] == [False, True, True]
    assert [math.isnan(p["surface_mm"]) for p in parts] == [False, True, True]
    assert [p["fixed_ml"] for p in parts] == pytest.approx([0.192, 0, 0.192])
    assert row["dice"] == pytest.approx(1 / 3)
    assert (row["hd95_mm"], row["surface_mm"]) == (0, 0)


def test_a_structure_that_moves_out_of_the_scan(tmp_path):
    labels = box((5, 5, 5), (4, 4, 4))
    row, (part,) = score_registration(
        loaded_pair_of(tmp_path, labels, labels),
        scored_transform(shift(100, 0, 0)),
        Protocol(structures(1)),
    )
    assert part["dice"] == row["dice"] == row["dice_regions"] == 0
    assert math.isnan(part["hd95_mm"])
    assert math.isnan(row["hd95_mm"])


@pytest.mark.parametrize("sides", [(False, False), (True, False), (False, True)])
def test_without_both_label_maps_there_is_no_overlap(tmp_path, sides):
    labels = [box((5, 5, 5), (4, 4, 4)) if has_labels else None for has_labels in sides]
    row, parts = score_registration(
        loaded_pair_of(tmp_path, *labels), scored_transform(), Protocol(structures(1))
    )
    assert parts == []
    assert not {"dice", "dice_regions", "hd95_mm", "surface_mm"} & row.keys()
    assert row["correlation"] == pytest.approx(1)


def test_labels_that_are_no_structures(tmp_path):
    """No row of a structure and no Dice, but of regions."""
    labels = box((5, 5, 5), (4, 4, 4), 7)
    for table_ in (structures(1, 2), structures()):
        row, parts = score_registration(
            loaded_pair_of(tmp_path, labels, labels), scored_transform(), Protocol(table_)
        )
        assert parts == []
        assert math.isnan(row["dice"])
        assert row["dice_regions"] == 1


def test_maps_of_other_types_and_large_values(tmp_path):
    moving, fixed = (box((5, 5, 5), (6, 6, 6), 1).astype(t) for t in (np.float32, np.uint8))
    moving[moving == 1] = 2035
    fixed = fixed.astype(np.int32) * 2035
    row = scores(
        loaded_pair_of(tmp_path, moving, fixed), scored_transform(), Protocol(structures(2035))
    )
    assert (row["dice"], row["dice_regions"]) == (1, 1)


@pytest.mark.parametrize("labels", ["nearest", "linear"])
def test_labels_are_resampled_as_the_protocol_says(tmp_path, labels):
    """By SciPy: the nearest voxel's label, or the largest of the interpolated indicators."""
    moving, fixed = (label_map(5, SHAPE, (1, 2, 3)) for _ in range(2))
    motion = about_the_middle(rotation(4, -6, 8), (1.3, -2.1, 0.7))
    at = GRID.to_voxel(motion.map(GRID.nodes()))
    at = np.moveaxis(at, -1, 0)
    if labels == "nearest":
        moved = ndimage.map_coordinates(moving, at, order=0, mode="grid-constant")
    else:
        soft = [
            ndimage.map_coordinates(
                (moving == v).astype(float), at, order=1, mode="grid-constant", cval=v == 0
            )
            for v in range(4)
        ]
        moved = np.argmax(soft, axis=0)
    row, parts = score_registration(
        loaded_pair_of(tmp_path, moving, fixed),
        scored_transform(motion),
        Protocol(structures(1, 2, 3), None, labels),
    )
    by_hand = [
        2 * ((moved == v) & (fixed == v)).sum() / ((moved == v).sum() + (fixed == v).sum())
        for v in (1, 2, 3)
    ]
    assert [part["dice"] for part in parts] == pytest.approx(by_hand, abs=1e-9)
    assert row["dice"] == row["dice_regions"] == pytest.approx(np.mean(by_hand))
    assert 0.05 < row["dice"] < 0.95
    assert {row["labels"], *(part["labels"] for part in parts)} == {labels}


def regions_of(folder: Path, sizes: dict[int, tuple[int, int]], regions=None) -> float:
    """Dice-regions of bars that start at the same place in both maps and have these lengths."""
    moving, fixed = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.int32)
    for i, (value, lengths) in enumerate(sizes.items()):
        for data, length in zip((moving, fixed), lengths, strict=True):
            plane = np.zeros(SHAPE[1] * SHAPE[2], np.int32)
            plane[:length] = value
            data[2 * i] = plane.reshape(SHAPE[1:])
    loaded = loaded_pair_of(folder, moving, fixed)
    return scores(loaded, scored_transform(), Protocol(structures(1), regions))["dice_regions"]


def test_regions_of_50_voxels_in_both_maps_count(tmp_path):
    assert regions_of(tmp_path, {4: (50, 100)}) == pytest.approx(100 / 150)
    sizes = {4: (50, 100), 5: (49, 60), 6: (60, 49), 7: (60, 0), 8: (0, 60), 9: (80, 80)}
    assert regions_of(tmp_path, sizes) == pytest.approx((100 / 150 + 1) / 2)
    assert math.isnan(regions_of(tmp_path, {4: (49, 49)}))


def test_regions_are_those_of_the_ranges(tmp_path):
    sizes = {3: (50, 60), 4: (50, 70), 41: (50, 80), 42: (50, 90), 44: (50, 100), 207: (60, 60)}
    each = {value: 2 * min(n) / sum(n) for value, n in sizes.items()}
    for text, values in {
        "4-41": (4, 41),
        "4-41,44": (4, 41, 44),
        "3,42-300": (3, 42, 44, 207),
        "4,4-4,4-41": (4, 41),
    }.items():
        expected = np.mean([each[value] for value in values])
        assert regions_of(tmp_path, sizes, parse_ranges(text)) == pytest.approx(expected)
    assert math.isnan(regions_of(tmp_path, sizes, parse_ranges("43,45-100")))
    assert regions_of(tmp_path, sizes) == pytest.approx(np.mean(list(each.values())))


def test_regions_are_measured_before_anything_is_warped(tmp_path):
    """A region that shrinks in the warp counts; one that only grows in it does not."""
    small, large = box((12, 12, 12), (3, 4, 4), 5), box((4, 4, 20), (4, 4, 4), 6)
    labels = small + large
    zoom = about_the_middle(0.5 * np.eye(3))
    row = scores(
        loaded_pair_of(tmp_path, labels, labels), scored_transform(zoom), Protocol(structures(1))
    )
    at = np.moveaxis(GRID.to_voxel(zoom.map(GRID.nodes())), -1, 0)
    moved = ndimage.map_coordinates(labels, at, order=0)
    assert (moved == 5).sum() >= 50 > (small == 5).sum()
    expected = 2 * ((moved == 6) & (labels == 6)).sum() / ((moved == 6).sum() + 64)
    assert row["dice_regions"] == pytest.approx(expected)


def test_the_protocol_of_the_earlier_benchmark(tmp_path):
    """Dice-30 and Dice-regions as benchmarks/evaluate_pairs.py has them, on many odd regions."""
    script = evaluate_pairs()
    rng = np.random.default_rng(1)
    values = [2, 3, 4, 5, 41, 42, 43, 44, 45, 46, 47, 63, 64, 69, 74, 75, 120, 206, 207, 208]
    seeds, maps = rng.integers(0, SHAPE, (60, 3)), []
    for moved in (seeds, seeds + rng.integers(-1, 2, seeds.shape)):
        at = np.stack(np.indices(SHAPE), -1)[..., None, :]
        cells = np.array(values * 3)[np.square(at - moved).sum(-1).argmin(-1)]
        maps.append(np.where(texture() > 0, cells, 0).astype(np.int16))
    rows = [f"{v},{'' if v % 5 == 0 else f'structure {v % 7}'}" for v in values]
    named = script.structures(table(tmp_path / "l.csv", "value,structure\n" + "\n".join(rows)))
    warp = warp_of(smooth_field(2, SHAPE, amplitude=2.0)[0].numpy())
    motion = about_the_middle(rotation(3, 2, -4), (1, -2, 0.5))
    loaded = loaded_pair_of(tmp_path, *maps)
    result = ScoredTransform(Chain([warp, motion]), warp)
    row = scores(loaded, result, Protocol(named, parse_ranges(OF_REGIONS)))
    moved = script.resample(
        loaded.moving_labels, loaded.fixed.grid, result.transform, interpolation="nearest"
    ).data
    regions = script.large_regions(*maps)
    assert 5 < len(regions) < 15
    assert row["dice"] == pytest.approx(script.dice_30(moved, maps[1], named), abs=1e-12)
    assert row["dice_regions"] == pytest.approx(
        script.dice_regions(moved, maps[1], regions), abs=1e-12
    )
    folds = script.jacobian_statistics(warp, loaded.fixed.data != 0)
    assert (row["folds"], row["folds_percent"]) == (folds["folds"], folds["folds_percent"])
    assert 0.3 < row["dice_regions"] < 0.9
