"""Labels and intensities, whole numbers, backgrounds and stored types, by closed forms."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from odd_headers import afni_file, minc1_file, minc2_file
from phantoms import label_map

from voxwarp.errors import InputError
from voxwarp.space.grid import Grid
from voxwarp.space.values import background_of, label_evidence, storable, whole_numbers
from voxwarp.space.volume import Volume, read_labels, read_series, write_volume

SHAPE = (12, 12, 12)


def scaled_file(path: Path, codes: np.ndarray, slope: float, intercept: float = 0.0) -> Path:
    """A NIfTI file of stored codes and a scaling, as nibabel itself would not round them."""
    image = nib.Nifti1Image(codes, np.eye(4))
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(raw)
    return path


# ---------------------------------------------------------------------------- whole numbers


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 12144], [0, 1, 12144]),
        ([0.0, 2.0000002, 2034.9998], [0, 2, 2035]),
        ([0.0, -3.0, 1e-7], [0, -3, 0]),
        ([0.0, 614454277.0], [0, 614454277]),
        ([0.0, 3e9], [0, 3_000_000_000]),
        ([0.0, 0.001], None),
        ([0.0, 1.5], None),
        ([1e-8, 2e-8], None),  # a whole image of what would be rounded to zero
        ([0.0, np.nan], None),
        ([0.0, np.inf], None),
    ],
)
def test_whole_numbers_are_recognised_but_for_rounding(values, expected) -> None:
    found = whole_numbers(np.array(values))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.dtype.kind in "iu"
        assert found.tolist() == expected


@pytest.mark.parametrize("slope", [1.0000001, 0.9999999, 1.00000048])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
def test_codes_scaled_by_one_are_the_codes(tmp_path: Path, slope: float, dtype: type) -> None:
    """Also where the scaling moves them by more than half, as in the label numbers of atlases."""
    largest = min(np.iinfo(dtype).max, 614454277)
    codes = np.linspace(0, largest, 8**3).astype(dtype).reshape(8, 8, 8)
    volume = read_series(scaled_file(tmp_path / "labels.nii", codes, slope, 1e-7))
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, codes)


def test_codes_that_are_scaled_are_not_the_values(tmp_path: Path) -> None:
    codes = np.arange(8**3, dtype=np.int16).reshape(8, 8, 8)
    volume = read_series(scaled_file(tmp_path / "a.nii", codes, 1.001, 2))
    np.testing.assert_allclose(volume.data, codes * 1.001 + 2, rtol=1e-6)


@pytest.mark.parametrize("name", ["minc 1", "minc 2", "afni"])
def test_formats_that_scale_in_other_ways_keep_their_fractions(tmp_path: Path, name: str) -> None:
    """Their scaling is not that of NIfTI, which is 1 for them."""
    codes = np.random.default_rng(0).integers(0, 1000, (6, 7, 8)).astype(np.int16)
    path = {
        "minc 1": lambda: minc1_file(tmp_path / "a.mnc", codes, largest=0.3, step=3.0, start=-9.0),
        "minc 2": lambda: minc2_file(tmp_path / "a.mnc", codes, largest=0.3, step=3.0, start=-9.0),
        "afni": lambda: afni_file(tmp_path / "a.HEAD", codes, np.eye(4), factor=0.0003),
    }[name]()
    np.testing.assert_allclose(read_series(path).data, codes * 0.0003, rtol=1e-5)


def test_labels_that_are_fractions_are_refused_with_their_scaling(tmp_path: Path) -> None:
    codes = (252 * label_map(1, SHAPE)).astype(np.int16)
    path = scaled_file(tmp_path / "labels.nii", codes, 0.0039216)
    with pytest.raises(InputError, match=r"whole numbers.*scl_slope 0\.0039216, scl_inter 0"):
        read_labels(path, Volume(codes, Grid(SHAPE, np.eye(4))))


@pytest.mark.parametrize("slope", [2.0, 0.5])
def test_labels_whose_scaling_gives_whole_numbers_are_read(tmp_path: Path, slope: float) -> None:
    codes = (label_map(1, SHAPE) * 4).astype(np.int16)
    path = scaled_file(tmp_path / "labels.nii", codes, slope)
    labels = read_labels(path, Volume(codes, Grid(SHAPE, np.eye(4))))
    assert labels.data.dtype == np.int32
    np.testing.assert_array_equal(labels.data, codes * slope)


# ------------------------------------------------------------------------ labels or intensities


def blocks(share: float, values: int, seed: int = 0) -> np.ndarray:
    """Random whole numbers above 0, of which about ``share`` of the neighbours are equal."""
    rng = np.random.default_rng(seed)
    # Equal in pairs of planes: a third of the pairs is along an axis with half of them equal.
    flat = np.kron(rng.integers(1, values, (8, 8, 8)), np.ones((3, 3, 3), int))
    noise = rng.integers(1, values, flat.shape)
    return np.where(rng.random(flat.shape) < share, flat, noise)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_labels_are_told_as_integer_ones_are(dtype: type) -> None:
    labels = label_map(1, (24, 24, 24)) * 1000
    assert label_evidence(labels.astype(dtype)) == (True, False)
    assert label_evidence(labels.astype(dtype) * dtype(1.0000001)) == (True, False)
    assert label_evidence(labels.astype(dtype) * dtype(0.37)) == (False, False)
    outside = np.where(labels == 0, np.nan, labels).astype(dtype)  # as SPM writes it
    assert label_evidence(outside) == (True, False)


def test_floats_that_are_whole_but_not_flat_are_intensities() -> None:
    """As ANTs and FSL write a scan of integers."""
    scan = np.random.default_rng(0).integers(0, 900, (24, 24, 24))
    assert label_evidence(scan.astype(np.float32)) == (False, False)


def test_a_close_call_is_doubtful() -> None:
    assert label_evidence(blocks(0.7, 900)).is_doubtful
    assert label_evidence(blocks(0.7, 900).astype(np.float32)).is_doubtful
    assert not label_evidence(blocks(1.0, 900)).is_doubtful
    assert not label_evidence(blocks(0.0, 900)).is_doubtful
    # Few values are labels as integers, however they lie, and not as floats.
    noise = blocks(0.0, 9)
    assert label_evidence(noise) == (True, True)
    assert label_evidence(noise.astype(np.float32)) == (False, True)
    # Of a single voxel, nobody knows; as an integer, it is a mask.
    spot = np.zeros((9, 9, 9), np.uint8)
    spot[4, 4, 4] = 100
    assert label_evidence(spot) == (True, False)
    assert label_evidence(spot.astype(np.float32)) == (False, True)


def test_a_head_in_quiet_air_is_no_close_call() -> None:
    """As the heads of ds000011: half of the voxels are air, with values of 0 to 5."""
    rng = np.random.default_rng(0)
    scan = rng.integers(20, 250, (24, 24, 24))
    scan[:, :, :18] = np.abs(rng.normal(0, 0.9, (24, 24, 18))).round()
    pairs = [(a, b) for a, b in _neighbours(scan) if a != 0 and b != 0]
    share = np.mean([a == b for a, b in pairs])
    assert 0.25 < share < 0.5  # so that it would be one
    assert label_evidence(scan) == (False, False)
    assert label_evidence(scan.astype(np.float32)) == (False, False)


def _neighbours(frame: np.ndarray) -> list[tuple[int, int]]:
    """All pairs of voxels that share a face."""
    found = []
    for axis in range(3):
        lanes = np.moveaxis(frame, axis, -1).reshape(-1, frame.shape[axis])
        found += [pair for lane in lanes for pair in zip(lane[:-1], lane[1:], strict=True)]
    return found


# --------------------------------------------------------------------------------- background


def framed(inner: np.ndarray, value: float) -> np.ndarray:
    return np.pad(inner.astype(np.float32), 1, constant_values=value)


HEAD = np.random.default_rng(0).normal(50, 100, SHAPE)


@pytest.mark.parametrize("value", [0.0, -1024.0, -0.7, 3.0, np.nan])
def test_the_background_is_the_value_of_the_outer_voxels(value: float) -> None:
    np.testing.assert_equal(background_of(framed(HEAD, value)), (float(np.float32(value)), ""))


def test_a_constant_image_has_no_background() -> None:
    """Ones that are transformed to see where an image reaches are 0 beyond it."""
    assert background_of(np.ones(SHAPE, np.float32)) == (0, "")


def test_a_neck_may_reach_the_border() -> None:
    head = framed(HEAD, -1024)
    head[3:10, 3:10, 0] = 40
    assert background_of(head) == (-1024, "")


def test_the_background_is_zero_if_the_border_has_no_such_value() -> None:
    rng = np.random.default_rng(1)
    air = framed(HEAD, 0)
    air[0], air[-1] = rng.rayleigh(1.0, (2, *air.shape[1:]))  # noise about zero
    assert background_of(air) == (0, "")
    assert background_of(rng.normal(0, 1, SHAPE)) == (0, "")
    assert background_of(framed(HEAD, -np.inf)) == (0, "")


@pytest.mark.parametrize(("low", "high"), [(-1024, -990), (-0.7, -0.6), (200, 220)])
def test_noise_far_from_zero_is_doubtful(low: float, high: float) -> None:
    head = framed(HEAD * (high - low) / 100, 0)
    outer = np.ones(head.shape, bool)
    outer[1:-1, 1:-1, 1:-1] = False
    head[outer] = np.random.default_rng(0).uniform(low, high, outer.sum())
    value, doubt = background_of(head)
    assert value == 0
    assert "0 was written there, but its outer voxels are" in doubt


# ------------------------------------------------------------------------------- stored types


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (np.bool_, np.uint8),
        (np.float16, np.float32),
        (np.longdouble, np.float64),
        (np.int64, np.int32),
        (np.uint64, np.int32),
        (np.int8, np.int8),
        (np.uint16, np.uint16),
        (np.uint32, np.uint32),
        (np.float64, np.float64),
    ],
)
def test_files_have_types_that_other_tools_read(tmp_path: Path, dtype: type, stored: type) -> None:
    data = (label_map(1, SHAPE) > 0).astype(dtype)
    write_volume(Volume(data, Grid(SHAPE, np.eye(4))), tmp_path / "a.nii.gz")
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == stored
    np.testing.assert_array_equal(np.asarray(image.dataobj), data.astype(stored))


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.int64, 2**31), (np.int64, -(2**31) - 1), (np.uint64, 2**63)]
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, dtype: type, value: int) -> None:
    data = np.zeros(SHAPE, dtype)
    data[0, 0, 0] = value
    with pytest.raises(InputError, match=rf"brain\.nii: the value {value} does not fit"):
        write_volume(Volume(data, Grid(SHAPE, np.eye(4)), "brain.nii"), tmp_path / "a.nii")
    assert not list(tmp_path.iterdir())
    assert storable(data.astype(np.float64)).dtype == np.float64
