"""Fixtures: the real scans, a tiny model, phantom brains, and the command line run in-process."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cohorts import write_crops
from voxwarp.cli import main
from voxwarp.field import jacobian_determinant
from voxwarp.grid import Grid
from voxwarp.model import Model, Recipe
from voxwarp.prepare import Findings, prepare, template_path
from voxwarp.registration import Registration, register
from voxwarp.transform import Affine, Warp
from voxwarp.volume import Volume

torch.set_num_threads(1)  # the phantoms are tiny: more threads only wait for each other

ROOT = Path(__file__).resolve().parents[1]

# The brain of MNI152 and a margin of about a centimetre: middle and extent, mm, R, A, S.
CENTER = np.array([0.0, -17.0, 5.0])
EXTENT = np.array([160.0, 196.0, 172.0])
# Label values as tools have them: small, FreeSurfer's thousands, more than 15 bits.
VALUES = np.array([2, 7, 17, 53, 1003, 2035, 12144, 40000])
LARGEST = 8.0  # mm, of the tiny model's displacement between the two phantoms it is scaled on

WORLD = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1)}
WORLD["I"] = (0, 0, -1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with --slow"))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is neither read nor written; the tests share one of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXWARP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real scans; tests that need it are skipped without it."""
    folder = Path(os.environ.get("VOXWARP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans: {folder} is not there; $VOXWARP_DATA names the folder")
    return folder


def make_grid(
    axes: str = "RAS",
    spacing: float | tuple[float, float, float] = 4.0,
    turn: tuple[float, float, float] = (0, 0, 0),
    shear: float = 0.0,
    room: float = 0.0,
) -> Grid:
    """A grid around the phantom brain.

    Args:
        axes: the world direction of each voxel axis before turning.
        spacing: mm along the voxel axes.
        turn: degrees about R, A and S.
        shear: how much of the second axis is added to the first.
        room: mm on all sides, beyond what a brain needs: a head wants 25, but for the neck.
    """
    steps = np.broadcast_to(np.asarray(spacing, dtype=float), 3)
    columns = np.array([WORLD[letter] for letter in axes], dtype=float).T  # (world, voxel)
    shape = np.ceil(np.abs(columns).T @ (EXTENT + 2 * room) / steps).astype(int) + 1
    columns = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ columns
    columns[:, 0] += shear * columns[:, 1]
    affine = np.eye(4)
    affine[:3, :3] = columns * steps
    affine[:3, 3] = CENTER - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid(shape.tolist(), affine)


@pytest.fixture(scope="session", name="make_grid")
def _make_grid() -> Callable[..., Grid]:
    """The function above, for tests."""
    return make_grid


@pytest.fixture(scope="session")
def unlike_grids() -> dict[str, Grid]:
    """A fixed and a moving grid that share neither axes nor spacing nor angle."""
    return {
        "fixed": make_grid("LPI", (4, 5, 4.5)),
        "moving": make_grid("ASR", (4.5, 4, 5), turn=(12, -7, 9)),
    }


@dataclass(frozen=True)
class Pose:
    """Another head: phantom(x) = brain(M(x)), M an affine after a smooth displacement, RAS mm."""

    turn: tuple[float, float, float] = (0, 0, 0)
    zoom: float = 1.0
    shift: tuple[float, float, float] = (0, 0, 0)
    bend: float = 0.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        waves = np.sin(np.roll(points, 1, axis=-1) / 23 + np.array([0.3, 1.1, 2.0]))
        matrix = self.zoom * Rotation.from_euler("xyz", self.turn, degrees=True).as_matrix()
        centered = points + self.bend * waves - CENTER
        return centered @ matrix.T + CENTER + np.asarray(self.shift)


UPRIGHT = Pose()
OTHER = Pose(turn=(4, -3, 6), zoom=1.04, shift=(3, -4, 5), bend=3.0)


# What is around the brain, mm away from it at most: fluid, bone, skin and fat; as in T1.
SHELLS = {3.0: 25.0, 8.0: 12.0, 15.0: 230.0}
FLESH = 90.0  # of the neck


class Phantoms:
    """Brains made of the MNI152 template by closed forms, none of voxwarp's interpolation."""

    def __init__(self) -> None:
        image = nib.load(template_path())
        data = np.asarray(image.dataobj, dtype=np.float32)
        self.data = ndimage.gaussian_filter(data, 1.2)  # coarse grids sample this
        self.data[ndimage.uniform_filter(data, 5) < 20] = 0
        self.world_to_voxel = np.linalg.inv(image.affine)
        # Distance from the brain, mm, on every second voxel and 40 mm beyond the template.
        self.beyond = 40
        brain = np.pad(self.data > 0, self.beyond)[::2, ::2, ::2]
        self.distance = 2 * ndimage.distance_transform_edt(~brain).astype(np.float32)
        #: Of a box that holds the upright brain, RAS mm.
        self.corners = CENTER + EXTENT / 2 * [*itertools.product((-1, 1), repeat=3)]
        #: The template at 4 mm: the affine stage with it takes a few tenths of a second.
        self.template = Volume(self.values(make_grid()), make_grid(), "template at 4 mm")

    def values(self, grid: Grid, pose: Callable[[np.ndarray], np.ndarray] = UPRIGHT) -> np.ndarray:
        """Intensities from 0 to about 255, float32; ``pose`` leads to the template's space."""
        at = pose(grid.nodes()) @ self.world_to_voxel[:3, :3].T + self.world_to_voxel[:3, 3]
        return ndimage.map_coordinates(self.data, np.moveaxis(at, -1, 0), order=1)

    def moved(self, motion: Affine, spacing: float = 4.0, inverted: bool = False) -> Volume:
        """The upright brain after a motion of space, on an upright grid with room around it.

        ``inverted`` turns bright into dark inside the brain, as in another contrast.
        """
        box = motion.map(self.corners)
        low, high = box.min(axis=0) - 4 * spacing, box.max(axis=0) + 4 * spacing
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = low
        grid = Grid((np.ceil((high - low) / spacing).astype(int) + 1).tolist(), affine)
        values = self.values(grid, motion.inverse().map)
        return Volume(np.where(values > 0, 260 - values, 0) if inverted else values, grid)

    def image(self, grid: Grid, pose: Pose = UPRIGHT, dtype: type = np.float32) -> nib.Nifti1Image:
        """The brain as a scan on ``grid``."""
        return nifti(stored(self.values(grid, pose), dtype), grid)

    def head(
        self, grid: Grid, pose: Pose = UPRIGHT, dtype: type = np.float32, noise: float = 0.0
    ) -> nib.Nifti1Image:
        """A head as a scan on ``grid``; its brain is where ``values(grid, pose)`` are not zero.

        Around it are fluid, bone, skin, and a neck that goes on to the border of the scan.
        ``noise`` is the deviation of what the receiver adds, everywhere, to both its channels.
        """
        brain, points = self.values(grid, pose), pose(grid.nodes())
        at = points @ self.world_to_voxel[:3, :3].T + self.world_to_voxel[:3, 3] + self.beyond
        away = ndimage.map_coordinates(
            self.distance, np.moveaxis(at / 2, -1, 0), order=1, mode="nearest"
        )
        x, y, z = np.moveaxis(points - CENTER, -1, 0)
        neck = ((x / 55) ** 2 + ((y + 15) / 60) ** 2 < 1) & (z < -30)
        values = np.where(neck, FLESH, 0.0)
        for reach, brightness in reversed(SHELLS.items()):
            values = np.where(away < reach, brightness, values)
        values = np.where(brain > 0, brain, values)
        if noise:
            real, imaginary = np.random.default_rng(3).normal(0, noise, (2, *grid.shape))
            values = np.hypot(values + real, imaginary)
        return nifti(stored(values, dtype), grid)

    def labels(self, grid: Grid, pose: Pose = UPRIGHT, dtype: type = np.int32) -> nib.Nifti1Image:
        """The brain's octants, one of ``VALUES`` each, 0 outside."""
        right, front, up = np.moveaxis(pose(grid.nodes()) > CENTER, -1, 0)
        octant = VALUES[4 * right + 2 * front + up]
        return nifti(np.where(self.values(grid, pose) > 40, octant, 0).astype(dtype), grid)


def stored(values: np.ndarray, dtype: type) -> np.ndarray:
    """Intensities of up to about 255 in another type; integers of 16 bits and more are finer."""
    if np.issubdtype(dtype, np.integer):
        values = np.rint(values * (1 if np.dtype(dtype).itemsize == 1 else 4))
    return values.astype(dtype)


def nifti(data: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """An image in memory with both affines in its header."""
    image = nib.Nifti1Image(data, None, dtype=data.dtype)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    return image


@pytest.fixture(scope="session")
def phantoms() -> Phantoms:
    return Phantoms()


@pytest.fixture(scope="session")
def poses() -> SimpleNamespace:
    """The two heads: ``fixed`` stands as the template does, ``moving`` is turned and bent."""
    return SimpleNamespace(fixed=UPRIGHT, moving=OTHER)


@pytest.fixture(scope="session")
def label_values() -> set[int]:
    """All values of the phantoms' label maps."""
    return {0, *VALUES.tolist()}


@pytest.fixture(scope="session")
def tiny_model(phantoms: Phantoms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a pyramid at 4 mm with random weights that move things by up to 8 mm, smoothly.

    The last layer of the coarsest level (32 mm) makes nearly all of the velocity; it is scaled
    so that between the two phantoms the largest displacement is ``LARGEST``.
    """
    recipe = Recipe(Recipe().grid.resized((40, 48, 56)))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = Model.build({"name": "pyramid", "channels": [8, 16, 16]}, recipe)
        for level, scale in enumerate((1e-3, 4e-3, 3e-2)):
            torch.nn.init.normal_(model.network.residual[level][-1].weight, std=scale)
    grid = make_grid()
    upright = Findings("brain", grid, Affine(np.eye(4)))
    pair = [
        prepare(Volume(phantoms.values(grid, pose), grid), recipe, upright)
        for pose in (OTHER, UPRIGHT)
    ]
    moving, fixed = (prepared.image[None, None] for prepared in pair)

    def largest() -> float:
        displacement = Warp.from_voxels(model.deform(moving, fixed).displacement[0], recipe.grid)
        return float(np.linalg.norm(displacement.displacement, axis=0).max())

    for _ in range(4):  # the levels act on each other, so one step does not do
        model.network.residual[-1][-1].weight.data *= LARGEST / largest()
    assert 0.7 * LARGEST < largest() < 1.3 * LARGEST
    deformation = model.deform(moving, fixed)
    assert jacobian_determinant(deformation.displacement).min() > 0.3
    model.card = {"licence": "none: random weights"}
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save(folder)
    return folder


@pytest.fixture
def quick_affine(phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The affine stage aligns with the template at 4 mm: 0.2 s a scan instead of 2."""
    monkeypatch.setattr("voxwarp.prepare.template", lambda: phantoms.template)


@pytest.fixture(scope="session")
def register_quickly(phantoms: Phantoms, tiny_model: Path) -> Callable[..., Registration]:
    """``voxwarp.register`` with the tiny model and the template at 4 mm."""

    def run(moving: object, fixed: object, **more: object) -> Registration:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("voxwarp.prepare.template", lambda: phantoms.template)
            return register(moving, fixed, tiny_model, **more)

    return run


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """A folder of small scans and label maps, see ``cohorts``."""
    return write_crops(tmp_path / "crops")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Outcome]:
    """Run ``voxwarp WORD...`` in this process; all that it prints, C++ included, is caught."""

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["voxwarp", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        return Outcome(0 if stop.value.code is None else stop.value.code, out, err)

    return run


@pytest.fixture
def refuses(cli: Callable[..., Outcome], tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused, as the contract says; returns its one line.

    Exit code 2, one line on stderr, nothing on stdout, and ``tmp_path`` as it was before.
    """

    def run(*words: object) -> str:
        before = _listing(tmp_path)
        outcome = cli(*words)
        assert outcome.code == 2, outcome
        lines = outcome.err.splitlines()
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("voxwarp: error: "), lines[0]
        assert outcome.out == ""
        assert _listing(tmp_path) == before, "it left something behind"
        return lines[0]

    return run


def _listing(folder: Path) -> dict[Path, bytes | None]:
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }
