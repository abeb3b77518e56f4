"""Series: frame by frame as at once, in the memory of a few frames, or refused beforehand."""

import gzip
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from processes import peak_of

from voxwarp.errors import InputError
from voxwarp.registration import apply_memory
from voxwarp.registration.apply import apply_to_file, apply_to_image
from voxwarp.registration.apply_memory import predicted_apply_memory
from voxwarp.registration.saved_transform import load_transform
from voxwarp.space.volume import read_series, write_volume

SHAPE = (12, 13, 14)


@pytest.fixture
def turn(tmp_path: Path) -> Path:
    transform = sitk.Euler3DTransform((20, 20, 20), 0.1, -0.2, 0.15, (1, -2, 3))
    path = tmp_path / "turn.tfm"
    sitk.WriteTransform(transform, str(path))
    return path


def series(path: Path, frames: int, dtype: str = "i2", *, cls: type = nib.Nifti1Image) -> Path:
    rng = np.random.default_rng(0)
    data = rng.normal(300, 100, (*SHAPE, frames)).astype(dtype)
    image = cls(data, np.diag([3.0, 3, 3, 1]))
    if isinstance(image, nib.Nifti1Image):
        image.header.set_zooms((3, 3, 3, 2.5))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "i4", "f4", "f8"])
def test_a_file_is_what_its_frames_are_at_once(
    tmp_path: Path, turn: Path, dtype: str, interpolation: str
) -> None:
    """To the byte, and frame by frame what each frame gives by itself."""
    path = series(tmp_path / "series.nii.gz", 5, dtype)
    options = {"reference": path, "interpolation": interpolation}
    apply_to_file(path, tmp_path / "out.nii.gz", turn, **options)
    whole = apply_to_image(path, turn, **options)
    write_volume(whole, tmp_path / "whole.nii.gz")
    assert gzip.decompress((tmp_path / "out.nii.gz").read_bytes()) == gzip.decompress(
        (tmp_path / "whole.nii.gz").read_bytes()
    )
    moved = nib.load(tmp_path / "out.nii.gz")
    assert moved.header.get_zooms()[3] == 2.5
    image = nib.load(path)
    for t in range(5):
        one = nib.Nifti1Image(np.asarray(image.dataobj[..., t]), image.affine)
        by_itself = apply_to_image(one, turn, **options)
        np.testing.assert_array_equal(np.asarray(moved.dataobj[..., t]), by_itself.data)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("a.nii", nib.Nifti1Image),
        ("a.nii.gz", nib.Nifti1Image),
        ("a.nii.bz2", nib.Nifti1Image),
        ("a.img", nib.Nifti1Pair),
        ("a.mgz", nib.MGHImage),
        ("a.mgh", nib.MGHImage),
    ],
)
def test_every_format_is_read_frame_by_frame(
    tmp_path: Path, turn: Path, name: str, cls: type
) -> None:
    path = series(tmp_path / name, 4, "f4", cls=cls)
    apply_to_file(path, tmp_path / "out.nii", turn, reference=path)
    expected = apply_to_image(read_series(path), turn, reference=path)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii").dataobj, expected.data)


@pytest.mark.parametrize("name", ["cut.nii", "cut.nii.gz"])
def test_a_damaged_end_leaves_nothing(refuses, tmp_path: Path, turn: Path, name: str) -> None:
    path = series(tmp_path / name, 5)
    path.write_bytes(path.read_bytes()[:-9])
    said = refuses("apply", path, "-t", turn, "-r", path, "-o", tmp_path / "out.nii.gz")
    assert "damaged or cut off" in said


def test_a_reference_needs_its_header_alone(tmp_path: Path, turn: Path) -> None:
    path = series(tmp_path / "series.nii", 5)
    expected = apply_to_image(path, turn, reference=path)
    raw = path.read_bytes()
    for name, content in (("r.nii", raw[:400]), ("r.nii.gz", gzip.compress(raw)[:800])):
        (tmp_path / name).write_bytes(content)
        moved = apply_to_image(path, turn, reference=tmp_path / name)
        np.testing.assert_array_equal(moved.data, expected.data)


def test_what_cannot_fit_is_refused_with_both_numbers(
    refuses, tmp_path: Path, turn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = series(tmp_path / "series.nii", 5)
    words = ("apply", path, "-t", turn, "-r", path, "-o", tmp_path / "out.nii")
    with monkeypatch.context() as patch:
        patch.setattr(apply_memory, "free_memory", lambda: 50_000_000)
        said = refuses(*words)
        assert "takes about 100" in said
        assert "MB of memory, but only 50.0 MB are free" in said
    monkeypatch.setattr(apply_memory, "free_space", lambda folder: 5000)
    said = refuses(*words)
    assert "not enough space on this disk: the result has about 0.0 MB, but only 0.0 MB" in said


def test_a_compressed_result_is_reckoned_by_its_first_frame(
    tmp_path: Path, turn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flat.nii"
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 50), np.int16), np.diag([3.0, 3, 3, 1])), path)
    monkeypatch.setattr(apply_memory, "free_space", lambda folder: 50_000)
    apply_to_file(path, tmp_path / "out.nii.gz", turn, reference=path)
    with pytest.raises(InputError, match="not enough space"):
        apply_to_file(path, tmp_path / "out.nii", turn, reference=path)


def test_a_series_that_is_too_long_for_nifti1_is_refused(tmp_path: Path, turn: Path) -> None:
    image = nib.Nifti2Image(np.zeros((2, 2, 2, 32768), np.uint8), np.eye(4))
    nib.save(image, tmp_path / "long.nii.gz")
    with pytest.raises(InputError, match="at most 32767"):
        apply_to_file(
            tmp_path / "long.nii.gz", tmp_path / "out.nii", turn, reference=tmp_path / "long.nii.gz"
        )
    assert not (tmp_path / "out.nii").exists()


def test_transforms_are_loaded_once_for_all_frames(tmp_path: Path, turn: Path) -> None:
    path = series(tmp_path / "series.nii", 3)
    loaded = load_transform(turn)
    moved = apply_to_image(path, loaded, reference=path)
    np.testing.assert_array_equal(moved.data, apply_to_image(path, turn, reference=path).data)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other ways elsewhere")
@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
def test_memory_does_not_grow_with_the_length(
    tmp_path: Path, turn: Path, interpolation: str
) -> None:
    """That of a few frames, and never more than was predicted."""
    grid = nib.Nifti1Image(np.zeros((160, 160, 160), np.uint8), np.diag([1.0, 1, 1, 1]))
    nib.save(grid, tmp_path / "grid.nii.gz")
    options = ["-r", tmp_path / "grid.nii.gz", "--interpolation", interpolation]
    peaks = []
    for frames in (2, 40):
        path = series(tmp_path / f"{frames}.nii.gz", frames, "f4")
        out = tmp_path / f"out{frames}.nii"
        peaks.append(peak_of("apply", path, "-t", turn, "-o", out, *options))
    frame = 160**3 * 4
    assert peaks[1] - peaks[0] < 2 * frame
    predicted = predicted_apply_memory(
        SHAPE, (160, 160, 160), np.dtype(np.float32), interpolation, 1
    )
    base = 500e6  # the program with its libraries
    assert peaks[1] < predicted + base
