"""Reading and writing: what the header's bytes say, and one sentence for what is wrong."""

import errno
import gc
import itertools
import logging
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from bad_files import BAD_SCANS, INTER, PIXDIM, SLOPE, patched, values_of
from odd_headers import affine_by_itk
from phantoms import (
    apply_affine,
    blobs,
    homogeneous,
    indices,
    label_map,
    oblique_affine,
    oblique_grid,
    rotation,
)
from scipy.ndimage import gaussian_filter

from voxwarp.errors import InputError
from voxwarp.space.grid import Grid
from voxwarp.space.volume import (
    Volume,
    read_labels,
    read_series,
    read_volume,
    to_canonical,
    write_volume,
)

SHAPE = (7, 8, 9)


def scan(dtype: type = np.int16, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(0, 120, shape)
    return values.astype(dtype)


def saved(path: Path, image: nib.spatialimages.SpatialImage) -> Path:
    nib.save(image, path)
    return path


def one_sentence(error: pytest.ExceptionInfo[InputError], name: str) -> str:
    message = str(error.value)
    assert name in message
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------ reading


# nibabel leaves it to the garbage collector to close .mgh files.
@pytest.mark.filterwarnings("ignore:unclosed file .*scan.mgh:ResourceWarning")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (".nii", nib.Nifti1Image),
        (".nii.gz", nib.Nifti1Image),
        (".nii.gz", nib.Nifti2Image),
        (".mgz", nib.MGHImage),
        (".mgh", nib.MGHImage),
        (".img", nib.Nifti1Pair),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_every_format_gives_the_array_and_the_grid_that_were_stored(
    tmp_path: Path, ending: str, kind: type, dtype: type, seed: int
) -> None:
    data, affine = scan(dtype), oblique_affine(seed)
    path = saved(tmp_path / f"scan{ending}", kind(data, affine))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    assert volume.data.dtype == dtype
    np.testing.assert_allclose(volume.grid.affine, affine, atol=2e-4)
    assert volume.name == str(path)
    assert read_volume(str(path)).grid == volume.grid


def test_an_image_in_memory_is_read_as_a_file_is(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan(np.float32), oblique_affine(1))
    before = read_volume(image)
    after = read_volume(saved(tmp_path / "scan.nii.gz", image))
    np.testing.assert_array_equal(before.data, after.data)
    np.testing.assert_allclose(before.grid.affine, after.grid.affine, atol=1e-5)


@pytest.mark.parametrize("code", ["qform", "sform"])
def test_either_form_alone_places_the_voxels(tmp_path: Path, code: str) -> None:
    affine = oblique_affine(2)
    image = nib.Nifti1Image(scan(), None)
    getattr(image, f"set_{code}")(affine, code=1)
    getattr(image, "set_sform" if code == "qform" else "set_qform")(None, code=0)
    volume = read_volume(saved(tmp_path / "scan.nii", image))
    np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-4)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_big_endian_files_give_native_arrays(tmp_path: Path, dtype: str) -> None:
    data, affine = scan(np.dtype(dtype)), oblique_affine(3)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.dtype(dtype))
    path = saved(tmp_path / "scan.nii", nib.Nifti1Image(data, affine, header))
    assert path.read_bytes()[:4] == struct.pack(">i", 348)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    assert volume.data.dtype == np.dtype(dtype)
    assert volume.data.dtype.isnative
    np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_slope_and_intercept_are_applied(tmp_path: Path, dtype: type) -> None:
    stored = scan(dtype)
    path = saved(tmp_path / "scan.nii", nib.Nifti1Image(stored, oblique_affine(4)))
    patched(path, (SLOPE, "<f", (0.25,)), (INTER, "<f", (-7.5,)))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.data, stored * 0.25 - 7.5, rtol=1e-6)
    assert volume.data.dtype.kind == "f"


def test_a_scaled_file_of_32_bits_keeps_them(tmp_path: Path) -> None:
    stored = 2**30 + np.arange(7 * 8 * 9, dtype=np.int32).reshape(SHAPE)
    path = saved(tmp_path / "scan.nii", nib.Nifti1Image(stored, np.eye(4)))
    patched(path, (SLOPE, "<f", (0.5,)), (INTER, "<f", (0.0,)))
    np.testing.assert_array_equal(read_volume(path).data, stored * 0.5)


@pytest.mark.parametrize("extra", [(1,), (1, 1)])
def test_trailing_axes_of_length_one_are_dropped(tmp_path: Path, extra: tuple[int, ...]) -> None:
    data = scan()
    image = nib.Nifti1Image(data.reshape(SHAPE + extra), oblique_affine(0))
    volume = read_volume(saved(tmp_path / "scan.nii.gz", image))
    np.testing.assert_array_equal(volume.data, data)


def test_a_series_keeps_its_frames_and_their_spacing(tmp_path: Path) -> None:
    data = scan(shape=(*SHAPE, 4))
    image = nib.Nifti1Image(data, oblique_affine(0))
    image.header.set_zooms((*image.header.get_zooms()[:3], 2.5))
    series = read_series(saved(tmp_path / "bold.nii.gz", image))
    np.testing.assert_array_equal(series.data, data)
    assert series.frame_spacing == 2.5


# ----------------------------------------------------------------------------- what is refused


@pytest.fixture(params=[np.int16, np.float32])
def good(request: pytest.FixtureRequest) -> nib.Nifti1Image:
    """An oblique scan of noise, which gzip does not make small."""
    return nib.Nifti1Image(scan(request.param, (24, 25, 26)), oblique_affine(1))


@pytest.mark.parametrize("case", BAD_SCANS)
def test_what_is_no_scan_is_refused_in_one_sentence_that_names_the_file(
    tmp_path: Path, good: nib.Nifti1Image, case: str
) -> None:
    write, reason = BAD_SCANS[case]
    path = write(tmp_path, good)
    with pytest.raises(InputError, match=reason) as error:
        read_volume(path, "moving image")
    assert one_sentence(error, str(path)).startswith(f"moving image {path}: ")


def test_the_files_that_are_refused_are_good_but_for_the_one_thing(
    tmp_path: Path, good: nib.Nifti1Image
) -> None:
    """So that a refusal is not for a mistake in building them."""
    for name, kind in (
        *(("a.nii", nib.Nifti1Image), ("a.nii.gz", nib.Nifti1Image), ("a.img", nib.Nifti1Pair)),
        ("a.mgz", nib.MGHImage),
    ):
        data = values_of(good).astype(np.float32)
        read = read_volume(saved(tmp_path / name, kind(data, good.affine)))
        np.testing.assert_array_equal(read.data, data)
    data = good.get_fdata(dtype=np.float32)
    same = patched(saved(tmp_path / "b.nii", good), (PIXDIM + 8, "<f", (good.header["pixdim"][2],)))
    np.testing.assert_array_equal(read_volume(same).data, data)


# ----------------------------------------------------------------------- what nibabel repairs


def test_what_nibabel_repairs_is_in_the_log_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "scan.nii", nib.Nifti1Image(scan(), oblique_affine(1)))
    caplog.set_level("INFO")
    read_volume(path)
    assert caplog.messages == []
    read_volume(patched(path, (PIXDIM, "<f", (7.0,))), "moving image")
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"moving image {path}: nibabel repaired the header: ")
    assert "qfac" in caplog.messages[0]
    assert caplog.records[0].name == "voxwarp.space.image_file"
    assert capfd.readouterr() == ("", "")


def test_nibabels_own_log_is_as_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("nibabel.global")
    before = logger.level, list(logger.filters)
    with pytest.raises(InputError):
        read_volume(BAD_SCANS["noise"][0](tmp_path, None))
    assert (logger.level, list(logger.filters)) == before


# ------------------------------------------------------------------------------------- labels


def test_labels_come_back_as_whole_numbers_whatever_they_are_stored_as(tmp_path: Path) -> None:
    labels, affine = label_map(1, SHAPE), oblique_affine(1)
    image = Volume(scan(), Grid(SHAPE, affine))
    for dtype in (np.int16, np.uint8, np.float32, np.float64):
        path = saved(tmp_path / "seg.nii.gz", nib.Nifti1Image(labels.astype(dtype), affine))
        read = read_labels(path, image)
        np.testing.assert_array_equal(read.data, labels)
        assert read.data.dtype.kind in "iu"
        assert read.holds_labels()


def test_large_and_negative_labels_survive_a_float_file(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE)
    labels[1, 2, 3], labels[4, 5, 6] = 2.0**40 + 1, -5
    image = Volume(scan(), Grid(SHAPE, np.eye(4)))
    path = saved(tmp_path / "seg.nii", nib.Nifti1Image(labels, np.eye(4)))
    assert set(np.unique(read_labels(path, image).data)) == {0, -5, 2**40 + 1}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("empty", "empty"),
        ("fractional", "whole numbers"),
        ("NaN", "whole numbers"),
        ("4-D", "3-D"),
        ("other size", "grid .*7×8×10.* is not that of .*7×8×9"),
        ("other place", "grid"),
        ("other spacing", "grid"),
        ("missing", "no such file"),
    ],
)
def test_what_is_no_label_map_of_the_image_is_refused(
    tmp_path: Path, case: str, reason: str
) -> None:
    labels, affine = label_map(1, SHAPE).astype(np.float32), np.diag([1.0, 1, 1, 1])
    image = Volume(scan(), Grid(SHAPE, affine), "t1.nii.gz")
    if case == "empty":
        labels[:] = 0
    elif case == "fractional":
        labels[1, 2, 3] = 0.5
    elif case == "NaN":
        labels[1, 2, 3] = np.nan
    elif case == "4-D":
        labels = np.stack([labels, labels], axis=-1)
    elif case == "other size":
        labels = np.concatenate([labels, labels[:, :, :1]], axis=2)
    elif case == "other place":
        affine = homogeneous(np.eye(3), (0.5, 0, 0))
    elif case == "other spacing":
        affine = np.diag([1.0, 1, 1.1, 1])
    path = tmp_path / "seg.nii.gz"
    if case != "missing":
        saved(path, nib.Nifti1Image(labels, affine))
    with pytest.raises(InputError, match=reason) as error:
        read_labels(path, image)
    one_sentence(error, str(path))


def smooth_noise(shape: tuple[int, ...] = (24, 24, 24)) -> np.ndarray:
    """What a brain-extracted scan is like: smooth, noisy, zero around."""
    rng = np.random.default_rng(0)
    head = 500 + 4000 * gaussian_filter(rng.normal(size=shape), 2) + rng.normal(size=shape) * 10
    inside = ((indices(shape) - 11.5) ** 2).sum(-1) < 100
    return head * inside


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(smooth_noise().astype(np.int16), False, id="int16 scan"),
        pytest.param((smooth_noise() / 8).clip(0, 255).astype(np.uint8), False, id="uint8 scan"),
        pytest.param(smooth_noise().astype(np.float32), False, id="float scan"),
        pytest.param(label_map(1, (24, 24, 24)).astype(np.int32), True, id="label blobs"),
        pytest.param((smooth_noise() > 0).astype(np.uint8), True, id="uint8 mask"),
        pytest.param(smooth_noise() > 0, True, id="bool mask"),
        pytest.param(label_map(1, (24, 24, 24)).astype(np.float32), True, id="float labels"),
        pytest.param(
            np.random.default_rng(0).integers(0, 20, (24, 24, 24)), True, id="few random values"
        ),
        pytest.param(
            np.random.default_rng(0).integers(0, 900, (24, 24, 24)), False, id="many random values"
        ),
        pytest.param(
            np.kron(np.random.default_rng(0).integers(0, 900, (6, 6, 6)), np.ones((4, 4, 4), int)),
            True, id="a parcellation of 200 values",
        ),
    ],
)  # fmt: skip
def test_labels_are_told_from_intensities(data: np.ndarray, expected: bool) -> None:
    assert Volume(data, Grid(data.shape, np.eye(4))).holds_labels() is expected


@pytest.mark.parametrize("axis", range(3))
def test_a_parcellation_is_one_whichever_way_its_patches_lie(axis: int) -> None:
    """As thick slices give it: patches one voxel thick along one axis, eight along the others."""
    size = [8, 8, 8]
    size[axis] = 1
    codes = np.random.default_rng(0).integers(1, 900, [24 // n for n in size])
    data = np.kron(codes, np.ones(size, int))
    assert Volume(data, Grid(data.shape, np.eye(4))).holds_labels()


def test_the_header_can_say_that_values_are_labels(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 900, (24, 24, 24)).astype(np.int16)
    image = nib.Nifti1Image(data, np.eye(4))
    assert not read_volume(saved(tmp_path / "a.nii.gz", image)).holds_labels()
    image.header.set_intent("label")
    assert read_volume(saved(tmp_path / "b.nii.gz", image)).holds_labels()


# ------------------------------------------------------------------------------- to_canonical


def stored_as(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same scan with its axes in another order and some of them backwards."""
    data, affine = volume.data.transpose(order), volume.grid.affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            data = np.flip(data, axis)
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:, axis] *= -1
    return Volume(data, Grid(data.shape, affine), volume.name, volume.is_label_file)


@pytest.mark.parametrize("seed", range(2))
def test_all_48_ways_to_store_a_scan_are_one_after_to_canonical(seed: int) -> None:
    volume = Volume(scan(), Grid(SHAPE, oblique_affine(seed, shuffle=False)), "t1", True)
    seen = set()
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            stored = stored_as(volume, order, flips)
            canonical = to_canonical(stored)
            seen.add((stored.grid.shape, stored.grid.axes))
            assert canonical.data.tobytes() == volume.data.tobytes()
            assert canonical.grid.shape == SHAPE
            np.testing.assert_allclose(canonical.grid.affine, volume.grid.affine, atol=1e-9)
            assert canonical.grid.axes == "RAS"
            assert canonical.data.flags.c_contiguous
            assert (canonical.name, canonical.is_label_file) == ("t1", True)
    assert len(seen) == 48


@pytest.mark.parametrize("seed", range(12))
def test_canonical_is_nibabels_closest_canonical(seed: int) -> None:
    grid = oblique_grid(seed, SHAPE, tilt=25)
    canonical = to_canonical(Volume(scan(), grid))
    expected = nib.as_closest_canonical(nib.Nifti1Image(scan(), grid.affine))
    np.testing.assert_array_equal(canonical.data, expected.dataobj)
    np.testing.assert_allclose(canonical.grid.affine, expected.affine, atol=1e-9)


def test_canonical_keeps_each_voxel_where_it_is_in_the_world() -> None:
    grid = oblique_grid(3, SHAPE)
    position = np.moveaxis(grid.nodes(), -1, 0)
    for component in range(3):
        canonical = to_canonical(Volume(position[component], grid))
        np.testing.assert_allclose(
            canonical.data, canonical.grid.nodes()[..., component], atol=1e-9
        )


def test_canonical_keeps_the_frames_of_a_series_and_their_spacing() -> None:
    grid = oblique_grid(5, SHAPE)
    data = scan(shape=(*SHAPE, 3))
    canonical = to_canonical(Volume(data, grid, frame_spacing=2.5))
    for t in range(3):
        alone = to_canonical(Volume(data[..., t], grid))
        np.testing.assert_array_equal(canonical.data[..., t], alone.data)
    assert canonical.frame_spacing == 2.5


# ------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]
)
def test_what_is_written_is_read_again(tmp_path: Path, dtype: type, ending: str) -> None:
    volume = Volume(scan(dtype), oblique_grid(1, SHAPE))
    path = tmp_path / f"out{ending}"
    write_volume(volume, path)
    again = read_volume(path)
    np.testing.assert_array_equal(again.data, volume.data)
    assert again.data.dtype == dtype
    np.testing.assert_allclose(again.grid.affine, volume.grid.affine, atol=1e-4)


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    volume = Volume(scan(), oblique_grid(2, SHAPE))
    write_volume(volume, tmp_path / "out.nii.gz")
    header = nib.load(tmp_path / "out.nii.gz").header
    for form, code in (header.get_sform(coded=True), header.get_qform(coded=True)):
        assert code > 0
        np.testing.assert_allclose(form, volume.grid.affine, atol=1e-4)
    np.testing.assert_allclose(header.get_zooms(), volume.grid.spacing, rtol=1e-6)
    assert header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_the_code_of_the_space_is_written_and_read(tmp_path: Path, code: int) -> None:
    grid = oblique_grid(2, SHAPE).in_space(code)
    write_volume(Volume(scan(), grid), tmp_path / "out.nii.gz")
    header = nib.load(tmp_path / "out.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (code, code)
    again = read_volume(tmp_path / "out.nii.gz")
    assert again.grid.space_code == code
    assert to_canonical(again).grid.space_code == code


@pytest.mark.parametrize("code", [1, 4])
@pytest.mark.parametrize("tilt", [0.0, 1e-3, 0.01, 0.05, 0.3, 3.0, 40.0])
@pytest.mark.parametrize("axes", list(itertools.product((0, 180), repeat=3)))
def test_a_file_holds_one_placement(
    tmp_path: Path, axes: tuple[int, ...], tilt: float, code: int
) -> None:
    """Near half a turn the quaternion is coarse: then it is not there, and ITK reads the sform."""
    rng = np.random.default_rng(int(1e3 * tilt))
    turn = rotation(*axes) @ rotation(*rng.uniform(-tilt, tilt, 3))
    affine = homogeneous(turn * rng.uniform(0.7, 2, 3), rng.uniform(-200, 200, 3))
    grid = Grid((200, 240, 190), affine, code)
    image = Volume(np.broadcast_to(np.int16(0), grid.shape), grid).to_nibabel()
    header = image.header
    assert header["sform_code"] == code
    assert header["qform_code"] in (0, code)
    form, is_set = header.get_qform(coded=True)
    if is_set:
        corners = grid.to_world(grid.corners())
        np.testing.assert_allclose(apply_affine(form, grid.corners()), corners, atol=0.02)
    small = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), None, header)
    nib.save(small, tmp_path / "out.nii")
    np.testing.assert_allclose(affine_by_itk(tmp_path / "out.nii"), affine, atol=1e-4)


def test_a_sheared_image_has_no_qform(tmp_path: Path) -> None:
    """It could not say the same, and ITK, which would read it, has to refuse the file."""
    affine = homogeneous(np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1.0]]))
    write_volume(Volume(scan(), Grid(SHAPE, affine, 4)), tmp_path / "out.nii.gz")
    header = nib.load(tmp_path / "out.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (4, 0)
    np.testing.assert_allclose(read_volume(tmp_path / "out.nii.gz").grid.affine, affine, atol=1e-6)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with pytest.raises(RuntimeError, match="orthonormal"):
        affine_by_itk(tmp_path / "out.nii.gz")


def test_the_intent_is_written(tmp_path: Path) -> None:
    write_volume(
        Volume(scan(), oblique_grid(2, SHAPE), is_label_file=True), tmp_path / "seg.nii.gz"
    )
    assert read_volume(tmp_path / "seg.nii.gz").is_label_file


def test_a_series_is_written_with_its_frame_spacing(tmp_path: Path) -> None:
    data = scan(shape=(*SHAPE, 3))
    write_volume(Volume(data, oblique_grid(1, SHAPE), frame_spacing=2.5), tmp_path / "out.nii.gz")
    again = read_series(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(again.data, data)
    assert again.frame_spacing == 2.5


def test_two_seconds_stay_two_seconds_also_when_stored_as_milliseconds(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan(shape=(*SHAPE, 3)), oblique_affine(1))
    image.header.set_zooms((*image.header.get_zooms()[:3], 2000))
    image.header.set_xyzt_units("mm", "msec")
    series = read_series(saved(tmp_path / "in.nii.gz", image))
    write_volume(series, tmp_path / "out.nii.gz")
    header = nib.load(tmp_path / "out.nii.gz").header
    seconds = {"sec": 1, "msec": 1e-3}[header.get_xyzt_units()[1]] * header.get_zooms()[3]
    assert seconds == pytest.approx(2)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_bytes_depend_on_data_and_grid_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    grid = oblique_grid(1, SHAPE)
    first, second = tmp_path / f"one{ending}", tmp_path / "elsewhere" / f"another name{ending}"
    second.parent.mkdir()
    write_volume(Volume(scan(), grid, "a.nii"), first)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_volume(Volume(np.asfortranarray(scan()), grid, "b.nii"), second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["out.mgz", "out.nrrd", "out", "out.nii.bz2", "out.gz", "nii"])
def test_other_endings_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="must end in") as error:
        write_volume(Volume(scan(), oblique_grid(1, SHAPE)), tmp_path / name)
    one_sentence(error, name)
    assert list(tmp_path.iterdir()) == []


def _target_is_a_folder(tmp_path: Path) -> Path:
    (tmp_path / "out.nii.gz").mkdir()
    return tmp_path / "out.nii.gz"


def _parent_is_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("here")
    return tmp_path / "file" / "out.nii.gz"


def _name_too_long(tmp_path: Path) -> Path:
    return tmp_path / ("n" * 300 + ".nii.gz")


@pytest.mark.parametrize("build", [_target_is_a_folder, _parent_is_a_file, _name_too_long])
def test_a_target_that_cannot_be_written_is_an_input_error(
    tmp_path: Path, build: Callable[[Path], Path]
) -> None:
    path = build(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as error:
        write_volume(Volume(scan(), oblique_grid(1, SHAPE)), path)
    one_sentence(error, str(path))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("there", [True, False])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, there: bool
) -> None:
    path = tmp_path / "out.nii.gz"
    if there:
        path.write_bytes(b"the one before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match="No space left") as error:
        write_volume(Volume(scan(), oblique_grid(1, SHAPE)), path)
    one_sentence(error, str(path))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == (
        {"out.nii.gz": b"the one before"} if there else {}
    )


def test_data_must_have_the_shape_of_the_grid() -> None:
    with pytest.raises(ValueError, match="data must have the shape of grid"):
        Volume(blobs(0, (4, 5, 6)), Grid((4, 5, 7), np.eye(4)))


def test_a_damaged_mgh_file_is_closed(tmp_path: Path):
    """nibabel leaves it open; the warning about that would fail this test."""
    nib.save(nib.MGHImage(np.ones((4, 5, 6), np.float32), np.eye(4)), tmp_path / "a.mgh")
    contents = bytearray((tmp_path / "a.mgh").read_bytes())
    contents[23] = 77  # the type of its voxels
    (tmp_path / "a.mgh").write_bytes(contents)
    with pytest.raises(InputError, match="not an image that can be read"):
        read_volume(tmp_path / "a.mgh")
    gc.collect()


@pytest.mark.parametrize("name", ["a.nrrd", "A.NRRD", "a.mha"])
def test_formats_of_slicer_and_itk_are_refused_with_what_helps(tmp_path, name: str):
    sitk.WriteImage(sitk.Image(4, 5, 6, sitk.sitkFloat32), str(tmp_path / name))
    with pytest.raises(InputError, match=r"can be read \(save it as \.nii\.gz\)"):
        read_volume(tmp_path / name)


def test_a_printed_volume_says_where_it_is_and_not_its_voxels() -> None:
    """In a notebook, ``result.moving_mask`` at the end of a cell was hundreds of lines."""
    grid = Grid((40, 41, 42), np.diag([2.0, 3.0, 4.0, 1.0]))
    text = repr(Volume(np.full(grid.shape, 7.25), grid, "scan.nii.gz"))
    assert "(40, 41, 42)" in text
    assert "'scan.nii.gz'" in text
    assert "7.25" not in text
    assert len(text) < 500
