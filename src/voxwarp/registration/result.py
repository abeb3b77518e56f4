"""The result of a registration: a value that does not change, and how it is saved."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import nibabel as nib

from .._files import check_writable, run_in_parallel, staging
from .._layout import (
    AFFINE,
    COMPOSITE,
    FIXED_MASK,
    INVERSE_COMPOSITE,
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
    WARPED_LESION,
    WARPED_MASK,
    check_other_record,
)
from .._publish import publish
from ..errors import InputError
from ..fields import field as fields
from ..pictures.plots import draw
from ..pictures.report import mosaic
from ..pictures.report import report as render_report
from ..pictures.scene import Scene
from ..preparation.scan import Scan
from ..space import formats
from ..space.composite import write_composite
from ..space.grid import Grid
from ..space.image_file import nifti
from ..space.resample import border_warning, resample
from ..space.transform import Affine, Chain, Warp
from ..space.volume import Volume, write_volume
from .outputs import ALL, MissingWarp, files_of
from .record import is_linear

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

NO_REPORT = "report.html was not written: "  # how the warning about it begins


@dataclass(frozen=True, eq=False, repr=False)
class Registration:
    """The result of ``register``: the transform between two scans, and what it makes of them.

    Args:
        fixed, moving: the scans as they were read, with their label maps.
        affine: the linear part A, from the fixed space to the moving space, RAS mm.
        warp: the deformable part W, on the fixed grid. The whole transform is x ↦ A(W(x)).
        inverse_warp: W⁻¹, also on the fixed grid; a ``MissingWarp`` if the result was loaded from
            a folder without it.
        brain: mask of the fixed brain on the fixed grid, 1 inside and 0 outside; None if the
            result was loaded from a folder without the mask of a head.
        moving_mask, fixed_mask: brain masks on the grids of the scans, if these are heads or if
            masks were given.
        metrics: the contents of ``metrics.json``, except for what writing adds.

    Example:
        >>> import voxwarp
        >>> result = voxwarp.register("moving.nii.gz", "fixed.nii.gz")
        >>> result.metrics["jacobian"]["folds"]
        0
        >>> files = result.save("out", save="transforms,warped")
        >>> [file.name for file in files]
        ['0GenericAffine.mat', '1Warp.nii.gz', 'Warped.nii.gz', 'metrics.json']
    """

    fixed: Scan
    moving: Scan
    affine: Affine
    warp: Warp
    inverse_warp: Warp | MissingWarp
    brain: Volume | None
    moving_mask: Volume | None
    fixed_mask: Volume | None
    metrics: Mapping[str, Any]

    def with_metrics(self, metrics: Mapping[str, Any]) -> "Registration":
        """The same result with another record; the images made so far are kept."""
        other = replace(self, metrics=metrics)
        made = {name: value for name, value in vars(self).items() if name not in vars(other)}
        vars(other).update(made)
        return other

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
        """Whether the transform is rigid or affine; the warps are zero then."""
        return is_linear(self.metrics)

    @property
    def warnings(self) -> list[str]:
        """Reasons to check the scans or the result, one sentence each."""
        return list(self.metrics.get("warnings", ()))

    @property
    def header_warnings(self) -> Mapping[str, tuple[str, ...]]:
        """By the path of a scan, what its headers leave in doubt, a sentence each."""
        return {os.path.abspath(x.name): x.header_warnings for x in (self.moving, self.fixed)}

    @property
    def border_warnings(self) -> list[str]:
        """Where a moved image reaches beyond the scan, and what is there is in doubt."""
        ways = (
            ("moving", self.moving.image, self.fixed.grid, self.transform),
            ("fixed", self.fixed.image, self.moving.grid, self.inverse),
        )
        warnings = (
            border_warning(image, f"{role} image", grid, transform)
            for role, image, grid, transform in ways
        )
        return [
            f"{warning}; voxwarp apply writes another value there if you give it --background"
            for warning in warnings
            if warning
        ]

    @property
    def scene(self) -> Scene:
        """What the pictures of the report show.

        Raises:
            InputError: the mask of the fixed brain is missing.
        """
        if self.brain is None:
            raise InputError(
                f"result: pictures need the brain of the fixed scan {self.fixed.name}, but "
                f"{FIXED_MASK} was missing when the result was loaded"
            )
        return Scene(
            fixed=self.fixed.image,
            moving=self.moving.image,
            affine=self.affine,
            warp=self.warp,
            brain=self.brain.data != 0,
            masks={"moving": self.moving_mask, "fixed": self.fixed_mask},
            labels=self.moving.labels,
            fixed_labels=self.fixed.labels,
            lesions={"moving": self.moving.lesion, "fixed": self.fixed.lesion},
        )

    @property
    def transform(self) -> Chain:
        """The map from points of the fixed scan to points of the moving scan, RAS mm.

        Resampling uses it in this direction: each voxel of the fixed grid takes the value of the
        moving scan at the mapped point.
        """
        return Chain([self.warp, self.affine])

    @property
    def inverse(self) -> Chain:
        """The map from points of the moving scan to points of the fixed scan, RAS mm."""
        return Chain([self.affine.inverse(), self.inverse_warp])

    @cached_property
    def warped(self) -> Volume:
        """The moving scan on the fixed grid, with its original intensities, resampled once."""
        return _resampled(self.moving.image, self.fixed.grid, self.transform)

    @cached_property
    def inverse_warped(self) -> Volume:
        """The fixed scan on the moving grid, resampled once."""
        return _resampled(self.fixed.image, self.moving.grid, self.inverse)

    @cached_property
    def warped_labels(self) -> Volume | None:
        """The moving labels on the fixed grid, by nearest neighbour; None without labels."""
        return self._on_fixed_grid(self.moving.labels)

    @cached_property
    def warped_mask(self) -> Volume | None:
        """The moving brain mask on the fixed grid; None if there is no ``moving_mask``."""
        return self._on_fixed_grid(self.moving_mask)

    @cached_property
    def warped_lesion(self) -> Volume | None:
        """The moving lesion mask on the fixed grid; None if the moving scan has none."""
        return self._on_fixed_grid(self.moving.lesion)

    def _on_fixed_grid(self, labels: Volume | None) -> Volume | None:
        if labels is None:
            return None
        return resample(labels, self.fixed.grid, self.transform, interpolation="nearest")

    @property
    def moved(self) -> nib.Nifti1Image:
        """The moving scan on the fixed grid, as a nibabel image."""
        return self.warped.to_nibabel()

    def jacobian_determinant(self) -> nib.Nifti1Image:
        """The Jacobian determinant of the deformable part W on the fixed grid.

        It is the ratio of a volume in the moving scan, apart from the affine part A, to the same
        volume in the fixed scan; where it is 0 or less, the deformation folds.
        """
        determinant = fields.jacobian_determinant(self.warp.in_voxels()[None])[0].numpy()
        return nifti(determinant, self.fixed.grid)

    def __repr__(self) -> str:
        after = self.metrics.get("similarity", {}).get("after", {})
        similarity = ", ".join(f"{name} {value:.3f}" for name, value in after.items())
        return f"<Registration of {self.moving.name} to {self.fixed.name}: {similarity}>"

    def plot(self) -> "dict[str, Figure]":
        """Draw the pictures of the report as matplotlib figures, by the names of their panels.

        The panels are comparison, contours, labels (with two label maps), checkerboard,
        difference, grid, jacobian, moving_brain and, if the fixed scan is a head, fixed_brain.
        In a notebook, ``plot()["contours"]`` at the end of a cell shows one of them.

        Raises:
            InputError: matplotlib is not installed, or the mask of the fixed brain is missing.
        """
        return draw(self.scene)

    def _repr_html_(self) -> str:
        """Show the fixed and the moved scan in a notebook; hovering switches between them."""
        return mosaic(self.scene, self.metrics)

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        save: str | Iterable[str] = ALL,
        overwrite: bool = False,
        report: bool = True,
    ) -> list[Path]:
        """Write the result to a folder, in files named as ANTs names them.

        Every file is complete when it appears, and ``metrics.json`` comes last. Files of an
        earlier registration in the folder are replaced, or removed if this one does not write
        them.

        Args:
            folder: the folder; created if it does not exist.
            save: which outputs to write: "all", or some of transforms, inverse, composite, warped,
                inverse-warped, labels, masks and report, as one string with commas or as a list.
            overwrite: replace what an earlier registration wrote.
            report: write ``report.html``, if it is among the outputs.

        Returns:
            The files, in a fixed order.

        Raises:
            InputError: an output is unknown, a file exists already and ``overwrite`` is false, or
                the folder cannot be written.
        """
        written = write_registration(self, folder, save=save, overwrite=overwrite, report=report)
        for warning in written.metrics["warnings"]:
            if warning.startswith(NO_REPORT):  # otherwise it is in metrics.json alone
                log.warning("result %s: %s", folder, warning)
        return written.files


def _resampled(image: Volume, grid: Grid, transform: Chain) -> Volume:
    return resample(image, grid, transform, background=image.background.value)


class WrittenRegistration(NamedTuple):
    """What ``write_registration`` wrote.

    Args:
        files: the files, in a fixed order.
        metrics: the contents of ``metrics.json``.
    """

    files: list[Path]
    metrics: dict[str, Any]


def check_output(folder: Path, *, save: str | Iterable[str] = ALL, overwrite: bool) -> None:
    """Check that a result can be written to ``folder``, before anything takes time.

    Raises:
        InputError: ``save`` names an unknown output; the folder is a file, holds results
            already, or is not writable.
    """
    files_of(save)
    check_writable(folder, REGISTERED, overwrite=overwrite)
    check_other_record(folder, PREPROCESSED)


def write_registration(
    result: Registration,
    folder: str | os.PathLike[str],
    *,
    save: str | Iterable[str] = ALL,
    overwrite: bool = False,
    report: bool = True,
) -> WrittenRegistration:
    """Write a result to a folder, in files named as ANTs names them.

    Every file is complete when it appears, and ``metrics.json`` comes last. Files of an earlier
    registration in the folder are replaced, or removed if this one does not write them.

    Args:
        result: the registration; it does not change.
        folder: the folder; created if it does not exist.
        save: which outputs to write: "all", or some of transforms, inverse, composite, warped,
            inverse-warped, labels, masks and report, as one string with commas or as a list; all
            are all but composite, the transforms as ITK's ``.h5``. ``metrics.json`` is always
            written.
        overwrite: replace what an earlier registration wrote.
        report: write ``report.html``, if it is among the outputs. If it cannot be drawn, it is
            left out, and a warning in the metrics says why.

    Raises:
        InputError: ``save`` names an unknown output; a file exists already and ``overwrite`` is
            false, also if another command wrote it in the meantime; the folder cannot be written;
            the result was loaded from a folder without a file that an output needs.
    """
    started, folder = time.perf_counter(), Path(folder)
    save = save if isinstance(save, str) else list(save)
    check_output(folder, save=save, overwrite=overwrite)
    names = files_of(save) - (set() if report else {REPORT})
    warnings = [warning for warning in result.warnings if not warning.startswith(NO_REPORT)]
    with staging(folder) as stage:
        jobs = _writers(result, stage, names)
        if REPORT in names:
            title = folder.absolute().name
            jobs.insert(0, lambda: warnings.extend(_write_report(result, stage / REPORT, title)))
        run_in_parallel(jobs)
        metrics = dict(result.metrics) | {"warnings": warnings}
        seconds = {"write": round(time.perf_counter() - started, 3)}
        metrics["seconds"] = {**metrics.get("seconds", {}), **seconds}
        (stage / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
        files = publish(stage, folder, REGISTERED, overwrite=overwrite)
        return WrittenRegistration(files, metrics)


def _writers(
    result: Registration, stage: Path, names: frozenset[str]
) -> list[Callable[[], object]]:
    """A job for each file to write except the record and the report, large files first."""
    jobs: dict[str, Callable[[], object]] = {}
    if not result.is_linear:
        jobs[WARP] = lambda: formats.write_warp(result.warp, stage / WARP)
        jobs[INVERSE_WARP] = lambda: _write_inverse(result.inverse_warp, stage / INVERSE_WARP)
    for name, chain in ((COMPOSITE, result.transform), (INVERSE_COMPOSITE, result.inverse)):
        jobs[name] = partial(_write_composite, result, chain, stage / name)
    jobs |= {
        WARPED: lambda: write_volume(result.warped, stage / WARPED),
        INVERSE_WARPED: lambda: write_volume(result.inverse_warped, stage / INVERSE_WARPED),
        AFFINE: lambda: formats.write_affine(result.affine, stage / AFFINE),
    }
    for name, attribute in (
        (WARPED_LABELS, "warped_labels"),
        (MOVING_MASK, "moving_mask"),
        (FIXED_MASK, "fixed_mask"),
        (WARPED_MASK, "warped_mask"),
        (WARPED_LESION, "warped_lesion"),
    ):
        volume = getattr(result, attribute) if name in names else None
        if volume is not None:
            jobs[name] = partial(write_volume, volume, stage / name)
    return [job for name, job in jobs.items() if name in names]


def _write_composite(result: Registration, chain: Chain, path: Path) -> None:
    steps = [step for step in chain.transforms if isinstance(step, Affine) or not result.is_linear]
    for step in steps:
        if isinstance(step, MissingWarp):
            raise step.error()
    write_composite(cast(list[Affine | Warp], steps), path)


def _write_inverse(warp: Warp | MissingWarp, path: Path) -> None:
    if isinstance(warp, MissingWarp):
        raise warp.error()
    formats.write_warp(warp, path)


def _write_report(result: Registration, path: Path, name: str) -> list[str]:
    """Write the report; if that fails, return a warning, since the registration is still good."""
    try:
        path.write_text(render_report(result.scene, result.metrics, name=name), encoding="utf-8")
    except Exception as error:
        log.info("the report of %s cannot be written", name, exc_info=True)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return [f"{NO_REPORT}{type(error).__name__}: {error}"]
    return []
