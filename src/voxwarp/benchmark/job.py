"""One method on one pair: the job, and time and memory of its run.

Heavy modules are imported only where they are needed, so that the memory measured for other tools
does not include them.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._layout import AFFINE, INVERSE_WARP, WARP, WARPED
from .._meter import Meter
from .weights import locate_model

if TYPE_CHECKING:
    from ..space.transform import Warp


# The affine map in the formats of greedy and elastix; other files have the names of ``layout``.
AFFINE_TEXT, AFFINE_ELASTIX = "affine.txt", "affine-elastix.txt"
JOB, RECORD = "job.json", "run.json"
#: A deformable stage of less than QUICK seconds runs REPEATS more times, and their median counts,
#: because the first run includes warming up. Both are set by hand.
QUICK, REPEATS = 10.0, 3


@dataclass(frozen=True)
class Job:
    """One method, one pair.

    Args:
        method: key of ``METHODS``, or a function of your own as ``module:function``.
        fixed, moving: paths of the two brains.
        template_to_fixed, template_to_moving: maps from MNI152 space to the scans, (4, 4), RAS mm.
        folder: folder with the files of the affine map, and for the results.
        threads: number of threads that the method may use.
        weights: weights of a network: an installed model, a model's folder or a Keras file.
        device: device of a network, "cpu", "cuda" or "auto".
        repeat: run a quick deformable stage several times, as far as the limit allows.
        limit: seconds after which the run is stopped.
        weights_sha256, settings_sha256: hashes of the weights and of the other settings of a
            model; the run fails if they have changed.
        package: name and version of the package that the method uses.
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
    settings_sha256: str = ""
    package: str = ""

    @property
    def path(self) -> Path:
        """The folder as a ``Path``."""
        return Path(self.folder)

    def save(self) -> Path:
        """Write the job and the affine map, in the formats of all methods, into its folder.

        The paths in the file are absolute, because the process that reads it has another folder.
        """
        from ..space.formats import write_affine, write_elastix_affine
        from ..space.transform import Affine

        fixed, moving = (
            Affine(np.array(matrix)) for matrix in (self.template_to_fixed, self.template_to_moving)
        )
        start = moving.after(fixed.inverse())
        write_affine(start, self.path / AFFINE)
        write_elastix_affine(start, self.path / AFFINE_ELASTIX)
        np.savetxt(self.path / AFFINE_TEXT, start.matrix)
        paths = {
            key: str(Path(getattr(self, key)).absolute()) for key in ("fixed", "moving", "folder")
        }
        if self.weights is not None:
            paths["weights"] = locate_model(self.weights)
        path = self.path.absolute() / JOB
        path.write_text(json.dumps(asdict(self) | paths))
        return path


@dataclass
class Run:
    """The run of a job, in which the method works.

    Args:
        job: the job.
        meter: time and memory of the stages read, deform, inverse, write, and others of a method.
        first: seconds of the first run of the deformable stage, including warm-up.
        repeated: seconds of the repetitions of the deformable stage.
        device: name of the device on which the method ran.
    """

    job: Job
    meter: Meter = field(default_factory=Meter)
    first: float = 0.0
    repeated: float = 0.0
    device: str = "cpu"

    def deform(self, stage: Callable[[], Any]) -> Any:
        """Run and time the deformable stage; repeat a quick one if the job says so.

        Args:
            stage: a function without arguments that deforms.

        Returns:
            What the first call of ``stage`` returned.
        """
        with self.meter.stage("deform"):
            result = stage()
        self.first = self.meter.seconds["deform"]
        if self.job.repeat and self.first < min(QUICK, self.job.limit / (2 * REPEATS + 2)):
            times = [_seconds(stage) for _ in range(REPEATS)]
            self.repeated = sum(times)
            self.meter.seconds["deform"] = statistics.median(times)
        return result

    def write(self, warp: "Warp | None" = None, inverse: "Warp | None" = None) -> None:
        """Write the result files, which are the same for all methods.

        Args:
            warp: W of x ↦ A(W(x)), on the fixed grid; None if the method has already written
                ``1Warp.nii.gz``, and its inverse beside it if it has one.
            inverse: W⁻¹, if the method has one.
        """
        from .._files import run_in_parallel
        from ..space import formats
        from ..space.resample import resample
        from ..space.transform import Chain
        from ..space.volume import read_volume, write_volume

        folder, jobs = self.job.path, list[Callable[[], None]]()
        with self.meter.stage("write"):
            start = formats.read_affine(folder / AFFINE)
            for field_, name in ((warp, WARP), (inverse, INVERSE_WARP)):
                if field_ is not None:
                    jobs.append(partial(formats.write_warp, field_, folder / name))
            warp = warp or formats.read_warp(folder / WARP)
            moved = resample(read_volume(self.job.moving), warp.grid, Chain([warp, start]))
            run_in_parallel([*jobs, lambda: write_volume(moved, folder / WARPED)])

    def record(self) -> dict[str, Any]:
        """Times, memory and device, for ``run.json``."""
        return {
            "seconds": self.meter.seconds,
            "memory_mb": self.meter.memory_mb,
            "first_s": self.first,
            "repeated_s": self.repeated,
            "device": self.device,
        }


def _seconds(stage: Callable[[], Any]) -> float:
    with (meter := Meter(memory=False)).stage("repeat"):
        stage()
    return meter.seconds["repeat"]
