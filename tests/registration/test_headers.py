"""What headers leave in doubt is said once for each scan in every command; spaces keep codes."""

import json
import logging
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from image_files import brain_points, voxels
from odd_headers import FLIP, GUESS, TWO, affine_by_itk, coded, nifti_file, of_two_minds

from voxwarp.registration.apply import apply_to_image
from voxwarp.registration.loading import load
from voxwarp.registration.points import apply_to_points
from voxwarp.registration.saved_transform import load_transform
from voxwarp.space.formats import write_affine
from voxwarp.space.transform import Affine
from voxwarp.space.volume import read_series


@pytest.fixture(scope="module")
def spaces(scans, register_quickly, tmp_path_factory) -> types.SimpleNamespace:
    """A registration of a Talairach scan (code 3) to one in MNI152 space (code 4), saved."""
    folder = tmp_path_factory.mktemp("spaces")
    paths = types.SimpleNamespace(out=folder / "out", linear=folder / "linear")
    for role, code in (("moving", 3), ("fixed", 4)):
        for name in (role, f"{role}_labels"):
            path = coded(getattr(scans, name), folder / f"{name}.nii.gz", code)
            setattr(paths, name, path)
    labels = {"labels": paths.moving_labels, "fixed_labels": paths.fixed_labels}
    masks = {
        name: nib.Nifti1Image((voxels(path) > 160).astype(np.uint8), nib.load(path).affine)
        for name, path in (("mask", paths.moving), ("fixed_mask", paths.fixed))
    }
    paths.result = register_quickly(paths.moving, paths.fixed, **labels, **masks)
    paths.result.save(paths.out)
    register_quickly(paths.moving, paths.fixed, transform="affine").save(paths.linear)
    return paths


@pytest.fixture(scope="module")
def doubtful(scans, register_quickly, tmp_path_factory) -> types.SimpleNamespace:
    """A registration of a scan without placement to one of two minds, saved, linear and not."""
    folder = tmp_path_factory.mktemp("doubtful")
    paths = types.SimpleNamespace(
        moving=coded(scans.moving, folder / "moving.nii.gz", 0),
        fixed=of_two_minds(scans.fixed, folder / "fixed.nii.gz"),
        out=folder / "out",
        linear=folder / "linear",
    )
    paths.result = register_quickly(paths.moving, paths.fixed)
    paths.result.save(paths.out)
    register_quickly(paths.moving, paths.fixed, transform="rigid").save(paths.linear)
    return paths


def codes(path: Path) -> tuple[int, int]:
    header = nib.load(path).header
    return int(header["sform_code"]), int(header["qform_code"])


# ------------------------------------------------------------------------------ Codes of spaces


def test_files_have_the_code_of_the_scan_on_whose_grid_they_are(spaces):
    found = {path.name: codes(path)[0] for path in spaces.out.glob("*.nii.gz")}
    assert found == {
        **dict.fromkeys(("Warped.nii.gz", "WarpedLabels.nii.gz", "WarpedBrainMask.nii.gz"), 4),
        **dict.fromkeys(("1Warp.nii.gz", "1InverseWarp.nii.gz", "FixedBrainMask.nii.gz"), 4),
        **dict.fromkeys(("InverseWarped.nii.gz", "MovingBrainMask.nii.gz"), 3),
    }


def test_files_hold_one_placement_which_itk_reads_too(spaces):
    for path in spaces.out.glob("*.nii.gz"):
        affine = nib.load(path).affine
        np.testing.assert_allclose(affine_by_itk(path), affine, atol=1e-4)
        form, code = nib.load(path).get_qform(coded=True)
        if code:
            np.testing.assert_allclose(form, affine, atol=1e-4)


def test_images_in_python_have_it_too(spaces):
    for result in (spaces.result, load(spaces.out)):
        assert result.moved.header["sform_code"] == 4
        assert result.jacobian_determinant().header["sform_code"] == 4
        assert result.inverse_warped.to_nibabel().header["sform_code"] == 3
        assert (result.fixed_grid.space_code, result.moving_grid.space_code) == (4, 3)
        assert result.warp.grid.space_code == 4


@pytest.mark.parametrize("kind", ["out", "linear"])
def test_apply_writes_the_code_of_the_space_it_leads_to(cli, spaces, scans, tmp_path, kind: str):
    """The grid of the moving scan is on record; that of the fixed scan is in the warp."""
    folder, out = getattr(spaces, kind), tmp_path / "out.nii.gz"
    for source, more, expected in (
        (scans.moving, [], 4),
        (scans.fixed, ["--inverse"], 3),
        (scans.moving, ["-r", coded(scans.fixed, tmp_path / "five.nii.gz", 5)], 5),
        (scans.moving, ["-r", coded(scans.fixed, tmp_path / "bare.nii.gz", 0)], 2),
        (scans.moving, ["-r", coded(scans.fixed, tmp_path / "q.nii.gz", 0, 4)], 4),
    ):
        outcome = cli("apply", source, "-t", folder, "-o", out, "--overwrite", *more)
        assert outcome.code == 0, outcome.err
        assert codes(out) == (expected, expected)


def test_the_template_is_in_mni152_space(scans, register_quickly, tmp_path):
    result = register_quickly(scans.moving, None)
    assert result.fixed_grid.space_code == 4
    assert result.moved.header["sform_code"] == 4
    assert result.inverse_warped.grid.space_code == 1
    result.save(tmp_path / "out", save="transforms,warped")
    assert codes(tmp_path / "out" / "1Warp.nii.gz") == (4, 4)


# ------------------------------------------------------------- One warning for each scan


def test_register_says_once_what_is_in_doubt(doubtful):
    said = [text for text in doubtful.result.warnings if GUESS in text or TWO in text]
    assert [text.split(":")[0] for text in said] == [
        f"moving image {doubtful.moving}",
        f"fixed image {doubtful.fixed}",
    ]
    inputs = json.loads((doubtful.out / "metrics.json").read_text())["inputs"]
    assert inputs["moving"]["header_warnings"] == said[:1]
    assert inputs["fixed"]["header_warnings"] == said[1:]
    assert inputs["labels"] is None


def lines_about(err: str, path: Path) -> list[str]:
    lines = err.splitlines()
    assert all(line.startswith("voxwarp: warning: ") for line in lines)
    return [line for line in lines if str(path) in line]


@pytest.mark.parametrize("kind", ["out", "linear"])
@pytest.mark.parametrize("strict", [False, True])
def test_apply_and_points_repeat_it(cli, doubtful, scans, tmp_path, kind: str, strict: bool):
    """The coordinates of the result are those that the registration took; --strict counts it."""
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n")
    for words in (
        ("points", tmp_path / "points.csv", "-o", tmp_path / "moved.csv"),
        ("apply", scans.moving, "-o", tmp_path / "moved.nii.gz"),
        ("apply", doubtful.moving, "-o", tmp_path / "same.nii.gz"),  # once, though it is read again
        ("apply", scans.moving, "-o", tmp_path / "ref.nii.gz", "-r", doubtful.fixed),
        ("apply", scans.fixed, scans.moving, "-o", tmp_path / "both"),
    ):
        outcome = cli(*words, "-t", getattr(doubtful, kind), *(["--strict"] * strict))
        assert outcome.code == (3 if strict else 0)
        assert str(words[3]) in outcome.out  # all is written
        assert len(outcome.err.splitlines()) == 2
        for path, problem in ((doubtful.moving, GUESS), (doubtful.fixed, TWO)):
            (line,) = lines_about(outcome.err, path)
            assert problem in line


def test_apply_says_what_is_in_doubt_of_its_own_files(cli, saved, scans, tmp_path):
    bare = coded(scans.moving, tmp_path / "bare.nii.gz", 0)
    other = of_two_minds(scans.fixed, tmp_path / "other.nii.gz")
    out = tmp_path / "out.nii.gz"
    outcome = cli("apply", bare, "-t", saved.out, "-o", out, "-r", other, "--strict")
    assert outcome.code == 3
    assert len(outcome.err.splitlines()) == 2
    assert f"image {bare}" in lines_about(outcome.err, bare)[0]
    assert f"reference {other}" in lines_about(outcome.err, other)[0]
    clean = cli("apply", scans.moving, "-t", saved.out, "-o", out, "--overwrite", "--strict")
    assert (clean.code, clean.err) == (0, "")
    points = tmp_path / "points.csv"
    points.write_text("x,y,z\n1,2,3\n")
    clean = cli("points", points, "-t", saved.out, "-o", tmp_path / "moved.csv", "--strict")
    assert (clean.code, clean.err) == (0, "")


def test_fields_without_placement_are_a_warning(cli, tmp_path):
    """Of ANTs' kind of folder, which has no record."""
    folder = tmp_path / "ants"
    folder.mkdir()
    write_affine(Affine(np.eye(4)), folder / "0GenericAffine.mat")
    field = np.zeros((10, 11, 12, 1, 3), np.float32)
    for name in ("1Warp", "1InverseWarp"):
        path = nifti_file(
            folder / f"{name}.nii", field, np.diag([4.0, 4, 4, 1]), intent_code=1007, sform_code=0
        )
        coded(path, path.with_suffix(".nii.gz"), 0)
        path.unlink()
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n")
    outcome = cli("points", tmp_path / "points.csv", "-t", folder, "-o", tmp_path / "moved.csv")
    assert outcome.code == 0, outcome.err
    assert len(outcome.err.splitlines()) == 2
    for name in ("1Warp.nii.gz", "1InverseWarp.nii.gz"):
        assert GUESS in lines_about(outcome.err, folder / name)[0]


def test_python_tells_it_too(doubtful, scans, caplog):
    moved = apply_to_image(scans.moving, doubtful.out)
    assert sum(GUESS in text for text in moved.header_warnings) == 1
    assert sum(TWO in text for text in moved.header_warnings) == 1
    assert apply_to_image(scans.moving, doubtful.result).header_warnings == moved.header_warnings
    texts = [x for of in load_transform(doubtful.out).header_warnings.values() for x in of]
    assert texts == list(moved.header_warnings)
    with caplog.at_level(logging.WARNING, "voxwarp"):
        apply_to_points(np.zeros((1, 3)), load_transform(doubtful.out))
        assert caplog.messages == []  # they can be asked for
        apply_to_points(np.zeros((1, 3)), [doubtful.out])
        assert caplog.messages == texts


@pytest.mark.parametrize("inputs", [None, 3, {}, {"moving": 3}, {"moving": {"header_warnings": 5}}])
def test_a_record_of_any_kind_is_no_reason_to_fail(cli, saved, scans, tmp_path, inputs: object):
    folder = tmp_path / "reg"
    folder.mkdir()
    for path in saved.out.iterdir():
        (folder / path.name).symlink_to(path)
    record = json.loads((saved.out / "metrics.json").read_text())
    (folder / "metrics.json").unlink()
    (folder / "metrics.json").write_text(json.dumps({**record, "inputs": inputs}))
    assert apply_to_image(scans.fixed, load_transform(saved.out), inverse=True).data.any()
    if isinstance(inputs, dict):
        outcome = cli("apply", scans.moving, "-t", folder, "-o", tmp_path / "out.nii.gz")
        assert (outcome.code, outcome.err) == (0, "")


def test_a_sheared_reference_is_a_warning(cli, saved, scans, tmp_path):
    image = nib.load(scans.fixed)
    affine = image.affine @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    sheared = nib.Nifti1Image(voxels(scans.fixed), None)
    sheared.set_qform(affine, code=0)
    sheared.set_sform(affine, code=1)
    nib.save(sheared, tmp_path / "sheared.nii.gz")
    out = tmp_path / "out.nii.gz"
    outcome = cli(
        "apply", scans.moving, "-t", saved.out, "-r", tmp_path / "sheared.nii.gz", "-o", out
    )
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert "axes are sheared" in line
    assert codes(out) == (1, 0)
    np.testing.assert_allclose(nib.load(out).affine, affine, atol=1e-4)


def test_a_refusal_says_what_is_in_doubt(refuses, scans, tmp_path):
    """The header may be the reason why no brain is found, or why grids differ."""
    image = nib.MGHImage(voxels(scans.moving).astype(np.float32), nib.load(scans.moving).affine)
    image.header["goodRASFlag"] = 0
    nib.save(image, tmp_path / "scan.mgz")
    words = ("--model", "none", "--brain-extract", "no", "-o", tmp_path / "out")
    bare = coded(scans.moving_labels, tmp_path / "labels.nii.gz", 0)
    line = refuses("register", scans.moving, scans.fixed, "--labels", bare, *words)
    assert "its grid" in line
    assert f"label map {bare}: its header {GUESS}" in line
    line = refuses("preprocess", tmp_path / "scan.mgz", "-o", tmp_path / "out")
    assert "no brain found" in line
    assert "goodRASFlag is 0" in line


# ------------------------------------------------------------------- Units and long quaternions


def in_unit(source: Path, target: Path, unit: str, millimetres: float) -> Path:
    """A scan with the same places in another unit."""
    image = nib.load(source)
    affine = np.diag([1 / millimetres] * 3 + [1]) @ image.affine
    stored = nib.Nifti1Image(voxels(source), None)
    stored.set_qform(affine, code=1)
    stored.set_sform(affine, code=1)
    stored.header.set_xyzt_units(unit, "sec")
    nib.save(stored, target)
    return target


@pytest.mark.parametrize(("unit", "millimetres"), [("micron", 1e-3), ("meter", 1e3)])
def test_results_do_not_depend_on_the_unit(
    saved, scans, register_quickly, tmp_path, unit: str, millimetres: float
):
    moving, fixed = (
        in_unit(getattr(scans, role), tmp_path / f"{role}.nii.gz", unit, millimetres)
        for role in ("moving", "fixed")
    )
    result = register_quickly(moving, fixed)
    assert result.warnings == saved.result.warnings
    np.testing.assert_allclose(result.fixed_grid.affine, saved.result.fixed_grid.affine, atol=1e-4)
    points = brain_points(scans.fixed)
    gap = np.linalg.norm(result.transform.map(points) - saved.result.transform.map(points), axis=1)
    assert gap.max() < 0.4  # a tenth of a voxel: the optimisers see the rounding of the headers
    onto = apply_to_image(scans.moving, saved.out, reference=fixed)
    np.testing.assert_allclose(onto.data, saved.result.warped.data, atol=1)
    again = apply_to_image(moving, saved.out)
    np.testing.assert_allclose(again.data, saved.result.warped.data, atol=1)


def test_a_wrong_unit_is_refused_by_every_command(refuses, saved, scans, tmp_path):
    """Millimetres that are called micrometres, and before anything takes time."""
    image = nib.load(scans.moving)
    image.header.set_xyzt_units("micron", "sec")
    nib.save(image, tmp_path / "scan.nii.gz")
    bad, out = tmp_path / "scan.nii.gz", ("-o", tmp_path / "out")
    for words in (
        ("register", bad, scans.fixed, *out),
        ("register", scans.moving, bad, *out),
        ("preprocess", bad, *out),
        ("apply", bad, "-t", saved.out, "-o", tmp_path / "o.nii.gz"),
        ("apply", scans.moving, "-t", saved.out, "-r", bad, "-o", tmp_path / "o.nii.gz"),
    ):
        line = refuses(*words)
        assert "cannot be a head" in line
        assert "micrometres" in line
        assert str(bad) in line


def test_a_far_origin_changes_nothing(cli, saved, scans, register_quickly, tmp_path):
    """Of the moving scan, metres away; the points of the transform are as far."""
    image, far = nib.load(scans.moving), np.array([5000.0, -12000, 800])
    affine = image.affine.copy()
    affine[:3, 3] += far
    nib.save(nib.Nifti1Image(voxels(scans.moving), affine, image.header), tmp_path / "far.nii.gz")
    result = register_quickly(tmp_path / "far.nii.gz", scans.fixed)
    points = brain_points(scans.fixed)
    moved, near = (x.transform.map(points) for x in (result, saved.result))
    assert np.linalg.norm(moved - far - near, axis=1).max() < 0.4
    assert result.warnings == saved.result.warnings


def spoiled(source: Path, target: Path, length: float, *, sform_code: int) -> tuple[Path, Path]:
    """A scan whose turn is half about y, and the same with a quaternion of this length."""
    affine = FLIP @ np.diag([1.0, -1, -1, 1]) @ np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = 80, -90, 70
    data = voxels(source)
    good = nifti_file(target.with_name("good.nii"), data, affine, sform_code=sform_code)
    quatern = np.array([float(nib.load(good).header[f"quatern_{x}"]) for x in "bcd"])
    assert np.linalg.norm(quatern) == pytest.approx(1)
    return good, nifti_file(target, data, affine, sform_code=sform_code, quatern=quatern * length)


@pytest.mark.parametrize("length", [1 + 5e-7, 1.0001])
@pytest.mark.parametrize("sform_code", [0, 1])
def test_a_long_quaternion_changes_nothing(
    cli, saved, scans, register_quickly, tmp_path, sform_code: int, length: float
):
    good, bad = spoiled(scans.moving, tmp_path / "bad.nii", length, sform_code=sform_code)
    assert read_series(bad).grid == read_series(good).grid
    moved = []
    for path in (good, bad):
        out = tmp_path / f"{path.stem}.nii.gz"
        outcome = cli("apply", path, "-t", saved.out, "-o", out)
        assert (outcome.code, outcome.err) == (0, "")
        moved.append(out.read_bytes())
    assert moved[0] == moved[1]
    outcome = cli("apply", scans.moving, "-t", saved.out, "-r", bad, "-o", tmp_path / "r.nii.gz")
    assert (outcome.code, outcome.err) == (0, "")
    if length < 1.00001:  # a whole registration of one kind is enough
        results = [register_quickly(path, scans.fixed) for path in (good, bad)]
        assert results[0].warped.data.tobytes() == results[1].warped.data.tobytes()
        warnings = [
            [text.replace(str(path), "") for text in result.warnings]
            for path, result in zip((good, bad), results, strict=True)
        ]
        assert warnings[0] == warnings[1]


# ------------------------------------------------------------------------------- Other commands


def test_the_report_of_a_result_repeats_it(cli, doubtful, tmp_path):
    folder = tmp_path / "reg"
    doubtful.result.save(folder, report=False)
    outcome = cli("report", folder)
    assert outcome.code == 0
    assert GUESS in lines_about(outcome.err, doubtful.moving)[0]
    assert TWO in lines_about(outcome.err, doubtful.fixed)[0]
    page = (folder / "report.html").read_text()
    assert GUESS in page
    assert TWO in page
