"""Where headers say that voxels are: SimpleITK and nibabel are the oracles, and one sentence says
what they do not agree on, or do not know."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from odd_headers import (
    affine_by_itk,
    afni_file,
    analyze_file,
    minc1_file,
    minc2_file,
    nifti_file,
)
from phantoms import homogeneous, oblique_affine, rotation

from voxwarp.errors import InputError
from voxwarp.space.grid import ALIGNED, MNI, OTHER_TEMPLATE, SCANNER, TALAIRACH, Grid
from voxwarp.space.placement import LARGEST, SMALLEST
from voxwarp.space.volume import header_warnings, read_placement, read_series, read_volume

SHAPE = (7, 8, 9)
DATA = np.random.default_rng(0).uniform(0, 900, SHAPE).astype(np.float32)
GUESS = "where left and right are"


@pytest.fixture(autouse=True)
def _quiet():
    """SimpleITK prints warnings of its own to stderr."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    yield
    sitk.ProcessObject.SetGlobalWarningDisplay(True)


def the_warning(path: Path) -> str:
    """The one warning about a file; the same by the header alone and with the voxels."""
    (warning,) = read_placement(path, "moving image").warnings
    assert read_series(path, "moving image").header_warnings == (warning,)
    assert warning.startswith(f"moving image {path}: ")
    assert "\n" not in warning
    return warning


def assert_as_by_itk(path: Path, **tolerance: float) -> None:
    assert read_placement(path).warnings == ()
    np.testing.assert_allclose(read_placement(path).grid.affine, affine_by_itk(path), **tolerance)


# --------------------------------------------------------------------------------------- Units


@pytest.mark.parametrize("time", [0, 8, 16, 24])
@pytest.mark.parametrize("unit", range(8))
def test_units_are_those_of_itk(tmp_path: Path, unit: int, time: int) -> None:
    """Codes 1, 2 and 3 are m, mm and µm; ITK takes everything else for mm."""
    size = {1: 1e-3, 3: 1e3}.get(unit, 1.0)
    affine = np.diag([size, size, size, 1]) @ oblique_affine(1)
    path = nifti_file(tmp_path / "scan.nii", DATA, affine, xyzt_units=unit + time)
    assert_as_by_itk(path, atol=1e-4)
    np.testing.assert_allclose(read_placement(path).grid.affine, oblique_affine(1), atol=1e-4)
    series = read_series(path)
    assert series.grid == read_placement(path).grid
    np.testing.assert_array_equal(series.data, DATA)


@pytest.mark.parametrize("code", ["sform_code", "qform_code"])
def test_units_hold_for_either_form(tmp_path: Path, code: str) -> None:
    affine = np.diag([1e3, 1e3, 1e3, 1]) @ oblique_affine(2)
    path = nifti_file(tmp_path / "scan.nii", DATA, affine, xyzt_units=3, **{code: 0})
    assert_as_by_itk(path, atol=1e-3)


def test_units_hold_for_images_in_memory() -> None:
    image = nib.Nifti1Image(DATA, np.diag([4000.0, 4000, 4000, 1]))
    image.header.set_xyzt_units("micron", "sec")
    np.testing.assert_allclose(read_placement(image).grid.spacing, (4, 4, 4))


def test_frames_are_apart_as_the_unit_of_time_says(tmp_path: Path) -> None:
    """Also beside a unit of length that nibabel does not know."""
    series = np.stack([DATA, DATA], axis=-1)
    path = nifti_file(tmp_path / "scan.nii", series, oblique_affine(1), xyzt_units=5 + 16)
    header = nib.load(path).header
    assert read_series(path).frame_spacing == pytest.approx(float(header["pixdim"][4]) / 1e3)


@pytest.mark.parametrize(
    ("unit", "spacing", "named", "size"),
    [
        (3, 1.0, "micrometres", "0.007×0.008×0.009"),  # µm that are mm
        (1, 1.0, "metres", "7000×8000×9000"),
        (2, 4000.0, "millimetres", "28000×32000×36000"),  # mm that are µm
        (0, 0.004, "not stated", "0.028×0.032×0.036"),  # mm that are m
        (5, 0.004, "not stated", "0.028×0.032×0.036"),
    ],
)
def test_what_cannot_be_a_head_is_refused_by_unit_and_size(
    tmp_path: Path, unit: int, spacing: float, named: str, size: str
) -> None:
    affine = np.diag([spacing, spacing, spacing, 1])
    path = nifti_file(tmp_path / "scan.nii", DATA, affine, xyzt_units=unit)
    for read in (read_volume, read_placement):
        with pytest.raises(InputError) as error:
            read(path, "moving image")
        message = str(error.value)
        assert message.startswith(f"moving image {path}: this cannot be a head")
        assert named in message
        assert f"{size} mm" in message
        assert "unit" in message


@pytest.mark.parametrize("longest", [SMALLEST, LARGEST])
def test_the_limits_of_the_size_are_those_of_the_docs(longest: float) -> None:
    """The field of view along the longest axis counts, and where it is does not."""
    shape = np.array(DATA.shape)
    for factor, is_refused in ((0.99, longest == SMALLEST), (1.01, longest == LARGEST)):
        affine = homogeneous(np.eye(3) * longest / shape.max() * factor, (1e6, -1e6, 4e5))
        image = nib.Nifti1Image(DATA, affine)
        if is_refused:
            with pytest.raises(InputError, match="cannot be a head"):
                read_placement(image)
        else:
            assert read_placement(image).grid.shape == DATA.shape


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgz"])
def test_nothing_is_allocated_by_what_a_header_claims(tmp_path: Path, ending: str) -> None:
    """1500³ voxels of 1 mm fit into a field of view; the file has 504."""
    path = tmp_path / f"scan{ending}"
    if ending == ".mgz":
        nib.save(nib.MGHImage(DATA, np.eye(4)), path)
        raw = bytearray(gzip.decompress(path.read_bytes()))
        raw[4:16] = np.array([1500] * 3, ">i4").tobytes()
        path.write_bytes(gzip.compress(raw))
    else:
        raw = bytearray(nib.Nifti1Image(DATA, np.eye(4)).to_bytes())
        raw[40:48] = np.array([3, 1500, 1500, 1500], "<i2").tobytes()
        path.write_bytes(gzip.compress(raw) if ending == ".nii.gz" else raw)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"scan.*cut off"):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
        assert read_placement(path).grid.shape == (1500, 1500, 1500)  # by its header alone
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------------- No placement at all


def without_codes(path: Path) -> Path:
    return nifti_file(path, DATA, oblique_affine(3), sform_code=0, qform_code=0)


def mgh_without_flag(path: Path) -> Path:
    image = nib.MGHImage(DATA, oblique_affine(3))
    image.header["goodRASFlag"] = 0
    nib.save(image, path)
    return path


WITHOUT_PLACEMENT: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "codes of zero": ("scan.nii", without_codes, "qform_code and sform_code are 0"),
    "negative codes": (
        "scan.nii",
        lambda path: nifti_file(path, DATA, oblique_affine(3), sform_code=-1, qform_code=-2),
        "qform_code and sform_code are 0",
    ),
    "mgh": ("scan.mgh", mgh_without_flag, "goodRASFlag is 0"),
    "mgz": ("scan.mgz", mgh_without_flag, "goodRASFlag is 0"),
    "Analyze": (
        "scan.img",
        lambda path: analyze_file(path, DATA, np.diag([2.0, 2, 2, 1])),
        "Analyze 7.5 has no place for it",
    ),
    "SPM's M": (
        "scan.img",
        lambda path: analyze_file(path, DATA, oblique_affine(4), ("M",)),
        "Analyze 7.5 has no place for it",
    ),
    "MINC 1 without steps": (
        "scan.mnc",
        lambda path: minc1_file(path, DATA, start=-3.0),
        "zspace has no step, yspace has no step, xspace has no step",
    ),
    "MINC 2 without starts": (
        "scan.mnc",
        lambda path: minc2_file(path, DATA, step=2.0),
        "zspace has no start, yspace has no start, xspace has no start",
    ),
}


# nibabel leaves it to the garbage collector to close .mgh files.
@pytest.mark.filterwarnings("ignore:unclosed file .*:ResourceWarning")
@pytest.mark.parametrize("kind", WITHOUT_PLACEMENT)
def test_a_guess_about_left_and_right_is_a_warning(tmp_path: Path, kind: str) -> None:
    name, write, reason = WITHOUT_PLACEMENT[kind]
    path = write(tmp_path / name)
    grid = read_placement(path).grid
    warning = the_warning(path)
    assert GUESS in warning
    assert reason in warning
    assert f"its axes were taken as {grid.axes}" in warning
    np.testing.assert_allclose(grid.affine, nib.load(path).affine)  # nibabel's guess
    assert grid.space_code == ALIGNED  # some space, and no scanner's


def test_nibabel_and_itk_mirror_a_file_without_codes(tmp_path: Path) -> None:
    """Which is why there is a warning."""
    path = without_codes(tmp_path / "scan.nii")
    theirs, ours = affine_by_itk(path), read_placement(path).grid.affine
    assert np.linalg.det(theirs) * np.linalg.det(ours) < 0


@pytest.mark.filterwarnings("ignore:unclosed file .*:ResourceWarning")
def test_an_image_that_was_loaded_by_nibabel_is_a_guess_too(tmp_path: Path) -> None:
    """nibabel sets the flag of FreeSurfer's format when it reads it."""
    for name, write, _ in (WITHOUT_PLACEMENT[kind] for kind in ("codes of zero", "mgz", "Analyze")):
        image = nib.load(write(tmp_path / name))
        (warning,) = read_placement(image).warnings
        assert GUESS in warning


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.AnalyzeImage])
def test_an_image_in_memory_without_an_affine_is_a_guess(kind: type) -> None:
    image = kind(DATA, None)
    placement = read_placement(image)
    assert GUESS in placement.warnings[0]
    np.testing.assert_array_equal(placement.grid.affine, image.header.get_base_affine())


@pytest.mark.parametrize(
    "kind",
    [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage, nib.AnalyzeImage, nib.Spm99AnalyzeImage],
)
def test_an_image_in_memory_is_where_its_affine_says(kind: type) -> None:
    placement = read_placement(kind(DATA, oblique_affine(5)))
    assert placement.warnings == ()
    np.testing.assert_allclose(placement.grid.affine, oblique_affine(5), atol=1e-5)


def test_an_affine_of_spm_beside_an_analyze_file_places_it(tmp_path: Path) -> None:
    path = analyze_file(tmp_path / "scan.img", DATA, oblique_affine(6), ("M", "mat"))
    placement = read_placement(path)
    assert placement.warnings == ()
    np.testing.assert_allclose(placement.grid.affine, oblique_affine(6), atol=1e-6)


@pytest.mark.parametrize("write", [minc1_file, minc2_file])
def test_minc_says_where_its_voxels_are(tmp_path: Path, write: Callable[..., Path]) -> None:
    """xspace runs to the right by definition, and a negative step to the left."""
    path = write(tmp_path / "scan.mnc", DATA, step=-2.0, start=30.0)
    placement = read_placement(path)
    assert placement.warnings == ()
    np.testing.assert_allclose(placement.grid.to_world(np.zeros(3)), (30, 30, 30))
    assert placement.grid.axes == "IPL"
    assert placement.grid.space_code == SCANNER


# ------------------------------------------------------------------------------ Two placements


def shifted(affine: np.ndarray, *millimetres: float) -> np.ndarray:
    out = affine.copy()
    out[:3, 3] += millimetres
    return out


def test_qform_and_sform_that_differ_are_a_warning(tmp_path: Path) -> None:
    affine = oblique_affine(7)
    path = nifti_file(tmp_path / "scan.nii", DATA, affine, qform=shifted(affine, 10, 0, 0))
    assert "qform and sform differ; the sform was used" in the_warning(path)
    np.testing.assert_allclose(read_placement(path).grid.affine, affine, atol=1e-5)


def test_qform_and_sform_that_are_rounded_are_none(tmp_path: Path) -> None:
    affine = oblique_affine(7)
    path = nifti_file(tmp_path / "scan.nii", DATA, affine, qform=shifted(affine, 1e-3, 0, 0))
    assert read_placement(path).warnings == ()


def test_spacings_that_differ_are_a_warning(tmp_path: Path) -> None:
    """ITK, and FSL, take the size of voxels from pixdim, beside the axes of the sform."""
    affine = oblique_affine(8)
    path = nifti_file(tmp_path / "scan.nii", DATA, affine, qform_code=0, pixdim=(1, 1, 1))
    assert "pixdim and sform" in the_warning(path)
    lengths = [np.linalg.norm(x[:3, :3], axis=0) for x in (affine_by_itk(path), affine)]
    assert np.abs(lengths[0] - lengths[1]).max() > 0.3
    np.testing.assert_allclose(read_placement(path).grid.affine, affine, atol=1e-5)


def test_all_that_is_odd_about_a_scan_is_one_warning(tmp_path: Path) -> None:
    affine = oblique_affine(7)
    path = nifti_file(
        tmp_path / "scan.nii", DATA, affine, qform=shifted(affine, 10, 0, 0), sform_code=7
    )
    warning = the_warning(path)
    assert "qform and sform differ" in warning
    assert "sform_code is 7, which NIfTI does not define" in warning
    assert read_placement(path).grid.space_code == ALIGNED


def test_a_code_that_is_not_used_may_be_anything(tmp_path: Path) -> None:
    path = nifti_file(tmp_path / "scan.nii", DATA, oblique_affine(7), qform_code=99)
    assert read_placement(path).warnings == ()


# --------------------------------------------------------------------------------- Quaternions


@pytest.mark.parametrize("length", [1 + 5e-7, 1 + 1e-5, 1.001, 1.3, 3.0])
@pytest.mark.parametrize("axis", [(0, 1, 0), (1, 0, 0), (0.6, 0.8, 0), (-0.48, 0.6, 0.64)])
def test_a_quaternion_that_is_too_long_is_a_half_turn(
    tmp_path: Path, axis: tuple[float, ...], length: float
) -> None:
    """As ITK, FSL and AFNI read it; nibabel raises an error."""
    quatern = np.multiply(axis, length)
    affine = homogeneous(np.diag([1.5, 2, 2.5]), (3, -4, 5))
    path = nifti_file(tmp_path / "scan.nii", DATA, affine, sform_code=0, quatern=quatern)
    assert_as_by_itk(path, atol=1e-5)
    read_volume(path)
    half_turn = 2 * np.outer(axis, axis) - np.eye(3)
    np.testing.assert_allclose(read_placement(path).grid.direction, half_turn, atol=1e-6)
    with pytest.raises(ValueError, match="w2 should be positive"):
        nib.load(path)


@pytest.mark.parametrize("ending", [".nii", ".img"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_quaternion_may_be_too_long_in_every_kind_of_file(
    tmp_path: Path, kind: type, ending: str
) -> None:
    affine = homogeneous(rotation(0, 180, 0) @ np.diag([1.5, 2, 2.5]))
    if ending == ".img":
        kind = {nib.Nifti1Image: nib.Nifti1Pair, nib.Nifti2Image: nib.Nifti2Pair}[kind]
    image = kind(DATA, None)
    image.set_qform(affine, code=1)
    image.to_filename(tmp_path / f"scan{ending}")
    header, path = kind.header_class, tmp_path / ("scan.hdr" if ending == ".img" else "scan.nii")
    raw, size = path.read_bytes(), header.sizeof_hdr
    spoiled = header(raw[:size])
    spoiled["quatern_c"] = 1 + 5e-7
    path.write_bytes(spoiled.binaryblock + raw[size:])
    read = read_volume(tmp_path / f"scan{ending}")
    np.testing.assert_allclose(read.grid.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(read.data, DATA)


def test_a_long_quaternion_beside_an_sform_is_compared_with_it(tmp_path: Path) -> None:
    affine = homogeneous(rotation(0, 180, 0) @ np.diag([1.5, 2, 2.5]))
    path = nifti_file(tmp_path / "same.nii", DATA, affine, quatern=(0, 1 + 5e-7, 0))
    assert read_placement(path).warnings == ()
    image = nib.Nifti1Image(DATA, affine, nib.load(path).header)  # in memory
    assert read_placement(image).warnings == ()
    path = nifti_file(tmp_path / "other.nii", DATA, affine, quatern=(1 + 5e-7, 0, 0))
    assert "qform and sform differ" in the_warning(path)
    path = nifti_file(tmp_path / "nan.nii", DATA, affine, quatern=(np.nan, 0, 0))
    assert "qform and sform differ" in the_warning(path)


@pytest.mark.parametrize("seed", range(20))
def test_other_quaternions_are_read_as_nibabel_does(tmp_path: Path, seed: int) -> None:
    """To the last bit, near half a turn, too, where rounding makes some of them longer than 1."""
    rng = np.random.default_rng(seed)
    turn = rotation(*rng.choice([0, 180], 3)) @ rotation(*rng.normal(0, 0.1 * (seed % 4), 3))
    affine = homogeneous(turn @ np.diag(rng.uniform(1, 3, 3)), rng.uniform(-50, 50, 3))
    path = nifti_file(tmp_path / "scan.nii", DATA, affine, sform_code=0)
    np.testing.assert_array_equal(read_placement(path).grid.affine, nib.load(path).affine)


@pytest.mark.parametrize("qfac", [-1.0, -2.0, -0.5, 0.0, 0.5, 3.0])
def test_the_sign_of_qfac_counts(tmp_path: Path, qfac: float) -> None:
    """As for ITK; nibabel corrects a −2 to 1, which mirrors the scan."""
    path = nifti_file(tmp_path / "scan.nii", DATA, oblique_affine(9), sform_code=0, pixdim0=qfac)
    assert_as_by_itk(path, atol=1e-5)


# ------------------------------------------------------------------------------ Codes of spaces


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("used", ["sform_code", "qform_code"])
def test_the_code_of_the_space_is_that_of_the_form_in_use(
    tmp_path: Path, used: str, code: int
) -> None:
    codes = {"sform_code": code, "qform_code": 1} if used == "sform_code" else {"sform_code": 0}
    path = nifti_file(tmp_path / "scan.nii", DATA, oblique_affine(1), **{used: code, **codes})
    assert read_placement(path).grid.space_code == code
    assert read_series(path).grid.space_code == code


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ({}, SCANNER),
        ({"TEMPLATE_SPACE": "ORIG"}, SCANNER),
        ({"TEMPLATE_SPACE": "ACPC"}, ALIGNED),
        ({"TEMPLATE_SPACE": "TLRC"}, TALAIRACH),
        ({"TEMPLATE_SPACE": "MNI"}, MNI),
        ({"TEMPLATE_SPACE": "MNI_2009c_asym"}, MNI),
        ({"TEMPLATE_SPACE": "HaskinsPeds_NL_template1.0"}, OTHER_TEMPLATE),
    ],
)
def test_the_space_of_an_afni_file_has_its_code(
    tmp_path: Path, texts: dict[str, str], code: int
) -> None:
    path = afni_file(tmp_path / "scan+orig.HEAD", DATA, oblique_affine(1), **texts)
    placement = read_placement(path)
    assert placement.warnings == ()
    assert placement.grid.space_code == code
    np.testing.assert_allclose(placement.grid.affine, oblique_affine(1), atol=1e-9)
    np.testing.assert_array_equal(read_series(path).data, DATA)


@pytest.mark.parametrize("write", [minc1_file, minc2_file])
def test_the_space_of_a_minc_file_has_its_code(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / "scan.mnc", DATA, step=2.0, start=0.0, spacetype=b"talairach_")
    assert read_placement(path).grid.space_code == TALAIRACH


def test_the_code_of_an_image_in_memory_is_that_of_its_header() -> None:
    image = nib.Nifti1Image(DATA, oblique_affine(1))
    assert read_placement(image).grid.space_code == ALIGNED  # nibabel's own default
    image.set_sform(oblique_affine(1), code=4)
    assert read_placement(image).grid.space_code == MNI


# ------------------------------------------------------------------------------- Many headers


def test_headers_of_many_files_are_read_once_each(tmp_path: Path) -> None:
    good = nifti_file(tmp_path / "good.nii", DATA, oblique_affine(1))
    bare = without_codes(tmp_path / "bare.nii")
    (warning,) = header_warnings([good, bare, None, bare, tmp_path / "missing.nii"], "label map")
    assert warning.startswith(f"label map {bare}: ")


def test_a_volume_is_where_it_says() -> None:
    volume = read_series(nib.Nifti1Image(DATA, None))
    placement = read_placement(volume)
    assert isinstance(placement.grid, Grid)
    assert placement.grid is volume.grid
    assert placement.warnings == volume.header_warnings
