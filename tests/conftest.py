"""Fixtures: the real scans, a tiny model, phantom brains, and the command line run in-process."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from brains import OTHER, UPRIGHT, VALUES, Phantoms, make_grid
from cohorts import write_crops

from voxwarp.cli.main import main
from voxwarp.fields.field import jacobian_determinant
from voxwarp.networks.model import Model
from voxwarp.preparation.examination import Examination
from voxwarp.preparation.recipe import Recipe
from voxwarp.preparation.scan import prepare
from voxwarp.registration.register import register
from voxwarp.registration.result import Registration
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Warp
from voxwarp.space.volume import Volume

torch.set_num_threads(1)  # the phantoms are tiny: more threads only wait for each other

ROOT = Path(__file__).resolve().parents[1]

# All processes of all runs share compiled code; each version of the kernels has its own folder.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "kernels"))

LARGEST = 8.0  # mm, of the tiny model's displacement between the two phantoms it is scaled on


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


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """No test leaves another number of threads to those after it, whose results depend on it."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real scans; tests that need it are skipped without it."""
    folder = Path(os.environ.get("VOXWARP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans: {folder} is not there; $VOXWARP_DATA names the folder")
    return folder


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
    upright = Examination("brain", grid, Affine(np.eye(4)))
    pair = [
        prepare(Volume(phantoms.values(grid, pose), grid), recipe, upright)
        for pose in (OTHER, UPRIGHT)
    ]
    moving, fixed = (prepared.image for prepared in pair)

    def largest() -> float:
        displacement = Warp.from_voxels(
            model.deform(moving=moving, fixed=fixed).displacement[0], recipe.grid
        )
        return float(np.linalg.norm(displacement.displacement, axis=0).max())

    for _ in range(4):  # the levels act on each other, so one step does not do
        model.network.residual[-1][-1].weight.data *= LARGEST / largest()
    assert 0.7 * LARGEST < largest() < 1.3 * LARGEST
    deformation = model.deform(moving=moving, fixed=fixed)
    assert jacobian_determinant(deformation.displacement).min() > 0.3
    model.card = {"licence": "none: random weights"}
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save(folder)
    return folder


@pytest.fixture
def quick_affine(phantoms: Phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The affine stage aligns with the template at 4 mm: 0.2 s a scan instead of 2."""
    phantoms.stand_in_for_mni152(monkeypatch)


@pytest.fixture(scope="session")
def register_quickly(phantoms: Phantoms, tiny_model: Path) -> Callable[..., Registration]:
    """``voxwarp.register`` with the tiny model and the template at 4 mm."""

    def run(moving: object, fixed: object, **more: object) -> Registration:
        with pytest.MonkeyPatch.context() as patch:
            phantoms.stand_in_for_mni152(patch)
            return register(moving, fixed, tiny_model, **more)

    return run


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No home folder, as in a container for a user who is on no list."""
    for name in ("VOXWARP_CACHE", "VOXWARP_MODELS", "XDG_CACHE_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])


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
