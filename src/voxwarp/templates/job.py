"""What workers do for a template: a scan is examined, aligned, registered, averaged, or finished.

A job is a pure function of its values. Its results are arrays, for the command that averages them,
and one record in JSON, which is written last: a job whose record is there is not done again.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import write_file
from .._provenance import version_of
from ..cohort.dataset import CohortScan
from ..cohort.derivatives import LABELS, write_json
from ..cohort.job import write_result
from ..cohort.outcome import LOGS, check_version, outcome_of
from ..errors import InputError
from ..networks.installed import installed
from .scans import labels_of
from .settings import TemplateSettings

if TYPE_CHECKING:
    import torch

    from ..networks.model import Model
    from ..preparation.examination import Examination
    from ..preparation.scan import Prepared, Scan
    from ..registration.deform import PairDeformation
    from ..space.grid import Grid
    from ..space.transform import Affine, Chain, Transform
    from ..space.volume import Volume

IMAGE, MASK, FIELD, SMALL = "image", "mask", "field", "small"  # the arrays of a job
HEAD, DSEG = "head", "dseg"
MEAN_INTENSITY = 100.0  # of the brain of each scan, so that bright scans do not count more
SMALLER = 4  # the factor of the images in which scans are compared with each other
FULL = 255  # a voxel all in the brain, in the arrays of masks


@dataclass(frozen=True)
class TemplateJob:
    """What a worker needs to know to do a part of a template.

    Args:
        task: a name in ``TASKS``.
        scan: the scan.
        source: the folder that the scans lie in.
        out: the folder of the template.
        folder: of the results of this job, and of the others of its stage.
        settings: how the template is built.
        given: what the task needs beside, see there.
        run: the UUID of the run.
        attempt: how often it was tried with this one.
        work: folder for what later runs can use; None is the cache of the worker's user.
    """

    task: str
    scan: CohortScan
    source: Path
    out: Path
    folder: Path
    settings: TemplateSettings
    given: Mapping[str, Any]
    run: str = ""
    attempt: int = 1
    work: Path | None = None

    @property
    def key(self) -> str:
        """That of the scan."""
        return self.scan.key

    @property
    def record(self) -> Path:
        """The file that says that the job is done."""
        return self.folder / f"{self.key}.json"

    def array(self, name: str) -> Path:
        """The file of an array that the job makes."""
        return array_path(self.folder, self.key, name)

    def as_json(self) -> dict[str, Any]:
        """The job as plain values, which any version of Python and of dask can send."""
        return {
            "task": self.task,
            "scan": self.scan.as_json(),
            "source": str(self.source.absolute()),
            "out": str(self.out.absolute()),
            "folder": str(self.folder.absolute()),
            "settings": {**self.settings.as_json(), "model": _absolute(self.settings.model)},
            "given": dict(self.given),
            "run": self.run,
            "attempt": self.attempt,
            "work": None if self.work is None else str(self.work.absolute()),
            "version": version_of("voxwarp"),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TemplateJob":
        """The job from ``as_json``."""
        return cls(
            task=values["task"],
            scan=CohortScan.from_json(values["scan"]),
            source=Path(values["source"]),
            out=Path(values["out"]),
            folder=Path(values["folder"]),
            settings=TemplateSettings.from_json(values["settings"]),
            given=values["given"],
            run=values["run"],
            attempt=values["attempt"],
            work=None if values["work"] is None else Path(values["work"]),
        )


def _absolute(model: str) -> str:
    """The name of an installed model, or the absolute path of a folder."""
    return model if model in installed() else str(Path(model).absolute())


def array_path(folder: Path, key: str, name: str) -> Path:
    """The file of an array of a scan in the folder of a stage."""
    return folder / f"{key}_{name}.npy"


def do_job(values: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job in a worker.

    Args:
        values: a ``TemplateJob``, by ``as_json``.

    Returns:
        An ``Outcome`` as plain values.

    Raises:
        RuntimeError: this is another version of voxwarp than that of the command.
    """
    check_version(values["version"])
    job = TemplateJob.from_json(values)
    if job.work is not None:
        os.environ["VOXWARP_CACHE"] = str(job.work / "cache")
    return outcome_of(
        job.key,
        partial(_done, job),
        job.out / LOGS / f"{job.key}.log",
        attempt=job.attempt if job.task == "examine" else 2,  # later tasks continue its log
        about=f"run {job.run}, {job.task}, attempt {job.attempt}, process {os.getpid()}: "
        f"{job.scan.path}",
    )


def _done(job: TemplateJob) -> tuple[dict[str, int], list[str]]:
    """Do a job, and write its record."""
    from ..runtime import Runtime

    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {job.folder}: {error.strerror or error}") from error
    with Runtime(device="cpu", threads=job.settings.threads).with_threads():
        record, outputs = TASKS[job.task](job)
    write_json(record, job.record)
    return outputs, list(record.get("warnings", ()))


_Result = tuple[dict[str, Any], dict[str, int]]  # the record, and the files with their sizes


# --------------------------------------------------------------------------------------- Tasks


def _examine(job: TemplateJob) -> _Result:
    """Find the brain, align it with the template of the model, and say how well it is known."""
    from ..fields.field import averaged

    model, scan = _model(job.settings), _read(job)
    examination = _examined(job, scan, model)
    known = _prepared(scan, model, examination, examination.template_to_scan)
    whole = averaged((known.image > 0).float(), SMALLER) > 0.999  # all of the small voxel is brain
    _save(job.array(SMALL), (averaged(known.image, SMALLER) * whole)[0, 0].numpy())
    shares = model.unsure(moving=known.image, fixed=known.image, map_cache={})
    for name, path in job.scan.also:
        if name.suffix not in LABELS:
            _check_contrast(path, scan, examination)
    labels: list[int] = []
    if scan.labels is not None:
        labels = [int(label) for label in np.unique(scan.labels.data)]
    about = examination.described()
    record = {
        "alignment": examination.template_to_scan.matrix.tolist(),
        "seen_as": about["seen_as"],
        "agreement": about["agreement_with_template"],
        "unsure": None if shares is None else float(shares[0]),
        "labels": labels,
        "warnings": scan.warnings(examination),
    }
    return record, {}


def _average(job: TemplateJob) -> _Result:
    """Bring the brain to the template: its image, of fixed mean intensity, and its mask.

    Given: ``placement``, the affine map from the template to the scan; ``grid``; and, for a
    deformable round, ``field`` and ``update``, the files of the displacements, and ``working``, the
    affine map from the working space to the template. The updated displacement is kept, too, for
    the next round.
    """
    model, scan = _model(job.settings), _read(job)
    examination, grid = _examined(job, scan, model), _grid(job.given["grid"])
    transform = _placed(job, model, grid)
    brain, mask = scan.brain(examination), scan.brain_mask(examination)
    image, share = _resampled(brain, grid, transform), _soft(mask, grid, transform)
    factor = _factor(image, share)
    _save(job.array(IMAGE), image * factor)
    _save(job.array(MASK), np.rint(share * FULL).astype(np.uint8))
    return {"factor": factor}, {}


def _align(job: TemplateJob) -> _Result:
    """Align the brain with the template by an affine or rigid map.

    Given: ``placement`` to start from, ``template``, and whether it is ``rigid``.
    """
    from ..preparation.affine import refined_affine
    from ..preparation.rigid import register_rigid
    from ..space.volume import read_volume

    model, scan = _model(job.settings), _read(job)
    examination = _examined(job, scan, model)
    start, brain = _affine(job.given["placement"]), scan.brain(examination)
    template = read_volume(job.given["template"], "template")
    if job.given["rigid"]:
        found = register_rigid(start, moving=brain, fixed=template)
    else:
        found = refined_affine(moving=brain, fixed=template, start=start)
    return {"placement": found.matrix.tolist()}, {}


def _register(job: TemplateJob) -> _Result:
    """Register the scan to the template.

    Given: ``placement``, ``working`` (see ``_average``) and ``template``; and, after the first
    round, ``start``, the file of the displacements to continue from. Those of a descent that begins
    anew depend on where it begins, and would not follow each update of the template's shape.
    """
    import torch

    from ..fields import field
    from ..measures.similarity import similarity
    from ..registration.deform import compute_deformation

    model, scan = _model(job.settings), _read(job)
    moving, fixed = _pair(job, scan, model)
    deformation = compute_deformation(
        model,
        moving=moving,
        fixed=fixed,
        device=torch.device("cpu"),
        smoothness=job.settings.smoothness,
        start=_start(job),
    )
    _save(job.array(FIELD), deformation.displacement[0].numpy())
    moved = field.warp(moving.image, deformation.displacement)
    return {"similarity": similarity(moved=moved[0, 0], fixed=fixed.image[0, 0])}, {}


def _finish(job: TemplateJob) -> _Result:
    """Write the derivatives of the scan in the finished template.

    Its deformation is that by which it was averaged in the last round. It is not registered once
    more, because the mean of what that finds is not zero: next to the template, which is less
    sharp, all people would be moved a little in the same way.

    Given: as for ``_register``; ``basis`` for the record; ``stage``, where the derivatives are
    written at their paths relative to the folder of the template; and ``heads``, whether the
    average of the whole heads is wanted; ``published`` is the place of the template, relative to
    the folder of all results.
    """
    import torch

    from .._meter import Meter
    from ..registration.register import RegistrationTask

    model, scan = _model(job.settings), _read(job)
    moving, fixed = _pair(job, scan, model)
    template, grid = _template_scan(job), _grid(job.given["grid"])
    task = RegistrationTask(
        moving=replace(scan, labels=None),
        fixed=template,
        model=model,
        preparation=_preparation(job.settings),
        refinement=None,
        smoothness=job.settings.smoothness,
    )
    deformation = _finished(_start(job), model, moving, fixed)
    result = task.with_deformation(
        deformation, moving, fixed, torch.device("cpu"), Meter(memory=False)
    )
    # Its file moves to that place when all is done.
    published = {**(result.metrics["inputs"]["fixed"] or {}), "path": job.given["published"]}
    inputs = {**result.metrics["inputs"], "fixed": published}
    result = result.with_metrics({**result.metrics, "inputs": inputs})
    transform = result.transform
    share = _soft(scan.brain_mask(moving.examination), grid, transform)
    brain = _resampled(scan.brain(moving.examination), grid, transform)
    factor = _factor(brain, share)
    space = job.given["working"]
    _save(job.array(FIELD), _in_working_space(result.warp, _affine(space), model.recipe.grid))
    _save(job.array(IMAGE), brain * factor)
    _save(job.array(MASK), np.rint(share * FULL).astype(np.uint8))
    if job.given["heads"]:
        _save(
            job.array(HEAD), _resampled(_whole(scan, moving.examination), grid, transform) * factor
        )
    for name, path in job.scan.also:
        if name.suffix not in LABELS:
            _save(job.array(name.suffix), _other_contrast(path, grid, transform, share))
    if scan.labels is not None:
        from ..space.resample import resample_labels

        moved = resample_labels(scan.labels, grid, transform, interpolation="linear")
        _save(job.array(DSEG), moved.data)
    outputs, warnings = write_result(
        result,
        job.scan,
        space=job.settings.name,
        source=job.source,
        stage=Path(job.given["stage"]),
        basis=job.given["basis"],
    )
    record = {
        "similarity": result.metrics["similarity"]["after"],
        "jacobian": result.metrics["jacobian"],
        "outputs": outputs,
        "warnings": warnings,
    }
    return record, outputs


TASKS = {
    "examine": _examine,
    "average": _average,
    "align": _align,
    "register": _register,
    "finish": _finish,
}


# --------------------------------------------------------------------------------------- Parts


@lru_cache(maxsize=1)
def _loaded(name: str, threads: int) -> "Model":
    from .._allocation import share_freed_memory
    from ..networks.model import Model

    share_freed_memory()
    # The contrast of all scans was decided on: no pair is left to another model, whatever a blurred
    # average looks like.
    return replace(Model.load(name), other_contrasts=None)


def _model(settings: TemplateSettings) -> "Model":
    return _loaded(settings.model, settings.threads)


def _read(job: TemplateJob) -> "Scan":
    from ..preparation.scan import Scan

    return Scan.read(job.scan.path, labels=labels_of(job.scan), role="")


def _preparation(settings: TemplateSettings) -> Any:
    from ..preparation.settings import Preparation

    return Preparation(settings.brain_extract, settings.extractor, settings.bias)


def _examined(job: TemplateJob, scan: "Scan", model: "Model") -> "Examination":
    return scan.examined(model.recipe, _preparation(job.settings))


def _prepared(
    scan: "Scan", model: "Model", examination: "Examination", to_scan: "Affine"
) -> "Prepared":
    from ..preparation.scan import prepare

    return prepare(scan.image, model.recipe, replace(examination, template_to_scan=to_scan))


def _pair(job: TemplateJob, scan: "Scan", model: "Model") -> "tuple[Prepared, Prepared]":
    """The scan and the template in the working space."""
    placement, working = (_affine(job.given[name]) for name in ("placement", "working"))
    moving = _prepared(scan, model, _examined(job, scan, model), placement.after(working))
    return moving, _fixed(job, model, working)


def _finished(
    displacement: "torch.Tensor | None", model: "Model", moving: "Prepared", fixed: "Prepared"
) -> "PairDeformation":
    """A displacement that was found before as a deformation."""
    from ..registration.contrast import Choice
    from ..registration.deform import PairDeformation

    assert displacement is not None  # there was at least one deformable round
    images = {"moving": moving.image, "fixed": fixed.image}
    return PairDeformation(displacement, None, Choice(model, model, images))


def _start(job: TemplateJob) -> "torch.Tensor | None":
    """The displacement to continue from, if there is one."""
    import torch

    if "start" not in job.given:
        return None
    return torch.from_numpy(np.load(job.given["start"]))[None]


def _fixed(job: TemplateJob, model: "Model", working: "Affine") -> "Prepared":
    from ..preparation.examination import Examination, placed_at

    scan = _template_scan(job)
    examination = Examination("brain", scan.grid, working, template=model.recipe.template)
    if model.recipe.template is not None:
        examination = placed_at(examination, scan.image, working)
    return _prepared(scan, model, examination, working)


def _template_scan(job: TemplateJob) -> "Scan":
    from ..preparation.scan import Scan

    return Scan.read(job.given["template"], role="template")


def _placed(job: TemplateJob, model: "Model", grid: "Grid") -> "Chain":
    """The map from points of the template to points of the scan."""
    import torch

    from ..space.transform import Chain, Warp, conjugate
    from .shape import updated

    placement = _affine(job.given["placement"])
    if "field" not in job.given:
        return Chain([placement])
    found, update = (
        torch.from_numpy(np.load(job.given[name]))[None] for name in ("field", "update")
    )
    moved = updated(found, update)[0]
    _save(job.array(FIELD), moved.numpy())
    warp = Warp.from_voxels(moved, model.recipe.grid)
    return Chain([conjugate(warp, _affine(job.given["working"]).inverse(), grid), placement])


def _in_working_space(warp: Any, working: "Affine", grid: "Grid") -> np.ndarray:
    """A warp of the template as a displacement in voxels of the working grid, (3, X, Y, Z)."""
    from ..space.transform import conjugate

    displacement: torch.Tensor = conjugate(warp, working, grid).in_voxels()
    return displacement.numpy()


def _affine(matrix: Any) -> "Affine":
    from ..space.transform import Affine

    return Affine(np.asarray(matrix))


def _grid(about: Mapping[str, Any]) -> "Grid":
    from ..space.grid import Grid

    return Grid(**about)


def _resampled(volume: "Volume", grid: "Grid", transform: "Transform") -> np.ndarray:
    from ..space.resample import resample

    floats = replace(volume, data=volume.data.astype(np.float32))
    return resample(floats, grid, transform).data


def _soft(mask: "Volume", grid: "Grid", transform: "Transform") -> np.ndarray:
    return np.clip(_resampled(mask, grid, transform), 0, 1)


def _factor(image: np.ndarray, share: np.ndarray) -> float:
    """What gives a brain the mean intensity."""
    inside = share >= 0.5
    mean = float(image[inside].mean(dtype=np.float64)) if inside.any() else 0.0
    return MEAN_INTENSITY / mean if mean > 0 else 1.0


def _whole(scan: "Scan", examination: "Examination") -> "Volume":
    """The whole head, its bias field removed."""
    from ..preparation.intensity import from_zero
    from ..preparation.masking import unbiased
    from ..space.volume import to_canonical

    return unbiased(from_zero(to_canonical(scan.image)), examination.log_bias)


def _check_contrast(path: Path, scan: "Scan", examination: "Examination") -> None:
    """Check that another image of the person is one, and lies where the scan does."""
    from ..space.resample import resample
    from ..space.volume import read_volume, refusal

    image = read_volume(path, "image")
    inside = scan.brain_mask(examination).data != 0
    if not resample(image, scan.grid, interpolation="nearest").data[inside].any():
        raise refusal(
            f"image {path}: it shows nothing where the brain of {scan.name} is; both must share "
            f"one world space",
            image,
            scan.image,
        )


def _other_contrast(
    path: Path, grid: "Grid", transform: "Transform", share: np.ndarray
) -> np.ndarray:
    """Another image of the person on the template, of the same mean intensity in the brain."""
    from ..preparation.intensity import from_zero
    from ..space.volume import read_volume

    moved = _resampled(from_zero(read_volume(path, "image")), grid, transform)
    return moved * _factor(moved, share)


def _save(path: Path, array: np.ndarray) -> None:
    write_file(path, lambda stream: np.save(stream, array))
