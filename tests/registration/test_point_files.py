"""Files of points in every format that people hand over; SimpleITK says where the points go."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

POINTS = np.array([[10.0, 20.0, 30.0], [-1.5, 2.25, 3.125]])  # as they are written in the files


@pytest.fixture
def itk(tmp_path: Path) -> sitk.AffineTransform:
    """A transform, saved as ``a.tfm``."""
    itk = sitk.AffineTransform(3)
    itk.SetMatrix([1.1, 0.1, 0, -0.2, 0.9, 0.05, 0, 0.1, 1.05])
    itk.SetTranslation([1.0, 2.0, 3.0])
    sitk.WriteTransform(itk, str(tmp_path / "a.tfm"))
    return itk


@pytest.fixture
def expected(itk: sitk.AffineTransform) -> Callable[..., np.ndarray]:
    """Where points go, by SimpleITK: with images, so by the inverse; in the frame of the file."""

    def move(points: np.ndarray, *, lps: bool) -> np.ndarray:
        flip = np.ones(3) if lps else np.array([-1, -1, 1])
        inverse = itk.GetInverse()
        return np.array([inverse.TransformPoint(p) for p in (points * flip).tolist()]) * flip

    return move


@pytest.fixture
def moved(cli, itk, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Write a file, transform it, and return the text of the result and what was said."""

    def move(name: str, text: str, *options: str) -> tuple[str, str]:
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        out = tmp_path / f"out_{name}"
        words = "points", tmp_path / name, "-t", tmp_path / "a.tfm", "-o", out, *options
        outcome = cli(*words)
        assert outcome.code == 0, outcome
        return out.read_bytes().decode(), outcome.err

    return move


@pytest.fixture
def refusal(refuses, itk, tmp_path: Path) -> Callable[..., str]:
    """Write a file, and return the sentence by which it is refused."""

    def refuse(name: str, text: str, *options: str, out: str | None = None) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        words = "points", tmp_path / name, "-t", tmp_path / "a.tfm", *options
        return refuses(*words, "-o", tmp_path / (out or f"out_{name}"))

    return refuse


def numbers(text: str, delimiter: str = ",", columns: slice = slice(0, 3)) -> np.ndarray:
    """The numbers in the rows of a table, or of a list of 3D Slicer."""
    lines = [line for line in text.splitlines() if line[:1] in "-0123456789FAvP"]
    rows = csv.reader(lines, delimiter=delimiter)
    return np.array([[float(field) for field in row[columns]] for row in rows])


# BIDS


ELECTRODES = (
    "name\tx\ty\tz\tsize\tmaterial\n"
    "A1\t10\t20\t30\t5\tplatinum, iridium\n"
    "A2\tn/a\tn/a\tn/a\t5\tn/a\n"
    "A3\t-1.5\t2.25\t3.125\tn/a\tgold\n"
)


def test_electrodes_of_bids_keep_tabs_and_what_is_not_available(moved, expected) -> None:
    text, said = moved("sub-01_electrodes.tsv", ELECTRODES)
    header, first, missing, last = text.splitlines()
    assert [header, missing] == [ELECTRODES.splitlines()[0], ELECTRODES.splitlines()[2]]
    found = numbers("\n".join([first, last]), "\t", slice(1, 4))
    np.testing.assert_allclose(found, expected(POINTS, lps=False), atol=1e-6)
    assert first.split("\t")[4:] == ["5", "platinum, iridium"]
    assert last.split("\t")[4:] == ["n/a", "gold"]
    assert "1 point without coordinates (n/a) stayed as it was" in said


@pytest.mark.parametrize("name", ["points.TSV", "points.txt", "points.csv"])
def test_tabs_are_recognised_by_the_name_or_the_header(moved, expected, name) -> None:
    text, said = moved(name, "x\ty\tz\n10\t20\t30\n-1.5\t2.25\t3.125\n")
    assert text.splitlines()[0] == "x\ty\tz"
    np.testing.assert_allclose(numbers(text, "\t"), expected(POINTS, lps=False), atol=1e-6)
    assert said == ""


@pytest.mark.parametrize("row", ["n/a\t2\t3", "1\tn/a\tn/a", "1\t2\tN/A"])
def test_a_point_has_all_of_its_coordinates_or_none(refusal, row) -> None:
    """What is half a point cannot be transformed, and the numbers must not stay as they are."""
    line = refusal("e.tsv", f"x\ty\tz\n{row}\n")
    assert "line 2: coordinates must be numbers, or all of them n/a" in line


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"iEEGCoordinateUnits": "m"}, "in m; convert them to mm"),
        ({"EEGCoordinateUnits": "cm"}, "in cm; convert them to mm"),
        ({"iEEGCoordinateUnits": "pixels"}, "in pixels"),
        ({"EEGCoordinateSystem": "CTF", "EEGCoordinateUnits": "mm"}, "in the system CTF"),
        ({"EEGCoordinateSystem": "CapTrak"}, "not the space of an image"),
    ],
)
def test_what_bids_says_of_the_coordinates_beside_them_counts(
    refusal, tmp_path, about: dict[str, str], said: str
) -> None:
    (tmp_path / "sub-01_space-X_coordsystem.json").write_text(json.dumps(about))
    assert said in refusal("sub-01_space-X_electrodes.tsv", ELECTRODES)


@pytest.mark.parametrize(
    "about",
    ['{"iEEGCoordinateUnits": "mm", "iEEGCoordinateSystem": "ACPC"}', "{}", "[]", "no JSON"],
)
def test_millimetres_in_the_space_of_an_image_are_taken(moved, tmp_path, about: str) -> None:
    (tmp_path / "sub-01_coordsystem.json").write_text(about)
    moved("sub-01_electrodes.tsv", ELECTRODES)


# 3D Slicer


COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"


def fcsv(frame: str | None, newline: str = "\n") -> str:
    stated = [] if frame is None else [f"# CoordinateSystem = {frame}"]
    rows = [
        'vtkMRMLMarkupsFiducialNode_0,10,20,30,0,0,0,1,1,1,0,"F, the first",,',
        "vtkMRMLMarkupsFiducialNode_1,-1.5,2.25,3.125,0,0,0,1,1,1,0,F-2,a point,n1",
    ]
    lines = ["# Markups fiducial file version = 4.11", *stated, f"# columns = {COLUMNS}", *rows]
    return newline.join([*lines, ""])


@pytest.mark.parametrize(
    ("frame", "options", "lps"),
    [
        *(("LPS", [], True), ("1", [], True), ("RAS", [], False), ("0", [], False)),
        *(("LPS", ["--lps"], True), ("1", ["--lps"], True), (None, [], False)),
        (None, ["--lps"], True),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_fcsv_is_in_the_frame_that_it_states(
    moved, expected, frame: str | None, options: list[str], lps: bool, newline: str
) -> None:
    """Everything but the coordinates stays as it is, to the byte."""
    before = fcsv(frame, newline)
    text, said = moved("points.fcsv", before, *options)
    found = numbers(text, columns=slice(1, 4))
    np.testing.assert_allclose(found, expected(POINTS, lps=lps), atol=1e-6)
    for old, new in zip(
        io.StringIO(before, newline=""), io.StringIO(text, newline=""), strict=True
    ):
        if old.startswith("#"):
            assert new == old
        else:
            (old_fields,), (new_fields,) = csv.reader([old]), csv.reader([new])
            assert old_fields[4:] == new_fields[4:]
            assert old_fields[0] == new_fields[0]
            assert new.endswith(newline)
    assert said == ""


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (fcsv("RAS"), ["--lps"], "says that its coordinates are RAS, which contradicts --lps"),
        (fcsv("0"), ["--lps"], "contradicts --lps; leave it out"),
        (fcsv("IJK"), [], "'IJK', but they must be RAS or LPS"),
        (fcsv("2"), [], "'2'"),
        (fcsv("LPS").replace("-1.5", "x"), [], "line 5: coordinates must be numbers"),
        (fcsv("LPS").replace("-1.5", "nan"), [], "line 5: coordinates must be finite"),
        (fcsv("LPS").replace("id,x,y", "id,r,a"), [], "one column 'x'"),
        ("# Markups fiducial file version = 4.11\n1,2,3\n", [], "line 2 has 3 columns"),
    ],
)
def test_fcsv_that_is_refused(refusal, text: str, options: list[str], said: str) -> None:
    assert said in refusal("points.fcsv", text, *options)


def test_fcsv_is_recognised_by_its_beginning(moved, expected) -> None:
    text, _ = moved("points.txt", fcsv("LPS"))
    found = numbers(text, columns=slice(1, 4))
    np.testing.assert_allclose(found, expected(POINTS, lps=True), atol=1e-6)


def test_an_fcsv_of_slicer_3_has_no_version(moved, expected) -> None:
    text, _ = moved("old.fcsv", "# name = L\n# columns = label,x,y,z,sel,vis\nP1,10,20,30,1,1\n")
    found = numbers(text, columns=slice(1, 4))
    np.testing.assert_allclose(found, expected(POINTS[:1], lps=False), atol=1e-6)


SCHEMA = "https://example.org/markups-schema-v1.0.3.json#"


def markup(frame: str | None, **more: Any) -> dict[str, Any]:
    return {
        "type": "Fiducial",
        **({} if frame is None else {"coordinateSystem": frame}),
        "controlPoints": [
            {"id": str(n), "label": f"F-{n}", "position": point, "orientation": [-1.0, 0, 0]}
            for n, point in enumerate(POINTS.tolist())
        ],
        "display": {"visibility": True, "color": [0.4, 1.0, 1.0]},
        **more,
    }


def document(*markups: Any) -> str:
    return json.dumps({"@schema": SCHEMA, "markups": list(markups)})


def positions(text: str) -> list[np.ndarray]:
    """The positions of each list."""
    return [
        np.array([control["position"] for control in markup["controlPoints"]])
        for markup in json.loads(text)["markups"]
    ]


@pytest.mark.parametrize(
    ("frame", "options", "lps"),
    [("LPS", [], True), ("RAS", [], False), (None, [], True), ("LPS", ["--lps"], True)],
)
@pytest.mark.parametrize("name", ["m.mrk.json", "M.MRK.JSON", "m.json"])
def test_markups_are_in_the_frame_that_they_state(
    moved, expected, frame: str | None, options: list[str], lps: bool, name: str
) -> None:
    """LPS, if they state none; everything else in the file stays as it is."""
    before = document(markup(frame), markup("LPS", type="Curve"))
    text, said = moved(name, before, *options)
    first, second = positions(text)
    np.testing.assert_allclose(first, expected(POINTS, lps=lps), atol=1e-6)
    np.testing.assert_allclose(second, expected(POINTS, lps=True), atol=1e-6)
    old, new = json.loads(before), json.loads(text)
    for one in (*old["markups"], *new["markups"]):
        for control in one["controlPoints"]:
            del control["position"]
    assert old == new
    assert said == ""


def test_markups_that_are_yet_to_be_placed_stay_so(moved, expected) -> None:
    later = markup("LPS")
    later["controlPoints"][0] |= {"positionStatus": "undefined", "position": [0.0, 0.0, 0.0]}
    del later["controlPoints"][1]["position"]
    text, said = moved("m.mrk.json", document(markup("LPS"), later))
    np.testing.assert_allclose(
        positions(document(json.loads(text)["markups"][0]))[0],
        expected(POINTS, lps=True),
        atol=1e-6,
    )
    assert json.loads(text)["markups"][1] == later
    assert "2 points without coordinates" in said


def test_lengths_of_before_are_not_kept(moved) -> None:
    """3D Slicer computes them again."""
    length = {"name": "length", "enabled": True, "value": 12.5, "units": "mm"}
    text, _ = moved("m.mrk.json", document(markup("LPS", type="Line", measurements=[length])))
    (found,) = json.loads(text)["markups"][0]["measurements"]
    assert found == {"name": "length", "enabled": True, "units": "mm"}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (document(markup("RAS")), ["--lps"], "RAS, which contradicts --lps"),
        (document(markup("IJK")), [], "'IJK', but they must be RAS or LPS"),
        (document(markup("LPS", type="ROI")), [], "'ROI' is not a list of points"),
        (document(markup("LPS", coordinateUnits="m")), [], "in 'm', but must be in mm"),
        (document(markup("LPS", coordinateUnits=["um", "UCUM", "µm"])), [], "in 'um'"),
        (document(markup("LPS", controlPoints=[{"position": [1, 2]}])), [], "three finite numbers"),
        (document(markup("LPS", controlPoints=[{"position": [1, 2, "3"]}])), [], "three finite"),
        (document(markup("LPS", controlPoints=["x"])), [], "not a point list of 3D Slicer"),
        (document("x"), [], "not a point list of 3D Slicer"),
        (document(markup("LPS", measurements=["x"])), [], "not a point list of 3D Slicer"),
        ('{"points": []}', [], "not a point list of 3D Slicer"),
        ('{"markups": [', [], "not a point list of 3D Slicer"),
        ("[" * 100_000, [], "not a point list of 3D Slicer"),
    ],
)
def test_markups_that_are_refused(refusal, text: str, options: list[str], said: str) -> None:
    assert said in refusal("m.mrk.json", text, *options)


# ANTs


ANTS = "x,y,z,t,label,comment\n10,20,30,0,1,first\n-1.5,2.25,3.125,0,2,second\n"


def test_points_of_ants_are_lps_if_it_is_said(moved, expected) -> None:
    text, said = moved("ants.csv", ANTS, "--lps")
    np.testing.assert_allclose(numbers(text), expected(POINTS, lps=True), atol=1e-6)
    assert [line.split(",")[3:] for line in text.splitlines()] == [
        line.split(",")[3:] for line in ANTS.splitlines()
    ]
    assert said == ""


def test_what_looks_like_points_of_ants_is_asked_about(moved, expected) -> None:
    """The table does not say that it is LPS."""
    text, said = moved("ants.csv", ANTS)
    np.testing.assert_allclose(numbers(text), expected(POINTS, lps=False), atol=1e-6)
    assert "those of ANTs, whose points are LPS, but the coordinates were taken as RAS" in said
    assert "if they are LPS, give --lps" in said


def test_a_table_of_peaks_with_their_t_is_not_of_ants(moved) -> None:
    assert moved("peaks.csv", "x,y,z,t\n10,20,30,4.5\n-1.5,2.25,3.125,3.9\n")[1] == ""
    assert moved("peaks.csv", "x,y,z,t\n10,20,30,high\n", "--overwrite")[1] == ""


# Names


@pytest.mark.parametrize(
    ("name", "text", "out", "ending"),
    [
        ("e.tsv", ELECTRODES, "out.csv", ".tsv"),
        ("e.csv", ANTS, "out.tsv", ".csv"),
        ("e.csv", ANTS, "out.FCSV", ".csv"),
        ("e.csv", ANTS, "out.nii.gz", ".csv"),
        ("e.csv", ANTS, "out.mat", ".csv"),
        ("e.fcsv", fcsv("LPS"), "out.csv", ".fcsv"),
        ("e.fcsv", fcsv("LPS"), "out.mrk.json", ".fcsv"),
        ("e.mrk.json", document(markup("LPS")), "out.fcsv", ".mrk.json"),
    ],
)
def test_a_name_of_another_format_is_refused(refusal, name, text, out, ending) -> None:
    assert f"give a name such as points{ending}" in refusal(name, text, out=out)


def test_warnings_can_be_errors(cli, itk, tmp_path) -> None:
    (tmp_path / "ants.csv").write_text(ANTS)
    words = "points", tmp_path / "ants.csv", "-t", tmp_path / "a.tfm", "-o", tmp_path / "out.csv"
    assert cli(*words, "--strict").code == 3
    assert (tmp_path / "out.csv").exists()
