"""Methods of a benchmark: what they find brings phantoms home, and is written as it was found."""

import hashlib
import importlib.util
import json
import os
import subprocess
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
from brains import CENTER, Pose
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxwarp.benchmark import baselines
from voxwarp.benchmark.baselines import (
    AFFINE,
    AFFINE_ELASTIX,
    AFFINE_TEXT,
    INVERSE,
    METHODS,
    REPEATS,
    WARP,
    WARPED,
    Job,
    Run,
    located,
    method_of,
    missing,
    model_of,
)
from voxwarp.benchmark.benchmark import execute
from voxwarp.errors import InputError
from voxwarp.measures.overlap import dice
from voxwarp.networks.model import Model, Recipe
from voxwarp.space.formats import read_affine, read_warp
from voxwarp.space.grid import Grid
from voxwarp.space.resample import resample_labels
from voxwarp.space.transform import Affine, Chain, Transform, Warp
from voxwarp.space.volume import read_labels, read_volume

# Both heads lie far from the template and from each other, so that a transform that is taken in
# the wrong direction or order is centimetres off; the second is bent as well.
TURNED = Pose(turn=(-10, 8, 15), zoom=0.95, shift=(8, 5, -6))
BENT = Pose(turn=(14, -12, -18), zoom=1.06, shift=(-7, 6, 9), bend=5.0)


def affine_of(pose: Pose) -> Affine:
    """The pose without its bend: from the scan to the template."""
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", pose.turn, degrees=True).as_matrix()
    matrix[:3, :3] = pose.zoom * turn
    matrix[:3, 3] = CENTER + pose.shift - matrix[:3, :3] @ CENTER
    return Affine(matrix)


def unposed(pose: Pose, points: np.ndarray) -> np.ndarray:
    """The points of the scan that a pose takes to ``points`` of the template."""
    straight = affine_of(pose).inverse().map(points)
    found = straight
    for _ in range(100):  # the bend is gentle: a contraction
        waves = np.sin(np.roll(found, 1, axis=-1) / 23 + np.array([0.3, 1.1, 2.0]))
        found = straight - pose.bend * waves
    np.testing.assert_allclose(pose(found), points, atol=1e-6)
    return found


@dataclass(frozen=True)
class Case:
    """Two phantoms in files, and where each point of the fixed one is in the moving one."""

    folder: Path
    brain: np.ndarray  # points of it, RAS mm

    def job(self, method: str, folder: Path, **more: object) -> Job:
        poses = (affine_of(pose).inverse().fixed_to_moving.tolist() for pose in (TURNED, BENT))
        scans = (str(self.folder / f"{side}.nii.gz") for side in ("fixed", "moving"))
        return Job(method, *scans, *poses, str(folder), 1, **{"repeat": False, **more})

    @property
    def start(self) -> Affine:
        return affine_of(BENT).inverse().after(affine_of(TURNED))

    def home(self, points: np.ndarray) -> np.ndarray:
        return unposed(BENT, TURNED(points))

    def error(self, transform: Transform) -> float:
        """Mean distance from the truth, mm."""
        found = transform.map(self.brain)
        return float(np.linalg.norm(found - self.home(self.brain), axis=-1).mean())

    def overlap(self, transform: Transform) -> float:
        """Mean Dice of the octants, each eroded and so with all its border in the brain."""
        fixed, moving = (
            read_labels(path, read_volume(str(path).replace("-labels", "")))
            for path in (self.folder / f"{side}-labels.nii.gz" for side in ("fixed", "moving"))
        )
        values = dice(resample_labels(moving, fixed.grid, transform).data, fixed.data)
        return float(np.mean(list(values.values())))


def there_or_skip(module: str) -> None:
    """Without an import: ITK's in one process with others end it with a segmentation fault."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


@pytest.fixture(scope="module")
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


@dataclass(frozen=True)
class Left:
    """What a method left in its folder."""

    warp: Warp
    start: Affine
    inverse_warp: Warp | None

    @classmethod
    def read(cls, folder: Path) -> "Left":
        inverse = read_warp(folder / INVERSE) if (folder / INVERSE).exists() else None
        return cls(read_warp(folder / WARP), read_affine(folder / AFFINE), inverse)

    @property
    def transform(self) -> Chain:
        return Chain([self.warp, self.start])


# ----------------------------------------------------------------------------------- The peers


PEERS = {
    # module, largest error left of the affine map's, whether there is an inverse
    "greedy": ("picsl_greedy", 0.3, True),
    "ants-syn": ("ants", 0.55, True),
    "elastix": ("itk", 0.3, False),
    "convexadam": ("convexAdam", 0.5, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", PEERS)
def test_peer_brings_the_phantom_home(case: Case, tmp_path: Path, method: str):
    """Direction, order, signs, units and the affine's inverse; or it would be far off."""
    module, rest, has_inverse = PEERS[method]
    there_or_skip(module)
    out = tmp_path / "out folder"
    done = execute(case.job(method, out), limit=600, alone=False)
    assert done["status"] == "ok", done["reason"]
    left = Left.read(out)
    # ANTs writes the map again, with its numbers in float32.
    np.testing.assert_allclose(
        left.start.fixed_to_moving, case.start.fixed_to_moving, rtol=1e-5, atol=1e-4
    )
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
    there_or_skip(PEERS[method][0])
    assert execute(case.job(method, tmp_path), limit=600, alone=False)["status"] == "ok"
    field = sitk.ReadImage(str(tmp_path / WARP), sitk.sitkVectorFloat64)
    both = sitk.CompositeTransform(
        [sitk.ReadTransform(str(tmp_path / AFFINE)), sitk.DisplacementFieldTransform(field)]
    )
    images = (sitk.ReadImage(str(case.folder / f"{side}.nii.gz")) for side in ("moving", "fixed"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(*images, both, sitk.sitkLinear, 0.0)).T
    ours = np.asarray(nib.load(tmp_path / WARPED).dataobj)
    inner = ours > 20
    assert np.abs(theirs - ours)[inner].mean() < 0.1


def test_the_papers_syn_is_told_the_papers_settings(case: Case, tmp_path: Path, monkeypatch):
    """It takes an hour a pair, and minutes even on phantoms: here ANTs only listens."""
    told = {}

    def registration(*images: str, **options: object) -> None:
        told.update(options, images=images)
        methods.write_shift(run, of=0.0)

    fake = SimpleNamespace(image_read=lambda path: path, registration=registration)
    monkeypatch.setitem(sys.modules, "ants", fake)
    run = Run(case.job("ants-syncc", tmp_path))
    run.job.save()
    baselines.ants_syncc(run)
    assert told == {
        "images": (run.job.fixed, run.job.moving),
        "type_of_transform": "SyNOnly",
        "initial_transform": [str(tmp_path / AFFINE)],
        "outprefix": f"{tmp_path}/",
        "random_seed": 1,
        "syn_metric": "CC",
        "syn_sampling": 4,
        "reg_iterations": (201, 201, 201),
        "grad_step": 0.25,
        "flow_sigma": 9,
        "total_sigma": 0.2,
    }


def test_affine_is_the_given_map_and_nothing_else(case: Case, tmp_path: Path):
    job = case.job("affine", tmp_path)
    job.save()
    baselines.affine(Run(job))
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
    """A made-up map x ↦ A(x + w(x)), told as elastix does, gives w again."""
    job = case.job("elastix", tmp_path)
    job.save()
    grid = read_volume(job.fixed).grid
    x = grid.nodes()
    w = 4 * np.sin(np.roll(x, 1, axis=-1) / 30 + [0.2, 1.0, 2.0])
    whole = (case.start.map(x + w) - x) * [-1, -1, 1]  # LPS
    told = np.moveaxis(whole, (0, 1, 2), (2, 1, 0))  # (Z, Y, X, 3), as ITK's arrays
    warp = baselines._residual(Run(job), told)
    np.testing.assert_allclose(np.moveaxis(warp.displacement, 0, -1), w, atol=1e-4)


# --------------------------------------------------------------------------------- Our networks


def scans(phantoms, unlike_grids, folder: Path) -> tuple[Path, Path]:
    """A fixed and a moving scan."""
    paths = folder / "fixed.nii.gz", folder / "moving.nii.gz"
    for path, side, pose in zip(paths, ("fixed", "moving"), (Pose(), methods_pose()), strict=True):
        nib.save(phantoms.image(unlike_grids[side], pose), path)
    return paths


def methods_pose() -> Pose:
    return Pose(turn=(4, -3, 6), zoom=1.04, shift=(3, -4, 5), bend=3.0)


def of_network(result, paths: tuple[Path, Path], weights: Path, folder: Path) -> Job:
    """The job that starts from where ``register`` found the scans."""
    found = result.metrics["preparation"]
    poses = (found[side]["template_to_scan"] for side in ("fixed", "moving"))
    folder.mkdir(exist_ok=True)
    job = Job("network", *map(str, paths), *poses, str(folder), 1, str(weights), repeat=False)
    job.save()
    return job


def test_network_finds_what_register_finds(
    phantoms, unlike_grids, tiny_model: Path, register_quickly: Callable, tmp_path: Path
):
    paths = scans(phantoms, unlike_grids, tmp_path)
    result = register_quickly(paths[1], paths[0])
    job = of_network(result, paths, tiny_model, tmp_path / "out")
    run = Run(job)
    baselines.network(run)
    left = Left.read(job.place)
    assert np.abs(result.warp.displacement).max() > 2
    np.testing.assert_allclose(left.warp.displacement, result.warp.displacement, atol=1e-6)
    assert left.inverse_warp is not None
    np.testing.assert_allclose(
        left.inverse_warp.displacement, result.inverse_warp.displacement, atol=1e-6
    )
    points = phantoms_points(result.fixed.grid)
    np.testing.assert_allclose(left.transform.map(points), result.transform.map(points), atol=1e-4)
    moved = np.asarray(nib.load(job.place / WARPED).dataobj)
    np.testing.assert_allclose(moved, result.warped.data, atol=0.02)
    assert {"read", "deform", "write"} == set(run.meter.seconds)
    assert run.device == "cpu"


def test_refined_finds_what_register_refines(
    phantoms, unlike_grids, tiny_model: Path, register_quickly: Callable, tmp_path: Path
):
    paths = scans(phantoms, unlike_grids, tmp_path)
    plain, result = (register_quickly(paths[1], paths[0], refine=on) for on in (False, True))
    job = of_network(result, paths, tiny_model, tmp_path / "out")
    baselines.refined(Run(job))
    left = Left.read(job.place)
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
    """A VoxelMorph-1 at 6 mm with random weights, which has no inverse of its own."""
    recipe = Recipe(Recipe().grid.resized((32, 32, 48)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Model.build({"name": "voxelmorph"}, recipe)
        torch.nn.init.normal_(model.network.unet.flow.weight, std=0.1)
    folder = tmp_path_factory.mktemp("models") / "one-way"
    model.save(folder)
    return folder


def test_network_without_an_inverse_leaves_none(
    phantoms, unlike_grids, one_way_model: Path, quick_affine, tmp_path: Path
):
    from voxwarp.registration.registration import register

    paths = scans(phantoms, unlike_grids, tmp_path)
    result = register(paths[1], paths[0], one_way_model)
    job = of_network(result, paths, one_way_model, tmp_path / "out")
    baselines.network(Run(job))
    left = Left.read(job.place)
    assert np.abs(left.warp.displacement).max() > 0.5
    np.testing.assert_allclose(left.warp.displacement, result.warp.displacement, atol=1e-6)
    assert left.inverse_warp is None


def test_weights_that_changed_meanwhile_are_refused(tiny_model: Path, case: Case, tmp_path: Path):
    """A training that goes on writes into the folder that is benchmarked."""
    job = case.job("network", tmp_path, weights=str(tiny_model), weights_sha256="0" * 64)
    with pytest.raises(InputError, match="changed meanwhile"):
        baselines.network(Run(job))
    known = Model.load(tiny_model).sha256
    assert model_of(str(tiny_model)).sha256 == known


def test_model_of_another_space_is_refused(tiny_model: Path, tmp_path: Path):
    """The affine map goes through MNI152 space: for such a model it would mean nothing."""
    model = Model.load(tiny_model)
    model.recipe = replace(model.recipe, alignment="centre")
    model.save(tmp_path / "centred")
    with pytest.raises(InputError, match="centre"):
        model_of(str(tmp_path / "centred"))


@pytest.mark.data
def test_weights_of_the_authors_have_a_hash(data: Path):
    pytest.importorskip("h5py")
    path = data.parent / "peers" / "voxelmorph-cvpr2018" / "vm1_cc.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert model_of(str(path)).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# ----------------------------------------------------------------------------------------- Jobs


def test_affine_files_of_a_job_are_one_map(case: Case, tmp_path: Path):
    """For ITK, greedy and elastix, from the fixed to the moving scan, by way of the template."""
    case.job("affine", tmp_path).save()
    points = case.brain[:50]
    truth = unposed(replace(BENT, bend=0.0), TURNED(points))
    np.testing.assert_allclose(read_affine(tmp_path / AFFINE).map(points), truth, atol=1e-6)
    matrix = np.loadtxt(tmp_path / AFFINE_TEXT)  # greedy's: 4x4, RAS
    ones = np.column_stack([points, np.ones(len(points))])
    np.testing.assert_allclose((ones @ matrix.T)[:, :3], truth, atol=1e-6)
    assert "AffineTransform" in (tmp_path / AFFINE_ELASTIX).read_text()


def test_saved_job_is_read_from_anywhere(case: Case, tiny_model: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(case.folder)
    monkeypatch.setenv("VOXWARP_MODELS", os.path.relpath(tiny_model.parent))
    (tmp_path / "out").mkdir()
    job = case.job("network", Path(os.path.relpath(tmp_path / "out")), weights="tiny")
    job = replace(job, fixed="fixed.nii.gz", moving="./moving.nii.gz")
    path = job.save()
    monkeypatch.chdir("/")
    read = Job(**json.loads(path.read_text()))
    assert Path(read.fixed).samefile(case.folder / "fixed.nii.gz")
    assert Path(read.moving).samefile(case.folder / "moving.nii.gz")
    assert read.place.samefile(tmp_path / "out")
    assert Path(str(read.weights)).samefile(tiny_model)
    again = replace(
        read, fixed=job.fixed, moving=job.moving, folder=job.folder, weights=job.weights
    )
    assert again == job


def test_module_runs_a_job(case: Case, tmp_path: Path):
    """``python -m voxwarp.benchmark.baselines JOB.json``, as its documentation has it."""
    path = case.job("voxwarp.benchmark.baselines:affine", tmp_path).save()
    done = subprocess.run(
        [sys.executable, "-m", "voxwarp.benchmark.baselines", path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    assert set(record["seconds"]) == {"deform", "write"} == set(record["memory_mb"])
    assert 20 < record["memory_mb"]["deform"] < 5000
    assert record["device"] == "cpu"
    assert not read_warp(tmp_path / WARP).displacement.any()


def a_run(folder: Path, **more: object) -> Run:
    pose = np.eye(4).tolist()
    return Run(Job("affine", "fixed", "moving", pose, pose, str(folder), 1, **more))


@pytest.mark.parametrize(
    ("first", "repeat", "calls"), [(2.0, True, 1 + REPEATS), (12.0, True, 1), (2.0, False, 1)]
)
def test_quick_stage_is_repeated(monkeypatch, tmp_path, first: float, repeat: bool, calls: int):
    """The first run warms up; the median of the others is the time, and they are left out."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    took = iter([first, 0.5, 3.0, 0.7])
    seen = []

    def stage() -> int:
        clock.now += next(took)
        seen.append(len(seen))
        return seen[-1]

    run = a_run(tmp_path, repeat=repeat)
    assert run.deform(stage) == 0, "the first result is the one that counts"
    assert len(seen) == calls
    record = run.record()
    assert record["first_s"] == pytest.approx(first)
    assert record["seconds"]["deform"] == pytest.approx(0.7 if calls > 1 else first)
    assert record["repeated_s"] == pytest.approx(4.2 if calls > 1 else 0)


def test_words_of_greedy_are_escaped():
    assert baselines._word("/a/b-c_1.nii.gz") == "/a/b-c_1.nii.gz"
    assert baselines._word("/a b/ö(1),'x'.nii") == r"/a\ b/ö\(1\)\,\'x\'.nii"


# -------------------------------------------------------------------------------------- Methods


def test_methods_by_name():
    for name, method in METHODS.items():
        assert method_of(name) is method.run
        assert method.run.__doc__
    assert method_of("methods:shift") is methods.shift


@pytest.mark.parametrize("name", ["gredy", "methods:gone", "no_such_module:f", "methods:SHIFT"])
def test_no_such_method(name: str):
    with pytest.raises(InputError, match=name.partition(":")[0]):
        method_of(name)


def test_missing_package(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def version(name: str) -> str:
        if name == "picsl-greedy":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(baselines, "version", version)
    assert missing("greedy") == "picsl-greedy"
    assert missing("elastix") is None
    assert missing("affine") is None


def test_where_models_are(tiny_model: Path, monkeypatch, tmp_path):
    monkeypatch.chdir(tiny_model.parent)
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path))
    assert Path(located("tiny")) == tiny_model
    assert located("weights.h5") == str(tiny_model.parent / "weights.h5")
    shelf = tmp_path / "tiny"  # an installed model wins over a folder beside us
    Model.load(tiny_model).save(shelf)
    assert Path(located("tiny")) == shelf
    with pytest.raises(InputError, match="gone"):
        located("gone")
