"""One method on one pair: what is to be done, and what it took.

Nothing heavy is imported before it is needed: what other tools hold in memory shall not be ours.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layout import AFFINE, INVERSE_WARP, WARP, WARPED
from ..meter import Meter
from .weights import locate_model

if TYPE_CHECKING:
    from ..space.transform import Warp


# The affine map as greedy and elastix are given it; other files have the names of ``layout``.
AFFINE_TEXT, AFFINE_ELASTIX = "affine.txt", "affine-elastix.txt"
JOB, RECORD = "job.json", "run.json"
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
    def path(self) -> Path:
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
            again = [_seconds(stage) for _ in range(REPEATS)]
            self.repeated = sum(again)
            self.meter.seconds["deform"] = statistics.median(again)
        return found

    def write(self, warp: "Warp | None" = None, inverse: "Warp | None" = None) -> None:
        """Write the files that every method leaves.

        Args:
            warp: W of x ↦ A(W(x)), on the fixed grid; None: ``1Warp.nii.gz`` is there already,
                and its inverse beside it if the method has one.
            inverse: W⁻¹, if the method has one.
        """
        from ..files import run_in_parallel
        from ..space import formats
        from ..space.resample import resample
        from ..space.transform import Chain
        from ..space.volume import read_volume, write_volume

        place, jobs = self.job.path, list[Callable[[], None]]()
        with self.meter.stage("write"):
            start = formats.read_affine(place / AFFINE)
            for field_, name in ((warp, WARP), (inverse, INVERSE_WARP)):
                if field_ is not None:
                    jobs.append(partial(formats.write_warp, field_, place / name))
            warp = warp or formats.read_warp(place / WARP)
            moved = resample(read_volume(self.job.moving), warp.grid, Chain([warp, start]))
            run_in_parallel([*jobs, lambda: write_volume(moved, place / WARPED)])

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
    with (meter := Meter(memory=False)).stage("again"):
        stage()
    return meter.seconds["again"]
