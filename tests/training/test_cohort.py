"""The scans of a training: their lattice, what is prepared, and what is kept of it."""

import errno
import json
import os
import pickle
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohorts import (
    SHAPES,
    crop,
    crop_labels,
    crops_config,
    cut,
    gathered,
    without_labels,
    write_scan,
)
from phantoms import oblique_affine

from voxwarp.data.scans import ScanRecord
from voxwarp.errors import InputError
from voxwarp.preparation import brain, cache
from voxwarp.preparation.recipe import WORKING_GRID, Recipe
from voxwarp.preparation.scan import Scan
from voxwarp.training import cache as training_cache
from voxwarp.training.cohort import described, prepare_atlas, prepare_cohort
from voxwarp.training.config import Config, build_config
from voxwarp.training.inspection import check
from voxwarp.training.lattice import recipe_of

# ------------------------------------------------------------------------------------- Lattice


def preparation(**more) -> Config:
    data = {"sources": [{"folder": "/nowhere"}]}
    return build_config({"data": data, "preparation": more})


def test_the_usual_lattice_is_the_working_grid():
    assert recipe_of(preparation(), []) == Recipe()
    assert recipe_of(preparation(percentile=98), []).percentile == 98


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarser_lattice_averages_the_working_grid(factor):
    """Its voxels are blocks of the fine ones, to the last."""
    grid = recipe_of(preparation(spacing=factor), []).grid
    fine = WORKING_GRID.nodes().reshape(
        *(x for n in WORKING_GRID.shape for x in (n // factor, factor)), 3
    )
    np.testing.assert_allclose(grid.nodes(), fine.mean(axis=(1, 3, 5)), atol=1e-9)


@pytest.mark.parametrize("more", [{"spacing": 1.5}, {"shape": [192, 192, 64]}, {"spacing": 0.7}])
def test_other_lattices_lie_around_the_same_point(more):
    grid = recipe_of(preparation(**more), []).grid
    for each in (grid, WORKING_GRID):
        middle = each.to_world((np.array(each.shape) - 1) / 2)
        np.testing.assert_allclose(middle, [0, -16.5, 5.5], atol=1e-9)
    assert grid.axes == WORKING_GRID.axes
    if "shape" in more:
        assert grid.shape == (192, 192, 64)
    else:
        spare = np.array(grid.shape) * more["spacing"] - WORKING_GRID.shape
        assert ((spare >= 0) & (spare < more["spacing"])).all()


@pytest.mark.parametrize(
    ("spacing", "downsample", "shape"),
    [(3, 2, (54, 64, 76)), (3, 8, (56, 64, 80)), (1.5, 4, (108, 128, 152)), (3, 1, (54, 64, 75))],
)
def test_an_odd_spacing_leaves_whole_blocks_for_every_phase(spacing, downsample, shape):
    """As few as cover the working grid, in multiples of what a phase averages."""
    phases = [{"steps": 1, "downsample": downsample}, {"steps": 1}]
    data = {"sources": [{"folder": "/nowhere"}]}
    tree = {"data": data, "preparation": {"spacing": spacing}, "phases": phases}
    grid = recipe_of(build_config(tree), []).grid
    assert grid.shape == shape
    assert grid.averaged(downsample).shape == tuple(n // downsample for n in shape)
    middle = grid.to_world((np.array(grid.shape) - 1) / 2)
    np.testing.assert_allclose(middle, [0, -16.5, 5.5], atol=1e-9)
    np.testing.assert_allclose(grid.spacing, spacing)


def scans_on(folder: Path, *grids: tuple[tuple[int, int, int], np.ndarray]) -> list[ScanRecord]:
    paths = [
        write_scan(folder / f"{i}.nii", crop(i, shape), affine)
        for i, (shape, affine) in enumerate(grids)
    ]
    return [ScanRecord(path, None, path.stem, "set", "train", "set") for path in paths]


def faces(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """World coordinates of all corners of all voxels."""
    at = np.indices(np.array(shape) + 1).reshape(3, -1).T - 0.5
    return at @ affine[:3, :3].T + affine[:3, 3]


def test_a_centred_lattice_holds_the_largest_scan_along_each_axis(tmp_path):
    turned = oblique_affine(5)
    scans = scans_on(tmp_path, ((30, 6, 5), np.diag([1.2, 1.2, 3, 1])), ((12, 14, 19), turned))
    extents = np.array([36, 7.2, 15]), np.ptp(faces((12, 14, 19), turned), axis=0)
    grid = recipe_of(preparation(alignment="centre", spacing=1.2), scans).grid
    expected = np.ceil(np.max(extents, axis=0) / 1.2 / 16 - 1e-3) * 16
    assert grid.shape == tuple(expected)
    assert grid.axes == "RAS"
    np.testing.assert_allclose(grid.to_world((expected - 1) / 2), 0, atol=1e-9)
    np.testing.assert_allclose(grid.spacing, 1.2)
    # Where the shape is given, no scan is read.
    given = recipe_of(preparation(alignment="centre", shape=[9, 10, 11]), []).grid
    np.testing.assert_array_equal(given.affine[:3, 3], [-4, -4.5, -5])


def test_a_lattice_by_headers_covers_all_scans_and_keeps_their_voxels(tmp_path):
    first, second = np.eye(4), np.eye(4)
    first[:3, 3], second[:3, 3] = (-20, 3, 7), (-9, 1, 11)
    scans = scans_on(tmp_path, ((9, 9, 9), first), ((12, 11, 10), second))
    grid = recipe_of(preparation(alignment="header"), scans).grid
    assert grid.shape == (32, 16, 16)  # of 23, 11 and 14
    points = np.concatenate([faces((9, 9, 9), first), faces((12, 11, 10), second)])
    voxels = grid.to_voxel(points) + 0.5
    assert (voxels >= 0).all()
    assert (voxels <= grid.shape).all()
    np.testing.assert_array_equal(voxels, np.rint(voxels))  # nothing is interpolated
    room = voxels.min(axis=0), (grid.shape - voxels.max(axis=0))
    assert np.abs(room[0] - room[1]).max() <= 1
    cropped = recipe_of(preparation(alignment="header", shape=[8, 9, 10]), scans).grid
    np.testing.assert_array_equal(cropped.affine[:3, 3], [-12, 2, 9])


def test_the_atlas_has_its_place_on_the_lattice(tmp_path):
    """It is larger than the only scan, and lies to the right of it."""
    shifted = np.eye(4)
    shifted[0, 3] = 10
    scan, atlas = scans_on(tmp_path, ((20, 12, 9), np.eye(4)), ((30, 12, 9), shifted))
    sampling = {"mode": "atlas", "atlas": str(atlas.path)}
    data = {"sources": [{"folder": "/nowhere"}]}
    for alignment, shape in (("header", (48, 16, 16)), ("centre", (32, 16, 16))):
        tree = {"data": data, "preparation": {"alignment": alignment}, "sampling": sampling}
        grid = recipe_of(build_config(tree), [scan]).grid
        assert grid.shape == shape
        assert recipe_of(preparation(alignment=alignment), [scan]).grid.shape == (32, 16, 16)
        both = faces((20, 12, 9), np.eye(4)), faces((30, 12, 9), shifted)
        for points in both:
            if alignment == "centre":
                points = points - points.mean(axis=0)
            voxels = grid.to_voxel(points) + 0.5
            assert (voxels >= 0).all()
            assert (voxels <= grid.shape).all()
    template = {"mode": "atlas", "atlas": "template"}
    tree = {"data": data, "preparation": {"alignment": "header"}, "sampling": template}
    assert recipe_of(build_config(tree), [scan]).grid.shape == (32, 16, 16)


def test_a_lattice_that_nothing_can_hold_is_refused(tmp_path):
    far = np.eye(4)
    far[0, 3] = 1e9
    scans = scans_on(tmp_path, ((9, 9, 9), np.eye(4)), ((9, 9, 9), far))
    with pytest.raises(InputError, match="give its shape, or a larger spacing"):
        recipe_of(preparation(alignment="header"), scans)
    (tmp_path / "0.nii").write_text("no image")
    with pytest.raises(InputError, match="none of the scans' headers"):
        recipe_of(preparation(alignment="centre"), scans[:1])


# --------------------------------------------------------------------------------- Preparation


def centred(data: np.ndarray, size: int = 16) -> np.ndarray:
    """In the middle of a cube of zeros; by halves of a voxel, as the mean of two, for odd axes."""
    room = [(size - n + 1) // 2 for n in data.shape]
    out = np.pad(
        data.astype(np.float64),
        [(r, size + 1 - n - r) for r, n in zip(room, data.shape, strict=True)],
    )
    for axis, n in enumerate(data.shape):
        low, high = (np.take(out, np.arange(size) + i, axis) for i in (0, 1))
        out = (low + high) / 2 if n % 2 else low
    return out


def test_centred_scans_are_where_they_should_be(crops):
    config = crops_config(crops)
    scans = gathered(config)
    cohort = prepare_cohort(config, scans)
    assert cohort.recipe == Recipe(recipe_of(config, scans).grid, 100, "centre")
    assert cohort.skipped == []
    for i, shape in enumerate(SHAPES):
        expected = centred(crop(i, shape))
        image = cohort.image(i)
        assert image.dtype == np.uint8
        assert np.abs(image - 255 * expected / expected.max()).max() <= 0.501
    labels = crop_labels(0, SHAPES[0])
    numbers = np.select([labels == v for v in (3, 40, 2035)], [1, 2, 3])
    np.testing.assert_array_equal(cohort.labels(0), centred(numbers))
    assert set(np.unique(cohort.labels(1))) == {0, 1, 2, 3}


def test_what_a_cohort_tells(crops):
    config = crops_config(crops)
    scans = gathered(config)
    scans[1] = without_labels(scans[1])
    cohort = prepare_cohort(config, scans)
    assert [cohort.indices(split) for split in ("train", "val", "test")] == [[0, 1], [2], [3]]
    assert cohort.people == [f"crops/p{i}" for i in range(4)]
    assert [cohort.is_labelled(i) for i in range(4)] == [True, False, True, True]
    assert cohort.labels(1) is None
    with pytest.raises(ValueError, match="read-only"):
        cohort.image(0)[0, 0, 0] = 1
    other = pickle.loads(pickle.dumps(cohort))  # as the workers of a loader get it
    np.testing.assert_array_equal(other.image(3), cohort.image(3))
    cohort.files[0][0].unlink()
    with pytest.raises(InputError, match="it is gone or damaged"):
        cohort.image(0)
    about = json.loads(json.dumps(described(cohort)))
    assert about["counts"]["crops"]["train"] == {"scans": 2, "people": 2, "labelled": 1}
    assert [row["person"] for row in about["scans"]["train"]] == ["p0", "p1"]
    assert about["scans"]["val"][0]["path"] == str(crops / "t1/2.nii.gz")
    assert about["lattice"] == cohort.recipe.grid.described()


@pytest.fixture
def brains(phantoms, make_grid, poses, tmp_path, quick_affine) -> Path:
    """Two brains with labels."""
    lines = ["id,split"]
    for name, pose in (("fixed", poses.fixed), ("moving", poses.moving)):
        grid = make_grid("LPI", 5)
        write = {"t1": phantoms.image(grid, pose), "labels": phantoms.labels(grid, pose)}
        for kind, image in write.items():
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            nib.save(image, tmp_path / "set" / kind / f"{name}.nii.gz")
        lines.append(f"{name},train")
    (tmp_path / "set/scans.csv").write_text("\n".join(lines))
    return tmp_path / "set"


def test_brains_are_prepared_as_register_does(brains, label_values):
    wanted = {"alignment": "mni152", "spacing": 5, "percentile": 99}
    config = crops_config(brains, preparation=wanted)
    cohort = prepare_cohort(config, gathered(config))
    grid, numbers = cohort.recipe.grid, {v: i for i, v in enumerate(sorted(label_values))}
    for i, scan in enumerate(cohort.scans):
        whole = Scan.read(scan.path)
        expected = whole.prepared(cohort.recipe, whole.examined(cohort.recipe))
        assert np.abs(cohort.image(i) / 255 - expected.image.numpy()).max() <= 0.5 / 255 + 1e-6
        labels = nib.load(scan.labels)
        at = expected.template_to_scan.map(grid.nodes())
        voxels = np.rint(nib.affines.apply_affine(np.linalg.inv(labels.affine), at)).astype(int)
        inside = ((voxels >= 0) & (voxels < labels.shape)).all(axis=-1)
        values = np.asarray(labels.dataobj)[tuple(np.moveaxis(voxels * inside[..., None], -1, 0))]
        oracle = np.vectorize(numbers.get)(np.where(inside, values, 0))
        assert (cohort.labels(i) != oracle).mean() < 1e-4  # ties of rounding
        assert len(np.unique(oracle)) == 9


def test_an_extractor_of_ones_own_that_changes_is_asked_again(brains, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_extractor.py"
    wanted = {"alignment": "mni152", "spacing": 8, "extractor": "own_extractor:extract"}
    config = crops_config(brains, preparation=wanted)
    for text in ("def extract(head): ...\n", "def extract(head): return None\n"):
        module.write_text(text)
        monkeypatch.delitem(sys.modules, "own_extractor", raising=False)
        scans = gathered(config)
        assert check(config, scans).bytes_needed > 0
        prepare_cohort(config, scans)
        assert check(config, scans).bytes_needed == 0


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


# --------------------------------------------------------------------------------------- Cache


def entries(config: Config) -> dict[str, int]:
    """Names and times of what is in the cache."""
    return {p.name: p.stat().st_mtime_ns for p in Path(config.data.cache).iterdir()}


def changed(before: dict[str, int], after: dict[str, int]) -> Counter:
    """How many images, labels and values are new."""
    new = [name for name in after if before.get(name) != after[name]]
    return Counter(name.split(".", 1)[1] for name in new)


def test_what_is_prepared_is_not_prepared_again(crops):
    config = crops_config(crops)
    scans, calls = gathered(config), []
    first = prepare_cohort(config, scans, progress=lambda *done: calls.append(done))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    before = entries(config)
    assert changed({}, before) == {"image.npy": 4, "labels.npy": 4, "values.json": 2}
    again = prepare_cohort(config, scans[::-1], progress=lambda *_: pytest.fail("prepared again"))
    assert entries(config) == before
    assert sorted(again.files) == sorted(first.files)


def test_a_changed_scan_is_prepared_again(crops):
    config = crops_config(crops)
    scans = gathered(config)
    prepare_cohort(config, scans)
    before = entries(config)
    affine = nib.load(scans[1].path).affine
    write_scan(scans[1].path, crop(77, SHAPES[1]), affine)
    cohort = prepare_cohort(config, scans)
    expected = centred(crop(77, SHAPES[1]))
    assert np.abs(cohort.image(1) - 255 * expected / expected.max()).max() <= 0.501
    assert changed(before, entries(config)) == {"image.npy": 1, "labels.npy": 1}
    before = entries(config)
    write_scan(scans[2].labels, crop_labels(78, SHAPES[2]), nib.load(scans[2].path).affine)
    prepare_cohort(config, scans)
    assert changed(before, entries(config)) == {"labels.npy": 1}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"data": {"structures": {"values": [3]}}}, {"labels.npy": 4}),
        ({"preparation": {"percentile": 90}}, {"labels.npy": 4, "image.npy": 4}),
        ({"preparation": {"spacing": 2}}, {"labels.npy": 4, "image.npy": 4}),
        ({"preparation": {"extractor": "other"}}, {}),  # which does nothing without a brain
    ],
)
def test_another_configuration_has_its_own_entries(crops, more, expected, monkeypatch):
    monkeypatch.setitem(brain.EXTRACTORS, "other", lambda head: head)
    config = crops_config(crops)
    prepare_cohort(config, gathered(config))
    before = entries(config)
    prepare_cohort(crops_config(crops, **more), gathered(config))
    after = entries(config)
    assert changed(before, after) == expected
    assert before.items() <= after.items()


def another_type(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float32))


DAMAGES = [
    lambda path: path.write_bytes(path.read_bytes()[:-100]),
    lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': |u1" + path.read_bytes()[20:]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
    lambda path: np.save(path, np.zeros((2, 2, 2), np.uint8)),
    another_type,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_again(crops, damage):
    config = crops_config(crops)
    scans = gathered(config)
    cohort = prepare_cohort(config, scans)
    whole = [np.array(array) for array in (cohort.image(1), cohort.labels(2))]
    for path in (cohort.files[1][0], cohort.files[2][1]):
        damage(path)
    before = entries(config)
    cohort = prepare_cohort(config, scans)
    assert changed(before, entries(config)) == {"image.npy": 1, "labels.npy": 1}
    for array, expected in zip((cohort.image(1), cohort.labels(2)), whole, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_preparation_that_was_stopped_goes_on(crops):
    config = crops_config(crops)
    scans = gathered(config)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_cohort(config, scans, progress=stop)
    before, calls = entries(config), []
    assert changed({}, before)["image.npy"] == 2
    part = Path(config.data.cache) / ".x.image.npy.1-2.part"  # as a killed process leaves it
    part.write_bytes(b"half")
    os.utime(part, (time.time() - 2 * cache.ABANDONED,) * 2)
    cohort = prepare_cohort(config, scans, progress=lambda *done: calls.append(done))
    assert calls == [(1, 2), (2, 2)]
    assert before.items() <= entries(config).items()
    assert len(cohort.scans) == 4
    assert not part.exists()


def test_several_may_prepare_at_once(crops):
    config = crops_config(crops)
    scans, cohorts, start = gathered(config), [], threading.Barrier(4)

    def job() -> None:
        start.wait()
        cohorts.append(prepare_cohort(config, scans))

    threads = [threading.Thread(target=job) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cohorts) == 4
    assert changed({}, entries(config)) == {"image.npy": 4, "labels.npy": 4, "values.json": 2}
    for cohort in cohorts:
        expected = centred(crop(0, SHAPES[0]))
        assert np.abs(cohort.image(0) - 255 * expected / expected.max()).max() <= 0.501


def test_processes_prepare_what_one_does(crops):
    """One of the scans is damaged, which must come through to here."""
    (crops / "t1/3.nii.gz").write_bytes(b"no image")
    alone = crops_config(crops)
    together = crops_config(crops, data={"cache": str(crops.parent / "other")})
    scans, calls = gathered(alone), []
    one = prepare_cohort(alone, scans)
    two = prepare_cohort(together, scans, processes=2, progress=lambda *done: calls.append(done))
    assert sorted(calls) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert two.skipped == one.skipped
    for i in range(3):
        np.testing.assert_array_equal(one.image(i), two.image(i))
        np.testing.assert_array_equal(one.labels(i), two.labels(i))


def test_the_folder_of_the_cache(crops, tmp_path, monkeypatch):
    monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / "ours"))
    config = crops_config(crops, data={"cache": None})
    scans = gathered(config)
    assert check(config, scans).folder == tmp_path / "ours/training"
    assert not (tmp_path / "ours").exists()
    for path, _ in prepare_cohort(config, scans).files:
        assert path.parent == tmp_path / "ours/training"


# ---------------------------------------------------------------------------- What goes wrong


def test_a_scan_that_cannot_be_prepared_is_left_out(crops):
    cut(crops / "t1/3.nii.gz")
    config = crops_config(crops)
    scans = gathered(config)
    cohort = prepare_cohort(config, scans)
    assert cohort.scans == scans[:3]
    (line,) = cohort.skipped
    assert line.startswith(f"scans.csv row 5: image {crops}/t1/3.nii.gz: ")
    assert described(cohort)["skipped"] == [line]
    (problem,) = check(config, scans).problems
    assert problem == line
    (crops / "labels/2.nii.gz").unlink()
    with pytest.raises(InputError, match=r"2 of 4 scans .*first: scans\.csv row 4: label map"):
        prepare_cohort(config, scans)


def test_too_few_scans_for_pairs_are_refused(crops):
    config = crops_config(crops)
    scans = gathered(config)
    atlas = {"mode": "atlas", "atlas": "template"}
    cases = [
        (config, "pairwise training wants scans of 2 train people or more, there are 1"),
        (crops_config(crops, sampling={"labelled": 0.5}), "wants scans of 2"),
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
    with pytest.raises(InputError, match="wants labelled scans of 2 train people or more"):
        prepare_cohort(cases[1][0], bare)


def test_a_cost_of_labels_without_labels_is_refused(crops):
    """Only where it counts, and only for labels to learn from."""
    costs = {"mse": {}, "dice": {}}
    atlas = {"mode": "atlas", "atlas": str(crops / "t1/0.nii.gz")}
    labelled = {**atlas, "atlas_labels": str(crops / "labels/0.nii.gz")}
    scans = gathered(crops_config(crops))
    bare = [without_labels(scan) if scan.split == "train" else scan for scan in scans]
    one = [without_labels(scans[0]), *scans[1:]]
    two, enough = "wants labelled scans of 2 train people or more, there are ", None
    cases = [
        (crops_config(crops, costs=costs), bare, two + "0"),
        (crops_config(crops, costs=costs), one, two + "1"),
        (crops_config(crops, costs=costs), scans, enough),
        (crops_config(crops, costs={"mse": {}, "dice": {"weight": 0}}), bare, enough),
        (crops_config(crops, costs=costs, sampling=atlas), scans, "the atlas has none"),
        (crops_config(crops, costs=costs, sampling=labelled), bare, "labelled scans of 1 train"),
        (crops_config(crops, costs=costs, sampling=labelled), one, enough),
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


def test_a_scan_that_is_not_on_the_lattice_is_left_out(crops):
    far = nib.load(crops / "t1/3.nii.gz").affine
    far[0, 3] = 500
    write_scan(crops / "t1/3.nii.gz", crop(3, SHAPES[3]), far)
    wanted = {"alignment": "header", "shape": [16, 16, 16]}
    config = crops_config(crops, preparation=wanted)
    scans = [without_labels(scan) for scan in gathered(config)]
    with pytest.raises(InputError, match="it is zero all over the lattice"):
        prepare_cohort(config, scans)


def test_a_full_disk_is_named_before_anything_is_written(crops, monkeypatch):
    config = crops_config(crops, data={"structures": {"values": [3]}})
    scans = gathered(config)
    usage = type("usage", (), {"free": 20_000})
    monkeypatch.setattr(training_cache.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"prepared: .* want 0\.00 GB .* 0\.00 GB are free"):
        prepare_cohort(config, scans)
    assert not Path(config.data.cache).exists()
    report = check(config, scans)
    assert (report.bytes_needed, report.bytes_free) == (4 * 2 * 16**3, 20_000)
    assert [problem for problem in report.problems if "disk space" in problem]


def test_a_disk_that_is_full_on_the_way(crops, monkeypatch):
    """It is no fault of the scan, which is not left out."""
    config = crops_config(crops, data={"structures": {"values": [3]}})
    scans = gathered(config)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("voxwarp.files.os.fsync", full)
        with pytest.raises(InputError, match=r"prepared: the prepared scans want .* are free"):
            prepare_cohort(config, scans)
    assert len(prepare_cohort(config, scans).scans) == 4
