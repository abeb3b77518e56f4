"""Damaged files of every format that is read: a result, or one sentence that says what is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from attempts import Attempt, both
from hypothesis import strategies as st
from mutations import mutated
from odd_headers import afni_file, analyze_file, minc1_file, minc2_file

AFFINE = np.diag([-3.0, 3.0, 3.0, 1.0])
DATA = np.random.default_rng(0).integers(0, 900, (6, 7, 8)).astype(np.int16)
POINTS = {
    "p.csv": "x,y,z,name\n1,2,3,a\n-4.5,5e1,6,b\n",
    "p.tsv": "name\tx\ty\tz\nA1\t1\t2\t3\nA2\tn/a\tn/a\tn/a\n",
    "p.fcsv": (
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        "1,9,18,27,0,0,0,1,1,1,0,F-1,,\n"
    ),
    "p.mrk.json": (
        '{"markups": [{"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": '
        '[{"id": "1", "label": "F-1", "position": [1.0, 2.0, 3.0]}]}]}'
    ),
}
seeds = st.integers(0, 2**32)


def identity(path: Path) -> Path:
    sitk.WriteTransform(sitk.AffineTransform(3), str(path))
    return path


def nifti(folder: Path, name: str) -> Path:
    nib.save(nib.Nifti1Image(DATA, AFFINE), folder / name)
    return folder / name


def saved(cls: Any, name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        nib.save(cls(DATA, AFFINE), folder / name)
        return folder / name

    return write


FORMATS: dict[str, Callable[[Path], Path]] = {
    "nifti": lambda folder: nifti(folder, "a.nii"),
    "nifti in gzip": lambda folder: nifti(folder, "a.nii.gz"),
    "nifti in bzip2": lambda folder: nifti(folder, "a.nii.bz2"),
    "nifti 2": saved(nib.Nifti2Image, "a.nii"),
    "pair": saved(nib.Nifti1Pair, "a.img"),
    "mgh": saved(nib.MGHImage, "a.mgh"),
    "mgz": saved(nib.MGHImage, "a.mgz"),
    "analyze": lambda folder: analyze_file(folder / "a.img", DATA, AFFINE, ("mat", "M")),
    "minc 1": lambda folder: minc1_file(folder / "a.mnc", DATA, step=3.0, start=-9.0),
    "minc 2": lambda folder: minc2_file(folder / "a.mnc", DATA, step=3.0, start=-9.0),
    "afni": lambda folder: afni_file(folder / "a.HEAD", DATA, AFFINE),
}


@pytest.fixture(autouse=True)
def _everything_is_imported(cli: Callable[..., Any], tmp_path: Path) -> None:
    """So that no case is charged for it."""
    scan, out = nifti(tmp_path, "a.nii"), tmp_path / "o.nii"
    assert cli("apply", scan, "-t", identity(tmp_path / "i.tfm"), "-r", scan, "-o", out).code == 0


def image_of_any_format(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, case: tuple[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("case")
    name, seed = case
    path = FORMATS[name](folder)
    files = sorted(folder.iterdir())
    spoilt = files[seed % len(files)]
    spoilt.write_bytes(mutated(spoilt.read_bytes(), seed))
    words = ("apply", path, "-t", identity(folder / "i.tfm"), "-o", folder / "out.nii.gz")
    reference = nifti(folder, "reference.nii")
    attempt = Attempt(cli, folder, *words, "-r", reference, size=1e6)
    if attempt.done:
        assert attempt.new == [folder / "out.nii.gz"]
        assert nib.load(folder / "out.nii.gz").shape[:3] == DATA.shape


def linear_transform(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, case: tuple[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("case")
    ending, seed = case
    path = identity(folder / f"a.{ending}")
    path.write_bytes(mutated(path.read_bytes(), seed))
    (folder / "p.csv").write_text(POINTS["p.csv"])
    words = ("points", folder / "p.csv", "-t", path, "-o", folder / "q.csv")
    attempt = Attempt(cli, folder, *words, size=1e6)
    if attempt.done:
        assert np.isfinite(
            np.loadtxt(folder / "q.csv", str, delimiter=",")[1:, :3].astype(float)
        ).all()


def points(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, case: tuple[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("case")
    name, seed = case
    path = folder / name
    path.write_bytes(mutated(POINTS[name].encode(), seed))
    out = folder / f"q{name[1:]}"
    words = ("points", path, "-t", identity(folder / "i.tfm"), "-o", out)
    attempt = Attempt(cli, folder, *words, size=1e6)
    if attempt.done:
        assert attempt.new == [out]


def of(names: Any) -> Any:
    return st.tuples(st.sampled_from(list(names)), seeds)


test_images, test_many_images = both(of(FORMATS), 60, 800)(image_of_any_format)
test_transforms, test_many_transforms = both(of(["mat", "tfm", "txt"]), 40, 400)(linear_transform)
test_points, test_many_points = both(of(POINTS), 40, 400)(points)
