"""``voxwarp apply`` and ``voxwarp points``: images, labels, series and points, either way."""

import csv
import shutil
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine
from scipy import ndimage

from voxwarp.errors import InputError
from voxwarp.registration.apply import apply_to_image, apply_to_points, load_transform
from voxwarp.registration.registration import Registration


@pytest.fixture(scope="module")
def saved(
    phantoms, poses, unlike_grids, register_quickly, tmp_path_factory
) -> types.SimpleNamespace:
    """A registration on disk, with the files it was made of."""
    folder = tmp_path_factory.mktemp("saved")
    here = types.SimpleNamespace(folder=folder, out=folder / "out")
    for role, grid in unlike_grids.items():
        pose = getattr(poses, role)
        for name, image in (
            (role, phantoms.image(grid, pose, np.int16)),
            (f"{role}_float", phantoms.image(grid, pose)),
            (f"{role}_labels", phantoms.labels(grid, pose)),
        ):
            setattr(here, name, folder / f"{name}.nii.gz")
            nib.save(image, getattr(here, name))
    here.result = register_quickly(here.moving, here.fixed, labels=here.moving_labels)
    here.result.save(here.out)
    return here


def values(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def nodes(path: Path) -> np.ndarray:
    """RAS mm of all voxel centres, (X, Y, Z, 3)."""
    image = nib.load(path)
    return apply_affine(image.affine, np.moveaxis(np.indices(image.shape[:3]), 0, -1))


def taken(path: Path, points: np.ndarray, **how: object) -> np.ndarray:
    """SciPy's values of an image at RAS points."""
    image = nib.load(path)
    at = np.moveaxis(apply_affine(np.linalg.inv(image.affine), points), -1, 0)
    return ndimage.map_coordinates(np.asarray(image.dataobj).astype(np.float64), at, **how)


def well_inside(path: Path, points: np.ndarray, margin: float) -> np.ndarray:
    """Which points have ``margin`` voxels of the image on every side."""
    image = nib.load(path)
    at = apply_affine(np.linalg.inv(image.affine), points)
    mask = ((at > margin) & (at < np.array(image.shape) - 1 - margin)).all(axis=-1)
    assert mask.mean() > 0.4
    return mask


# Images


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_image_is_carried_as_register_did(cli, saved, tmp_path, inverse: bool):
    """The default grid is that of the other scan, on record in the folder."""
    source, expected, other = (
        (saved.fixed, "InverseWarped.nii.gz", saved.moving)
        if inverse
        else (saved.moving, "Warped.nii.gz", saved.fixed)
    )
    out = tmp_path / "carried.nii.gz"
    outcome = cli("apply", source, "-t", saved.out, "-o", out, *(["--inverse"] * inverse))
    assert outcome.code == 0, outcome.err
    assert "linear" in outcome.out
    ours, theirs = values(out), values(saved.out / expected)
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
    assert (values(out) != values(saved.out / "WarpedLabels.nii.gz")).mean() < 1e-4
    assert set(np.unique(values(out))) == label_values
    assert image.get_data_dtype() == np.int32
    assert image.header.get_intent()[0] == "label"
    scan = tmp_path / "scan.nii.gz"
    assert "linear" in cli("apply", saved.moving, "-t", saved.out, "-o", scan).out
    assert nib.load(scan).header.get_intent()[0] == "none"


def with_many_labels(saved: types.SimpleNamespace) -> np.ndarray:
    """A parcellation: cubes of 3³ voxels, each of a value of its own."""
    x, y, z = np.indices(nib.load(saved.moving).shape) // 3
    return (1 + x + 20 * y + 400 * z) * (values(saved.moving) > 100)


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
        ("mask of float32", "linear"),  # it may be a probability
    ],
)
def test_interpolation_by_default(saved, tmp_path, kind: str, expected: str):
    scan, labels = values(saved.moving), values(saved.moving_labels)
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
    volume, used = apply_to_image(tmp_path / "image.nii.gz", load_transform(saved.out))
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
    expected = taken(saved.moving_float, points, order=order)
    mask = well_inside(saved.moving_float, points, margin=0.01)
    ours = values(out)
    span = np.ptp(expected)
    assert ours.dtype == np.float32
    wrong = np.abs(ours - expected) > 1e-3 * span
    assert wrong[mask].mean() < (1e-3 if name == "nearest" else 1e-9)  # ties
    if name == "cubic":
        linear = taken(saved.moving_float, points, order=1)
        assert np.abs(ours - linear)[mask].max() > 0.02 * span  # it is not just linear


def test_cubic_keeps_integers_in_range(cli, saved, tmp_path):
    """A spline overshoots; an unsigned type must not wrap around."""
    data = (values(saved.moving) > 300).astype(np.uint8) * 255
    nib.save(nib.Nifti1Image(data, nib.load(saved.moving).affine), tmp_path / "box.nii.gz")
    out = tmp_path / "out.nii.gz"
    outcome = cli(
        *("apply", tmp_path / "box.nii.gz", "-t", saved.out, "-o", out, "--interpolation", "cubic")
    )
    assert outcome.code == 0, outcome.err
    expected = taken(
        tmp_path / "box.nii.gz", saved.result.transform.map(nodes(saved.fixed)), order=3
    )
    assert expected.min() < -10
    assert expected.max() > 265
    assert values(out).dtype == np.uint8
    assert np.abs(values(out) - np.clip(expected, 0, 255)).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("name", ["linear", "nearest", "cubic"])
def test_type_is_kept(saved, tmp_path, dtype: type, name: str):
    data = np.clip(values(saved.moving) / 4, 0, 255).astype(dtype)
    image = nib.Nifti1Image(data, nib.load(saved.moving).affine)
    volume, _ = apply_to_image(image, load_transform(saved.out), interpolation=name)
    assert volume.data.dtype == dtype
    assert 0.8 * data.max() < volume.data.max() < 1.2 * data.max()


def test_series_is_carried_frame_by_frame(cli, saved, tmp_path):
    frames = [values(saved.moving) // k for k in (1, 2, 3)]
    affine = nib.load(saved.moving).affine
    series = nib.Nifti1Image(np.stack(frames, axis=-1), affine)
    series.header.set_zooms((*series.header.get_zooms()[:3], 2.5))
    nib.save(series, tmp_path / "bold.nii.gz")
    assert (
        cli(
            *("apply", tmp_path / "bold.nii.gz", "-t", saved.out, "-o", tmp_path / "all.nii.gz")
        ).code
        == 0
    )
    for number, frame in enumerate(frames):
        nib.save(nib.Nifti1Image(frame, affine), tmp_path / "one.nii.gz")
        target = tmp_path / f"{number}.nii.gz"
        assert cli("apply", tmp_path / "one.nii.gz", "-t", saved.out, "-o", target).code == 0
        np.testing.assert_array_equal(values(tmp_path / "all.nii.gz")[..., number], values(target))
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
        expected = taken(saved.moving_float, points, order=1)
        assert values(out).shape == grid.shape
        np.testing.assert_allclose(nib.load(out).affine, grid.affine, atol=1e-4)
        assert np.abs(values(out) - expected)[mask].max() < 1e-3 * np.ptp(expected)


def test_several_images_go_into_a_folder(cli, saved, tmp_path):
    mgz = tmp_path / "extra.mgz"
    nib.save(nib.MGHImage(values(saved.moving_float), nib.load(saved.moving).affine), mgz)
    out = tmp_path / "new" / "carried"
    outcome = cli("apply", saved.moving, saved.moving_labels, mgz, "-t", saved.out, "-o", out)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in out.iterdir()} == {
        *("moving.nii.gz", "moving_labels.nii.gz", "extra.nii.gz")
    }
    lines = outcome.out.splitlines()
    assert len(lines) == 3
    assert ["linear" in lines[0], "nearest" in lines[1], "linear" in lines[2]] == [True] * 3
    assert np.abs(values(out / "moving.nii.gz") - values(saved.out / "Warped.nii.gz")).max() <= 1


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
        assert np.abs(values(out) - expected)[mask].max() < 1e-3 * np.ptp(expected)


def test_warped_image_is_as_before_wherever_the_folder_goes(cli, saved, tmp_path):
    """A saved registration is its files: it can be moved, and needs no scans beside it."""
    shutil.copytree(saved.out, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "Warped.nii.gz").unlink()
    out = tmp_path / "out.nii.gz"
    assert cli("apply", saved.moving, "-t", tmp_path / "elsewhere", "-o", out).code == 0
    assert np.abs(values(out) - values(saved.out / "Warped.nii.gz")).max() <= 1


def test_existing_output_is_refused_or_replaced(cli, refuses, saved, tmp_path):
    out = tmp_path / "out.nii.gz"
    out.write_bytes(b"precious")
    line = refuses("apply", saved.moving, "-t", saved.out, "-o", out)
    assert str(out) in line
    assert "--overwrite" in line
    assert cli("apply", saved.moving, "-t", saved.out, "-o", out, "--overwrite").code == 0
    assert values(out).shape == nib.load(saved.fixed).shape
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
    assert "not an ITK affine" in said(saved.moving, transform=saved.moving)
    affine = saved.out / "0GenericAffine.mat"
    assert "--reference" in said(saved.moving, transform=affine)
    assert ".nii" in said(saved.moving, out="out.mgz")
    assert str(saved.out / "1Warp.nii.gz") in said(saved.out / "1Warp.nii.gz")
    assert "sinc" in said(saved.moving, "--interpolation", "sinc")
    assert "same name" in said(saved.moving, saved.moving, out="new")
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
            line = refuses("apply", saved.moving, "-t", folder, "-o", tmp_path / "out.nii.gz")
            assert name in line


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
    assert np.abs(values(out) - values(saved.out / "InverseWarped.nii.gz")).max() <= 1
    assert cli("apply", saved.moving, "-t", folder, "-o", tmp_path / "forward.nii.gz").code == 0


# Points


def brain_points(path: Path, number: int = 80) -> np.ndarray:
    image = nib.load(path)
    rng = np.random.default_rng(2)
    voxels = rng.permutation(np.argwhere(np.asarray(image.dataobj) > 200))[:number]
    return apply_affine(image.affine, voxels + rng.uniform(-0.5, 0.5, voxels.shape))


def write_points(path: Path, points: np.ndarray) -> None:
    path.write_text("x,y,z\n" + "".join(f"{x:.6f},{y:.6f},{z:.6f}\n" for x, y, z in points))


def read_points(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)


def test_points_go_with_the_image_they_are_drawn_on(phantoms, poses, saved):
    """A blob drawn on the moving scan: its centre is carried to that of the blob carried."""
    affine = nib.load(saved.moving).affine
    transform = load_transform(saved.out)
    for center in brain_points(saved.moving, 3):
        distance = np.linalg.norm(nodes(saved.moving) - center, axis=-1)
        blob = nib.Nifti1Image(np.exp(-((distance / 9) ** 2)).astype(np.float32), affine)
        carried, _ = apply_to_image(blob, transform)
        weights = carried.data[..., None]
        found = (weights * nodes(saved.fixed)).sum(axis=(0, 1, 2)) / weights.sum()
        ours = apply_to_points(center[None], transform)[0]
        assert np.linalg.norm(ours - center) > 2
        assert np.linalg.norm(ours - found) < 1.5


def test_points_there_and_back(cli, saved, tmp_path):
    names = [tmp_path / f"{n}.csv" for n in range(3)]
    points = brain_points(saved.moving)
    write_points(names[0], points)
    assert cli("points", names[0], "-t", saved.out, "-o", names[1]).code == 0
    outcome = cli("points", names[1], "-t", saved.out, "-o", names[2], "--inverse")
    assert outcome.code == 0
    assert "80 points" in outcome.out
    there, again = read_points(names[1]), read_points(names[2])
    assert np.linalg.norm(there - points, axis=1).mean() > 2
    error = np.linalg.norm(again - points, axis=1)
    assert np.median(error) < 0.1
    assert error.max() < 0.5
    np.testing.assert_allclose(there, saved.result.inverse.map(points), atol=1e-3)


def test_lps_is_ras_with_two_signs_changed(cli, saved, tmp_path):
    points = brain_points(saved.moving)
    flip = np.array([-1, -1, 1])
    write_points(tmp_path / "ras.csv", points)
    write_points(tmp_path / "lps.csv", points * flip)
    for space, option in (("ras", []), ("lps", ["--lps"])):
        words = tmp_path / f"{space}.csv", "-t", saved.out, "-o", tmp_path / f"{space}-out.csv"
        assert cli("points", *words, *option).code == 0
    np.testing.assert_allclose(
        read_points(tmp_path / "lps-out.csv") * flip,
        read_points(tmp_path / "ras-out.csv"),
        atol=1e-5,
    )


def test_other_columns_and_their_order_are_kept(cli, saved, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(
        "\ufeffname, Z ,note,X,y\r\n"
        'tip,10,"a, b",20,-30\r\n'
        '"said ""so""",1e1,,2e1,-3.0e1\r\n'
        "ünïcode,11.5,0.10,-20.25,-31\r\n",
        encoding="utf-8",
    )
    assert cli("points", source, "-t", saved.out, "-o", target).code == 0
    with open(target, newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert [name.strip().lower() for name in rows[0]] == ["name", "z", "note", "x", "y"]
    assert [row[0] for row in rows[1:]] == ["tip", 'said "so"', "ünïcode"]
    assert [row[2] for row in rows[1:]] == ["a, b", "", "0.10"]
    given = np.array([[20, -30, 10], [20, -30, 10], [-20.25, -31, 11.5]])
    found = np.array([[float(row[3]), float(row[4]), float(row[1])] for row in rows[1:]])
    np.testing.assert_allclose(found, saved.result.inverse.map(given), atol=1e-3)


def test_columns_of_one_name_are_kept_or_refused(cli, saved, tmp_path):
    """Whatever is done with them, no value may be lost without a word."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("x,y,z,label,label\n1,2,3,left,right\n")
    outcome = cli("points", source, "-t", saved.out, "-o", target)
    if outcome.code == 2:
        return
    assert outcome.code == 0
    assert target.read_text().splitlines()[1].endswith(",left,right")


def test_file_without_points_gives_one_without_points(cli, saved, tmp_path):
    (tmp_path / "in.csv").write_text("x,y,z,name\n")
    outcome = cli("points", tmp_path / "in.csv", "-t", saved.out, "-o", tmp_path / "out.csv")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out.csv").read_text() == "x,y,z,name\n"


def test_points_outside_of_the_field_follow_the_affine(cli, saved, tmp_path):
    points = np.array([[1000.0, 0, 0], [0, -2000, 300], [500, 500, 500]])
    write_points(tmp_path / "in.csv", points)
    words = tmp_path / "in.csv", "-t", saved.out, "-o", tmp_path / "out.csv"
    assert cli("points", *words).code == 0
    expected = saved.result.affine.inverse().map(points)
    np.testing.assert_allclose(read_points(tmp_path / "out.csv"), expected, atol=1e-4)


def test_points_through_an_affine_alone(cli, saved, tmp_path):
    points = brain_points(saved.moving)
    write_points(tmp_path / "in.csv", points)
    affine = saved.out / "0GenericAffine.mat"
    transform, flip = sitk.ReadTransform(str(affine)), np.array([-1, -1, 1])
    for option, itk in (([], transform.GetInverse()), (["--inverse"], transform)):
        out = tmp_path / f"{len(option)}.csv"
        assert cli("points", tmp_path / "in.csv", "-t", affine, "-o", out, *option).code == 0
        theirs = np.array([itk.TransformPoint(p) for p in (points * flip).tolist()]) * flip
        np.testing.assert_allclose(read_points(out), theirs, atol=1e-5)


BAD_POINTS = {
    "no x": (b"a,y,z\n1,2,3\n", "'x'"),
    "no z": (b"x,y,w\n1,2,3\n", "'z'"),
    "semicolons": (b"x;y;z\n1;2;3\n", "'x'"),
    "empty": (b"", "'x'"),
    "text": (b"x,y,z\n1,2,3\n1,two,3\n", "line 3"),
    "no number": (b"x,y,z\n1,,3\n", "line 2"),
    "nan": (b"x,y,z\n1,2,nan\n", "line 2"),
    "inf": (b"x,y,z\n1,2,3\n1,2,inf\n", "line 3"),
    "short line": (b"x,y,z\n1,2,3\n1,2\n", "line 3"),
    "long line": (b"x,y,z\n1,2,3,4\n", "line 2"),
    "text after an empty line": (b"x,y,z\n1,2,3\n\n1,two,3\n", "line 4"),
    "binary": (bytes(range(128, 256)) * 3, "CSV"),
    "null": (b"x,y,z\n1,\x00,3\n", "points.csv"),
    "open quote": (b'x,y,z\n1,2,"3\n', "points.csv"),
}


@pytest.mark.parametrize("kind", BAD_POINTS)
def test_bad_points(refuses, saved, tmp_path, kind: str):
    payload, said = BAD_POINTS[kind]
    source = tmp_path / "points.csv"
    source.write_bytes(payload)
    line = refuses("points", source, "-t", saved.out, "-o", tmp_path / "out.csv")
    assert str(source) in line
    assert said in line


def test_bad_points_requests(refuses, saved, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_points(source, np.zeros((1, 3)))
    assert "no such file" in refuses("points", tmp_path / "gone.csv", "-t", saved.out, "-o", out)
    assert str(tmp_path) in refuses("points", tmp_path, "-t", saved.out, "-o", out)
    assert "gone" in refuses("points", source, "-t", tmp_path / "gone", "-o", out)
    assert str(source) in refuses("points", source, "-t", saved.out, "-o", source)
    assert str(tmp_path) in refuses("points", source, "-t", saved.out, "-o", tmp_path)
    nested = source / "under" / "a" / "file.csv"
    assert str(source) in refuses("points", source, "-t", saved.out, "-o", nested)


def test_bad_points_leave_no_folder(refuses, saved, tmp_path):
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    refuses("points", tmp_path / "in.csv", "-t", saved.out, "-o", tmp_path / "new" / "out.csv")


# Python


def test_python_refuses_as_the_command_does(saved, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_transform(tmp_path / "gone")
    with pytest.raises(InputError, match="reference"):
        apply_to_image(saved.moving, load_transform(saved.out / "0GenericAffine.mat"))


def test_points_of_python_are_those_of_the_registration(saved):
    result: Registration = saved.result
    transform = load_transform(saved.out)
    points = brain_points(saved.fixed)
    np.testing.assert_allclose(
        apply_to_points(points, transform, inverse=True), result.transform.map(points), atol=1e-4
    )
    np.testing.assert_allclose(
        apply_to_points(points, transform), result.inverse.map(points), atol=1e-4
    )


def test_a_registration_in_memory_serves_as_a_saved_one(saved):
    ours, _ = apply_to_image(saved.moving, saved.result)
    theirs, _ = apply_to_image(saved.moving, load_transform(saved.out))
    np.testing.assert_array_equal(ours.data, theirs.data)
    assert ours.grid.matches(theirs.grid)


def test_files_with_a_prefix_as_ants_writes_them(cli, refuses, saved, tmp_path):
    folder = tmp_path / "ants"
    folder.mkdir()
    for name in ("0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz"):
        shutil.copy(saved.out / name, folder / f"sub-01_{name}")
    assert cli("apply", saved.moving, "-t", folder, "-o", tmp_path / "out.nii.gz").code == 0
    np.testing.assert_array_equal(
        values(tmp_path / "out.nii.gz"), values(saved.out / "Warped.nii.gz")
    )
    shutil.copy(saved.out / "1Warp.nii.gz", folder / "sub-02_1Warp.nii.gz")
    line = refuses("apply", saved.moving, "-t", folder, "-o", tmp_path / "two.nii.gz")
    assert "2 files like 1Warp.nii.gz" in line


def test_floats_that_the_header_calls_labels_are_not_interpolated(cli, saved, tmp_path):
    image = nib.load(saved.moving_labels)
    labels = np.asarray(image.dataobj).astype(np.float32)
    copy = nib.Nifti1Image(labels, image.affine)
    copy.header.set_intent("label")
    nib.save(copy, tmp_path / "labels.nii.gz")
    cli("apply", tmp_path / "labels.nii.gz", "-t", saved.out, "-o", tmp_path / "out.nii.gz")
    assert set(np.unique(values(tmp_path / "out.nii.gz"))) <= set(np.unique(labels))
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
