"""ITK files, read and written: SimpleITK, ANTs, SciPy and nitransforms are the oracles."""

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from odd_headers import nifti_file
from scipy.io import loadmat, savemat

from voxwarp.errors import InputError
from voxwarp.space import formats
from voxwarp.space.formats import (
    lps,
    read_affine,
    read_warp,
    to_sitk,
    write_affine,
    write_elastix_affine,
    write_warp,
)
from voxwarp.space.grid import Grid
from voxwarp.space.resample import resample
from voxwarp.space.transform import Affine, Warp
from voxwarp.space.volume import Volume, read_volume

POINTS = np.random.default_rng(1).uniform(-90, 90, (50, 3))  # RAS mm
FLIP = np.array([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def ants():
    """ANTsPy, which takes seconds to import."""
    return pytest.importorskip("ants")


@pytest.fixture
def affine() -> Affine:
    rng = np.random.default_rng(2)
    matrix = np.eye(4)
    matrix[:3] += rng.uniform(-0.2, 0.2, (3, 4))
    matrix[:3, 3] *= 100
    return Affine(matrix)


GRIDS = {
    "RAS": {"axes": "RAS"},
    "LPI": {"axes": "LPI"},
    "permuted": {"axes": "PSR", "spacing": (20, 24, 22)},
    "oblique": {"turn": (12, -8, 15)},
    "anisotropic": {"spacing": (18, 20, 30)},
    "oblique and anisotropic": {"axes": "SLA", "spacing": (16, 21, 33), "turn": (20, 10, -25)},
}


@pytest.fixture(params=GRIDS.values(), ids=GRIDS.keys())
def warp(request: pytest.FixtureRequest, make_grid) -> Warp:
    """A random field, every node on its own, on one of six kinds of grid."""
    grid = make_grid(**{"spacing": 22, **request.param})
    rng = np.random.default_rng(4)
    return Warp(rng.normal(0, 3, (3, *grid.shape)).astype(np.float32), grid)


def mapped(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """RAS points mapped by an ITK transform, one at a time, by the definition of LPS."""
    return np.array([transform.TransformPoint((p * FLIP).tolist()) for p in points]) * FLIP


def field_transform(path: Path) -> sitk.Transform:
    image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    assert image.GetDimension() == 3
    assert image.GetNumberOfComponentsPerPixel() == 3
    return sitk.DisplacementFieldTransform(image)


def points_inside(grid: Grid, number: int = 200) -> np.ndarray:
    """Random RAS points between the outermost nodes of a grid."""
    last = np.asarray(grid.shape) - 1
    return grid.to_world(np.random.default_rng(5).uniform(0.01, last - 0.01, (number, 3)))


def test_lps_is_its_own_inverse_and_keeps_the_input():
    points = POINTS.copy()
    np.testing.assert_array_equal(lps(lps(points)), points)
    np.testing.assert_array_equal(points, POINTS)
    np.testing.assert_array_equal(lps(np.array([1.0, 2.0, 3.0])), [-1, -2, 3])


# Affines


def test_affine_read_by_simpleitk_maps_the_same_points(affine: Affine, tmp_path: Path):
    write_affine(affine, tmp_path / "0GenericAffine.mat")
    transform = sitk.ReadTransform(str(tmp_path / "0GenericAffine.mat"))
    np.testing.assert_allclose(mapped(transform, POINTS), affine.map(POINTS), atol=1e-10)
    assert sitk.AffineTransform(transform).GetCenter() == (0, 0, 0)


def test_affine_read_by_ants_maps_the_same_points(affine: Affine, tmp_path: Path, ants):
    write_affine(affine, tmp_path / "0GenericAffine.mat")
    transform = ants.read_transform(str(tmp_path / "0GenericAffine.mat"))
    theirs = np.array([ants.apply_ants_transform_to_point(transform, p * FLIP) for p in POINTS])
    np.testing.assert_allclose(theirs * FLIP, affine.map(POINTS), atol=1e-4)


def test_affine_read_by_nitransforms_is_the_same_matrix(affine: Affine, tmp_path: Path):
    itk = pytest.importorskip("nitransforms.io.itk")
    write_affine(affine, tmp_path / "0GenericAffine.mat")
    theirs = itk.ITKLinearTransform.from_filename(tmp_path / "0GenericAffine.mat").to_ras()
    np.testing.assert_allclose(theirs, affine.matrix, atol=1e-12)


def test_affine_file_is_matlab_4_of_doubles_about_the_origin(affine: Affine, tmp_path: Path):
    path = tmp_path / "0GenericAffine.mat"
    write_affine(affine, path)
    # Level 4 begins with the matrix type (0: little-endian doubles); level 5 begins with text.
    assert path.read_bytes()[:4] == b"\0\0\0\0"
    contents = loadmat(path)
    assert set(contents) == {"AffineTransform_double_3_3", "fixed"}
    parameters = contents["AffineTransform_double_3_3"]
    assert (parameters.shape, parameters.dtype) == ((12, 1), np.float64)
    assert (contents["fixed"].shape, contents["fixed"].any()) == ((3, 1), False)
    matrix, offset = parameters[:9, 0].reshape(3, 3), parameters[9:, 0]  # rows first, LPS
    np.testing.assert_allclose(
        (POINTS * FLIP) @ matrix.T + offset, affine.map(POINTS) * FLIP, atol=1e-10
    )


def elastix_parameters(path: Path) -> dict[str, str]:
    """The entries of an elastix parameter file, one (Key value ...) per line."""
    lines = path.read_text().splitlines()
    found = [re.fullmatch(r"\((\w+) (.+)\)", line) for line in lines]
    assert all(found)
    return {entry[1]: entry[2] for entry in found}


def test_affine_for_elastix_maps_the_same_points(affine: Affine, tmp_path: Path):
    """By elastix's manual: T(x) = A (x - c) + t + c, LPS, A row by row, then t."""
    write_elastix_affine(affine, tmp_path / "affine.txt")
    entries = elastix_parameters(tmp_path / "affine.txt")
    numbers = [float(word) for word in entries["TransformParameters"].split()]
    center = [float(word) for word in entries["CenterOfRotationPoint"].split()]
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(numbers[:9])
    transform.SetTranslation(numbers[9:])
    transform.SetCenter(center)
    np.testing.assert_allclose(mapped(transform, POINTS), affine.map(POINTS), atol=1e-9)
    a, t = np.reshape(numbers[:9], (3, 3)), np.array(numbers[9:])
    np.testing.assert_allclose((POINTS * FLIP) @ a.T + t, affine.map(POINTS) * FLIP, atol=1e-9)
    assert entries["Transform"] == '"AffineTransform"'
    assert entries["NumberOfParameters"] == "12" == str(len(numbers))
    assert entries["FixedImageDimension"] == entries["MovingImageDimension"] == "3"
    assert entries["InitialTransformParametersFileName"] == '"NoInitialTransform"'


def test_affine_round_trips_exactly(affine: Affine, tmp_path: Path):
    write_affine(affine, tmp_path / "a.mat")
    again = read_affine(tmp_path / "a.mat")
    np.testing.assert_array_equal(again.matrix, affine.matrix)


def placed(kind: str, seed: int) -> sitk.Transform:
    """A linear ITK transform with random parameters, about a random point."""
    rng = np.random.default_rng(seed)
    of_any_dimension = kind in ("AffineTransform", "TranslationTransform", "ScaleTransform")
    transform = getattr(sitk, kind)(*[3] * of_any_dimension)
    usual = np.array(transform.GetParameters())
    transform.SetParameters((usual + rng.uniform(-0.2, 0.2, usual.shape)).tolist())
    if hasattr(transform, "SetTranslation"):
        transform.SetTranslation(rng.uniform(-20, 20, 3).tolist())
    if hasattr(transform, "SetCenter"):
        transform.SetCenter(rng.uniform(-60, 60, 3).tolist())
    return transform


KINDS = [
    *("AffineTransform", "Euler3DTransform", "VersorRigid3DTransform", "Similarity3DTransform"),
    *("ScaleVersor3DTransform", "ScaleSkewVersor3DTransform", "VersorTransform"),
    *("ComposeScaleSkewVersor3DTransform", "ScaleTransform", "TranslationTransform"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["mat", "txt", "tfm"])
@pytest.mark.parametrize("seed", range(3))
def test_every_linear_kind_of_itk_about_any_center(
    tmp_path: Path, kind: str, ending: str, seed: int
):
    transform = placed(kind, seed)
    path = tmp_path / f"{kind}.{ending}"
    sitk.WriteTransform(transform, str(path))
    expected = mapped(transform, POINTS)
    assert np.abs(expected - POINTS).max() > 0.1
    np.testing.assert_allclose(read_affine(path).map(POINTS), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ending", ["mat", "txt"])
def test_the_identity_of_itk(tmp_path: Path, ending: str):
    path = tmp_path / f"identity.{ending}"
    sitk.WriteTransform(sitk.Transform(3, sitk.sitkIdentity), str(path))
    np.testing.assert_array_equal(read_affine(path).matrix, np.eye(4))


def test_the_order_of_eulers_angles_is_read(tmp_path: Path):
    transform = placed("Euler3DTransform", 1)
    other = sitk.Euler3DTransform(transform)
    other.SetComputeZYX(True)
    assert np.abs(mapped(transform, POINTS) - mapped(other, POINTS)).max() > 0.1
    sitk.WriteTransform(other, str(tmp_path / "zyx.txt"))
    read = read_affine(tmp_path / "zyx.txt")
    np.testing.assert_allclose(read.map(POINTS), mapped(other, POINTS), rtol=0, atol=1e-9)


def test_rigid_text_from_before_the_order_could_be_chosen(tmp_path: Path):
    transform, path = placed("Euler3DTransform", 1), tmp_path / "older.txt"
    sitk.WriteTransform(transform, str(path))
    text = path.read_text()
    path.write_text(text.rstrip().removesuffix(" 0") + "\n")
    assert path.read_text() != text
    np.testing.assert_allclose(
        read_affine(path).map(POINTS), mapped(transform, POINTS), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ending", ["mat", "txt"])
def test_the_matrix_is_the_files_own_numbers(tmp_path: Path, seed: int, ending: str):
    """To the last bit: A as it is stored, and t + c − A c."""
    transform = placed("AffineTransform", seed)
    path = tmp_path / f"exact.{ending}"
    sitk.WriteTransform(transform, str(path))
    a, center = np.reshape(transform.GetMatrix(), (3, 3)), np.array(transform.GetCenter())
    expected = np.eye(4)
    expected[:3, :3] = a
    expected[:3, 3] = transform.GetTranslation() + center - a @ center
    flip = np.diag([*FLIP, 1])
    got = read_affine(path).matrix
    assert got.tobytes() == (flip @ expected @ flip).tobytes()


@pytest.mark.parametrize("ending", ["mat", "txt"])
def test_affine_of_ants(affine: Affine, tmp_path: Path, ants, ending: str):
    path = str(tmp_path / f"ants.{ending}")
    matrix = np.diag([*FLIP, 1]) @ affine.matrix @ np.diag([*FLIP, 1])
    theirs = ants.create_ants_transform(
        dimension=3,
        precision="double",
        matrix=matrix[:3, :3],
        translation=matrix[:3, 3],
        center=np.array([10.0, 20.0, 30.0]),
    )
    ants.write_transform(theirs, path)
    expected = np.array([ants.apply_ants_transform_to_point(theirs, p * FLIP) for p in POINTS])
    np.testing.assert_allclose(read_affine(path).map(POINTS), expected * FLIP, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["AffineTransform_float_3_3", "MatrixOffsetTransformBase_double_3_3"]
)
@pytest.mark.parametrize("ending", ["mat", "txt"])
def test_other_names_of_an_affine(affine: Affine, tmp_path: Path, name: str, ending: str):
    """``--float`` gives the first, older ANTs and c3d_affine_tool -oitk the second."""
    matrix = np.diag([*FLIP, 1]) @ affine.matrix @ np.diag([*FLIP, 1])
    parameters = np.concatenate([matrix[:3, :3].ravel(), matrix[:3, 3]])
    path = tmp_path / f"named.{ending}"
    if ending == "mat":
        kind = np.float32 if "float" in name else np.float64
        contents = {name: parameters[:, None].astype(kind), "fixed": np.zeros((3, 1), kind)}
        savemat(path, contents, format="4")
    else:
        values = " ".join(f"{p:.17g}" for p in parameters)
        path.write_text(
            f"#Insight Transform File V1.0\n#Transform 0\nTransform: {name}\n"
            f"Parameters: {values}\nFixedParameters: 0 0 0\n"
        )
    np.testing.assert_allclose(read_affine(path).map(POINTS), affine.map(POINTS), atol=1e-4)
    np.testing.assert_allclose(
        mapped(sitk.ReadTransform(str(path)), POINTS), affine.map(POINTS), atol=1e-4
    )


@pytest.mark.parametrize("ending", ["txt", "tfm"])
def test_a_composite_of_linear_transforms_is_their_product(tmp_path: Path, ending: str):
    """The last one is applied first, as ITK does."""
    steps = [placed(kind, seed) for seed, kind in enumerate(KINDS)]
    whole = sitk.CompositeTransform(steps)
    backwards = sitk.CompositeTransform(steps[::-1])
    assert np.abs(mapped(whole, POINTS) - mapped(backwards, POINTS)).max() > 1
    sitk.WriteTransform(whole, str(tmp_path / f"steps.{ending}"))
    read = read_affine(tmp_path / f"steps.{ending}")
    np.testing.assert_allclose(read.map(POINTS), mapped(whole, POINTS), rtol=0, atol=1e-8)


def _bytes(payload: bytes):
    return lambda path: path.write_bytes(payload)


def _text(parameters: str, kind: str = "AffineTransform_double_3_3"):
    head = f"#Insight Transform File V1.0\n#Transform 0\nTransform: {kind}\n"
    return _bytes(f"{head}Parameters: {parameters}\nFixedParameters: 0 0 0\n".encode())


def _itk(transform: sitk.Transform):
    return lambda path: sitk.WriteTransform(transform, str(path))


def _cut(path: Path) -> None:
    write_affine(Affine(np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:90])


def _two(ending: str):
    """Two transforms that are not a composite: to read only one of them would be wrong."""

    def write(path: Path) -> None:
        _itk(sitk.AffineTransform(3))(path)
        second = path.read_bytes()
        if ending == "txt":
            second = second.partition(b"\n")[2]
        path.write_bytes(path.read_bytes() + second)

    return write


def _without_center(path: Path) -> None:
    """Cut at the end of a line: SimpleITK takes it for the identity."""
    _itk(placed("AffineTransform", 0))(path)
    path.write_text(path.read_text().partition("FixedParameters")[0])


def _vax(path: Path) -> None:
    """The thousands of the first number in a header say how numbers are stored."""
    write_affine(Affine(np.eye(4)), path)
    path.write_bytes((3000).to_bytes(4, "little") + path.read_bytes()[4:])


NOISE = np.random.default_rng(0).bytes(500)
WRONG_AFFINES = {
    "empty.mat": _bytes(b""),
    "empty.txt": _bytes(b""),
    "noise.mat": _bytes(NOISE),
    "noise.txt": _bytes(NOISE),
    "cut.mat": _cut,
    "prose.txt": _bytes(b"Transform: what a word\n"),
    "other.mat": lambda path: savemat(path, {"x": np.eye(3)}, format="4"),
    "level5.mat": lambda path: savemat(path, {"x": np.eye(3)}),
    "level73.mat": _bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\x02IM" + b"\0" * 400),
    "two.txt": _two("txt"),
    "two.mat": _two("mat"),
    "centerless.txt": _without_center,
    "complex.mat": lambda path: savemat(
        path,
        {"AffineTransform_double_3_3": np.ones((12, 1)) * 1j, "fixed": np.zeros((3, 1))},
        format="4",
    ),
    "vax.mat": _vax,
    "quaternion.txt": _text("0 0 0 1 2 3 4", "QuaternionRigidTransform_double_3_3"),
    "field.txt": _text("", "DisplacementFieldTransform_double_3_3"),
    "flat.mat": _itk(sitk.AffineTransform(2)),
    "flat.tfm": _itk(sitk.AffineTransform(2)),
    "bspline.tfm": _itk(sitk.BSplineTransform(3, 3)),
    "bent.txt": _itk(
        sitk.CompositeTransform([sitk.AffineTransform(3), sitk.BSplineTransform(3, 3)])
    ),
    "nothing.txt": _bytes(
        b"#Insight Transform File V1.0\nTransform: CompositeTransform_double_3_3\n"
    ),
    "composite.h5": _itk(sitk.CompositeTransform([sitk.AffineTransform(3)] * 2)),
    "minc.xfm": _itk(sitk.AffineTransform(3)),
    "singular.txt": _text("0 0 0 0 0 0 0 0 0 1 2 3"),
    "short.txt": _text("1 0 0 0 1 0 0 0 1 1 2"),
    "long.txt": _text("1 0 0 0 1 0 0 0 1 1 2 3 4 5"),
    "nan.txt": _text("nan 0 0 0 1 0 0 0 1 1 2 3"),
    "words.txt": _text("1 0 0 0 1 0 0 0 1 1 2 3 or so"),
    "versor.txt": _text("0.1 0.2 nan 1 2 3", "VersorRigid3DTransform_double_3_3"),
}


@pytest.mark.parametrize("name", WRONG_AFFINES)
def test_wrong_affine_is_an_input_error(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    path = tmp_path / name
    WRONG_AFFINES[name](path)
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        read_affine(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "C++ prints, too"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quaternion.txt", "QuaternionRigidTransform_double_3_3"),
        ("field.txt", "DisplacementFieldTransform_double_3_3"),
        ("bspline.tfm", "BSplineTransform_double_3_3"),
        ("bent.txt", "BSplineTransform_double_3_3"),
        ("flat.tfm", "AffineTransform_double_2_2"),
        ("flat.mat", "AffineTransform_double_2_2"),
        ("two.txt", "AffineTransform_double_3_3, AffineTransform_double_3_3"),
        ("centerless.txt", "no line FixedParameters"),
        ("short.txt", "expected 12 parameters and 3 fixed parameters, got 11 and 3"),
        ("nothing.txt", "it holds CompositeTransform_double_3_3"),
        ("minc.xfm", "it holds no transform"),
        ("composite.h5", "neither a text file nor a MATLAB file"),
    ],
)
def test_the_message_says_what_the_file_holds(name: str, said: str, tmp_path: Path):
    WRONG_AFFINES[name](tmp_path / name)
    with pytest.raises(InputError, match=said):
        read_affine(tmp_path / name)


def test_missing_affine_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere\.mat: no such file"):
        read_affine(tmp_path / "nowhere.mat")


# Displacement fields


def test_warp_file_follows_the_convention_of_itk(warp: Warp, tmp_path: Path):
    write_warp(warp, tmp_path / "1Warp.nii.gz")
    image = nib.load(tmp_path / "1Warp.nii.gz")
    header = image.header
    assert image.shape == (*warp.grid.shape, 1, 3)
    assert int(header["intent_code"]) == 1007  # vector, not 1006
    assert list(header["dim"]) == [5, *warp.grid.shape, 1, 3, 1, 1]
    assert header.get_data_dtype() == np.float32
    assert header.get_slope_inter() in ((None, None), (1, 0))
    assert header.get_xyzt_units()[0] == "mm"
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(affine, warp.grid.affine, atol=2e-4)
    stored = np.asarray(image.dataobj)[:, :, :, 0]
    np.testing.assert_array_equal(stored * FLIP, np.moveaxis(warp.displacement, 0, -1))


@pytest.mark.parametrize("name", ["1Warp.nii", "1Warp.nii.gz"])
def test_a_large_warp_is_written_in_parts(name: str, warp: Warp, tmp_path: Path, monkeypatch):
    write_warp(warp, tmp_path / f"whole_{name}")
    monkeypatch.setattr(formats, "PART_VOXELS", 2 * warp.grid.shape[0] * warp.grid.shape[1] + 1)
    write_warp(warp, tmp_path / f"parts_{name}")
    read = gzip.decompress if name.endswith(".gz") else bytes
    whole, parts = (read((tmp_path / f"{x}_{name}").read_bytes()) for x in ("whole", "parts"))
    assert parts == whole


def test_warp_read_by_simpleitk_maps_the_same_points(warp: Warp, tmp_path: Path):
    write_warp(warp, tmp_path / "1Warp.nii.gz")
    points = points_inside(warp.grid)
    theirs = mapped(field_transform(tmp_path / "1Warp.nii.gz"), points)
    assert np.abs(theirs - points).max() > 2
    np.testing.assert_allclose(warp.map(points), theirs, atol=2e-4)


def test_warp_outside_its_grid_is_that_of_itk(warp: Warp, tmp_path: Path):
    """Up to half a voxel beyond the end nodes, ITK has the border value, then zero."""
    write_warp(warp, tmp_path / "1Warp.nii.gz")
    rng = np.random.default_rng(6)
    last = np.asarray(warp.grid.shape) - 1
    voxels = rng.uniform(1, last - 1, (120, 3))
    for n, beyond in enumerate(np.tile([0.05, 0.25, 0.45, 0.55, 0.9, 3.0], 20)):
        axis = n % 3
        voxels[n, axis] = -beyond if n % 2 else last[axis] + beyond
    points = warp.grid.to_world(voxels)
    theirs = mapped(field_transform(tmp_path / "1Warp.nii.gz"), points)
    np.testing.assert_allclose(warp.map(points), theirs, atol=2e-4)


def test_warp_read_by_nitransforms_has_the_same_displacements(warp: Warp, tmp_path: Path):
    itk = pytest.importorskip("nitransforms.io.itk")
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    write_warp(warp, tmp_path / "1Warp.nii.gz")
    image = itk.ITKDisplacementsField.from_filename(tmp_path / "1Warp.nii.gz")
    np.testing.assert_allclose(image.affine, warp.grid.affine, atol=1e-4)
    np.testing.assert_array_equal(
        np.squeeze(np.asarray(image.dataobj)), np.moveaxis(warp.displacement, 0, -1)
    )
    theirs = nonlinear.DenseFieldTransform(image)
    nodes = warp.grid.nodes().reshape(-1, 3)  # between nodes nitransforms takes splines
    np.testing.assert_allclose(theirs.map(nodes), warp.map(nodes), atol=2e-3)


def test_warp_of_simpleitk_is_read_with_the_right_signs(warp: Warp, tmp_path: Path):
    """A vector image that SimpleITK writes; built from ITK's own points, not from our affine."""
    shape = warp.grid.shape
    image = sitk.GetImageFromArray(
        np.moveaxis(warp.displacement, 0, -1).transpose(2, 1, 0, 3) * FLIP, isVector=True
    )
    corner = warp.grid.to_world(np.zeros(3))
    steps = np.array([warp.grid.to_world(unit) - corner for unit in np.eye(3)])
    lengths = np.linalg.norm(steps, axis=1)
    image.SetOrigin((corner * FLIP).tolist())
    image.SetSpacing(lengths.tolist())
    image.SetDirection(((steps / lengths[:, None]).T * FLIP[:, None]).ravel().tolist())
    assert image.GetSize() == shape
    sitk.WriteImage(image, str(tmp_path / "itk.nii.gz"))
    again = read_warp(tmp_path / "itk.nii.gz")
    assert again.grid.matches(warp.grid, tolerance=1e-4)
    np.testing.assert_allclose(again.displacement, warp.displacement, atol=1e-6)
    points = points_inside(warp.grid)
    theirs = mapped(sitk.DisplacementFieldTransform(image), points)
    np.testing.assert_allclose(again.map(points), theirs, atol=2e-4)


def test_warp_round_trips(warp: Warp, tmp_path: Path):
    write_warp(warp, tmp_path / "w.nii.gz")
    again = read_warp(tmp_path / "w.nii.gz")
    np.testing.assert_array_equal(again.displacement, warp.displacement)
    np.testing.assert_allclose(again.grid.affine, warp.grid.affine, atol=1e-5)


def test_warp_on_a_sheared_grid_is_refused(make_grid, tmp_path: Path):
    grid = make_grid(spacing=30, shear=0.1)
    warp = Warp(np.zeros((3, *grid.shape), np.float32), grid)
    with pytest.raises(ValueError, match="orthogonal"):
        write_warp(warp, tmp_path / "sheared.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_warp_on_a_grid_that_passes_as_orthogonal_is_read_the_same_by_itk(
    make_grid, tmp_path: Path
):
    """If ``is_sheared`` accepts a grid, ITK must place its voxels in the same places."""
    grid = make_grid(spacing=22, turn=(10, 5, -7), shear=8e-5)
    assert not grid.is_sheared()
    rng = np.random.default_rng(4)
    warp = Warp(rng.normal(0, 3, (3, *grid.shape)).astype(np.float32), grid)
    write_warp(warp, tmp_path / "nearly.nii.gz")
    points = points_inside(grid)
    theirs = mapped(field_transform(tmp_path / "nearly.nii.gz"), points)
    # 160 mm × 8e-5 / 2 away at most, and the field changes by some mm from node to node.
    np.testing.assert_allclose(warp.map(points), theirs, atol=0.01)


@pytest.mark.parametrize("units", [2, 3])
@pytest.mark.parametrize("intent", [1006, 1007])
def test_the_intent_says_in_which_frame_vectors_are(
    warp: Warp, tmp_path: Path, intent: int, units: int
):
    """1006 are RAS, 1007 LPS, in mm whatever the unit of the grid: SimpleITK 2.4 and later."""
    vectors = np.moveaxis(warp.displacement, 0, -1)[:, :, :, None]
    scale = {2: 1.0, 3: 1e3}[units]
    affine = np.diag([scale, scale, scale, 1]) @ warp.grid.affine
    path = nifti_file(tmp_path / "f.nii", vectors, affine, intent_code=intent, xyzt_units=units)
    points = points_inside(warp.grid)
    theirs = mapped(field_transform(path), points)
    np.testing.assert_allclose(read_warp(path).map(points), theirs, atol=2e-4)
    assert np.abs(theirs - points).max() > 2


@pytest.mark.parametrize(
    ("intent", "name"),
    [
        *((0, "none"), (1002, "label"), (1005, "symmetric matrix"), (1008, "pointset")),
        *((2006, "fnirt disp field"), (4711, "not one of NIfTI")),
    ],
)
def test_fields_of_other_intents_are_refused_by_name(tmp_path: Path, intent: int, name: str):
    vectors = np.zeros((5, 6, 7, 1, 3), np.float32)
    path = nifti_file(tmp_path / "f.nii", vectors, np.eye(4), intent_code=intent)
    with pytest.raises(InputError) as error:
        read_warp(path)
    assert f"{path}: its intent is {intent} ({name})" in str(error.value)
    assert "1007 (vector" in str(error.value)
    assert "1006 (displacement vector" in str(error.value)


@pytest.mark.parametrize(("name", "program"), [("Mapping", "SPM"), ("NREG_TRANS", "NiftyReg")])
def test_fields_of_other_programs_are_refused_by_name(tmp_path: Path, name: str, program: str):
    """Their intent is 1007, but their vectors are coordinates, or in another frame."""
    image = nib.Nifti1Image(np.zeros((5, 6, 7, 1, 3), np.float32), np.eye(4))
    image.header.set_intent("vector", name=name)
    nib.save(image, tmp_path / "f.nii")
    with pytest.raises(InputError, match=rf"{program}.*named {name}.*convert it") as error:
        read_warp(tmp_path / "f.nii")
    assert ("docs/how-to/spm.md" in str(error.value)) == (program == "SPM")


def test_fields_of_four_dimensions_are_refused_with_whose_they_are(tmp_path: Path):
    """Those of FSL hold millimetres of FSL, those of VoxelMorph voxels."""
    path = nifti_file(tmp_path / "f.nii", np.zeros((5, 6, 7, 3), np.float32), np.eye(4))
    with pytest.raises(InputError, match=r"X×Y×Z×1×3, got 5×6×7×3; .*FSL and VoxelMorph.*how-to"):
        read_warp(path)


def test_a_field_of_ants_is_read(warp: Warp, tmp_path: Path, ants):
    """ANTs writes 1007 itself; the vectors of ``ants.image_write`` go through the same code."""
    grid = warp.grid
    field = ants.from_numpy(
        np.ascontiguousarray(np.moveaxis(warp.displacement, 0, -1) * FLIP),
        origin=tuple(FLIP * grid.affine[:3, 3]),
        spacing=grid.spacing,
        direction=FLIP[:, None] * grid.direction,
        has_components=True,
    )
    ants.image_write(field, str(tmp_path / "1Warp.nii.gz"))
    assert nib.load(tmp_path / "1Warp.nii.gz").header["intent_code"] == 1007
    again = read_warp(tmp_path / "1Warp.nii.gz")
    np.testing.assert_allclose(again.displacement, warp.displacement, atol=1e-5)
    assert again.grid.matches(grid, tolerance=1e-3)


def test_fields_of_greedy_are_read(tmp_path: Path, make_grid, phantoms, poses):
    """Warp, inverse and root, as greedy writes them: its own resampling is the oracle."""
    greedy = pytest.importorskip("picsl_greedy").Greedy3D()
    grid = make_grid(spacing=8)
    for name in ("fixed", "moving"):
        nib.save(phantoms.image(grid, getattr(poses, name)), tmp_path / f"{name}.nii.gz")
    fixed, moving, out = (tmp_path / f"{name}.nii.gz" for name in ("fixed", "moving", "out"))
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("warp", "inverse", "root")}
    greedy.execute(
        f"-threads 1 -V 0 -i {fixed} {moving} -sv -m SSD -n 10 -o {files['warp']} "
        f"-oinv {files['inverse']} -oroot {files['root']}"
    )
    for path in files.values():
        greedy.execute(f"-threads 1 -V 0 -rf {fixed} -rm {moving} {out} -r {path}")
        ours = resample(read_volume(moving), read_volume(fixed).grid, read_warp(path)).data
        theirs = np.asarray(nib.load(out).dataobj)
        inner = (slice(2, -2),) * 3
        assert np.abs(ours - theirs)[inner].max() < 1e-2 * theirs.max()


def test_a_warp_is_written_with_the_code_of_its_space(warp: Warp, tmp_path: Path):
    there = Warp(warp.displacement, warp.grid.in_space(4))
    write_warp(there, tmp_path / "1Warp.nii.gz")
    header = nib.load(tmp_path / "1Warp.nii.gz").header
    assert header["sform_code"] == 4
    assert read_warp(tmp_path / "1Warp.nii.gz").grid.space_code == 4
    points = points_inside(warp.grid)
    theirs = mapped(field_transform(tmp_path / "1Warp.nii.gz"), points)
    np.testing.assert_allclose(warp.map(points), theirs, atol=1e-3)


def test_wrong_warps_are_input_errors(make_grid, tmp_path: Path):
    shape, affine = (5, 6, 7), np.eye(4)
    for name, extra in (("3-D", ()), ("4-D", (3,)), ("two", (1, 2)), ("series", (2, 3))):
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(np.ones((*shape, *extra), np.float32), affine), path)
        with pytest.raises(InputError, match=f"{name}.nii.gz.*1×3"):
            read_warp(path)
    with pytest.raises(InputError, match="no such file"):
        read_warp(tmp_path / "nowhere.nii.gz")
    path = tmp_path / "cut.nii.gz"
    rng = np.random.default_rng(0)
    warp = Warp(rng.normal(size=(3, *shape)).astype(np.float32), Grid(shape, affine))
    write_warp(warp, path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match=r"cut\.nii\.gz"):
        read_warp(path)


def test_warp_with_holes_is_an_input_error(tmp_path: Path):
    """NaN in a field would spread over the results silently."""
    vectors = np.zeros((5, 6, 7, 1, 3), np.float32)
    vectors[2, 3, 4] = np.nan
    nib.save(nib.Nifti1Image(vectors, np.eye(4)), tmp_path / "holes.nii.gz")
    with pytest.raises(InputError, match=r"holes\.nii\.gz"):
        read_warp(tmp_path / "holes.nii.gz")


# Images


def test_image_in_simpleitk_has_its_voxels_in_the_same_places(warp: Warp):
    """``to_sitk`` against SimpleITK's own index → point map."""
    rng = np.random.default_rng(7)
    data = rng.normal(size=warp.grid.shape).astype(np.float32)
    image = to_sitk(Volume(data, warp.grid))
    for index in np.ndindex(2, 2, 2):
        at = [int(i * (n - 1)) for i, n in zip(index, warp.grid.shape, strict=True)]
        point = np.array(image.TransformIndexToPhysicalPoint(at)) * FLIP
        np.testing.assert_allclose(point, warp.grid.to_world(np.array(at)), atol=1e-9)
        assert image[at] == data[tuple(at)]
