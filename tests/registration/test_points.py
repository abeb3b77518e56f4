"""``voxwarp points``: points go with the image that they are drawn on, either way."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from image_files import brain_points, nodes

from voxwarp.registration.apply import apply_to_image
from voxwarp.registration.points import apply_to_points
from voxwarp.registration.result import Registration
from voxwarp.registration.saved_transform import load_transform


def write_points(path: Path, points: np.ndarray) -> None:
    path.write_text("x,y,z\n" + "".join(f"{x:.6f},{y:.6f},{z:.6f}\n" for x, y, z in points))


def read_points(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)


def test_points_go_with_the_image_they_are_drawn_on(phantoms, poses, saved):
    """A blob drawn on the moving scan: its centre moves to the centre of the moved blob."""
    affine = nib.load(saved.moving).affine
    transform = load_transform(saved.out)
    for center in brain_points(saved.moving, 3):
        distance = np.linalg.norm(nodes(saved.moving) - center, axis=-1)
        blob = nib.Nifti1Image(np.exp(-((distance / 9) ** 2)).astype(np.float32), affine)
        moved_blob = apply_to_image(blob, transform)
        weights = moved_blob.data[..., None]
        found = (weights * nodes(saved.fixed)).sum(axis=(0, 1, 2)) / weights.sum()
        ours = apply_to_points(center[None], transform)[0]
        assert np.linalg.norm(ours - center) > 2
        assert np.linalg.norm(ours - found) < 1.5


def test_points_there_and_back(cli, saved, tmp_path):
    names = [tmp_path / f"{n}.csv" for n in range(3)]
    points = brain_points(saved.moving, 80)
    write_points(names[0], points)
    assert cli("points", names[0], "-t", saved.out, "-o", names[1]).code == 0
    outcome = cli("points", names[1], "-t", saved.out, "-o", names[2], "--inverse")
    assert outcome.code == 0
    assert "80 points" in outcome.out
    moved, again = read_points(names[1]), read_points(names[2])
    assert np.linalg.norm(moved - points, axis=1).mean() > 2
    error = np.linalg.norm(again - points, axis=1)
    assert np.median(error) < 0.1
    assert error.max() < 0.5
    np.testing.assert_allclose(moved, saved.result.inverse.map(points), atol=1e-3)


def test_lps_is_ras_with_two_signs_changed(cli, saved, tmp_path):
    points = brain_points(saved.moving, 80)
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


def test_other_columns_of_one_name_are_kept(cli, saved, tmp_path):
    """No value may be lost without a word."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("x,y,z,label,label\n1,2,3,left,right\n")
    assert cli("points", source, "-t", saved.out, "-o", target).code == 0
    header, row = target.read_text().splitlines()
    assert header == "x,y,z,label,label"
    assert row.endswith(",left,right")


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
    points = brain_points(saved.moving, 80)
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
    "two y": (b"x,y,Y,z\n1,2,3,4\n", "'y'"),
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
    line = refuses("points", source, "-t", saved.out, "-o", f"{tmp_path / 'new'}/")
    assert "this is a folder, but the points must be written to a file" in line


def test_bad_points_leave_no_folder(refuses, saved, tmp_path):
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    refuses("points", tmp_path / "in.csv", "-t", saved.out, "-o", tmp_path / "new" / "out.csv")


def test_points_of_python_are_those_of_the_registration(saved):
    result: Registration = saved.result
    transform = load_transform(saved.out)
    points = brain_points(saved.fixed, 80)
    np.testing.assert_allclose(
        apply_to_points(points, transform, inverse=True), result.transform.map(points), atol=1e-4
    )
    np.testing.assert_allclose(
        apply_to_points(points, transform), result.inverse.map(points), atol=1e-4
    )
