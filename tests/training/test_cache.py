"""The cache of prepared scans: what is there is not made again, what changed is; damage, disk."""

import errno
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohorts import SHAPES, centred, crop, crop_labels, crops_config, entries, gathered, write_scan

from voxwarp.errors import InputError
from voxwarp.preparation import brain, cache
from voxwarp.space.volume import write_volume
from voxwarp.training.cohort import prepare_cohort
from voxwarp.training.inspection import check


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


def test_the_folder_of_the_cache(crops, tmp_path, monkeypatch):
    monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / "ours"))
    config = crops_config(crops, data={"cache": None})
    scans = gathered(config)
    assert check(config, scans).folder == tmp_path / "ours/training"
    assert not (tmp_path / "ours").exists()
    for path, _ in prepare_cohort(config, scans).files:
        assert path.parent == tmp_path / "ours/training"


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


def test_a_full_disk_is_named_before_anything_is_written(crops, monkeypatch):
    config = crops_config(crops, data={"structures": {"values": [3]}})
    scans = gathered(config)
    usage = type("usage", (), {"free": 20_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"prepared: .* need 0\.00 GB .* 0\.00 GB are free"):
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
        patch.setattr("voxwarp._files.os.fsync", full)
        with pytest.raises(InputError, match=r"prepared: the prepared scans need .* are free"):
            prepare_cohort(config, scans)
    assert len(prepare_cohort(config, scans).scans) == 4


def test_another_template_has_its_own_entries(brains, phantoms, tmp_path) -> None:
    """Also one that lies where another was, under the same name."""
    path = tmp_path / "template.nii.gz"
    write_volume(phantoms.template, path)
    grid = {"spacing": 8, "shape": [24, 24, 24]}
    own = crops_config(brains, preparation={**grid, "alignment": str(path)})
    prepare_cohort(own, gathered(own))
    before = entries(own)
    prepare_cohort(own, gathered(own))
    assert entries(own) == before
    brighter = phantoms.template.data * 2
    write_volume(replace(phantoms.template, data=brighter), path)
    prepare_cohort(own, gathered(own))
    assert changed(before, entries(own)) == {"image.npy": 2, "labels.npy": 2}


def test_what_is_made_again_or_removed_is_logged(crops, caplog) -> None:
    config = crops_config(crops)
    damaged = prepare_cohort(config, gathered(config)).files[1][0]
    damaged.write_bytes(b"")
    part = damaged.with_name(".x.image.npy.1-2.part")
    part.write_bytes(b"half")
    os.utime(part, (time.time() - 2 * cache.ABANDONED,) * 2)
    caplog.clear()
    with caplog.at_level("INFO", "voxwarp.training"):
        prepare_cohort(config, gathered(config))
    removed, repaired = sorted((record.getMessage() for record in caplog.records), reverse=True)
    assert removed == f"removed {part}, left by a preparation that was killed"
    assert repaired.startswith(f"cache entry {damaged} is damaged and will be prepared again: ")
