"""``voxwarp cohort`` from end to end: what it writes, what it does again, and what fails."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from bids_data import head, write_scan
from small_cohorts import SmallCohort, companions

import voxwarp
from voxwarp.cohort.derivatives import with_voxel_size
from voxwarp.cohort.ledger import Ledger
from voxwarp.space.grid import Grid

ALSO = "--also", "dseg", "bold", "--lesion"


@pytest.fixture(scope="module")
def cohort(make_cohort) -> SmallCohort:
    """Three persons; the scan of the second is cut off."""
    made = make_cohort(3, "a cohort ü", companions)
    path = made.bids / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    path.write_bytes(path.read_bytes()[:300])
    return made


@pytest.fixture(scope="module")
def first(cohort) -> subprocess.CompletedProcess[str]:
    """The first run, into ``out``."""
    return cohort.run(cohort.folder / "out", "participant", "group", *ALSO)


@pytest.fixture
def out(cohort, first) -> Path:
    return cohort.folder / "out"


def files(out: Path, pattern: str = "**/*") -> set[str]:
    return {p.relative_to(out).as_posix() for p in out.glob(pattern) if p.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_one_bad_scan_is_one_failed_row(first, out) -> None:
    assert first.returncode == 3, first.stderr
    assert "3 scans: 2 registered, 1 failed" in first.stdout
    said = [line for line in first.stderr.splitlines() if line.startswith("voxwarp: failed")]
    assert len(said) == 1
    assert "sub-02_T1w.nii.gz: not an image that can be read" in said[0]
    assert "add: --participant-label 02" in first.stderr
    assert "not an image that can be read" in (out / "logs" / "sub-02_crash.txt").read_text()
    assert files(out, "logs/*_crash.txt") == {"logs/sub-02_crash.txt"}
    assert files(out, "sub-02*/**/*") == set()
    assert "not an image that can be read" in (out / "logs" / "sub-02.log").read_text()
    rows = {row["participant_id"]: row for row in table(out / "quality.tsv")}
    assert [rows[f"sub-0{n}"]["state"] for n in (1, 2, 3)] == ["done", "failed", "done"]
    assert rows["sub-02"]["flags"] == "failed,warnings"
    assert rows["sub-01"]["bids_name"] == "sub-01_T1w"
    page = (out / "index.html").read_text()
    pictures = re.findall(r'<img src="([^"]+)"', page)
    assert [path.split("/")[0] for path in pictures] == ["sub-01", "sub-03"]
    assert all((out / path).is_file() for path in pictures)
    assert page.count("no picture") == 1


def test_the_files_have_the_names_of_bids(out) -> None:
    anat, func = "sub-01/anat/sub-01", "sub-01/func/sub-01"
    images = [
        f"{anat}_space-Phantom_desc-preproc_T1w.nii.gz",
        f"{anat}_desc-brain_mask.nii.gz",
        f"{anat}_space-Phantom_desc-brain_mask.nii.gz",
        f"{anat}_space-Phantom_desc-two_dseg.nii.gz",
        f"{anat}_space-Phantom_label-lesion_roi.nii.gz",
        f"{anat}_from-T1w_to-Phantom_mode-image_xfm.h5",
        f"{anat}_from-Phantom_to-T1w_mode-image_xfm.h5",
        f"{func}_task-rest_space-Phantom_res-native_desc-preproc_bold.nii.gz",
    ]
    sidecars = [re.sub(r"\.(nii\.gz|h5)$", ".json", image) for image in images]
    others = [
        f"{anat}_space-Phantom_desc-registration_metrics.json",
        *(
            f"sub-01/figures/sub-01_space-Phantom_desc-{x}_T1w.jpg"
            for x in ("contours", "thumbnail")
        ),
    ]
    assert files(out, "sub-01/**/*") == {*images, *sidecars, *others}
    assert {"sub-01.html", "sub-03.html", "index.html", "quality.tsv"} <= files(out, "*")
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "voxwarp"
    sidecar = json.loads((out / sidecars[3]).read_text())
    assert sidecar["Sources"] == [
        "bids:raw:sub-01/anat/sub-01_desc-two_dseg.nii.gz",
        f"bids::{images[5]}",
    ]
    assert sidecar["SpatialReference"] == "Phantom"


def test_nothing_temporary_is_left(out) -> None:
    assert files(out, ".voxwarp/*") == {".voxwarp/ledger.sqlite"}
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("way", [("T1w", "Phantom"), ("Phantom", "T1w")])
def test_other_tools_map_points_through_the_transforms_as_we_do(cohort, out, way) -> None:
    """Also as the command maps them."""
    path = out / "sub-01" / "anat" / f"sub-01_from-{way[0]}_to-{way[1]}_mode-image_xfm.h5"
    points = np.random.default_rng(0).uniform(-40, 40, (100, 3))
    ours = voxwarp.load_transform(path).transform.map(points)
    assert np.abs(ours - points).max() > 0.5
    theirs, flip = sitk.ReadTransform(str(path)), np.array([-1.0, -1.0, 1.0])
    mapped = np.array([theirs.TransformPoint(p) for p in (points * flip).tolist()]) * flip
    np.testing.assert_allclose(mapped, ours, atol=1e-4)
    # an image from T1w to Phantom takes points of T1w there by the inverse
    back = voxwarp.apply_to_points(points, path, inverse=True)
    np.testing.assert_allclose(back, ours, atol=1e-9)
    there = voxwarp.apply_to_points(ours, path)
    assert np.median(np.linalg.norm(there - points, axis=1)) < 0.5


def test_the_warped_scan_is_that_of_register(cohort, out) -> None:
    """Resampled by the transform in the file, once."""
    name = out / "sub-01" / "anat" / "sub-01"
    warped = nib.load(f"{name}_space-Phantom_desc-preproc_T1w.nii.gz")
    moved = voxwarp.apply_to_image(
        cohort.bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz",
        f"{name}_from-T1w_to-Phantom_mode-image_xfm.h5",
        reference=cohort.folder / "template.nii.gz",
    )
    difference = np.asarray(warped.dataobj).astype(float) - moved.data
    assert np.abs(difference).max() <= 1  # of integers
    labels = nib.load(f"{name}_space-Phantom_desc-two_dseg.nii.gz")
    assert set(np.unique(np.asarray(labels.dataobj))) == {0, 1, 2}
    assert labels.header.get_intent()[0] == "label"


def test_a_series_keeps_its_voxel_size(out) -> None:
    path = next((out / "sub-01" / "func").glob("*_bold.nii.gz"))
    image = nib.load(path)
    assert image.shape[3] == 3
    assert image.header.get_zooms() == (8.0, 8.0, 8.0, 2.0)
    frames = np.asarray(image.dataobj).astype(float)
    np.testing.assert_allclose(frames[..., 1], 2 * frames[..., 0], atol=2)


@pytest.mark.parametrize("size", [1.0, 2.0, 3.7])
def test_a_grid_of_another_voxel_size_covers_the_same_field_of_view(make_grid, size) -> None:
    grid = make_grid("LPI", (4, 5, 4.5), turn=(12, -7, 9))
    other = with_voxel_size(grid, size)
    np.testing.assert_allclose(other.spacing, size)
    np.testing.assert_allclose(other.direction, grid.direction, atol=1e-9)
    middles = [g.to_world((np.array(g.shape) - 1) / 2) for g in (grid, other)]
    np.testing.assert_allclose(*middles, atol=1e-9)
    extents = [np.array(g.shape) * g.spacing for g in (grid, other)]
    assert (extents[1] - extents[0] > -0.01).all()
    assert (extents[1] - extents[0] < size).all()
    assert isinstance(other, Grid)


@pytest.fixture
def mended(cohort) -> Iterator[SmallCohort]:
    """The same, with a whole second scan."""
    path = cohort.bids / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    broken = path.read_bytes()
    write_scan(path, head(2))
    yield cohort
    path.write_bytes(broken)


def test_a_second_run_does_what_is_missing_alone(mended, first, out, tmp_path) -> None:
    """And what follows from something else now; the rest stays as it is, to the byte."""
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    before = {name: (copy / name).read_bytes() for name in files(copy)}
    (copy / "sub-03" / "anat" / "sub-03_desc-brain_mask.nii.gz").unlink()
    plan = mended.run(copy, "participant", "--dry-run", *ALSO)
    assert "2 of 3 scans would be registered, 1 are done" in plan.stdout
    assert "sub-02  failed before: moving image" in plan.stdout
    assert "sub-03  sub-03/anat/sub-03_desc-brain_mask.nii.gz is missing" in plan.stdout
    done = mended.run(copy, "participant", *ALSO)
    assert done.returncode == 0, done.stderr
    assert "3 scans: 2 registered, 1 were there already" in done.stdout
    assert not files(copy, "logs/*_crash.txt")
    for name in before.keys() - {"index.html", "quality.tsv"}:
        if not name.startswith(("logs", ".voxwarp")):
            assert (copy / name).read_bytes() == before[name], name
    again = mended.run(copy, "participant", *ALSO)
    assert again.stdout.endswith("nothing to do: all 3 results are up to date\n")
    # less is wanted: the files of that go
    less = mended.run(copy, "participant", "--also", "dseg", "--participant-label", "01")
    assert "1 scan: 1 registered" in less.stdout, less.stderr
    assert not list((copy / "sub-01").rglob("*bold*"))
    assert not list((copy / "sub-01").rglob("*lesion*"))
    assert list((copy / "sub-03").rglob("*bold*"))
    assert len(table(copy / "quality.tsv")) == 3
    assert len(Ledger(copy / ".voxwarp").entries()) == 3


def test_the_group_level_sums_up(cohort, out) -> None:
    rows = table(out / "group_T1w.tsv")
    assert [row["bids_name"] for row in rows] == ["sub-01_T1w", "sub-03_T1w"]
    anat = [out / f"sub-{n}" / "anat" / f"sub-{n}_space-Phantom_desc" for n in ("01", "03")]
    for row, name in zip(rows, anat, strict=True):
        record = json.loads(Path(f"{name}-registration_metrics.json").read_text())
        folds, overlap = record["jacobian"]["folds"], record["quality"]["mask_overlap"]
        assert float(row["jacobian_folds"]) == folds
        assert float(row["quality_mask_overlap"]) == pytest.approx(overlap, rel=1e-5)
        masks = [
            np.asarray(nib.load(path).dataobj) > 0
            for path in (f"{name}-brain_mask.nii.gz", cohort.folder / "template.nii.gz")
        ]
        dice = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
        assert overlap == pytest.approx(dice, abs=1e-5)
    scaled = []
    for name in anat:
        image, mask = (
            np.asarray(nib.load(f"{name}-{x}.nii.gz").dataobj).astype(float)
            for x in ("preproc_T1w", "brain_mask")
        )
        scaled.append(image / np.median(image[mask > 0]))
    for desc, expected in (("mean", np.mean(scaled, 0)), ("std", np.std(scaled, 0, ddof=1))):
        found = nib.load(out / "group" / f"space-Phantom_desc-{desc}_T1w.nii.gz")
        np.testing.assert_allclose(np.asarray(found.dataobj), expected, atol=1e-5)


def test_the_pages_can_be_made_again(cohort, out, tmp_path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    before = {name: (copy / name).read_text() for name in ("index.html", "quality.tsv")}
    for name in before:
        (copy / name).unlink()
    done = cohort.run(copy, "participant", "--reports-only")
    assert done.returncode == 0, done.stderr
    for name, text in before.items():
        assert (copy / name).read_text() == text


def test_the_validator_of_bids_finds_no_error(out) -> None:
    validator = shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run([validator, str(out), "--json"], capture_output=True, text=True)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == []


# The command line


def test_options_are_written_as_for_other_bids_apps(cohort, cli, tmp_path) -> None:
    words = [cohort.bids, tmp_path / "o", "participant", *cohort.settings, "--dry-run"]
    expected = ["sub-01", "sub-03"]
    for labels in (
        ("--participant-label", "01", "03"),
        ("--participant_label", "sub-01", "sub-03"),
        ("--participant-label=01", "--participant-label=03"),
        ("--participant_label", "01", "03", "--n_cpus", "2", "--omp-nthreads", "1"),
        ("--participant-label", "01", "03", "--mem_gb", "8", "--skip_bids_validation", "-v"),
    ):
        outcome = cli("cohort", *words, *labels)
        assert outcome.code == 0, outcome.err
        assert [line.split()[0] for line in outcome.out.splitlines()[:-1]] == expected
    outcome = cli("cohort", *words, "--participant-label", "01", "--json")
    (scan,) = json.loads(outcome.out)["scans"]
    assert (scan["scan"], bool(scan["to_do"])) == ("sub-01", True)
    assert Path(scan["path"]).is_file()
    assert not (tmp_path / "o").exists()
    assert cli("cohort", "--version").out == f"voxwarp {voxwarp.__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--participant-label", "09"), "--participant-label: there is no sub-09"),
        (("--space", "T1w"), "--space must be another name than T1w"),
        (("--space", "MNI_152"), "--space must be of letters and digits"),
        (("--run-uuid", "a/b"), "--run-uuid must be of"),
        (("--fixed-mask", "x"), None),
        (("--dask-scheduler", "x", "--dask-config", "y"), "exclude each other"),
        (("--subject-anatomical-reference", "unbiased"), "does not build unbiased templates"),
        (("--bids-filter-file", "nowhere.json"), "no such file"),
    ],
)
def test_wrong_requests_are_refused(cohort, refuses, tmp_path, words, said) -> None:
    line = refuses("cohort", cohort.bids, tmp_path / "o", "participant", *cohort.settings, *words)
    if said:
        assert said in line


def test_a_model_without_a_template_needs_a_fixed_scan(cohort, refuses, tmp_path) -> None:
    words = [cohort.bids, tmp_path / "o", "participant", "--model", cohort.folder / "model"]
    assert "has no template to register to; give a fixed scan (--fixed)" in refuses(
        "cohort", *words
    )


def test_two_spaces_need_two_folders(cohort, out, cli) -> None:
    words = [w if w != "Phantom" else "Other" for w in cohort.settings]
    outcome = cli("cohort", cohort.bids, out, "participant", *words)
    assert outcome.code == 2
    assert "it holds results in the space Phantom, not Other" in outcome.err


def test_a_folder_of_another_tool_is_no_place_for_results(cohort, refuses, tmp_path) -> None:
    out = tmp_path / "fmriprep"
    out.mkdir()
    about = {"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    (out / "dataset_description.json").write_text(json.dumps(about))
    line = refuses("cohort", cohort.bids, out, "participant", *cohort.settings)
    assert "it is a data set of something else" in line


def test_two_images_of_one_name_are_refused(cohort, tmp_path) -> None:
    """A mask of a person's own would replace ours."""
    path = cohort.bids / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz"
    write_scan(path, head(1))
    try:
        words = "--also", "mask", "--participant-label", "01"
        done = cohort.run(tmp_path / "out", "participant", *words)
    finally:
        path.unlink()
    assert done.returncode == 3
    assert "two files of sub-01 would have the name sub-01_space-Phantom_desc-brain" in done.stderr


def test_the_data_set_itself_is_no_place_for_results(cohort, cli) -> None:
    outcome = cli("cohort", cohort.bids, cohort.bids, "participant", *cohort.settings)
    assert outcome.code == 2
    assert "this is the data set itself" in outcome.err


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounts need root")
def test_a_full_disk_stops_the_run_before_damage(cohort, first, out, tmp_path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=420k", "tmpfs", str(small)])
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        done = cohort.run(small / "out", "participant", "--nprocs", "1")
        assert done.returncode == 3, done.stderr
        assert "is full; no further scan was begun: make room" in done.stderr
        there = files(small / "out", "sub-*/**/*")
        assert any(name.endswith("metrics.json") for name in there)
        assert not list((small / "out").rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        cohort.run(small / "out", "participant")
        for name in files(small / "out", "sub-0[13]/**/*.h5"):
            assert (small / "out" / name).read_bytes() == (out / name).read_bytes()
        assert files(small / "out", ".voxwarp/*") == {".voxwarp/ledger.sqlite"}
    finally:
        subprocess.run(["umount", str(small)])
