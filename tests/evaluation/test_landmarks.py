"""Landmarks: matched by name; wrong files are refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from cohorts import table
from scored_pairs import pair_scan, scored_transform, scores, shift, texture

from voxwarp.data.pairs import Pair
from voxwarp.errors import InputError
from voxwarp.evaluation.landmarks import read_landmarks
from voxwarp.evaluation.loaded_pair import LoadedPair, load_pair


def with_landmarks(folder: Path, moving: str, fixed: str) -> LoadedPair:
    paths = (table(folder / f"{name}.csv", text) for name, text in (("m", moving), ("f", fixed)))
    sides = (
        pair_scan(folder, name, texture(), landmarks=path)
        for name, path in zip(("m", "f"), paths, strict=True)
    )
    return load_pair(Pair(*sides))


def test_landmarks_are_matched_by_name(tmp_path):
    """In any order; those that one side lacks are left out. Errors of 5 and 13 mm."""
    fixed = "name,x,y,z\nAC,0,0,0\nPC,1,1,1\nonly here,9,9,9\n"
    moving = "z,label,y,x,note\n14,PC,-3,4,far\n2,AC,4,13,\n0,other,0,0,\n"
    loaded = with_landmarks(tmp_path, moving, fixed)
    motion = shift(10, 0, 2)  # AC to (10, 0, 2), PC to (11, 1, 3)
    errors = [np.linalg.norm([13 - 10, 4 - 0, 2 - 2]), np.linalg.norm([4 - 11, -3 - 1, 14 - 3])]
    assert errors[0] == 5
    assert scores(loaded, scored_transform(motion))["tre_mm"] == pytest.approx(np.mean(errors))


def test_landmarks_without_names_are_matched_by_row(tmp_path):
    loaded = with_landmarks(tmp_path, "x,y,z\n1,0,0\n\n0,2,0\n", "x,y,z\n0,0,0\n0,0,0\n")
    assert scores(loaded, scored_transform())["tre_mm"] == pytest.approx(1.5)
    assert scores(loaded, scored_transform(shift(1, 0, 0)))["tre_mm"] == pytest.approx(
        math.sqrt(5) / 2
    )


def test_landmarks_in_one_scan_only_give_no_error(tmp_path):
    path = table(tmp_path / "f.csv", "x,y,z\n0,0,0\n")
    sides = pair_scan(tmp_path, "m", texture()), pair_scan(tmp_path, "f", texture(), landmarks=path)
    assert math.isnan(scores(load_pair(Pair(*sides)), scored_transform())["tre_mm"])


def test_landmarks_that_share_no_name_are_refused(tmp_path):
    loaded = with_landmarks(tmp_path, "x,y,z,n\n0,0,0,a\n", "x,y,z,n\n0,0,0,b\n")
    with pytest.raises(
        InputError, match=r"landmarks .*m\.csv: no landmark has the name of one in .*f\.csv"
    ):
        scores(loaded, scored_transform())


def test_landmarks_of_3d_slicer_go_by_their_labels(tmp_path):
    """In RAS, whatever the frame of the file."""
    fcsv = "# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n1,10,-20,30,AC\n2,1,2,3,PC\n"
    point = {"label": "AC", "position": [-10, 20, 30]}
    markups = {
        "markups": [{"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": [point]}]
    }
    assert read_landmarks(table(tmp_path / "a.fcsv", fcsv)) == {
        "AC": (-10.0, 20.0, 30.0),
        "PC": (-1.0, -2.0, 3.0),
    }
    path = table(tmp_path / "a.mrk.json", json.dumps(markups))
    assert read_landmarks(path) == {"AC": (-10.0, 20.0, 30.0)}
    with pytest.raises(InputError, match="the label 'AC' is empty or used twice"):
        read_landmarks(table(tmp_path / "b.fcsv", fcsv.replace("PC", "AC")))


def test_landmarks_that_are_not_available_are_left_out(tmp_path):
    path = table(tmp_path / "l.tsv", "name\tx\ty\tz\nAC\t1\t2\t3\nPC\tn/a\tn/a\tn/a\n")
    assert read_landmarks(path) == {"AC": (1.0, 2.0, 3.0)}
    path = table(tmp_path / "l.tsv", "name\tx\ty\tz\nAC\t1\t2\t3\nPC\tn/a\t1\t1\n")
    with pytest.raises(InputError, match="x, y and z must be numbers"):
        read_landmarks(path)


def test_landmarks_are_read_again_when_they_change(tmp_path):
    path = table(tmp_path / "l.csv", "x,y,z\n1,2,3\n")
    assert read_landmarks(path) == {"1": (1, 2, 3)}
    table(path, "x,y,z\n3,2,1\n")
    assert read_landmarks(path) == {"1": (3, 2, 1)}


WRONG_LANDMARKS = {
    "": "it has no rows",
    "x,y,z\n": "it has no rows",
    "x,y\n1,2\n": "no column z; landmarks need x, y and z in RAS mm",
    "X,Y,Z\n1,2,3\n": "no column x, y, z;",
    "x,y,z\n1,2,three\n": "x, y and z must be numbers, got '1', '2', 'three' .*row 2",
    "x,y,z\n1,2,3\n1,2\n": "must be numbers, got '1', '2', '' .*row 3",
    "x,y,z\n1,2,3\n\n1,,3\n": "must be numbers, got '1', '', '3' .*row 4",
    "x,y,z\n1,2,nan\n": "must be numbers, got '1', '2', 'nan' .*row 2",
    "x,y,z\n1,inf,2\n": "must be numbers, got '1', 'inf', '2' .*row 2",
    "x,y,z\n1,2,3,\n1,2,3,\n": "row 2: it has 4 values, but the first row has 3",
    "x,y,z,name\n1,2,3\n": "column name is empty .*row 2",
    "x,y,z,name\n1,2,3,a\n4,5,6,\n": "column name is empty .*row 3",
    "n,x,y,z\na,1,2,3\nb,1,2,3\na ,4,5,6\n": "the name 'a' is used twice .*row 4",
}


@pytest.mark.parametrize("text", WRONG_LANDMARKS)
def test_wrong_landmarks(tmp_path, text):
    path = table(tmp_path / "l.csv", text)
    with pytest.raises(InputError, match=WRONG_LANDMARKS[text]) as refusal:
        read_landmarks(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "no such file"),
        (".", "this is a folder"),
        ("image.nii", "not a CSV, TSV or JSON-lines table"),
    ],
)
def test_landmarks_that_cannot_be_read(tmp_path, name, message):
    (tmp_path / "image.nii").write_bytes(b"\xff\xfe\x00\xff")
    with pytest.raises(InputError, match=message) as refusal:
        read_landmarks(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)
