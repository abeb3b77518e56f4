"""Methods of a benchmark: they align phantoms, and write what the tools computed."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import methods
import nibabel as nib
import numpy as np
import pytest
import torch
from brains import Pose
from phantom_pair import BENT, TURNED, Case, unposed

from voxwarp._layout import AFFINE, INVERSE_WARP, WARP, WARPED
from voxwarp.benchmark.catalogue import METHODS
from voxwarp.benchmark.job import Job, Run
from voxwarp.benchmark.methods import elastix, greedy, ours
from voxwarp.benchmark.process import execute
from voxwarp.benchmark.weights import load_model
from voxwarp.errors import InputError
from voxwarp.networks.model import Model, Recipe
from voxwarp.space.formats import read_affine, read_warp
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine, Chain, Transform, Warp
from voxwarp.space.volume import read_volume


def installed_or_skip(module: str) -> None:
    """Checked without an import, because two copies of ITK in one process crash it."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


@dataclass(frozen=True)
class Left:
    """What a method left in its folder."""

    warp: Warp
    start: Affine
    inverse_warp: Warp | None

    @classmethod
    def read(cls, folder: Path) -> "Left":
        inverse = read_warp(folder / INVERSE_WARP) if (folder / INVERSE_WARP).exists() else None
        return cls(read_warp(folder / WARP), read_affine(folder / AFFINE), inverse)

    @property
    def transform(self) -> Chain:
        return Chain([self.warp, self.start])


PEERS = {
    # module, largest remaining share of the error of the affine map, whether it has an inverse
    "greedy": ("picsl_greedy", 0.3, True),
    "ants-syn": ("ants", 0.55, True),
    "elastix": ("itk", 0.3, False),
    "convexadam": ("convexAdam", 0.5, False),
    "syntx": ("syntx", 0.5, True),
}
# syntx 5.4.15 leaves 5.2 of 5.9 mm here, where the grids are oblique; why is not known. On six
# pairs of scans whose grids are not, its overlap is like that of ANTs SyN (benchmarks/oasis-malf).
UNSOLVED = pytest.mark.xfail(reason="syntx 5.4.15 misses the oblique phantom", strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=UNSOLVED if m == "syntx" else ()) for m in PEERS]
)
def test_peer_brings_the_phantom_home(case: Case, tmp_path: Path, method: str):
    """Direction, order, signs, units and the inverse of the affine map are right."""
    module, rest, has_inverse = PEERS[method]
    installed_or_skip(module)
    out = tmp_path / "out folder"
    done = execute(case.job(method, out), limit=600, alone=False)
    assert done["status"] == "ok", done["reason"]
    left = Left.read(out)
    # ANTs writes the map again, with its numbers in float32.
    np.testing.assert_allclose(left.start.matrix, case.start.matrix, rtol=1e-5, atol=1e-4)
    before, after = case.error(case.start), case.error(left.transform)
    print(f"{method}: {before:.2f} -> {after:.2f} mm", case.overlap(left.transform))
    assert before > 5
    assert after < rest * before
    assert case.overlap(left.transform) > case.overlap(case.start) + 0.05
    for wrong in mistaken(left):
        assert case.error(wrong) > 1.5 * after
    assert (left.inverse_warp is not None) == has_inverse
    if left.inverse_warp is not None:
        back = Chain([left.start.inverse(), left.inverse_warp])
        error = back.map(left.transform.map(case.brain)) - case.brain
        assert np.linalg.norm(error, axis=-1).mean() < 0.3
    moved = read_volume(out / WARPED)
    assert moved.grid.matches(read_volume(case.folder / "fixed.nii.gz").grid)


def mistaken(left: Left) -> list[Transform]:
    """The field backwards, after the affine map, with ITK's signs, or its axes exchanged."""
    u, grid = left.warp.displacement, left.warp.grid
    others = -u, u * np.float32([-1, -1, 1])[:, None, None, None], u[[1, 0, 2]], u[::-1]
    fields = [Warp(np.ascontiguousarray(other), grid) for other in others]
    return [Chain([left.start, left.warp]), *(Chain([field, left.start]) for field in fields)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["greedy", "ants-syn"])
def test_peer_moves_the_image_as_its_own_files_say(case: Case, tmp_path: Path, method: str):
    """The tool's own resampling through the files in the folder gives ``Warped.nii.gz``."""
    sitk = pytest.importorskip("SimpleITK")
    installed_or_skip(PEERS[method][0])
    assert execute(case.job(method, tmp_path), limit=600, alone=False)["status"] == "ok"
    field = sitk.ReadImage(str(tmp_path / WARP), sitk.sitkVectorFloat64)
    transform = sitk.CompositeTransform(
        [sitk.ReadTransform(str(tmp_path / AFFINE)), sitk.DisplacementFieldTransform(field)]
    )
    images = (sitk.ReadImage(str(case.folder / f"{side}.nii.gz")) for side in ("moving", "fixed"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(*images, transform, sitk.sitkLinear, 0.0)).T
    ours = np.asarray(nib.load(tmp_path / WARPED).dataobj)
    inner = ours > 20
    assert np.abs(theirs - ours)[inner].mean() < 0.1


@pytest.mark.parametrize(
    ("name", "steps", "length", "gaussians"),
    [
        ("ants-syncc", (201, 201, 201), 0.25, (9, 0.2)),  # of the paper
        ("ants-syncc-100x70x50x20", (100, 70, 50, 20), 0.1, (3, 0)),  # antsRegistrationSyN.sh
    ],
)
def test_syn_with_cc_gets_the_settings_of_its_source(
    name: str,
    steps: tuple[int, ...],
    length: float,
    gaussians: tuple[float, float],
    case: Case,
    tmp_path: Path,
    monkeypatch,
):
    """It takes an hour per pair, and minutes even on phantoms, so ANTs is replaced by a fake."""
    options_given = {}

    def registration(*images: str, **options: object) -> None:
        options_given.update(options, images=images)
        methods.write_shift(run, of=0.0)

    fake = SimpleNamespace(image_read=lambda path: path, registration=registration)
    monkeypatch.setitem(sys.modules, "ants", fake)
    run = Run(case.job(name, tmp_path))
    run.job.save()
    METHODS[name].run(run)
    assert options_given == {
        "images": (run.job.fixed, run.job.moving),
        "type_of_transform": "SyNOnly",
        "initial_transform": [str(tmp_path / AFFINE)],
        "outprefix": f"{tmp_path}/",
        "random_seed": 1,
        "syn_metric": "CC",
        "syn_sampling": 4,
        "reg_iterations": steps,
        "grad_step": length,
        "flow_sigma": gaussians[0],
        "total_sigma": gaussians[1],
    }


def test_affine_is_the_affine_map_alone(case: Case, tmp_path: Path):
    job = case.job("affine", tmp_path)
    job.save()
    ours.affine(Run(job))
    left = Left.read(tmp_path)
    assert not left.warp.displacement.any()
    assert left.inverse_warp is not None
    assert not left.inverse_warp.displacement.any()
    points = case.brain
    np.testing.assert_allclose(left.transform.map(points), case.start.map(points), atol=1e-9)
    truth = unposed(replace(BENT, bend=0.0), TURNED(points))
    np.testing.assert_allclose(left.transform.map(points), truth, atol=1e-6)
    assert left.warp.grid.matches(read_volume(case.folder / "fixed.nii.gz").grid)


def test_elastix_residual_is_what_comes_before_the_affine_map(case: Case, tmp_path: Path):
    """A made-up map x ↦ A(x + w(x)), given as elastix does, returns w."""
    job = case.job("elastix", tmp_path)
    job.save()
    grid = read_volume(job.fixed).grid
    x = grid.nodes()
    w = 4 * np.sin(np.roll(x, 1, axis=-1) / 30 + [0.2, 1.0, 2.0])
    whole = (case.start.map(x + w) - x) * [-1, -1, 1]  # LPS
    displacement = np.moveaxis(whole, (0, 1, 2), (2, 1, 0))  # (Z, Y, X, 3), as ITK's arrays
    warp = elastix._residual(Run(job), displacement)
    np.testing.assert_allclose(np.moveaxis(warp.displacement, 0, -1), w, atol=1e-4)


def scans(phantoms, unlike_grids, folder: Path) -> tuple[Path, Path]:
    """A fixed and a moving scan."""
    paths = folder / "fixed.nii.gz", folder / "moving.nii.gz"
    for path, side, pose in zip(paths, ("fixed", "moving"), (Pose(), methods_pose()), strict=True):
        nib.save(phantoms.image(unlike_grids[side], pose), path)
    return paths


def methods_pose() -> Pose:
    return Pose(turn=(4, -3, 6), zoom=1.04, shift=(3, -4, 5), bend=3.0)


def of_network(result, paths: tuple[Path, Path], weights: Path, folder: Path) -> Job:
    """The job that starts from the affine maps that ``register`` found."""
    preparation = result.metrics["preparation"]
    matrices = (preparation[side]["template_to_scan"] for side in ("fixed", "moving"))
    folder.mkdir(exist_ok=True)
    job = Job("network", *map(str, paths), *matrices, str(folder), 1, str(weights), repeat=False)
    job.save()
    return job


def test_network_finds_what_register_finds(
    phantoms, unlike_grids, tiny_model: Path, register_quickly: Callable, tmp_path: Path
):
    paths = scans(phantoms, unlike_grids, tmp_path)
    result = register_quickly(paths[1], paths[0])
    job = of_network(result, paths, tiny_model, tmp_path / "out")
    run = Run(job)
    ours.network(run)
    left = Left.read(job.path)
    assert np.abs(result.warp.displacement).max() > 2
    np.testing.assert_allclose(left.warp.displacement, result.warp.displacement, atol=1e-6)
    assert left.inverse_warp is not None
    np.testing.assert_allclose(
        left.inverse_warp.displacement, result.inverse_warp.displacement, atol=1e-6
    )
    points = phantoms_points(result.fixed.grid)
    np.testing.assert_allclose(left.transform.map(points), result.transform.map(points), atol=1e-4)
    moved = np.asarray(nib.load(job.path / WARPED).dataobj)
    np.testing.assert_allclose(moved, result.warped.data, atol=0.02)
    assert {"read", "deform", "write"} == set(run.meter.seconds)
    assert run.device == "cpu"


def test_refined_finds_what_register_refines(
    phantoms, unlike_grids, tiny_model: Path, register_quickly: Callable, tmp_path: Path
):
    paths = scans(phantoms, unlike_grids, tmp_path)
    plain, result = (register_quickly(paths[1], paths[0], refine=on) for on in (False, True))
    job = of_network(result, paths, tiny_model, tmp_path / "out")
    ours.refined(Run(job))
    left = Left.read(job.path)
    assert np.abs(result.warp.displacement - plain.warp.displacement).max() > 1
    np.testing.assert_allclose(left.warp.displacement, result.warp.displacement, atol=1e-3)
    assert left.inverse_warp is not None
    np.testing.assert_allclose(
        left.inverse_warp.displacement, result.inverse_warp.displacement, atol=1e-3
    )


def phantoms_points(grid: Grid) -> np.ndarray:
    rng = np.random.default_rng(5)
    return grid.to_world(rng.uniform(0.2, 0.8, (200, 3)) * np.array(grid.shape))


@pytest.fixture(scope="module")
def one_way_model(tmp_path_factory) -> Path:
    """A VoxelMorph-1 at 6 mm with random weights, whose network gives no inverse."""
    recipe = Recipe(Recipe().grid.resized((32, 32, 48)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Model.build({"name": "voxelmorph"}, recipe)
        torch.nn.init.normal_(model.network.unet.flow.weight, std=0.1)
    folder = tmp_path_factory.mktemp("models") / "one-way"
    model.save(folder)
    return folder


def test_network_without_an_inverse_gets_one(
    phantoms, unlike_grids, one_way_model: Path, quick_affine, tmp_path: Path
):
    from voxwarp.registration.register import register

    paths = scans(phantoms, unlike_grids, tmp_path)
    result = register(paths[1], paths[0], one_way_model)
    job = of_network(result, paths, one_way_model, tmp_path / "out")
    ours.network(Run(job))
    left = Left.read(job.path)
    assert np.abs(left.warp.displacement).max() > 0.5
    np.testing.assert_allclose(left.warp.displacement, result.warp.displacement, atol=1e-6)
    np.testing.assert_allclose(
        left.inverse_warp.displacement, result.inverse_warp.displacement, atol=1e-6
    )


def test_weights_that_changed_meanwhile_are_refused(tiny_model: Path, case: Case, tmp_path: Path):
    """A running training writes into the folder that is benchmarked."""
    job = case.job("network", tmp_path, weights=str(tiny_model), weights_sha256="0" * 64)
    with pytest.raises(InputError, match="its weights have changed since the benchmark started"):
        ours.network(Run(job))
    known = Model.load(tiny_model).sha256
    assert load_model(str(tiny_model)).sha256 == known


def test_paths_for_greedy_are_escaped():
    assert greedy._escaped("/a/b-c_1.nii.gz") == "/a/b-c_1.nii.gz"
    assert greedy._escaped("/a b/ö(1),'x'.nii") == r"/a\ b/ö\(1\)\,\'x\'.nii"
