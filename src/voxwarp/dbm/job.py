"""What workers do for a morphometry: the maps and volumes of a scan, or the change of a person."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._provenance import version_of
from ..cohort.bids_names import BidsName
from ..cohort.derivatives import write_json
from ..cohort.outcome import LOGS, check_version, outcome_of
from ..errors import InputError
from ..space.composite import read_composite
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Chain
from ..space.volume import Volume, read_labels, read_series, read_volume, write_volume
from .jacobians import LogJacobians, label_volumes, log_jacobians, modulated, smoothed
from .results import GroupResult
from .settings import MorphometrySettings

if TYPE_CHECKING:
    from ..preparation.recipe import Recipe

RELATIVE, ABSOLUTE, CHANGE, ANNUAL = "relative", "absolute", "change", "annualchange"
SUFFIX = "logjac"
SIGN = "positive: the region is larger in the person than in the template"
_MEANINGS = {
    RELATIVE: f"Logarithm of the Jacobian determinant of the deformation alone, without the affine "
    f"map; {SIGN}",
    ABSOLUTE: f"Logarithm of the Jacobian determinant of the whole map, the affine map included; "
    f"{SIGN}",
    CHANGE: "Logarithm of the change of volume from the first to the last scan; positive: the "
    "region has grown",
    ANNUAL: "Logarithm of the change of volume per year; positive: the region has grown",
}


@dataclass(frozen=True)
class MorphometryJob:
    """What a worker needs to know.

    Args:
        results: the scan; or the first and the last one of a person.
        out: the folder of the maps.
        settings: what is measured.
        given: grid of the template, files of its mask and of the atlas, labels of the atlas, files
            to modulate, and the years between two scans.
        run: the UUID of the run.
        attempt: how often it was tried with this one.
    """

    results: tuple[GroupResult, ...]
    out: Path
    settings: MorphometrySettings
    given: Mapping[str, Any]
    run: str = ""
    attempt: int = 1

    @property
    def key(self) -> str:
        """Of the scan, or of the person."""
        if len(self.results) == 1:
            return self.results[0].key
        return f"sub-{self.results[0].subject}"

    @property
    def record(self) -> Path:
        """The file with the numbers, which is written last."""
        kind = "change" if len(self.results) > 1 else "morphometry"
        return self.folder / f"{self.key}_desc-{kind}_metrics.json"

    @property
    def folder(self) -> Path:
        """Of the maps."""
        one = self.results[0]
        parts = [f"sub-{one.subject}"]
        if len(self.results) == 1 and one.session is not None:
            parts.append(f"ses-{one.session}")
        return self.out.joinpath(*parts, "anat")

    def as_json(self) -> dict[str, Any]:
        """The job as plain values."""
        return {
            "results": [one.as_json() for one in self.results],
            "out": str(self.out.absolute()),
            "settings": self.settings.as_json(),
            "given": dict(self.given),
            "run": self.run,
            "attempt": self.attempt,
            "version": version_of("voxwarp"),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "MorphometryJob":
        """The job from ``as_json``."""
        return cls(
            tuple(GroupResult.from_json(one) for one in values["results"]),
            Path(values["out"]),
            MorphometrySettings.from_json(values["settings"]),
            values["given"],
            values["run"],
            values["attempt"],
        )


def do_job(values: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job in a worker.

    Args:
        values: a ``MorphometryJob``, by ``as_json``.

    Returns:
        An ``Outcome`` as plain values.

    Raises:
        RuntimeError: this is another version of voxwarp than that of the command.
    """
    check_version(values["version"])
    job = MorphometryJob.from_json(values)
    work = partial(_measured if len(job.results) == 1 else _changed, job)
    return outcome_of(
        job.key,
        work,
        job.out / LOGS / f"{job.key}.log",
        attempt=job.attempt,
        about=f"run {job.run}, attempt {job.attempt}: {job.results[0].scan}",
    )


# ---------------------------------------------------------------------------- Maps of one scan


def _measured(job: MorphometryJob) -> tuple[dict[str, int], list[str]]:
    """Write the maps of a scan, and its volumes."""
    (result,) = job.results
    writer = _Writer(job, {"space": result.space})
    jacobians = _jacobians(result, job)
    writer.write(RELATIVE, jacobians.relative)
    writer.write(ABSOLUTE, jacobians.absolute)
    if job.given["modulate"] is not None:
        _modulate(job, jacobians, writer)
    record: dict[str, Any] = {
        "key": result.key,
        "subject": result.subject,
        "session": result.session,
        "volumes": _volumes(job, result, jacobians),
        "basis": job.given["basis"],
        "outputs": writer.sizes,
    }
    write_json(record, job.record)
    return {}, []


def _jacobians(result: GroupResult, job: MorphometryJob) -> LogJacobians:
    steps = read_composite(result.to_scan)
    try:
        return log_jacobians(steps, _grid(job))
    except InputError as error:
        raise InputError(f"{result.to_scan}: {error}") from error


def _grid(job: MorphometryJob) -> Grid:
    return Grid(**job.given["grid"])


def _volumes(job: MorphometryJob, result: GroupResult, jacobians: LogJacobians) -> dict[str, Any]:
    """Brain and head size, and the volumes of the atlas' regions in the person, ml."""
    mask = read_series(result.mask, "brain mask")
    grid = jacobians.grid
    voxel_ml = float(abs(np.linalg.det(grid.affine[:3, :3]))) / 1000
    own_ml = float(abs(np.linalg.det(mask.grid.affine[:3, :3]))) / 1000
    inside = read_series(job.given["mask"], "mask").data != 0
    volumes: dict[str, Any] = {
        "brain_ml": float((mask.data != 0).sum()) * own_ml,
        "tiv_ml": float(inside.sum()) * voxel_ml * float(np.exp(jacobians.of_affine)),
        "affine_scale": float(np.exp(jacobians.of_affine / 3)),
    }
    if job.given["atlas"] is not None:
        atlas, labels = _atlas(job), job.given["labels"]
        for name, logarithm in (
            ("native_ml", jacobians.absolute),
            ("template_ml", jacobians.relative),
        ):
            volumes[name] = label_volumes(atlas, labels, logarithm, voxel_ml)
    return volumes


def _atlas(job: MorphometryJob) -> np.ndarray:
    """The atlas on the grid of the template."""
    image = read_series(job.given["atlas"], "atlas")
    labels = read_labels(image, image, "atlas")
    grid = _grid(job)
    if labels.grid.matches(grid):
        return labels.data
    return resample(labels, grid, interpolation="nearest").data


def _modulate(job: MorphometryJob, jacobians: LogJacobians, writer: "_Writer") -> None:
    """Write the modulated map of the person."""
    path = Path(job.given["modulate"])
    image = read_volume(path, "map to modulate")
    if image.holds_labels() and len(np.unique(image.data)) > 2:
        raise InputError(
            f"map to modulate {path}: it holds labels; give the map of one tissue or region, such "
            f"as its probability or its mask"
        )
    about = {
        "Description": "Amount of tissue on the template: the map times the Jacobian determinant, "
        "the affine map included; its integral is that over the person",
        "Sources": [str(path)],
    }
    writer.write("modulated", modulated(image, jacobians), about)
    about = {
        "Description": "Amount of tissue on the template, as if the brain had the size of the "
        "template: the map times the Jacobian determinant without the affine map",
        "Sources": [str(path)],
    }
    writer.write("modulatedrelative", modulated(image, jacobians, with_affine=False), about)


@dataclass
class _Writer:
    """Writes maps, as they are and smoothed, with their sidecars."""

    job: MorphometryJob
    entities: Mapping[str, str]

    def __post_init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.job.folder.mkdir(parents=True, exist_ok=True)

    def write(self, desc: str, values: np.ndarray, about: Mapping[str, Any] | None = None) -> None:
        grid = _grid(self.job)
        suffix = SUFFIX if about is None else "map"
        about = {"Description": _MEANINGS[desc]} if about is None else about
        self._one(desc, suffix, values, about, grid)
        for width in self.job.settings.fwhm:
            blurred = smoothed(values, width, grid.spacing)
            more = {"SmoothingFWHM": width, "SmoothingUnits": "mm"}
            self._one(f"{desc}{label_of_width(width)}", suffix, blurred, {**about, **more}, grid)

    def _one(
        self, desc: str, suffix: str, values: np.ndarray, about: Mapping[str, Any], grid: Grid
    ) -> None:
        result = self.job.results[0]
        entities = dict(result.name.entities)
        if len(self.job.results) > 1:
            entities = {"sub": result.subject}
        name = BidsName({**entities, **self.entities, "desc": desc}, suffix, ".nii.gz")
        path = self.job.folder / str(name)
        write_volume(Volume(values.astype(np.float32), grid), path)
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        write_json({**about, "SpatialReference": self.entities["space"]}, sidecar)
        for file in (path, sidecar):
            self.sizes[file.relative_to(self.job.out).as_posix()] = file.stat().st_size


def label_of_width(width: float) -> str:
    """A width in names of files: 6 mm are s6, 7.5 mm are s7p5."""
    return f"s{f'{width:g}'.replace('.', 'p')}"


# ------------------------------------------------------------------------ Change of one person


@lru_cache(maxsize=1)
def _recipe(name: str) -> "Recipe":
    from ..networks.model import Model

    return Model.load(name).recipe


def _changed(job: MorphometryJob) -> tuple[dict[str, int], list[str]]:
    """Write the maps of the change between two scans of a person, in the space of the group."""
    from ..preparation.scan import Scan
    from ..preparation.settings import Preparation
    from ..runtime import Runtime
    from .midpoint import change

    settings, grid = job.settings, _grid(job)
    with Runtime(device="cpu", threads=settings.threads).with_threads():
        scans = [Scan.read(one.scan) for one in job.results]
        preparation = Preparation(**job.results[0].preparation)
        found = change(scans[0], scans[1], _recipe(settings.model), preparation)
        moved, sizes = [], []
        for result, to_midpoint in zip(job.results, found.to_midpoint, strict=True):
            steps = read_composite(result.to_scan)
            jacobians = log_jacobians(steps, grid)
            chain = Chain([*steps, to_midpoint])
            moved.append(resample(found.log_jacobian, grid, chain, padding="border").data)
            sizes.append(jacobians.absolute)
    # Neither scan leads alone to the space of the group.
    values, size = (moved[0] + moved[1]) / 2, (sizes[0] + sizes[1]) / 2
    writer, years = _Writer(job, {"space": job.results[0].space}), job.given["years"]
    writer.write(CHANGE, values)
    if years is not None:
        writer.write(ANNUAL, values / years)
    inside = read_series(job.given["mask"], "mask").data != 0
    record: dict[str, Any] = {
        "key": job.key,
        "subject": job.results[0].subject,
        "sessions": [one.session for one in job.results],
        "years": years,
        "brain_percent": _percent(inside.astype(np.uint8), [1], size, values)[0],
        "basis": job.given["basis"],
    }
    if job.given["atlas"] is not None:
        record["labels_percent"] = _percent(_atlas(job), job.given["labels"], size, values)
    write_json({**record, "outputs": writer.sizes}, job.record)
    return {}, []


def _percent(
    atlas: np.ndarray, labels: list[int], size: np.ndarray, logarithm: np.ndarray
) -> list[float]:
    """The change of the volume of regions, percent of that in the first scan."""
    first, last = (
        np.array(label_volumes(atlas, labels, size + sign * logarithm / 2, 1.0)) for sign in (-1, 1)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return [float(x) for x in np.where(first > 0, 100 * (last / first - 1), np.nan)]
