"""Two phantoms, three scans, and benchmarks of them that run in this process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from benchmark_cohort import OPTIONS, POSES, Bench, affine_of, listed
from brains import CENTER, VALUES
from inline import run_methods_inline
from phantom_pair import BENT, TURNED, Case
from scipy import ndimage

from voxwarp.benchmark import affine_start, catalogue
from voxwarp.benchmark.job import Job
from voxwarp.benchmark.run import benchmark
from voxwarp.benchmark.selection import SelectedMethod
from voxwarp.data.pairs import Pair, read_pairs
from voxwarp.data.structures import Table
from voxwarp.evaluation.protocol import Protocol
from voxwarp.preparation.examination import Examination
from voxwarp.space.volume import Volume


@pytest.fixture(scope="session")
def case(phantoms, make_grid, tmp_path_factory) -> Case:
    """On oblique anisotropic grids with different axes, in a folder with an odd name."""
    folder = tmp_path_factory.mktemp("a folder") / "with spaces, (and more)"
    folder.mkdir()
    grids = {
        "fixed": make_grid("LPI", (4, 4.6, 4.3), turn=(6, -9, 8), room=8),
        "moving": make_grid("ASR", (4.5, 4, 4.4), turn=(12, -7, 9), room=8),
    }
    for (side, grid), pose in zip(grids.items(), (TURNED, BENT), strict=True):
        nib.save(phantoms.image(grid, pose), folder / f"{side}.nii.gz")
        nib.save(phantoms.labels(grid, pose), folder / f"{side}-labels.nii.gz")
    inside = ndimage.binary_erosion(phantoms.values(grids["fixed"], TURNED) > 40)
    return Case(folder, grids["fixed"].to_world(np.argwhere(inside)[::5]))


@pytest.fixture(scope="session")
def cohort(phantoms, make_grid, tmp_path_factory) -> SimpleNamespace:
    """Three small scans with labels and landmarks, and all ordered pairs of them."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    marks = CENTER + rng.uniform(-30, 30, (6, 3))
    for number, (name, pose) in enumerate(POSES.items()):
        grid = make_grid("LPI", (10, 11, 9), turn=(4 * number, 3, -5), room=10)
        nib.save(phantoms.image(grid, pose), folder / f"{name}.nii.gz")
        nib.save(phantoms.labels(grid, pose), folder / f"{name}-labels.nii.gz")
        points = affine_of(pose).map(marks)
        rows = [f"m{i},{x},{y},{z}" for i, (x, y, z) in enumerate(points.tolist())]
        (folder / f"{name}.csv").write_text("\n".join(["name,x,y,z", *rows]) + "\n")
    keys = [(m, f) for m in POSES for f in POSES if m != f]
    return SimpleNamespace(
        folder=folder, pairs=read_pairs(listed(folder / "pairs.csv", keys)), keys=keys
    )


@pytest.fixture(autouse=True)
def known_places(monkeypatch) -> list[str]:
    """Scans are where they are: nothing is sought. The names of those that were asked for."""
    asked = []

    def examine(scan: Volume) -> Examination:
        asked.append(Path(scan.name).name[0])
        return Examination("brain", scan.grid, affine_of(POSES[asked[-1]]))

    monkeypatch.setattr(affine_start, "examine", examine)
    return asked


@pytest.fixture
def here(monkeypatch) -> None:
    """Methods run in this process."""
    run_methods_inline(monkeypatch)


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    """As the command makes it without a table: every value is a structure."""
    values = VALUES.tolist()
    return Protocol(Table([str(v) for v in values], {v: i for i, v in enumerate(values, 1)}))


@pytest.fixture
def bench(cohort: SimpleNamespace, protocol: Protocol, tmp_path: Path) -> Bench:
    """``benchmark`` of user's methods, by their functions' names, into ``tmp_path / "out"``."""

    def run(names: str, pairs: list[Pair] | None = None, **more: Any) -> list[dict[str, Any]]:
        found = [SelectedMethod(name, f"methods:{name}") for name in names.split()]
        given = {"protocol": protocol, "options": OPTIONS, "out": tmp_path / "out"} | more
        return benchmark(cohort.pairs if pairs is None else pairs, found, **given)

    return run


@pytest.fixture
def no_greedy(monkeypatch) -> None:
    """All packages of other tools are there but greedy's."""
    monkeypatch.setattr(
        catalogue, "version_of", lambda name: None if name == "picsl-greedy" else "1.0"
    )


@pytest.fixture
def job(cohort: SimpleNamespace, tmp_path: Path) -> Callable[..., Job]:
    def make(method: str, **more: Any) -> Job:
        poses = (affine_of(POSES[name]).matrix.tolist() for name in "ab")
        paths = (str(cohort.folder / f"{name}.nii.gz") for name in "ab")
        folder = str(tmp_path / "out" / method / "b_to_a")
        return replace(Job(f"methods:{method}", *paths, *poses, folder, 3), **more)

    return make
