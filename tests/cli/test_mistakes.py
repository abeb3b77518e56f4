"""Mistakes a newcomer makes: refused in one line, before anything is computed or written."""

import nibabel as nib
import numpy as np
import pytest

from voxwarp import apply_to_image, read_volume
from voxwarp.errors import InputError
from voxwarp.space.transform import Affine


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.eye(4)), path)
    return path


def test_outputs_that_the_inputs_do_not_have(refuses, image, tmp_path) -> None:
    line = refuses("register", image, "-o", tmp_path / "out", "--save", "transforms,labels")
    assert "no labels are given; give them with --labels" in line


def test_several_images_into_one_file(refuses, image, tmp_path) -> None:
    line = refuses("apply", image, image, "-t", tmp_path, "-o", tmp_path / "new.nii.gz")
    assert "several images need a folder" in line


@pytest.mark.parametrize("name", ["points.nii.gz", "points.mat"])
def test_points_into_a_file_of_another_kind(refuses, tmp_path, name) -> None:
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n")
    line = refuses("points", tmp_path / "points.csv", "-t", tmp_path, "-o", tmp_path / name)
    assert "points are written as CSV" in line


def test_an_interpolation_of_another_tool(image) -> None:
    with pytest.raises(InputError, match="one of linear, nearest, cubic, got 'spline'"):
        apply_to_image(image, Affine(np.eye(4)), reference=image, interpolation="spline")


def test_an_array_in_the_place_of_an_image() -> None:
    with pytest.raises(InputError, match=r"image: an array has no grid; .*Nifti1Image"):
        read_volume(np.zeros((3, 4, 5)))
