"""Composite transforms in HDF5: SimpleITK, ANTs and nitransforms are the oracles."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from voxwarp.errors import InputError
from voxwarp.space.composite import read_composite, read_linear, write_composite
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Chain, Warp

FLIP = np.array([-1.0, -1.0, 1.0])


@pytest.fixture
def affine() -> Affine:
    matrix = np.eye(4)
    matrix[:3] += np.random.default_rng(2).uniform(-0.2, 0.2, (3, 4))
    matrix[:3, 3] *= 100
    return Affine(matrix)


@pytest.fixture(params=["RAS", "LPI", "PSR", "oblique"])
def warp(request: pytest.FixtureRequest, make_grid) -> Warp:
    """A random field, every node on its own."""
    turned = {"axes": "SLA", "spacing": (16, 21, 33), "turn": (20, 10, -25)}
    grid = make_grid(
        **(turned if request.param == "oblique" else {"spacing": 22, "axes": request.param})
    )
    rng = np.random.default_rng(4)
    return Warp(rng.normal(0, 3, (3, *grid.shape)).astype(np.float32), grid)


def inside(grid: Grid) -> np.ndarray:
    voxels = np.random.default_rng(5).uniform(1, np.array(grid.shape) - 2, (60, 3))
    return grid.to_world(voxels)


def by_simpleitk(path: Path, points: np.ndarray) -> np.ndarray:
    transform = sitk.ReadTransform(str(path))
    return np.array([transform.TransformPoint(p) for p in (points * FLIP).tolist()]) * FLIP


ORDERS = {"forward": ("warp", "affine"), "inverse": ("affine", "warp"), "linear": ("affine",)}


@pytest.fixture(params=ORDERS.values(), ids=ORDERS.keys())
def steps(request: pytest.FixtureRequest, warp: Warp, affine: Affine) -> list[Affine | Warp]:
    """A chain in which the points of ``start`` are inside the field."""
    return [{"warp": warp, "affine": affine}[name] for name in request.param]


def start(steps: list[Affine | Warp], affine: Affine, warp: Warp) -> np.ndarray:
    points = inside(warp.grid)
    return points if steps[0] is warp else affine.inverse().map(points)


def test_simpleitk_maps_points_as_we_do(steps, affine, warp, tmp_path):
    points = start(steps, affine, warp)
    write_composite(steps, tmp_path / "a.h5")
    ours = Chain(steps).map(points)
    assert np.abs(ours - points).max() > 5
    np.testing.assert_allclose(by_simpleitk(tmp_path / "a.h5", points), ours, atol=1e-4)


def test_ants_maps_points_as_we_do(steps, affine, warp, tmp_path):
    ants = pytest.importorskip("ants")
    points = start(steps, affine, warp)
    write_composite(steps, tmp_path / "a.h5")
    theirs = ants.read_transform(str(tmp_path / "a.h5"))
    mapped = np.array([theirs.apply_to_point(p) for p in (points * FLIP).tolist()]) * FLIP
    np.testing.assert_allclose(mapped, Chain(steps).map(points), atol=1e-4)


@pytest.mark.filterwarnings("ignore:Reference space not set")
def test_nitransforms_maps_points_as_we_do(affine, warp, tmp_path):
    """At nodes of the field; between them it interpolates by splines."""
    manip = pytest.importorskip("nitransforms.manip")
    write_composite([warp, affine], tmp_path / "a.h5")
    nodes = warp.grid.nodes()[1:-1, 1:-1, 1:-1].reshape(-1, 3)
    theirs = manip.load(tmp_path / "a.h5", fmt="itk").map(nodes)
    np.testing.assert_allclose(theirs, Chain([warp, affine]).map(nodes), atol=1e-4)


def test_what_is_written_is_read(steps, tmp_path):
    write_composite(steps, tmp_path / "a.h5")
    back = read_composite(tmp_path / "a.h5")
    assert [type(step) for step in back] == [type(step) for step in steps]
    for step, own in zip(back, steps, strict=True):
        if isinstance(own, Warp):
            np.testing.assert_array_equal(step.displacement, own.displacement)
            np.testing.assert_allclose(step.grid.affine, own.grid.affine, atol=1e-9)
        else:
            np.testing.assert_allclose(step.matrix, own.matrix, atol=1e-12)


def test_the_bytes_depend_on_the_transforms_alone(steps, tmp_path):
    for name in ("a.h5", "b.h5"):
        write_composite(steps, tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_composite_of_simpleitk_is_read(warp, tmp_path):
    """With linear transforms of two kinds around a field of double precision."""
    image = sitk.GetImageFromArray(
        (np.moveaxis(warp.displacement, 0, -1).transpose(2, 1, 0, 3) * FLIP).astype(np.float64),
        isVector=True,
    )
    corner = warp.grid.to_world(np.zeros(3))
    columns = np.array([warp.grid.to_world(unit) - corner for unit in np.eye(3)])
    lengths = np.linalg.norm(columns, axis=1)
    image.SetOrigin((corner * FLIP).tolist())
    image.SetSpacing(lengths.tolist())
    image.SetDirection(((columns / lengths[:, None]).T * FLIP[:, None]).ravel().tolist())
    field = sitk.DisplacementFieldTransform(image)
    turn = sitk.Euler3DTransform((10.0, 20.0, 30.0), 0.1, -0.2, 0.3, (1.0, 2.0, 3.0))
    shift = sitk.TranslationTransform(3, (3.0, -4.0, 5.0))
    sitk.WriteTransform(sitk.CompositeTransform([turn, field, shift]), str(tmp_path / "a.h5"))
    points = inside(warp.grid) - np.array([-3.0, 4.0, 5.0])
    chain = Chain(read_composite(tmp_path / "a.h5"))
    np.testing.assert_allclose(
        chain.map(points), by_simpleitk(tmp_path / "a.h5", points), atol=2e-4
    )


def test_a_single_transform_of_simpleitk_is_read(tmp_path):
    turn = sitk.VersorRigid3DTransform()
    turn.SetRotation((0.1, 0.9, 0.2), 0.4)
    turn.SetTranslation((5.0, 6.0, 7.0))
    sitk.WriteTransform(turn, str(tmp_path / "a.h5"))
    points = np.random.default_rng(0).uniform(-50, 50, (9, 3))
    expected = by_simpleitk(tmp_path / "a.h5", points)
    np.testing.assert_allclose(read_linear(tmp_path / "a.h5").map(points), expected, atol=1e-9)


def test_the_names_of_older_versions_of_itk_are_read(affine, warp, tmp_path):
    """As in the files of fMRIPrep until ITK 5."""
    write_composite([warp, affine], tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        for number in "12":
            group = file["TransformGroup"][number]
            for name in ("Parameters", "FixedParameters"):
                group.move(f"Transform{name}", f"Tranform{name}")
    chain = Chain(read_composite(tmp_path / "a.h5"))
    points = inside(warp.grid)
    np.testing.assert_allclose(chain.map(points), Chain([warp, affine]).map(points), atol=1e-9)


def spoil(path: Path, how: str) -> None:
    with h5py.File(path, "a") as file:
        top = file["TransformGroup"]
        if how == "nested":
            top["1"]["TransformType"][...] = ["CompositeTransform_double_3_3"]
        elif how == "unknown":
            top["1"]["TransformType"][...] = ["BSplineTransform_double_3_3"]
        elif how == "missing":
            del top["1"]["TransformParameters"]
        elif how == "short":
            del top["2"]["TransformParameters"]
            top["2"]["TransformParameters"] = np.zeros(30)
        elif how == "huge":
            del top["2"]["TransformParameters"]
            top["2"].create_dataset("TransformParameters", (1 << 40,), "f4", chunks=(1 << 16,))
        elif how == "linked":
            del top["2"]["TransformParameters"]
            top["2"]["TransformParameters"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif how == "elsewhere":
            del top["1"]["TransformParameters"]
            top["1"].create_dataset(
                "TransformParameters", (12,), "f8", external=[("/etc/passwd", 0, 96)]
            )
        elif how == "not finite":
            top["2"]["TransformParameters"][5] = np.nan
        elif how == "flat":
            top["2"]["TransformFixedParameters"][6] = 0
        elif how == "none":
            del top["1"], top["2"]
        elif how == "empty":
            del file["TransformGroup"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nested", "a composite within a composite"),
        ("unknown", "it holds BSplineTransform_double_3_3"),
        ("missing", "TransformParameters is missing"),
        ("short", "its field has 30 numbers"),
        ("huge", "its field has 1099511627776 numbers"),
        ("linked", "TransformParameters is a link"),
        ("elsewhere", "holds no numbers"),
        ("not finite", "NaN or infinite"),
        ("flat", "affine must be invertible"),
        ("none", "it holds no transform"),
        ("empty", "TransformGroup is missing"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(how, said, affine, tmp_path):
    grid = Grid((5, 6, 7), np.eye(4))
    path = tmp_path / "a.h5"
    write_composite([Warp(np.ones((3, 5, 6, 7), np.float32), grid), affine], path)
    spoil(path, how)
    with pytest.raises(InputError, match=rf"transform {path}: .*{said}"):
        read_composite(path)


@pytest.mark.parametrize("contents", [b"", b"\x89HDF\r\n\x1a\n", b"nonsense" * 99])
def test_what_is_no_hdf5_file_is_refused(contents: bytes, tmp_path):
    (tmp_path / "a.h5").write_bytes(contents)
    with pytest.raises(InputError, match="not a composite transform of ITK that can be read"):
        read_composite(tmp_path / "a.h5")


def test_a_sheared_grid_is_refused(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    warp = Warp(np.zeros((3, 5, 5, 5), np.float32), Grid((5, 5, 5), sheared))
    with pytest.raises(ValueError, match="orthogonal axes"):
        write_composite([warp], tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_a_deformation_is_no_linear_transform(warp, tmp_path):
    write_composite([warp], tmp_path / "a.h5")
    with pytest.raises(InputError, match="it holds a deformation"):
        read_linear(tmp_path / "a.h5")
