"""The result as a value and as a folder: what it holds, what writing leaves as it was."""

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from image_files import nodes, taken
from webpages import Parsed

from voxwarp._layout import METRICS, PREPROCESSED, REPORT
from voxwarp.errors import InputError
from voxwarp.pictures.report import mosaic, report
from voxwarp.registration.loading import load
from voxwarp.registration.result import (
    Registration,
    check_output,
    write_registration,
)


def test_warped_is_the_moving_scan_taken_where_the_transform_says(result, scans):
    """One interpolation of the original intensities, int16 kept: SciPy's values, rounded."""
    moving, fixed = nib.load(scans.moving), nib.load(scans.fixed)
    for ours, image, onto, through in (
        (result.warped.data, moving, fixed, result.transform),
        (result.inverse_warped.data, fixed, moving, result.inverse),
    ):
        expected, inside = taken(image, through.map(nodes(onto)), order=1)
        assert ours.dtype == np.int16
        assert ours.shape == onto.shape
        assert inside.mean() > 0.5
        assert np.abs(ours - expected)[inside].max() < 0.5 + 1e-3 * 1000
        assert np.abs(ours - expected)[inside].mean() < 0.27  # rounded, not cut: 0.25
        assert abs(int(ours.max()) - int(np.asarray(image.dataobj).max())) < 60


def test_warped_labels_are_the_nearest_ones(result, scans, label_values):
    points = result.transform.map(nodes(nib.load(scans.fixed)))
    expected, inside = taken(nib.load(scans.moving_labels), points, order=0)
    ours = result.warped_labels.data
    assert (ours != expected)[inside].mean() < 1e-3  # SciPy's ties go another way
    assert set(np.unique(ours)) == label_values
    assert ours.dtype == np.int32


def test_moved_is_an_image_of_nibabel(result, scans):
    fixed = nib.load(scans.fixed)
    np.testing.assert_array_equal(np.asarray(result.moved.dataobj), result.warped.data)
    np.testing.assert_allclose(result.moved.affine, fixed.affine, atol=1e-5)
    assert result.moved.get_data_dtype() == np.int16


def test_how_it_reads_in_a_console(result, scans):
    after = result.metrics["similarity"]["after"]
    assert repr(result) == (
        f"<Registration of {scans.moving} to {scans.fixed}: local_ncc {after['local_ncc']:.3f}, "
        f"correlation {after['correlation']:.3f}>"
    )


# Written


def with_warnings(result: Registration, *warnings: str) -> Registration:
    """The result with other warnings."""
    return replace(result, metrics=deepcopy(result.metrics) | {"warnings": list(warnings)})


@pytest.fixture
def fails(monkeypatch) -> None:
    """Reports cannot be made."""

    def failing(*_: object, **__: object) -> str:
        raise MemoryError("no room")

    monkeypatch.setattr("voxwarp.registration.result.render_report", failing)


def kept(metrics: Mapping[str, Any]) -> Any:
    """As files in JSON have it."""
    return json.loads(json.dumps(metrics))


def test_writing_changes_nothing_in_the_result(result, tmp_path):
    """What it adds, the time that it took, is in the file and in what it returns."""
    before = deepcopy(dict(result.metrics))
    first, second = (write_registration(result, tmp_path / name) for name in ("a", "b"))
    assert result.metrics == before
    assert "write" not in result.metrics["seconds"]
    for written, folder in ((first, tmp_path / "a"), (second, tmp_path / "b")):
        assert json.loads((folder / METRICS).read_text()) == kept(written.metrics)
        seconds = dict(written.metrics["seconds"])
        assert seconds.pop("write") > 0
        assert written.metrics | {"seconds": seconds} == before
    assert [path.name for path in first.files] == [path.name for path in second.files]
    assert first.files[-1] == tmp_path / "a" / METRICS
    assert {path.name for path in first.files} == {path.name for path in (tmp_path / "a").iterdir()}


@pytest.mark.usefixtures("fails")
def test_a_report_that_fails_changes_nothing_in_the_result_either(result, tmp_path, caplog):
    """The warning stands in what is returned, in the file and in the log."""
    before = deepcopy(dict(result.metrics))
    caplog.set_level("INFO", logger="voxwarp")
    written = write_registration(result, tmp_path / "out")
    assert result.metrics == before
    assert result.warnings == before["warnings"]
    expected = [*before["warnings"], "report.html was not written: MemoryError: no room"]
    assert written.metrics["warnings"] == expected
    assert json.loads((tmp_path / "out" / METRICS).read_text())["warnings"] == expected
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "the report of out cannot be written" in caplog.text
    assert "MemoryError: no room" in caplog.text
    caplog.clear()
    result.save(tmp_path / "again")  # returns no metrics, so the log has to warn
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == [
        f"result {tmp_path / 'again'}: report.html was not written: MemoryError: no room"
    ]


def test_saving_is_writing(result, tmp_path):
    files = result.save(tmp_path / "a")
    assert [path.name for path in files] == [
        path.name for path in write_registration(result, tmp_path / "b").files
    ]
    for path in files:
        if path.name not in (METRICS, REPORT):  # they tell times
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_overwriting_never_leaves_old_metrics_beside_new_files(result, tmp_path, monkeypatch):
    result.save(tmp_path / "out")
    rename, published = os.replace, []

    def breaks(source: Path, target: Path) -> None:
        if target.parent == tmp_path / "out":
            published.append(target)
        if len(published) == 3:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "replace", breaks)
    with pytest.raises(InputError, match="Input/output error"):
        result.save(tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_saved_with_the_registration(result, tmp_path):
    folder = tmp_path / "a & b"
    files = result.save(folder)
    assert folder / REPORT in files
    words = Parsed((folder / REPORT).read_text(encoding="utf-8")).words
    assert "a & b" in words


def test_without_report(result, tmp_path):
    files = result.save(tmp_path / "out", report=False)
    assert REPORT not in {path.name for path in files}
    assert not (tmp_path / "out" / REPORT).exists()


@pytest.mark.usefixtures("fails")
def test_a_report_that_fails_is_a_warning(result, tmp_path):
    """All else is written, without half a report, and an older report is removed."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / REPORT).write_text("of an earlier run")
    files = with_warnings(result, "look at it").save(folder, overwrite=True)
    assert REPORT not in {path.name for path in files}
    assert {path.name for path in folder.iterdir()} == {path.name for path in files}
    warnings = json.loads((folder / METRICS).read_text())["warnings"]
    assert warnings == ["look at it", "report.html was not written: MemoryError: no room"]


def test_a_report_after_one_that_failed(result, tmp_path):
    failed = with_warnings(
        result, "look at it", "report.html was not written: MemoryError: no room"
    )
    written = write_registration(failed, tmp_path / "out")
    assert written.metrics["warnings"] == ["look at it"]
    assert json.loads((tmp_path / "out" / METRICS).read_text())["warnings"] == ["look at it"]


@pytest.mark.parametrize("name", [METRICS, "1Warp.nii.gz", REPORT])
def test_a_folder_with_results_is_refused_or_overwritten(result, tmp_path, name: str):
    (tmp_path / name).write_text("precious")
    with pytest.raises(InputError, match=name):
        check_output(tmp_path, overwrite=False)
    with pytest.raises(InputError, match=name):
        write_registration(result, tmp_path)
    assert (tmp_path / name).read_text() == "precious"
    check_output(tmp_path, overwrite=True)


def test_a_folder_with_results_of_preprocess_is_refused(result, tmp_path):
    (tmp_path / PREPROCESSED).write_text("{}")
    with pytest.raises(InputError, match="another command"):
        write_registration(result, tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {PREPROCESSED}


# Read back


@pytest.fixture(scope="module")
def of_mask(scans, register_quickly, tmp_path_factory) -> Registration:
    """Of a name that would do harm, with a mask of the moving brain and labels of both scans."""
    folder, image = tmp_path_factory.mktemp("mask"), nib.load(scans.moving)
    moving = shutil.copy(scans.moving, folder / "moving <b> & 'quoted' \"twice\" ü.nii.gz")
    filled = (np.asarray(image.dataobj) > 160).astype(np.uint8)
    nib.save(nib.Nifti1Image(filled, image.affine), folder / "mask.nii.gz")
    labels = {"labels": scans.moving_labels, "fixed_labels": scans.fixed_labels}
    return register_quickly(moving, scans.fixed, mask=folder / "mask.nii.gz", **labels)


def test_loaded_as_it_was_saved(of_mask, tmp_path):
    written = write_registration(of_mask, tmp_path / "out", report=False)
    loaded = load(tmp_path / "out")
    for name in ("warp", "inverse_warp"):
        ours, expected = (getattr(result, name).displacement for result in (loaded, of_mask))
        np.testing.assert_array_equal(ours, expected)
    for name in (
        *("warped", "inverse_warped", "warped_labels", "warped_mask"),
        *("brain", "moving_mask"),
    ):
        ours, expected = (getattr(result, name) for result in (loaded, of_mask))
        np.testing.assert_array_equal(ours.data, expected.data)
        np.testing.assert_allclose(ours.grid.affine, expected.grid.affine, atol=1e-5)
    for role in ("moving", "fixed"):
        ours, expected = (getattr(result, role) for result in (loaded, of_mask))
        np.testing.assert_array_equal(ours.image.data, expected.image.data)
        np.testing.assert_array_equal(ours.labels.data, expected.labels.data)
    assert loaded.fixed_mask is of_mask.fixed_mask is None
    np.testing.assert_allclose(loaded.affine.matrix, of_mask.affine.matrix, atol=1e-12)
    assert loaded.metrics == kept(written.metrics)
    assert loaded.warnings == of_mask.warnings


def test_loaded_and_saved_again(of_mask, tmp_path):
    """The same bytes, but for times."""
    of_mask.save(tmp_path / "one")
    load(tmp_path / "one").save(tmp_path / "two")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {path.name for path in (tmp_path / "two").iterdir()}
    for name in names - {METRICS, REPORT}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, two = (json.loads((tmp_path / run / METRICS).read_text()) for run in ("one", "two"))
    assert one.pop("seconds").keys() == two.pop("seconds").keys()
    assert one == two


def test_a_deformation_of_another_grid_is_refused(result, tmp_path, scans):
    """As where a folder's files are of two registrations."""
    folder = tmp_path / "out"
    result.save(folder, report=False)
    record = json.loads((folder / METRICS).read_text())
    record["inputs"]["fixed"] = record["inputs"]["moving"]
    record["inputs"]["fixed_labels"] = record["inputs"]["labels"]
    (folder / METRICS).write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"out: .* not on the grid of the fixed scan"):
        load(folder)


def test_a_scan_that_was_no_file_cannot_be_read_back(result, tmp_path):
    inputs = {**result.metrics["inputs"], "moving": None}
    replace(result, metrics={**result.metrics, "inputs": inputs}).save(tmp_path / "out")
    with pytest.raises(InputError, match=r"out: moving scan: metrics\.json does not name its file"):
        load(tmp_path / "out")


def test_the_report_made_anew_has_the_same_pictures(of_mask, tmp_path, cli):
    folder = tmp_path / "out"
    of_mask.save(folder)
    first = (folder / REPORT).read_text(encoding="utf-8")
    (folder / REPORT).write_text("somebody's notes")
    assert cli("report", folder).code == 2
    assert (folder / REPORT).read_text() == "somebody's notes"
    assert cli("report", folder, "--overwrite").code == 0
    outcome = cli("report", folder)  # ours can be made again
    assert outcome.code == 0, outcome.err
    second = (folder / REPORT).read_text(encoding="utf-8")
    pictures = [re.findall(r"data:[^\"]*", text) for text in (first, second)]
    assert len(pictures[0]) > 30
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_scans_that_are_not_the_same_any_more_are_refused(result, tmp_path, refuses, what):
    folder = tmp_path / "out"
    result.save(folder)
    record = json.loads((folder / METRICS).read_text())
    copy = tmp_path / "moving.nii.gz"
    copy.write_bytes(Path(record["inputs"]["moving"]["path"]).read_bytes())
    record["inputs"]["moving"]["path"] = str(copy)
    (folder / METRICS).write_text(json.dumps(record))
    if what == "gone":
        copy.unlink()
    else:
        copy.write_bytes(copy.read_bytes() + b"0")
    line = refuses("report", folder, "--overwrite")
    assert str(copy) in line


# In a notebook


def test_in_a_notebook(result):
    text = result._repr_html_()
    assert text == mosaic(result.scene, result.metrics)
    parsed = Parsed(text)
    assert not parsed.all("script")
    assert len([p for p in parsed.all("img") if p["alt"]]) == 6


def test_a_notebook_tells_the_warnings_too(result):
    assert "look <here>" in Parsed(with_warnings(result, "look <here>")._repr_html_()).words


def test_figures_are_the_panels(of_mask):
    pytest.importorskip("matplotlib")
    page = report(of_mask.scene, of_mask.metrics, name="out")
    assert list(of_mask.plot()) == [a["id"] for a in Parsed(page).all("figure")]
    assert len(of_mask.plot()) == 8
