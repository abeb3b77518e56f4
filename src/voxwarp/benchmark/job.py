"""The methods of a benchmark: how each is told to deform one scan onto another.

All get the same two brains and the same affine map between them, and leave the deformable part
as ITK's files. ``python -m voxwarp.benchmark.baselines JOB.json`` runs one of them on one pair in
a process of its own, so that a crash, a hang or a leak stays there. Nothing heavy is imported
before it is needed: what other tools hold in memory shall not be ours.
"""

import ctypes
import hashlib
import json
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..meter import Meter

if TYPE_CHECKING:
    from ..networks.model import Model
    from ..networks.refine import Refinement
    from ..space.transform import Warp

# The affine map as it is given to a method, for ITK, greedy and elastix; then what it leaves.
AFFINE, AFFINE_TEXT, AFFINE_ELASTIX = "0GenericAffine.mat", "affine.txt", "affine-elastix.txt"
WARP, INVERSE, WARPED = "1Warp.nii.gz", "1InverseWarp.nii.gz", "Warped.nii.gz"
JOB, RECORD = "job.json", "run.json"
KERAS = ".h5", ".hdf5"  # endings of the weights of the paper's authors

QUICK, REPEATS = 10.0, 3  # seconds of a deformable stage that is repeated, and how often


@dataclass(frozen=True)
class Job:
    """One method, one pair.

    Args:
        method: key of ``METHODS``, or a function of the user's as ``module:function``.
        fixed, moving: paths of the two brains.
        template_to_fixed, template_to_moving: where they lie in MNI152 space, (4, 4), RAS mm.
        folder: holds the two files of the affine map, and takes what is found.
        threads: that the method may use.
        weights: of a network: an installed model, a model's folder or a Keras file.
        device: "cpu", "cuda" or "auto", of a network.
        repeat: run a quick deformable stage several times, since its first run warms up, as far
            as the limit allows.
        limit: seconds after which it is stopped.
        weights_sha256: of the weights, to be refused if they are others by then.
        package: name and version of the package behind the method.
    """

    method: str
    fixed: str
    moving: str
    template_to_fixed: list[list[float]]
    template_to_moving: list[list[float]]
    folder: str
    threads: int
    weights: str | None = None
    device: str = "cpu"
    repeat: bool = True
    limit: float = 3600.0
    weights_sha256: str = ""
    package: str = ""

    @property
    def place(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def save(self) -> Path:
        """Write it and the affine map into its folder, as the methods and this module want them.

        Its paths are absolute then: whoever reads it may be elsewhere.
        """
        from ..space.formats import write_affine, write_elastix_affine
        from ..space.transform import Affine

        fixed, moving = (
            Affine(np.array(pose)) for pose in (self.template_to_fixed, self.template_to_moving)
        )
        start = moving.after(fixed.inverse())
        write_affine(start, self.place / AFFINE)
        write_elastix_affine(start, self.place / AFFINE_ELASTIX)
        np.savetxt(self.place / AFFINE_TEXT, start.fixed_to_moving)
        paths = {
            key: str(Path(getattr(self, key)).absolute()) for key in ("fixed", "moving", "folder")
        }
        if self.weights is not None:
            paths["weights"] = located(self.weights)
        path = self.place.absolute() / JOB
        path.write_text(json.dumps(asdict(self) | paths))
        return path


@dataclass
class Run:
    """A method at work on a job.

    Args:
        job: what is to be done.
        meter: has the stages read, deform, inverse and write, and what a method adds.
        first: seconds of the first run of the deformable stage, warm-up included.
        repeated: seconds that were spent on running it again.
        device: what the method ran on, as a word.
    """

    job: Job
    meter: Meter = field(default_factory=Meter)
    first: float = 0.0
    repeated: float = 0.0
    device: str = "cpu"

    def deform(self, stage: Callable[[], Any]) -> Any:
        """Run the deformable stage; a quick one again, if that is asked for."""
        with self.meter.stage("deform"):
            found = stage()
        self.first = self.meter.seconds["deform"]
        if self.job.repeat and self.first < min(QUICK, self.job.limit / (2 * REPEATS + 2)):
            began = time.perf_counter()
            again = [_seconds(stage) for _ in range(REPEATS)]
            self.repeated = time.perf_counter() - began
            self.meter.seconds["deform"] = statistics.median(again)
        return found

    def write(self, warp: "Warp | None" = None, inverse: "Warp | None" = None) -> None:
        """Write the files that every method leaves.

        Args:
            warp: W of x ↦ A(W(x)), on the fixed grid; None: ``1Warp.nii.gz`` is there already,
                and its inverse beside it if the method has one.
            inverse: W⁻¹, if the method has one.
        """
        from ..files import side_by_side
        from ..space import formats
        from ..space.resample import resample
        from ..space.transform import Chain
        from ..space.volume import read_volume, write_volume

        place, jobs = self.job.place, list[Callable[[], None]]()
        with self.meter.stage("write"):
            start = formats.read_affine(place / AFFINE)
            for field_, name in ((warp, WARP), (inverse, INVERSE)):
                if field_ is not None:
                    jobs.append(partial(formats.write_warp, field_, place / name))
            warp = warp or formats.read_warp(place / WARP)
            moved = resample(read_volume(self.job.moving), warp.grid, Chain([warp, start]))
            side_by_side([*jobs, lambda: write_volume(moved, place / WARPED)])

    def record(self) -> dict[str, Any]:
        """What became of it, for JSON."""
        return {
            "seconds": self.meter.seconds,
            "memory_mb": self.meter.memory_mb,
            "first_s": self.first,
            "repeated_s": self.repeated,
            "device": self.device,
        }


def _seconds(stage: Callable[[], Any]) -> float:
    began = time.perf_counter()
    stage()
    return time.perf_counter() - began


# ------------------------------------------------------------------------------------- Methods


def affine(run: Run) -> None:
    """The affine map alone: a field of zeros."""
    from ..space.transform import Warp
    from ..space.volume import read_volume

    grid = read_volume(run.job.fixed).grid
    still = run.deform(lambda: Warp(np.zeros((3, *grid.shape), np.float32), grid))
    run.write(still, still)


def ants_syn(run: Run) -> None:
    """ANTs SyN as antspyx has it by default: mutual information, 40x20x0, step 0.2."""
    _ants(run)


def ants_syncc(run: Run) -> None:
    """ANTs SyN as the paper ran it (CVPR 2018): CC, step 0.25, Gaussians of 9 and 0.2, 3 × 201."""
    _ants(
        run,
        syn_metric="CC",
        syn_sampling=4,
        reg_iterations=(201, 201, 201),
        grad_step=0.25,
        flow_sigma=9,
        total_sigma=0.2,
    )


def _ants(run: Run, **options: Any) -> None:
    import ants

    place = run.job.place
    with run.meter.stage("read"):
        fixed, moving = (ants.image_read(path) for path in (run.job.fixed, run.job.moving))
    run.deform(
        lambda: ants.registration(
            fixed,
            moving,
            type_of_transform="SyNOnly",
            initial_transform=[str(place / AFFINE)],
            outprefix=f"{place}/",
            random_seed=1,
            **options,
        )
    )
    run.write()


def greedy(run: Run) -> None:
    """Greedy with local correlation in 5³ windows, 100x50x10 steps."""
    import picsl_greedy

    job, place = run.job, run.job.place
    tool = picsl_greedy.Greedy3D()
    same = f"-d 3 -threads {job.threads}"
    run.deform(
        lambda: tool.execute(
            f"{same} -m NCC 2x2x2 -n 100x50x10 -i {_word(job.fixed)} {_word(job.moving)} "
            f"-it {_word(place / AFFINE_TEXT)} -o {_word(place / 'warp.nii')}"
        )
    )
    with run.meter.stage("inverse"):
        tool.execute(f"{same} -iw {_word(place / 'warp.nii')} {_word(place / 'inverse.nii')}")
    warp, inverse = _itk_fields(place / "warp.nii", place / "inverse.nii")
    run.write(warp, inverse)


def _word(path: str | Path) -> str:
    """A path as one word of greedy's command line, spaces and quotes in it or not."""
    return re.sub(r"([^\w/.-])", r"\\\1", str(path))


def _itk_fields(*paths: Path) -> list[Any]:
    from ..space.formats import read_warp

    warps = [read_warp(path) for path in paths]
    for path in paths:
        path.unlink()
    return warps


def elastix(run: Run) -> None:
    """Elastix's default B-spline: mutual information, control points every 10 mm, no inverse."""
    import itk

    job, place = run.job, run.job.place
    with run.meter.stage("read"):
        fixed, moving = (itk.imread(path, itk.F) for path in (job.fixed, job.moving))
        parameters = itk.ParameterObject.New()
        settings = parameters.GetDefaultParameterMap("bspline")
        settings["WriteResultImage"] = ("false",)  # the moved image, which everybody makes alike
        parameters.AddParameterMap(settings)

    def stage() -> Any:
        # Threads are those of the environment: number_of_threads= is a segmentation fault (0.25.4).
        _, found = itk.elastix_registration_method(
            fixed,
            moving,
            parameter_object=parameters,
            initial_transform_parameter_file_name=str(place / AFFINE_ELASTIX),
            log_to_console=False,
        )
        return itk.array_from_image(itk.transformix_deformation_field(moving, found))

    run.write(_residual(run, run.deform(stage)))


def _residual(run: Run, whole: "np.ndarray") -> "Warp":
    """W of the map x ↦ A(W(x)) whose displacements (Z, Y, X, 3), LPS mm, elastix tells."""
    from ..space.formats import lps, read_affine
    from ..space.transform import Warp
    from ..space.volume import read_volume

    grid, start = read_volume(run.job.fixed).grid, read_affine(run.job.place / AFFINE)
    nodes = grid.nodes()
    moved = start.inverse().map(nodes + lps(np.moveaxis(whole, (0, 1, 2), (2, 1, 0))))
    return Warp(np.ascontiguousarray(np.moveaxis(moved - nodes, -1, 0), np.float32), grid)


def convexadam(run: Run) -> None:
    """ConvexAdam with MIND features, its default settings, on the affinely moved scan."""
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    from ..preparation.prepare import from_zero, scaled
    from ..space.formats import read_affine
    from ..space.resample import resample
    from ..space.transform import Warp
    from ..space.volume import read_volume

    job = run.job
    torch.set_num_threads(job.threads)
    with run.meter.stage("read"):
        fixed, moving = (from_zero(read_volume(path)) for path in (job.fixed, job.moving))
    start, grid = read_affine(job.place / AFFINE), fixed.grid

    def stage() -> Warp:
        moved = resample(moving, grid, start)
        images = (255 * scaled(x.data, 99.5).astype(np.float32) for x in (fixed, moved))
        found = convex_adam_pt(*images, dtype=torch.float32, device=torch.device("cpu"))
        return Warp.from_voxels(torch.from_numpy(np.moveaxis(found, -1, 0).copy()).float(), grid)

    # moved ∘ u pulls A(x + u(x)): u is W itself.
    run.write(run.deform(stage))


def network(run: Run) -> None:
    """A model of voxwarp's, or weights of the paper's authors; an inverse where it has one."""
    _answer(run, None)


def refined(run: Run) -> None:
    """A model of voxwarp's, then its answer refined for the pair, as ``register --refine`` does."""
    from ..networks.refine import Refinement

    _answer(run, Refinement())


def _answer(run: Run, refinement: "Refinement | None") -> None:
    import torch

    from ..device import torch_device
    from ..preparation.prepare import Findings
    from ..registration.registration import images_of, on_fixed_grid, prepare_both, without_folds
    from ..space.transform import Affine, Warp
    from ..space.volume import read_volume

    job = run.job
    torch.set_num_threads(job.threads)
    device = torch_device(job.device)
    with run.meter.stage("read"):
        model = model_of(str(job.weights))
        if job.weights_sha256 not in ("", model.sha256):
            raise InputError(f"model {job.weights}: its weights have changed meanwhile")
        model.network.to(device)
        scans = read_volume(job.fixed), read_volume(job.moving)
    poses = [Affine(np.array(pose)) for pose in (job.template_to_fixed, job.template_to_moving)]
    found = [Findings("brain", scan.grid, pose) for scan, pose in zip(scans, poses, strict=True)]

    def stage() -> list[Warp]:
        f, m = prepare_both(model.recipe, *zip(scans, found, strict=True))
        images = images_of(m, f, device)
        deformation = model.deform(*images)
        if refinement:
            deformation = model.refine(*images, deformation, refinement)
        both = deformation.displacement, deformation.inverse
        fields = [u[0].cpu() for u in both if u is not None]
        warp, *inverse = on_fixed_grid(fields, model, f, scans[0].grid)
        if refinement or model.adjustable:
            warp = without_folds(warp, scans[0].data != 0)
        return [warp, *inverse]

    run.device = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    run.write(*run.deform(stage))


def model_of(weights: str) -> "Model":
    """The model of that name or folder, or the one in a Keras file.

    Raises:
        InputError: there is none, or its scans lie elsewhere than in MNI152 space.
    """
    from ..networks.keras import import_keras
    from ..networks.model import Model

    if weights.endswith(KERAS):
        model = import_keras(weights)
        model.sha256 = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        return model
    model = Model.load(weights)
    if model.recipe.alignment != "mni152":
        raise InputError(
            f"model {weights}: it takes scans as they lie ({model.recipe.alignment}), and all "
            f"methods of a benchmark start from an affine map through MNI152 space"
        )
    return model


def located(weights: str) -> str:
    """Where the model of that name, folder or Keras file is, wherever one looks from.

    Raises:
        InputError: there is no such model.
    """
    from ..networks.model import find

    path = Path(weights) if weights.endswith(KERAS) else find(weights)
    return str(path.absolute())


class Method(NamedTuple):
    """How a method is run, and the package on PyPI that it needs."""

    run: Callable[[Run], None]
    package: str | None = None


METHODS = {
    "affine": Method(affine),
    "ants-syn": Method(ants_syn, "antspyx"),
    "ants-syncc": Method(ants_syncc, "antspyx"),
    "greedy": Method(greedy, "picsl-greedy"),
    "elastix": Method(elastix, "itk-elastix"),
    "convexadam": Method(convexadam, "convexAdam"),
    "network": Method(network),  # any model, under the model's name
    "refined": Method(refined),  # and under that with rows.REFINE behind it
}
OF_MODELS = "network", "refined"


def method_of(name: str) -> Callable[[Run], None]:
    """A method's function: a key of ``METHODS``, or ``module:function``.

    A function of the user's gets a ``Run`` and does as those above do: it takes paths and
    threads from ``run.job``, finds its affine map in ``run.job.place``, hands its deformable
    stage to ``run.deform``, and ends with ``run.write``.

    Raises:
        InputError: there is no such function.
    """
    from ..named import function_named

    return METHODS[name].run if name in METHODS else function_named(name, "method", METHODS)


def missing(method: str) -> str | None:
    """The package that a method lacks here, if it does."""
    package = METHODS[method].package
    try:
        return version(package) and None if package else None
    except PackageNotFoundError:
        return package


def main() -> None:
    """Do the job whose file is named, and leave its record beside the other files.

    A second word is the number of the process that waits for it, and that it shall not outlive.
    """
    if len(sys.argv) > 2:
        _end_with(int(sys.argv[2]))
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    run, record = Run(job), dict[str, Any]()
    try:
        method_of(job.method)(run)
        record = run.record()
    except Exception as error:  # said here, since what tools print may come after the traceback
        record = {"reason": f"{type(error).__name__}: {error}".strip().splitlines()[-1]}
        raise
    finally:
        (job.place / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _end_with(parent: int) -> None:
    """Be killed when the parent ends, however it does; Linux can do that."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the process that wanted this is gone")


if __name__ == "__main__":
    main()
