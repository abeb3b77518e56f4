"""The result of a registration: a finished value, written to a folder and read back from it."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np

from ..errors import InputError
from ..fields import field as fields
from ..files import check_writable, publish, side_by_side, staging
from ..layout import (
    AFFINE,
    FIXED_MASK,
    INVERSE_WARP,
    INVERSE_WARPED,
    METRICS,
    MOVING_MASK,
    PREPROCESSED,
    REGISTERED,
    REPORT,
    WARP,
    WARPED,
    WARPED_LABELS,
    WARPED_MASK,
    check_other_record,
)
from ..pictures.plots import draw
from ..pictures.report import mosaic
from ..pictures.report import report as render_report
from ..pictures.scene import Scene
from ..preparation.masking import brain_mask
from ..preparation.scan import Scan
from ..space import formats
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine, Chain, Warp
from ..space.volume import Volume, nifti, read_labels, write_volume
from .record import original, read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

NO_REPORT = "no report: "


@dataclass(frozen=True, eq=False, repr=False)
class Registration:
    """The result of ``register``: a deformation of the fixed space and what it does.

    Args:
        fixed, moving: the scans as they were read, with their labels.
        affine: the linear part A, from the fixed space to the moving space, RAS mm.
        warp: the deformable part W on the fixed grid; x ↦ A(W(x)) is the registration.
        inverse_warp: W⁻¹, also on the fixed grid.
        brain: the fixed brain on the fixed grid: 1 inside, 0 outside.
        moving_mask, fixed_mask: brains of scans that are heads, on the scans' own grids.
        metrics: what ``metrics.json`` holds, but for what writing it adds.
    """

    fixed: Scan
    moving: Scan
    affine: Affine
    warp: Warp
    inverse_warp: Warp
    brain: Volume
    moving_mask: Volume | None
    fixed_mask: Volume | None
    metrics: Mapping[str, Any]

    @property
    def fixed_grid(self) -> Grid:
        """Grid of the fixed scan, and of the warps."""
        return self.fixed.grid

    @property
    def moving_grid(self) -> Grid:
        """Grid of the moving scan."""
        return self.moving.grid

    @property
    def is_linear(self) -> bool:
        """Whether it is a rigid or affine map alone: then the warps are zero."""
        return self.metrics.get("settings", {}).get("transform") in ("rigid", "affine")

    @property
    def warnings(self) -> list[str]:
        """Reasons to look twice at the scans or the result, a sentence each."""
        return list(self.metrics.get("warnings", ()))

    @property
    def scene(self) -> Scene:
        """What pictures show of it."""
        return Scene(
            fixed=self.fixed.image,
            moving=self.moving.image,
            affine=self.affine,
            warp=self.warp,
            brain=self.brain.data != 0,
            masks={"moving": self.moving_mask, "fixed": self.fixed_mask},
            labels=self.moving.labels,
            fixed_labels=self.fixed.labels,
        )

    @property
    def transform(self) -> Chain:
        """Points of the fixed scan to points of the moving scan, RAS mm: pulls images."""
        return Chain([self.warp, self.affine])

    @property
    def inverse(self) -> Chain:
        """Points of the moving scan to points of the fixed scan, RAS mm."""
        return Chain([self.affine.inverse(), self.inverse_warp])

    @cached_property
    def warped(self) -> Volume:
        """The moving scan on the fixed grid, its own intensities, resampled once."""
        return resample(self.moving.image, self.fixed.grid, self.transform)

    @cached_property
    def inverse_warped(self) -> Volume:
        """The fixed scan on the moving grid."""
        return resample(self.fixed.image, self.moving.grid, self.inverse)

    @cached_property
    def warped_labels(self) -> Volume | None:
        """The moving labels on the fixed grid, by nearest neighbour; None without labels."""
        return self._carried(self.moving.labels)

    @cached_property
    def warped_mask(self) -> Volume | None:
        """The moving brain's mask on the fixed grid; None where the moving scan is a brain."""
        return self._carried(self.moving_mask)

    def _carried(self, labels: Volume | None) -> Volume | None:
        if labels is None:
            return None
        return resample(labels, self.fixed.grid, self.transform, interpolation="nearest")

    @property
    def moved(self) -> nib.Nifti1Image:
        """The moving scan on the fixed grid, as an image of nibabel's."""
        return nifti(self.warped.data, self.warped.grid)

    def jacobian_determinant(self) -> nib.Nifti1Image:
        """Det J of the deformable part W on the fixed grid: below 1 it shrinks, ≤ 0 it folds."""
        determinant = fields.jacobian_determinant(self.warp.in_voxels()[None])[0].numpy()
        return nifti(determinant, self.fixed.grid)

    def __repr__(self) -> str:
        measured = self.metrics.get("similarity", {}).get("after", {})
        told = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
        return f"<Registration of {self.moving.name} to {self.fixed.name}: {told}>"

    def plot(self) -> "dict[str, Figure]":
        """The pictures of the report as figures of matplotlib's, by their panels' names.

        They are comparison, contours, labels (where both label maps are there), checkerboard,
        difference, grid, jacobian, moving_brain and, of a head, fixed_brain. In a notebook
        ``plot()["contours"]`` at the end of a cell shows that one.

        Raises:
            InputError: matplotlib is not installed.
        """
        return draw(self.scene)

    def _repr_html_(self) -> str:
        """Fixed and moved for a notebook, one in place of the other under the mouse."""
        return mosaic(self.scene, self.metrics)

    def save(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False, report: bool = True
    ) -> list[Path]:
        """Write all outputs, see ``write_registration``.

        Returns:
            The files, in a fixed order.

        Raises:
            InputError: see there.
        """
        return write_registration(self, folder, overwrite=overwrite, report=report).files


class Written(NamedTuple):
    """What was written.

    Args:
        files: in a fixed order.
        metrics: what ``metrics.json`` holds.
    """

    files: list[Path]
    metrics: dict[str, Any]


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Make sure, before anything costs time, that the outputs can be written to ``folder``.

    Raises:
        InputError: it is no folder, holds outputs already, or cannot be written.
    """
    check_writable(folder, REGISTERED, overwrite=overwrite)
    check_other_record(folder, PREPROCESSED)


def write_registration(
    result: Registration,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    report: bool = True,
) -> Written:
    """Write all outputs, named as ANTs names them: each whole, ``metrics.json`` last.

    Args:
        result: stays as it is.
        folder: where to; made if need be.
        overwrite: replace what an earlier registration wrote.
        report: write ``report.html``, too. Where that fails, it is left out, and a warning in
            the metrics says why.

    Raises:
        InputError: a file of one of these names is there and ``overwrite`` is false, or
            the folder cannot be written.
    """
    folder = Path(folder)
    check_output(folder, overwrite=overwrite)
    told = [warning for warning in result.warnings if not warning.startswith(NO_REPORT)]
    with staging(folder) as stage:
        started = time.perf_counter()
        jobs: list[Callable[[], object]] = _writers(result, stage)
        if report:
            name = folder.absolute().name
            jobs.insert(0, lambda: told.extend(_write_report(result, stage / REPORT, name)))
        side_by_side(jobs)
        metrics = dict(result.metrics) | {"warnings": told}
        seconds = {"write": round(time.perf_counter() - started, 3)}
        metrics["seconds"] = {**metrics.get("seconds", {}), **seconds}
        (stage / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
        return Written(publish(stage, folder, REGISTERED), metrics)


def _writers(result: Registration, stage: Path) -> list[Callable[[], object]]:
    """A job for each file but the record and the report, large ones first."""
    jobs: list[Callable[[], object]] = []
    if not result.is_linear:
        jobs += [
            lambda: formats.write_warp(result.warp, stage / WARP),
            lambda: formats.write_warp(result.inverse_warp, stage / INVERSE_WARP),
        ]
    jobs += [
        lambda: write_volume(result.warped, stage / WARPED),
        lambda: write_volume(result.inverse_warped, stage / INVERSE_WARPED),
        lambda: formats.write_affine(result.affine, stage / AFFINE),
    ]
    for name, volume in (
        (WARPED_LABELS, result.warped_labels),
        (MOVING_MASK, result.moving_mask),
        (FIXED_MASK, result.fixed_mask),
        (WARPED_MASK, result.warped_mask),
    ):
        if volume is not None:
            jobs.append(partial(write_volume, volume, stage / name))
    return jobs


def _write_report(result: Registration, path: Path, name: str) -> list[str]:
    """Write it, or tell in a warning why not: the registration itself is good without."""
    try:
        path.write_text(render_report(result.scene, result.metrics, name=name), encoding="utf-8")
    except Exception as error:
        log.warning("no report of %s", name, exc_info=True)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return [f"{NO_REPORT}{type(error).__name__}: {error}"]
    return []


def load(folder: str | os.PathLike[str]) -> Registration:
    """A registration as it was, from the folder that it was saved to and the scans it names.

    Raises:
        InputError: files are missing or damaged, or a scan is not at its place any more.
    """
    folder = Path(folder)
    record = read_record(folder)
    fixed = _scan(record, "fixed", "fixed_labels")
    moving = _scan(record, "moving", "labels")
    affine = formats.read_affine(folder / AFFINE)
    warp, inverse_warp = _warps(folder, record, fixed.grid)
    if not warp.grid.matches(fixed.grid):
        raise InputError(f"result {folder}: its deformation is not on the fixed scan's grid")
    fixed_mask = _mask(folder / FIXED_MASK, fixed)
    return Registration(
        fixed=fixed,
        moving=moving,
        affine=affine,
        warp=warp,
        inverse_warp=inverse_warp,
        brain=fixed_mask or brain_mask(fixed.image, fixed.grid),
        moving_mask=_mask(folder / MOVING_MASK, moving),
        fixed_mask=fixed_mask,
        metrics=record,
    )


def _warps(folder: Path, record: dict[str, Any], grid: Grid) -> tuple[Warp, Warp]:
    """The warp and its inverse; zero of a linear registration, which has no files of them."""
    settings = record.get("settings")
    kind = settings.get("transform") if isinstance(settings, dict) else None
    if kind in ("rigid", "affine"):
        still = Warp(np.zeros((3, *grid.shape), np.float32), grid)
        return still, still
    return formats.read_warp(folder / WARP), formats.read_warp(folder / INVERSE_WARP)


def _scan(record: dict[str, Any], role: str, labels: str) -> Scan:
    path = original(record, role)
    if path is None:
        raise InputError(f"{role}: the record does not tell which file it was")
    return Scan.read(path, role=role, labels=original(record, labels))


def _mask(path: Path, scan: Scan) -> Volume | None:
    return read_labels(path, scan.image, "brain mask") if path.is_file() else None
