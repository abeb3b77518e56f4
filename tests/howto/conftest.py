"""A pair of scans on grids of any kind, registered and saved, in the working directory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pages import block_with
from scipy.ndimage import map_coordinates

from voxwarp.registration.result import Registration

# Fixed and moving grid: the determinant of an affine is positive or negative, axes are turned.
GRIDS: dict[str, tuple[dict, dict]] = {
    "RAS to LAS": ({"spacing": 5}, {"axes": "LAS", "spacing": 4.5}),
    "LIA to RAS": ({"axes": "LIA", "spacing": 5}, {"spacing": (4, 5, 4.5)}),
    "oblique and anisotropic": (
        {"axes": "PSR", "spacing": (4, 4.5, 6), "turn": (14, -9, 17)},
        {"axes": "LAI", "spacing": (6, 4, 3.5), "turn": (-18, 11, 9)},
    ),
}


@dataclass(frozen=True)
class Pair:
    """The working directory with moving.nii.gz, fixed.nii.gz, and the results pair and rigid."""

    folder: Path
    result: Registration
    rigid: Registration

    def image(self, name: str) -> nib.spatialimages.SpatialImage:
        """An image by its name, the suffix left out."""
        return nib.load(self.folder / (name if "." in name else f"{name}.nii.gz"))

    def values(self, name: str) -> np.ndarray:
        """Its array, float64."""
        return np.asarray(self.image(name).dataobj, np.float64)


@pytest.fixture(scope="package", params=GRIDS.values(), ids=GRIDS.keys())
def registered(request, phantoms, poses, make_grid, register_quickly, tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("howto")
    scans = []
    for name, pose, words in zip(
        ("fixed", "moving"), (poses.fixed, poses.moving), request.param, strict=True
    ):
        scans.append(folder / f"{name}.nii.gz")
        nib.save(phantoms.image(make_grid(**words), pose), scans[-1])
        nib.save(phantoms.labels(make_grid(**words), pose), folder / f"{name}_labels.nii.gz")
    fixed, moving = scans
    result = register_quickly(moving, fixed, labels=folder / "moving_labels.nii.gz")
    rigid = register_quickly(moving, fixed, transform="rigid")
    for name, one in (("pair", result), ("out", result), ("rigid", rigid)):
        one.save(folder / name)
    return Pair(folder, result, rigid)


@pytest.fixture
def pair(registered: Pair, monkeypatch) -> Pair:
    monkeypatch.chdir(registered.folder)
    return registered


@pytest.fixture
def run() -> Callable[[str, str], None]:
    """Execute the block of Python of a page that has a piece of text in it."""

    def execute(page: str, text: str) -> None:
        code = block_with(f"docs/how-to/{page}", text)
        exec(compile(code, page, "exec"), {})

    return execute


@pytest.fixture(scope="package")
def pulled() -> Callable[..., np.ndarray]:
    """Sample an image linearly at voxel coordinates (X, Y, Z, 3), 0 outside: SciPy's."""

    def sample(image: np.ndarray, voxels: np.ndarray, order: int = 1) -> np.ndarray:
        return map_coordinates(image, np.moveaxis(voxels, -1, 0), order=order, mode="constant")

    return sample


@pytest.fixture(scope="package")
def assert_alike() -> Callable[..., None]:
    """Two images that were resampled by different code: within a thousandth of their range.

    Border cells are left out, in which voxwarp fades and SciPy does not.
    """

    def check(theirs: np.ndarray, ours: np.ndarray, voxels: np.ndarray, shape: tuple) -> None:
        inside = ((voxels > 0.01) & (voxels < np.array(shape) - 1.01)).all(axis=-1)
        assert inside.mean() > 0.4
        span = ours.max() - ours.min()
        assert span > 100
        assert np.abs(theirs - ours)[inside].max() < 1e-3 * span

    return check
