"""``voxwarp apply``: images, labels and series, either way."""

import shutil
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from image_files import nodes, taken, voxels
from nibabel.affines import apply_affine

from voxwarp.errors import InputError
from voxwarp.registration.apply import apply_to_image, interpolation_of
from voxwarp.registration.saved_transform import load_transform
from voxwarp.space.volume import read_series


def well_inside(path: Path, points: np.ndarray, margin: float) -> np.ndarray:
    """Which points have ``margin`` voxels of the image on every side."""
    image = nib.load(path)
    at = apply_affine(np.linalg.inv(image.affine), points)
    mask = ((at > margin) & (at < np.array(image.shape) - 1 - margin)).all(axis=-1)
    assert mask.mean() > 0.4
    return mask


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_image_is_carried_as_register_did(cli, saved, tmp_path, inverse: bool):
    """The default grid is that of the other scan, on record in the folder."""
    source, expected, other = (
        (saved.fixed, "InverseWarped.nii.gz", saved.moving)
        if inverse
        else (saved.moving, "Warped.nii.gz", saved.fixed)
    )
    out = tmp_path / "moved.nii.gz"
    outcome = cli("apply", source, "-t", saved.out, "-o", out, *(["--inverse"] * inverse))
    assert outcome.code == 0, outcome.err
    assert "linear" in outcome.out
    ours, theirs = voxels(out), voxels(saved.out / expected)
    assert ours.dtype == np.int16
    assert ours.shape == theirs.shape
    # The affine comes from a file of doubles, the field is the same: but for ties, equal.
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-3
    np.testing.assert_allclose(nib.load(out).affine, nib.load(other).affine, atol=1e-5)


def test_labels_are_told_from_scans(cli, saved, label_values, tmp_path):
    """Both are integers: the labels are copied, the scan of int16 is interpolated."""
    out = tmp_path / "labels.nii.gz"
    outcome = cli("apply", saved.moving_labels, "-t", saved.out, "-o", out)
    assert "nearest" in outcome.out
    image = nib.load(out)
    assert (voxels(out) != voxels(saved.out / "WarpedLabels.nii.gz")).mean() < 1e-4
    assert set(np.unique(voxels(out))) == label_values
    assert image.get_data_dtype() == np.int32
    assert image.header.get_intent()[0] == "label"
    scan = tmp_path / "scan.nii.gz"
    assert "linear" in cli("apply", saved.moving, "-t", saved.out, "-o", scan).out
    assert nib.load(scan).header.get_intent()[0] == "none"


def with_many_labels(saved: types.SimpleNamespace) -> np.ndarray:
    """A parcellation: cubes of 3³ voxels, each of a value of its own."""
    x, y, z = np.indices(nib.load(saved.moving).shape) // 3
    return (1 + x + 20 * y + 400 * z) * (voxels(saved.moving) > 100)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mask of uint8", "nearest"),
        ("many labels", "nearest"),
        ("labels of uint16", "nearest"),
        ("labels of int64", "nearest"),
        ("scan of uint8", "linear"),
        ("scan of uint16", "linear"),
        ("scan with intent label", "nearest"),
        ("mask of float32", "nearest"),  # a probability would have fractions
    ],
)
def test_interpolation_by_default(saved, tmp_path, kind: str, expected: str):
    scan, labels = voxels(saved.moving), voxels(saved.moving_labels)
    data = {
        "mask of uint8": (scan > 100).astype(np.uint8),
        "many labels": with_many_labels(saved).astype(np.int32),
        "labels of uint16": labels.astype(np.uint16),
        "labels of int64": labels.astype(np.int64),
        "scan of uint8": (scan // 4).astype(np.uint8),
        "scan of uint16": scan.astype(np.uint16),
        "scan with intent label": scan,
        "mask of float32": (scan > 100).astype(np.float32),
    }[kind]
    image = nib.Nifti1Image(data, nib.load(saved.moving).affine, dtype=data.dtype)
    if "intent" in kind:
        image.header.set_intent("label")
    nib.save(image, tmp_path / "image.nii.gz")
    used = interpolation_of(read_series(tmp_path / "image.nii.gz"))
    volume = apply_to_image(tmp_path / "image.nii.gz", load_transform(saved.out))
    assert used == expected
    assert volume.data.dtype == data.dtype
    if used == "nearest":
        assert set(np.unique(volume.data)) <= set(np.unique(data))


@pytest.mark.parametrize("name", ["linear", "nearest", "cubic"])
def test_interpolation_by_name_is_that_of_scipy(cli, saved, tmp_path, name: str):
    out = tmp_path / "out.nii.gz"
    outcome = cli(
        *("apply", saved.moving_float, "-t", saved.out, "-o", out, "--interpolation", name)
    )
    assert outcome.code == 0, outcome.err
    points = saved.result.transform.map(nodes(saved.fixed))
    order = {"linear": 1, "nearest": 0, "cubic": 3}[name]
    # A spline reaches far: its coefficients know of the border, where SciPy mirrors by default.
    expected, _ = taken(saved.moving_float, points, order, "constant")
    mask = well_inside(saved.moving_float, points, margin=0.01)
    ours = voxels(out)
    span = np.ptp(expected)
    assert ours.dtype == np.float32
    wrong = np.abs(ours - expected) > 1e-3 * span
    assert wrong[mask].mean() < (1e-3 if name == "nearest" else 1e-9)  # ties
    if name == "cubic":
        linear, _ = taken(saved.moving_float, points, 1, "constant")
        assert np.abs(ours - linear)[mask].max() > 0.02 * span  # it is not just linear


def test_cubic_keeps_integers_in_range(cli, saved, tmp_path):
    """A spline overshoots; an unsigned type must not wrap around."""
    data = (voxels(saved.moving) > 300).astype(np.uint8) * 255
    nib.save(nib.Nifti1Image(data, nib.load(saved.moving).affine), tmp_path / "box.nii.gz")
    out = tmp_path / "out.nii.gz"
    outcome = cli(
        *("apply", tmp_path / "box.nii.gz", "-t", saved.out, "-o", out, "--interpolation", "cubic")
    )
    assert outcome.code == 0, outcome.err
    points = saved.result.transform.map(nodes(saved.fixed))
    expected, _ = taken(tmp_path / "box.nii.gz", points, 3, "constant")
    assert expected.min() < -10
    assert expected.max() > 265
    assert voxels(out).dtype == np.uint8
    assert np.abs(voxels(out) - np.clip(expected, 0, 255)).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("name", ["linear", "nearest", "cubic"])
def test_type_is_kept(saved, tmp_path, dtype: type, name: str):
    data = np.clip(voxels(saved.moving) / 4, 0, 255).astype(dtype)
    image = nib.Nifti1Image(data, nib.load(saved.moving).affine)
    volume = apply_to_image(image, load_transform(saved.out), interpolation=name)
    assert volume.data.dtype == dtype
    assert 0.8 * data.max() < volume.data.max() < 1.2 * data.max()


def test_series_is_carried_frame_by_frame(cli, saved, tmp_path):
    frames = [voxels(saved.moving) // k for k in (1, 2, 3)]
    affine = nib.load(saved.moving).affine
    series = nib.Nifti1Image(np.stack(frames, axis=-1), affine)
    series.header.set_zooms((*series.header.get_zooms()[:3], 2.5))
    nib.save(series, tmp_path / "bold.nii.gz")
    words = "apply", tmp_path / "bold.nii.gz", "-t", saved.out, "-o", tmp_path / "all.nii.gz"
    assert cli(*words).code == 0
    for number, frame in enumerate(frames):
        nib.save(nib.Nifti1Image(frame, affine), tmp_path / "one.nii.gz")
        target = tmp_path / f"{number}.nii.gz"
        assert cli("apply", tmp_path / "one.nii.gz", "-t", saved.out, "-o", target).code == 0
        np.testing.assert_array_equal(voxels(tmp_path / "all.nii.gz")[..., number], voxels(target))
    written = nib.load(tmp_path / "all.nii.gz")
    assert written.shape == (*nib.load(saved.fixed).shape, 3)
    assert written.get_data_dtype() == np.int16
    assert written.header.get_zooms()[3] == pytest.approx(2.5)


def test_reference_gives_the_grid(cli, saved, make_grid, phantoms, tmp_path):
    """Of another size, spacing and direction; a series may be the reference, too."""
    grid = make_grid("PRI", (5, 6, 4), turn=(-15, 5, 10))
    one = phantoms.values(grid)
    nib.save(nib.Nifti1Image(one, grid.affine), tmp_path / "grid.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([one] * 2, -1), grid.affine), tmp_path / "grid4.nii.gz")
    for name in ("grid", "grid4"):
        out = tmp_path / f"on-{name}.nii.gz"
        reference = tmp_path / f"{name}.nii.gz"
        outcome = cli("apply", saved.moving_float, "-t", saved.out, "-r", reference, "-o", out)
        assert outcome.code == 0, outcome.err
        points = saved.result.transform.map(grid.nodes())
        mask = well_inside(saved.moving_float, points, margin=0.01)
        expected, _ = taken(saved.moving_float, points, 1, "constant")
        assert voxels(out).shape == grid.shape
        np.testing.assert_allclose(nib.load(out).affine, grid.affine, atol=1e-4)
        assert np.abs(voxels(out) - expected)[mask].max() < 1e-3 * np.ptp(expected)


def test_several_images_go_into_a_folder(cli, saved, tmp_path):
    mgz = tmp_path / "extra.mgz"
    nib.save(nib.MGHImage(voxels(saved.moving_float), nib.load(saved.moving).affine), mgz)
    out = tmp_path / "new" / "moved"
    outcome = cli("apply", saved.moving, saved.moving_labels, mgz, "-t", saved.out, "-o", out)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in out.iterdir()} == {
        *("moving.nii.gz", "moving_labels.nii.gz", "extra.nii.gz")
    }
    lines = outcome.out.splitlines()
    assert len(lines) == 3
    assert ["linear" in lines[0], "nearest" in lines[1], "linear" in lines[2]] == [True] * 3
    assert np.abs(voxels(out / "moving.nii.gz") - voxels(saved.out / "Warped.nii.gz")).max() <= 1


def test_one_image_goes_into_a_folder_that_is_there(cli, saved, tmp_path):
    assert cli("apply", saved.moving, "-t", saved.out, "-o", tmp_path).code == 0
    assert (tmp_path / "moving.nii.gz").is_file()


def test_output_without_gzip(cli, saved, tmp_path):
    assert cli("apply", saved.moving, "-t", saved.out, "-o", tmp_path / "out.nii").code == 0
    assert (tmp_path / "out.nii").read_bytes()[:4] == (348).to_bytes(4, "little")


def test_affine_alone_may_be_the_transform(cli, saved, tmp_path):
    """The grid is not on record then; and any affine of ITK's will do."""
    itk = sitk.AffineTransform(3)
    itk.SetTranslation([5.0, -7.0, 3.0])
    itk.SetCenter([10.0, 20.0, 30.0])
    itk.Rotate(0, 1, 0.2)
    sitk.WriteTransform(itk, str(tmp_path / "a.tfm"))
    for direction, through in (([], itk), (["--inverse"], itk.GetInverse())):
        out = tmp_path / f"out{len(direction)}.nii.gz"
        outcome = cli(
            *("apply", saved.moving_float, "-t", tmp_path / "a.tfm", "-r", saved.fixed, "-o", out),
            *direction,
        )
        assert outcome.code == 0, outcome.err
        expected = sitk.GetArrayFromImage(
            sitk.Resample(
                sitk.ReadImage(str(saved.moving_float)),
                sitk.ReadImage(str(saved.fixed)),
                through,
                sitk.sitkLinear,
                0.0,
                sitk.sitkFloat32,
            )
        ).T
        lps = np.array([-1, -1, 1])
        points = nodes(saved.fixed).reshape(-1, 3) * lps
        mapped = np.array([through.TransformPoint(p) for p in points.tolist()]) * lps
        mask = well_inside(saved.moving_float, mapped, 0.01).reshape(expected.shape)
        assert np.abs(voxels(out) - expected)[mask].max() < 1e-3 * np.ptp(expected)


def test_warped_image_is_as_before_wherever_the_folder_goes(cli, saved, tmp_path):
    """A saved registration is its files: it can be moved, and needs no scans beside it."""
    shutil.copytree(saved.out, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "Warped.nii.gz").unlink()
    out = tmp_path / "out.nii.gz"
    assert cli("apply", saved.moving, "-t", tmp_path / "elsewhere", "-o", out).code == 0
    assert np.abs(voxels(out) - voxels(saved.out / "Warped.nii.gz")).max() <= 1


def test_existing_output_is_refused_or_replaced(cli, refuses, saved, tmp_path):
    out = tmp_path / "out.nii.gz"
    out.write_bytes(b"precious")
    line = refuses("apply", saved.moving, "-t", saved.out, "-o", out)
    assert str(out) in line
    assert "--overwrite" in line
    assert cli("apply", saved.moving, "-t", saved.out, "-o", out, "--overwrite").code == 0
    assert voxels(out).shape == nib.load(saved.fixed).shape
    # One of several is enough, before any of them is written.
    (tmp_path / "moving_labels.nii.gz").write_bytes(b"precious")
    line = refuses("apply", saved.moving, saved.moving_labels, "-t", saved.out, "-o", tmp_path)
    assert "moving_labels.nii.gz" in line


def test_bad_requests(refuses, saved, tmp_path):
    def said(*words: object, transform: object = saved.out, out: str = "out.nii.gz") -> str:
        return refuses("apply", *words, "-t", transform, "-o", tmp_path / out)

    gone = tmp_path / "gone.nii.gz"
    assert f"{gone}: no such file" in said(gone)
    assert f"{gone}: no such file" in said(saved.moving, "-r", gone)
    assert "no such file or folder" in said(saved.moving, transform=gone)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "0GenericAffine.mat" in said(saved.moving, transform=empty)
    assert "expected a displacement field" in said(saved.moving, transform=saved.moving)
    affine = saved.out / "0GenericAffine.mat"
    assert "--reference" in said(saved.moving, transform=affine)
    assert ".nii" in said(saved.moving, out="out.mgz")
    assert str(saved.out / "1Warp.nii.gz") in said(saved.out / "1Warp.nii.gz")
    assert "sinc" in said(saved.moving, "--interpolation", "sinc")
    assert "two of the images have this name" in said(saved.moving, saved.moving, out="new")
    (tmp_path / "file.nii.gz").write_bytes(b"precious")
    assert "folder" in said(saved.moving, saved.fixed, "--overwrite", out="file.nii.gz")
    inside = "file.nii.gz/is/a/file.nii.gz"
    assert str(tmp_path / "file.nii.gz") in said(saved.moving, out=inside)


@pytest.mark.parametrize("transform", ["no such folder", "a file that is no transform"])
def test_bad_transform_leaves_no_folder_for_several_images(refuses, saved, tmp_path, transform):
    (tmp_path / "a file that is no transform").write_text("x")
    refuses(
        *("apply", saved.moving, saved.moving_labels, "-t", tmp_path / transform),
        *("-o", tmp_path / "new"),
    )


def test_bad_image_among_several_is_named_and_nothing_is_written(refuses, saved, tmp_path):
    bad, out = tmp_path / "bad.nii.gz", tmp_path / "new"
    bad.write_bytes(b"no image")
    line = refuses("apply", saved.moving, bad, saved.fixed, "-t", saved.out, "-o", out)
    assert str(bad) in line


def test_damaged_folders(refuses, saved, tmp_path):
    for name in ("0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz"):
        for change in ("missing", "cut"):
            folder = tmp_path / f"{change}-{name}"
            shutil.copytree(saved.out, folder)
            if change == "missing":
                (folder / name).unlink()
            else:
                (folder / name).write_bytes((saved.out / name).read_bytes()[:100])
            words = "apply", saved.moving, "-t", folder, "-o", tmp_path / "out.nii.gz"
            if (name, change) == ("1InverseWarp.nii.gz", "missing"):
                words = (*words, "--inverse")  # the only direction that needs it
            line = refuses(*words)
            assert name in line
            if change == "missing":
                assert f"transform {folder}: {name} is missing" in line


def test_folder_without_metrics_wants_a_reference_for_the_inverse_alone(
    cli, refuses, saved, tmp_path
):
    """As folders of ANTs are: the warp tells the fixed grid, nothing tells the moving one."""
    folder = tmp_path / "ants"
    shutil.copytree(saved.out, folder)
    (folder / "metrics.json").unlink()
    out = tmp_path / "out.nii.gz"
    line = refuses("apply", saved.fixed, "-t", folder, "--inverse", "-o", out)
    assert "--reference" in line
    words = "apply", saved.fixed, "-t", folder, "--inverse", "-r", saved.moving, "-o", out
    assert cli(*words).code == 0
    assert np.abs(voxels(out) - voxels(saved.out / "InverseWarped.nii.gz")).max() <= 1
    assert cli("apply", saved.moving, "-t", folder, "-o", tmp_path / "forward.nii.gz").code == 0


def test_python_refuses_as_the_command_does(saved, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_transform(tmp_path / "gone")
    with pytest.raises(InputError, match="reference"):
        apply_to_image(saved.moving, load_transform(saved.out / "0GenericAffine.mat"))


def test_a_registration_in_memory_serves_as_a_saved_one(saved):
    ours = apply_to_image(saved.moving, saved.result)
    theirs = apply_to_image(saved.moving, load_transform(saved.out))
    np.testing.assert_array_equal(ours.data, theirs.data)
    assert ours.grid.matches(theirs.grid)


def test_files_with_a_prefix_as_ants_writes_them(cli, refuses, saved, tmp_path):
    folder = tmp_path / "ants"
    folder.mkdir()
    for name in ("0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz"):
        shutil.copy(saved.out / name, folder / f"sub-01_{name}")
    assert cli("apply", saved.moving, "-t", folder, "-o", tmp_path / "out.nii.gz").code == 0
    np.testing.assert_array_equal(
        voxels(tmp_path / "out.nii.gz"), voxels(saved.out / "Warped.nii.gz")
    )
    shutil.copy(saved.out / "1Warp.nii.gz", folder / "sub-02_1Warp.nii.gz")
    line = refuses("apply", saved.moving, "-t", folder, "-o", tmp_path / "two.nii.gz")
    assert "2 files end in 1Warp.nii.gz (sub-01_1Warp.nii.gz, sub-02_1Warp.nii.gz)" in line


def test_floats_that_the_header_calls_labels_are_not_interpolated(cli, saved, tmp_path):
    image = nib.load(saved.moving_labels)
    labels = np.asarray(image.dataobj).astype(np.float32)
    copy = nib.Nifti1Image(labels, image.affine)
    copy.header.set_intent("label")
    nib.save(copy, tmp_path / "labels.nii.gz")
    cli("apply", tmp_path / "labels.nii.gz", "-t", saved.out, "-o", tmp_path / "out.nii.gz")
    assert set(np.unique(voxels(tmp_path / "out.nii.gz"))) <= set(np.unique(labels))
    assert nib.load(tmp_path / "out.nii.gz").header.get_intent()[0] == "label"


def test_a_scan_taken_by_nearest_neighbour_is_not_marked_as_labels(cli, saved, tmp_path):
    out = tmp_path / "out.nii.gz"
    cli("apply", saved.moving, "-t", saved.out, "-o", out, "--interpolation", "nearest")
    assert nib.load(out).header.get_intent()[0] == "none"


def test_a_series_on_a_constant_background_is_no_label_map(cli, saved, tmp_path):
    image = nib.load(saved.moving)
    frames = np.stack([np.asarray(image.dataobj) + 5 * (t + 1) for t in range(3)], axis=-1)
    nib.save(nib.Nifti1Image(frames.astype(np.int16), image.affine), tmp_path / "bold.nii.gz")
    done = cli("apply", tmp_path / "bold.nii.gz", "-t", saved.out, "-o", tmp_path / "out.nii.gz")
    assert "(linear)" in done.out
