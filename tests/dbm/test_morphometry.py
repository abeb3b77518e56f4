"""``voxwarp morphometry`` from end to end, on the results of a template of phantoms."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from bids_data import grid, head, write_quick_model, write_scan
from inline import run_inline

import voxwarp
from voxwarp.space.volume import read_series

pytest.importorskip("distributed")


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_quick_model(tmp_path_factory.mktemp("models") / "quick")


@pytest.fixture(scope="module")
def template(model, tmp_path_factory) -> Path:
    """A template of two persons, one scanned twice, with labels; spacing 8 mm."""
    folder = tmp_path_factory.mktemp("template")
    paths = []
    for person, session, seed in (("1", "a", 1), ("1", "b", 4), ("2", "a", 2)):
        stem = f"sub-{person}_ses-{session}"
        brain = head(seed)
        paths.append(write_scan(folder / "in" / f"{stem}_T1w.nii.gz", brain))
        labels = np.where(brain > 0, 1 + (brain > 110), 0).astype(np.uint8)
        write_scan(folder / "in" / f"{stem}_T1w_seg.nii.gz", labels)
        write_scan(folder / "in" / f"{stem}_T1w_gm.nii.gz", (brain / 200).astype(np.float32))
    settings = voxwarp.TemplateSettings(
        name="Small",
        model=str(model),
        rounds=2,
        spacing=8,
        brain_extract="no",
        longitudinal=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        run_inline(patch)
        pattern = "{stem}_seg.nii.gz"
        voxwarp.build_template(paths, folder / "tpl", settings=settings, labels=pattern)
    return folder / "tpl"


def table(path: Path) -> list[dict[str, str]]:
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_maps_are_those_of_itk(cli, template, tmp_path) -> None:
    out = tmp_path / "out"
    done = cli("morphometry", template, "-o", out, "--fwhm", "16")
    assert done.code == 0, done.err
    folder = out / "sub-1" / "ses-b" / "anat"
    stem = "sub-1_ses-b_space-Small_desc"
    transform = sitk.ReadTransform(
        str(
            template
            / "sub-1"
            / "ses-b"
            / "anat"
            / "sub-1_ses-b_from-T1w_to-Small_mode-image_xfm.h5"
        )
    )
    relative, absolute = (
        nib.load(folder / f"{stem}-{kind}_logjac.nii.gz").get_fdata()
        for kind in ("relative", "absolute")
    )
    affine = nib.load(folder / f"{stem}-absolute_logjac.nii.gz").affine
    rng = np.random.default_rng(0)
    for voxel in rng.integers(4, np.array(absolute.shape) - 4, (60, 3)):
        ends = [voxel + sign * step for step in np.eye(3) for sign in (1, -1)]
        world = [(affine @ [*end, 1])[:3] * [-1, -1, 1] for end in ends]
        moved = np.array([transform.TransformPoint(point) for point in world])
        columns = (moved[0::2] - moved[1::2]) / (2 * 8)  # the voxels have 8 mm
        determinant = abs(np.linalg.det(columns))
        assert absolute[tuple(voxel)] == pytest.approx(np.log(determinant), abs=2e-3)
    assert np.abs(relative).max() > 0.1
    about = json.loads((folder / f"{stem}-absolute_logjac.json").read_text())
    assert "positive: the region is larger in the person" in about["Description"]
    assert about["SpatialReference"] == "Small"
    smooth = json.loads((folder / f"{stem}-relatives16_logjac.json").read_text())
    assert smooth["SmoothingFWHM"] == 16
    maps = table(out / "maps.tsv")
    assert [row["participant_id"] for row in maps] == ["sub-1", "sub-1", "sub-2"]
    assert all((out / row["relatives16"]).is_file() for row in maps)
    assert (out / "morphometry.html").stat().st_size > 5000


def test_volumes_are_those_of_the_labels(cli, template, tmp_path) -> None:
    """The atlas of the template, by the Jacobian, against each person's own label map."""
    out = tmp_path / "out"
    done = cli("morphometry", template, "-o", out, "--json")
    assert done.code == 0
    record = json.loads(done.out)
    assert str(out / "volumes_native.tsv") in record["tables"]
    assert (record["report"], record["failed"]) == (str(out / "morphometry.html"), {})
    rows = table(out / "volumes_native.tsv")
    names = [name for name in rows[0] if name.startswith("label-")]
    assert names == ["label-1", "label-2"]
    for row, seed in zip(rows, (1, 4, 2), strict=True):
        brain = head(seed)
        own_ml = [((brain > 0) & (brain <= 110)).sum(), (brain > 110).sum()]
        own_ml = [number * 8.0**3 / 1000 for number in own_ml]
        found = [float(row[name]) for name in names]
        assert sum(found) == pytest.approx(sum(own_ml), rel=0.06)
        assert found[1] == pytest.approx(own_ml[1], rel=0.4)  # few voxels, quick model
        assert float(row["brain_ml"]) == pytest.approx(sum(own_ml), rel=1e-3)
    # All are placed by their headers alone, so heads are not scaled.
    assert {row["affine_scale"] for row in rows} == {"1"}
    assert table(out / "volumes_template.tsv") == rows


def test_modulated_maps_keep_the_amount(cli, template, tmp_path) -> None:
    out = tmp_path / "out"
    words = "--modulate", "{folder}/{stem}_gm.nii.gz"
    done = cli("morphometry", template, "-o", out, *words)
    assert done.code == 0, done.err
    path = out / "sub-2" / "ses-a" / "anat" / "sub-2_ses-a_space-Small_desc-modulated_map.nii.gz"
    total = nib.load(path).get_fdata().sum()
    assert total == pytest.approx((head(2) / 200).sum(), rel=0.03)


def test_what_is_up_to_date_is_kept(cli, template, tmp_path) -> None:
    out = tmp_path / "out"
    words = "morphometry", template, "-o", out
    assert "measuring 3 of 3" in cli(*words).out
    assert "nothing to measure" in cli(*words).out
    (
        out / "sub-2" / "ses-a" / "anat" / "sub-2_ses-a_space-Small_desc-relative_logjac.nii.gz"
    ).unlink()
    assert "measuring 1 of 3" in cli(*words).out
    assert "measuring 3 of 3" in cli(*words, "--fwhm", "12").out


def test_changes_within_a_person(cli, template, model, tmp_path) -> None:
    out = tmp_path / "out"
    times = tmp_path / "times.tsv"
    times.write_text("participant_id\tsession_id\tage\nsub-1\tses-a\t60\nsub-1\tses-b\t62.5\n")
    words = "--longitudinal", "--times", times, "--model", model
    done = cli("morphometry", template, "-o", out, *words)
    assert done.code == 0, done.err
    (row,) = table(out / "changes.tsv")
    assert (row["participant_id"], row["first_session"], row["last_session"]) == (
        "sub-1",
        "ses-a",
        "ses-b",
    )
    assert float(row["years"]) == 2.5
    folder = out / "sub-1" / "anat"
    change, annual = (
        nib.load(folder / f"sub-1_space-Small_desc-{desc}_logjac.nii.gz").get_fdata()
        for desc in ("change", "annualchange")
    )
    np.testing.assert_allclose(annual, change / 2.5, atol=1e-5)
    # The change between two sessions is the difference of their own log Jacobians, roughly.
    absolute = [
        nib.load(
            out
            / "sub-1"
            / f"ses-{s}"
            / "anat"
            / f"sub-1_ses-{s}_space-Small_desc-absolute_logjac.nii.gz"
        ).get_fdata()
        for s in "ab"
    ]
    inside = nib.load(out / "mask.nii.gz").get_fdata() != 0
    difference = absolute[1] - absolute[0]
    assert np.corrcoef(difference[inside], change[inside])[0, 1] > 0.3


def test_results_of_cohorts_are_measured(cli, model, tmp_path) -> None:
    paths = [write_scan(tmp_path / "in" / f"P{n}.nii.gz", head(n)) for n in (1, 2)]
    fixed = write_scan(tmp_path / "fixed.nii.gz", head(99))
    words = "--fixed", fixed, "--model", model, "--space", "X", "--brain-extract", "no"
    done = cli("cohort", paths[0].parent, tmp_path / "deriv", "participant", *words)
    assert done.code == 0, done.err
    atlas = tmp_path / "atlas.nii.gz"
    write_scan(atlas, (head(99) > 100).astype(np.uint8) * 7)
    (tmp_path / "atlas.tsv").write_text("index\tname\n7\tbright\n")
    done = cli("morphometry", tmp_path / "deriv", "-o", tmp_path / "out", "--atlas", atlas)
    assert done.code == 0, done.err
    rows = table(tmp_path / "out" / "volumes_native.tsv")
    assert [row["participant_id"] for row in rows] == ["sub-P1", "sub-P2"]
    assert all(float(row["bright"]) > 0 for row in rows)
    mask = read_series(tmp_path / "out" / "mask.nii.gz")
    assert mask.grid == grid()


# ----------------------------------------------------------------------------------- Bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fwhm", "0"), "--fwhm must be above 0 and at most 30 mm, got 0"),
        (("--fwhm", "a,b"), "--fwhm must be numbers separated by commas"),
        (("--times", "x.tsv"), "--times has no effect without --longitudinal"),
        (("--atlas", "missing.nii.gz"), "missing.nii.gz"),
    ],
)
def test_bad_options_are_refused(cli, template, tmp_path, words, message) -> None:
    done = cli("morphometry", template, "-o", tmp_path / "out", *words)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line


def test_a_folder_without_results_is_refused(refuses, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    line = refuses("morphometry", tmp_path / "empty", "-o", tmp_path / "out")
    assert "there is no result of voxwarp cohort or voxwarp template" in line
    line = refuses("morphometry", tmp_path / "missing", "-o", tmp_path / "out")
    assert "missing" in line


def test_nobody_was_scanned_twice(cli, model, tmp_path) -> None:
    paths = [write_scan(tmp_path / "in" / f"P{n}.nii.gz", head(n)) for n in (1, 2)]
    settings = voxwarp.TemplateSettings(model=str(model), rounds=1, spacing=8, brain_extract="no")
    voxwarp.build_template(paths, tmp_path / "tpl", settings=settings)
    done = cli("morphometry", tmp_path / "tpl", "-o", tmp_path / "out", "--longitudinal")
    assert done.code == 2
    assert "no person has results of two scans" in done.err
