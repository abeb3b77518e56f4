"""Values outside of images, of labels and of doubtful images, in whole commands."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "identity.tfm"
    sitk.WriteTransform(sitk.AffineTransform(3), str(path))
    return path


def saved(path: Path, data: np.ndarray, shift: float = 0.0) -> Path:
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = shift
    nib.save(nib.Nifti1Image(data, affine, dtype=data.dtype), path)
    return path


def values(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def ball(inside: float, outside: float, dtype: type = np.float32) -> np.ndarray:
    away = ((np.indices((16, 16, 16)) - 7.5) ** 2).sum(axis=0)
    rng = np.random.default_rng(0)
    return np.where(away < 40, inside + rng.normal(0, 30, away.shape), outside).astype(dtype)


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """A grid that reaches 20 mm beyond the images, and is shifted by a part of a voxel."""
    return saved(tmp_path / "larger.nii.gz", np.zeros((26, 26, 26), np.uint8), shift=-21.3)


@pytest.mark.parametrize(
    ("dtype", "air"), [(np.int16, -1024), (np.float32, -0.7), (np.float32, np.nan)]
)
@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
def test_outside_is_the_background(
    cli, identity, larger, tmp_path, dtype: type, air: float, interpolation: str
) -> None:
    image = saved(tmp_path / "image.nii.gz", ball(200, air, dtype))
    out = tmp_path / "out.nii.gz"
    outcome = cli(
        *("apply", image, "-t", identity, "-r", larger, "-o", out),
        *("--interpolation", interpolation, "--strict"),
    )
    assert outcome.code == 0, outcome.err
    moved = values(out)
    assert moved.dtype == dtype
    np.testing.assert_equal(moved[0], np.full_like(moved[0], air))
    assert abs(float(moved[13, 13, 13]) - 200) < 150


def test_the_background_can_be_given(cli, identity, larger, tmp_path) -> None:
    image = saved(tmp_path / "image.nii.gz", ball(200, 0, np.int16))
    words = ("apply", image, "-t", identity, "-r", larger, "-o", tmp_path / "out.nii.gz")
    outcome = cli(*words, "--background", "-1024")
    assert outcome.code == 0, outcome.err
    assert (values(tmp_path / "out.nii.gz")[0] == -1024).all()
    for wrong in ("0.5", "40000", "nan"):
        outcome = cli(*words, "--background", wrong, "--overwrite")
        assert outcome.code == 2
        assert "--background must be a whole number from -32768 to 32767" in outcome.err


def test_a_doubtful_background_is_a_warning(cli, identity, larger, tmp_path) -> None:
    """As in CT whose air is noise: 0, which would be water, is not written without a word."""
    noise = np.random.default_rng(1).normal(-1000, 10, (16, 16, 16))
    data = np.where(ball(40, 0) == 0, noise, ball(40, 0)).astype(np.int16)
    image, out = saved(tmp_path / "ct.nii.gz", data), tmp_path / "out.nii.gz"
    words = ("apply", image, "-t", identity, "-o", out, "--overwrite", "--strict")
    outcome = cli(*words, "-r", larger)
    assert outcome.code == 3
    assert "reaches beyond the image; 0 was written there" in outcome.err
    assert "--background" in outcome.err
    assert cli(*words, "-r", image).code == 0  # the result reaches nowhere beyond it
    assert cli(*words, "-r", larger, "--background", "-1000").code == 0


def test_float_labels_keep_their_values(cli, identity, larger, tmp_path) -> None:
    x, y, z = np.indices((16, 16, 16)) // 4
    labels = (1000 + x + 4 * y + 16 * z).astype(np.float32)
    image, out = saved(tmp_path / "labels.nii.gz", labels), tmp_path / "out.nii.gz"
    outcome = cli("apply", image, "-t", identity, "-r", larger, "-o", out)
    assert outcome.code == 0, outcome.err
    assert "(nearest)" in outcome.out
    assert set(np.unique(values(out))) <= {0, *np.unique(labels)}


def test_a_close_call_is_a_warning(cli, identity, tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 9, (16, 16, 16)).astype(np.float32)
    image, out = saved(tmp_path / "counts.nii.gz", noise), tmp_path / "out.nii.gz"
    words = ("apply", image, "-t", identity, "-r", image, "-o", out, "--strict", "--overwrite")
    outcome = cli(*words)
    assert outcome.code == 3
    assert "taken for intensities" in outcome.err
    assert "--interpolation nearest" in outcome.err
    assert cli(*words, "--interpolation", "linear").code == 0


def test_the_scan_that_is_registered_keeps_its_background(
    scans, register_quickly, tmp_path
) -> None:
    """The moved scan has it, and what is found is the same as for a scan of air 0."""
    moving = nib.load(scans.moving)
    plain = np.asarray(moving.dataobj).astype(np.float32)
    lowered = nib.Nifti1Image(np.where(plain > 0, plain, -100), moving.affine)
    border = np.ones(plain.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert (plain[border] == 0).all()
    result = register_quickly(lowered, scans.fixed)
    assert result.moving.image.background == (-100, "")
    outside = result.warped.data[0, 0, 0]
    assert outside == -100
