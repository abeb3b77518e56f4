"""A registration's files in the hands of ANTs and SimpleITK: the same images, labels and points.

For every kind of grid: registered, saved, and applied by the other tools from the files alone.
Images are compared away from the border, that is where all eight neighbours lie inside the image
that is sampled: beyond, ITK goes on with the border's value for half a voxel and voxwarp fades
to zero.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from voxwarp.registration.points import apply_to_points
from voxwarp.registration.result import Registration
from voxwarp.registration.saved_transform import load_transform
from voxwarp.space.grid import Grid

FLIP = np.array([-1.0, -1.0, 1.0])
# Fixed and moving grid of each pair.
PAIRS: dict[str, tuple[dict, dict]] = {
    "RAS": ({}, {"spacing": 4.5}),
    "LPS": ({"axes": "LPS"}, {"axes": "LPS"}),  # ITK's own axes
    "LPI": ({"axes": "LPI"}, {"axes": "RAS"}),
    "permuted": ({"axes": "PSR"}, {"axes": "ILA", "spacing": 4.5}),
    "oblique": ({"turn": (14, -9, 17)}, {"axes": "LAS", "turn": (-8, 12, -20)}),
    "anisotropic": ({"spacing": (3.5, 4, 6)}, {"spacing": (5, 3.5, 4)}),
    "oblique and anisotropic": (
        {"axes": "PSR", "spacing": (3.5, 4.5, 6), "turn": (14, -9, 17)},
        {"axes": "LAI", "spacing": (6, 4, 3.5), "turn": (-18, 11, 9)},
    ),
}


@dataclass
class Case:
    """A pair of scans, their registration, and the files of it."""

    folder: Path
    result: Registration

    def __truediv__(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def forward(self) -> list[str]:
        return [self / "1Warp.nii.gz", self / "0GenericAffine.mat"]

    @property
    def backward(self) -> list[str]:
        """With the affine to be inverted, as ANTs users write it."""
        return [self / "0GenericAffine.mat", self / "1InverseWarp.nii.gz"]

    def values(self, name: str) -> np.ndarray:
        return np.asarray(nib.load(self / name).dataobj)


@pytest.fixture(scope="module")
def ants():
    return pytest.importorskip("ants")


@pytest.fixture(scope="module", params=PAIRS.values(), ids=PAIRS.keys())
def case(
    request, phantoms, poses, make_grid, register_quickly, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    folder = tmp_path_factory.mktemp("pair")
    for role, pose, arguments in zip(
        ("fixed", "moving"), (poses.fixed, poses.moving), request.param, strict=True
    ):
        grid = make_grid(**arguments)
        nib.save(phantoms.image(grid, pose), folder / f"{role}.nii.gz")
        nib.save(phantoms.labels(grid, pose), folder / f"{role}-labels.nii.gz")
    result = register_quickly(
        folder / "moving.nii.gz", folder / "fixed.nii.gz", labels=folder / "moving-labels.nii.gz"
    )
    result.save(folder)
    moved = np.linalg.norm(result.warp.displacement, axis=0)
    assert moved.max() > 2, "the warp of this test does nothing"
    assert np.abs(result.affine.matrix - np.eye(4)).max() > 1
    return Case(folder, result)


def inside(through, grid: Grid, sampled: Grid) -> np.ndarray:
    """Voxels of ``grid`` where all eight neighbours of the sampled point exist."""
    at = sampled.to_voxel(through.map(grid.nodes()))
    mask = ((at > 1e-3) & (at < np.array(sampled.shape) - 1 - 1e-3)).all(axis=-1)
    assert mask.mean() > 0.5
    return mask


def assert_alike(theirs: np.ndarray, ours: np.ndarray, mask: np.ndarray) -> None:
    """Within a thousandth of the intensities' range."""
    assert theirs.shape == ours.shape
    span = ours.max() - ours.min()
    assert span > 100
    assert np.abs(theirs.astype(float) - ours)[mask].max() < 1e-3 * span


def random_points(image: nib.Nifti1Image, number: int = 100) -> np.ndarray:
    """RAS points in the brain, between voxels."""
    rng = np.random.default_rng(3)
    voxels = rng.permutation(np.argwhere(np.asarray(image.dataobj) > 50))[:number]
    return nib.affines.apply_affine(image.affine, voxels + rng.uniform(-0.5, 0.5, voxels.shape))


def test_outputs_lie_on_the_grids_they_belong_to(case: Case):
    for name, role in (
        ("Warped", "fixed"),
        ("WarpedLabels", "fixed"),
        ("1Warp", "fixed"),
        ("1InverseWarp", "fixed"),
        ("InverseWarped", "moving"),
    ):
        image, reference = nib.load(case / f"{name}.nii.gz"), nib.load(case / f"{role}.nii.gz")
        assert image.shape[:3] == reference.shape
        np.testing.assert_allclose(image.affine, reference.affine, atol=1e-5)


def test_ants_warps_the_moving_image_alike(case: Case, ants):
    theirs = ants.apply_transforms(
        ants.image_read(case / "fixed.nii.gz"),
        ants.image_read(case / "moving.nii.gz"),
        case.forward,
    ).numpy()
    result = case.result
    mask = inside(result.transform, result.fixed.grid, result.moving.grid)
    assert_alike(theirs, case.values("Warped.nii.gz"), mask)


def test_ants_warps_the_fixed_image_alike(case: Case, ants):
    theirs = ants.apply_transforms(
        ants.image_read(case / "moving.nii.gz"),
        ants.image_read(case / "fixed.nii.gz"),
        case.backward,
        whichtoinvert=[True, False],
    ).numpy()
    result = case.result
    mask = inside(result.inverse, result.moving.grid, result.fixed.grid)
    assert_alike(theirs, case.values("InverseWarped.nii.gz"), mask)


def test_ants_carries_the_labels_alike(case: Case, ants, label_values: set[int]):
    theirs = ants.apply_transforms(
        ants.image_read(case / "fixed.nii.gz"),
        ants.image_read(case / "moving-labels.nii.gz"),
        case.forward,
        interpolator="nearestNeighbor",
    ).numpy()
    ours = case.values("WarpedLabels.nii.gz")
    assert set(np.unique(ours)) == label_values
    assert (theirs != ours).mean() < 1e-4  # but for ties, which rounding decides


def field_transform(path: str) -> sitk.Transform:
    return sitk.DisplacementFieldTransform(sitk.ReadImage(path, sitk.sitkVectorFloat64))


def resampled(image: str, reference: str, transform: sitk.Transform, method: int) -> np.ndarray:
    moved = sitk.Resample(sitk.ReadImage(image), sitk.ReadImage(reference), transform, method, 0.0)
    return sitk.GetArrayFromImage(moved).T


def test_simpleitk_warps_images_and_labels_alike(case: Case):
    """A composite of SimpleITK applies the transform that was added last first."""
    affine = sitk.ReadTransform(case / "0GenericAffine.mat")
    forward = sitk.CompositeTransform([affine, field_transform(case / "1Warp.nii.gz")])
    result = case.result
    images = case / "moving.nii.gz", case / "fixed.nii.gz"
    mask = inside(result.transform, result.fixed.grid, result.moving.grid)
    theirs = resampled(*images, forward, sitk.sitkLinear)
    assert_alike(theirs, case.values("Warped.nii.gz"), mask)

    labels = case / "moving-labels.nii.gz", case / "fixed.nii.gz"
    theirs = resampled(*labels, forward, sitk.sitkNearestNeighbor)
    assert (theirs != case.values("WarpedLabels.nii.gz")).mean() < 1e-4

    inverse_warp = field_transform(case / "1InverseWarp.nii.gz")
    backward = sitk.CompositeTransform([inverse_warp, affine.GetInverse()])
    mask = inside(result.inverse, result.moving.grid, result.fixed.grid)
    theirs = resampled(*reversed(images), backward, sitk.sitkLinear)
    assert_alike(theirs, case.values("InverseWarped.nii.gz"), mask)


@pytest.mark.parametrize("inverse", [False, True], ids=["moving to fixed", "fixed to moving"])
def test_points_go_where_ants_carries_them(case: Case, ants, cli, tmp_path: Path, inverse: bool):
    """The command, in RAS and in LPS, against antsApplyTransformsToPoints, which is in LPS."""
    pd = pytest.importorskip("pandas")
    points = random_points(nib.load(case / ("fixed.nii.gz" if inverse else "moving.nii.gz")))
    theirs = ants.apply_transforms_to_points(
        3,
        pd.DataFrame(points * FLIP, columns=["x", "y", "z"]),
        case.forward if inverse else case.backward,
        whichtoinvert=[False, False] if inverse else [True, False],
    )
    theirs = theirs[["x", "y", "z"]].to_numpy() * FLIP
    assert np.linalg.norm(theirs - points, axis=1).min() > 1
    direction = ["--inverse"] if inverse else []
    for flag, flip in (([], np.ones(3)), (["--lps"], FLIP)):
        source, target = tmp_path / "in.csv", tmp_path / "out.csv"
        rows = "".join(f"{x:.6f},{y:.6f},{z:.6f}\n" for x, y, z in points * flip)
        source.write_text("x,y,z\n" + rows)
        outcome = cli(
            *("points", source, "-t", case.folder, "-o", target, "--overwrite"), *flag, *direction
        )
        assert outcome.code == 0, outcome.err
        ours = np.loadtxt(target, delimiter=",", skiprows=1) * flip
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_saved_registration_is_the_one_in_memory(case: Case):
    saved = load_transform(case.folder)
    for role, through, again in (
        ("fixed", case.result.transform, saved.transform),
        ("moving", case.result.inverse, saved.inverse),
    ):
        points = random_points(nib.load(case / f"{role}.nii.gz"))
        np.testing.assert_allclose(again.map(points), through.map(points), atol=1e-4)
    assert saved.fixed_grid.matches(case.result.fixed.grid, tolerance=1e-4)
    assert saved.moving_grid.matches(case.result.moving.grid, tolerance=1e-4)


def interior(array: np.ndarray) -> np.ndarray:
    """Without the outermost voxels, where the tools take different one-sided differences."""
    return array[1:-1, 1:-1, 1:-1]


def itk_jacobian(path: str, *, turned: bool) -> np.ndarray:
    """ITK's filter on the file's field, the vectors turned to run along the voxel axes or not.

    The filter derives along the voxel axes and leaves the image's direction out, so that without
    turning it is right for ITK's own axes, L, P, S, alone.
    """
    image = sitk.ReadImage(path, sitk.sitkVectorFloat64)
    if turned:
        direction = np.array(image.GetDirection()).reshape(3, 3)
        spacing = image.GetSpacing()
        image = sitk.GetImageFromArray(sitk.GetArrayFromImage(image) @ direction, isVector=True)
        image.SetSpacing(spacing)
    return sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)).T


def test_jacobian_determinant_is_that_of_itk(case: Case):
    image = case.result.jacobian_determinant()
    np.testing.assert_allclose(image.affine, nib.load(case / "fixed.nii.gz").affine, atol=1e-5)
    ours = interior(np.asarray(image.dataobj))
    assert np.abs(ours - 1).max() > 0.1
    ways = [True, False] if case.result.fixed.grid.axes == "LPS" else [True]
    for turned in ways:
        theirs = itk_jacobian(case / "1Warp.nii.gz", turned=turned)
        np.testing.assert_allclose(ours, interior(theirs), atol=1e-4)


def test_jacobian_determinant_is_that_of_ants(case: Case, ants):
    """From the file as it is; ANTs derives over a wider neighbourhood, hence the tolerance."""
    theirs = ants.create_jacobian_determinant_image(
        ants.image_read(case / "fixed.nii.gz"), case / "1Warp.nii.gz"
    ).numpy()
    ours = np.asarray(case.result.jacobian_determinant().dataobj)
    difference = np.abs(interior(interior(ours)) - interior(interior(theirs)))
    assert difference.mean() < 2e-3
    assert difference.max() < 0.03


def test_ants_own_registration_is_read(phantoms, poses, make_grid, tmp_path: Path, ants):
    """A folder that antsRegistration wrote with an empty prefix serves ``apply``, either way."""
    grids = make_grid(spacing=6, turn=(10, 0, 5)), make_grid("LPS", (5, 6, 7))
    names = tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"
    for grid, pose, name in zip(grids, (poses.fixed, poses.moving), names, strict=True):
        nib.save(phantoms.image(grid, pose), name)
    fixed, moving = (ants.image_read(str(name)) for name in names)
    found = ants.registration(
        *(fixed, moving, "SyN"), reg_iterations=(4, 2), outprefix=f"{tmp_path}/", random_seed=1
    )
    assert Path(found["fwdtransforms"][0]) == tmp_path / "1Warp.nii.gz"
    saved = load_transform(tmp_path)
    pd = pytest.importorskip("pandas")
    for role, transforms, flags in (
        ("fixed", found["fwdtransforms"], [False, False]),
        ("moving", found["invtransforms"], [True, False]),
    ):
        points = random_points(nib.load(tmp_path / f"{role}.nii.gz"))
        frame = pd.DataFrame(points * FLIP, columns=["x", "y", "z"])
        theirs = ants.apply_transforms_to_points(3, frame, transforms, whichtoinvert=flags)
        ours = apply_to_points(points, saved, inverse=role == "fixed")
        np.testing.assert_allclose(ours, theirs.to_numpy() * FLIP, atol=1e-3)
