"""Register two brain scans: prepare, run the network, refine, compose, resample once."""

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch

from ..allocation import freed_memory_kept
from ..device import has_bfloat16, torch_device
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
from ..measures.deformation import jacobian_statistics
from ..measures.overlap import dice
from ..measures.similarity import similarity
from ..networks.descent import Plan, least_determinant, unfolded
from ..networks.model import Model, Recipe
from ..networks.network import Deformation
from ..networks.refine import STEPS, Refinement
from ..pictures.pictures import Scene
from ..pictures.plots import draw
from ..pictures.report import mosaic
from ..pictures.report import report as write_report
from ..preparation.cache import examined
from ..preparation.prepare import (
    Findings,
    Prepared,
    Settings,
    brain_mask,
    placed,
    prepare,
    read_scan,
    template_path,
    unaligned,
)
from ..provenance import origin, versions
from ..space import formats
from ..space.grid import Grid
from ..space.region import bounding_box
from ..space.resample import resample
from ..space.transform import Affine, Chain, Warp, carry
from ..space.volume import Source, Volume, nifti, write_volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUTS = REGISTERED
NO_REPORT = "no report: "

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False, repr=False)
class Registration:
    """The result of ``register``: a deformation of the fixed space and what it does.

    Args:
        fixed, moving: the scans as they were read.
        affine: the linear part A, from the fixed space to the moving space, RAS mm.
        warp: the deformable part W on the fixed grid; x ↦ A(W(x)) is the registration.
        inverse_warp: W⁻¹, also on the fixed grid.
        labels, fixed_labels: label maps on the scans' own grids, if they were given.
        brain: the fixed brain on the fixed grid: 1 inside, 0 outside.
        moving_mask, fixed_mask: brains of scans that are heads, on the scans' own grids.
        metrics: what ``metrics.json`` holds.
    """

    fixed: Volume
    moving: Volume
    affine: Affine
    warp: Warp
    inverse_warp: Warp
    labels: Volume | None
    fixed_labels: Volume | None
    brain: Volume
    moving_mask: Volume | None
    fixed_mask: Volume | None
    metrics: dict[str, Any]

    @property
    def fixed_grid(self) -> Grid:
        """Grid of the fixed scan, and of the warps."""
        return self.fixed.grid

    @property
    def moving_grid(self) -> Grid:
        """Grid of the moving scan."""
        return self.moving.grid

    @property
    def scene(self) -> Scene:
        """What pictures show of it."""
        return Scene(
            fixed=self.fixed,
            moving=self.moving,
            affine=self.affine,
            warp=self.warp,
            brain=self.brain.data != 0,
            masks={"moving": self.moving_mask, "fixed": self.fixed_mask},
            labels=self.labels,
            fixed_labels=self.fixed_labels,
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
        return resample(self.moving, self.fixed.grid, self.transform)

    @cached_property
    def inverse_warped(self) -> Volume:
        """The fixed scan on the moving grid."""
        return resample(self.fixed, self.moving.grid, self.inverse)

    @cached_property
    def warped_labels(self) -> Volume | None:
        """The moving labels on the fixed grid, by nearest neighbour; None without labels."""
        return self._carried(self.labels)

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
        """Write all outputs, named as ANTs names them: each whole, ``metrics.json`` last.

        Args:
            folder: where to; made if need be.
            overwrite: replace what an earlier registration wrote.
            report: write ``report.html``, too. Where that fails, it is left out, and
                ``metrics["warnings"]`` says why.

        Returns:
            The files, in a fixed order.

        Raises:
            InputError: a file of one of these names is there and ``overwrite`` is false, or
                the folder cannot be written.
        """
        folder = Path(folder)
        check_output(folder, overwrite=overwrite)
        with staging(folder) as stage:
            started = time.perf_counter()
            jobs = [
                lambda: formats.write_warp(self.warp, stage / WARP),
                lambda: formats.write_warp(self.inverse_warp, stage / INVERSE_WARP),
                lambda: write_volume(self.warped, stage / WARPED),
                lambda: write_volume(self.inverse_warped, stage / INVERSE_WARPED),
                lambda: formats.write_affine(self.affine, stage / AFFINE),
            ]
            if report:
                jobs.insert(0, lambda: self._write_report(stage / REPORT, folder.absolute().name))
            for name, volume in (
                (WARPED_LABELS, self.warped_labels),
                (MOVING_MASK, self.moving_mask),
                (FIXED_MASK, self.fixed_mask),
                (WARPED_MASK, self.warped_mask),
            ):
                if volume is not None:
                    jobs.append(partial(write_volume, volume, stage / name))
            side_by_side(jobs)
            self.metrics["seconds"]["write"] = round(time.perf_counter() - started, 3)
            (stage / METRICS).write_text(json.dumps(self.metrics, indent=2) + "\n")
            return publish(stage, folder, OUTPUTS)

    def _write_report(self, path: Path, name: str) -> None:
        """Write it, or tell in a warning why not: the registration itself is good without."""
        warnings: list[str] = self.metrics["warnings"]
        warnings[:] = [told for told in warnings if not told.startswith(NO_REPORT)]
        try:
            written = write_report(self.scene, self.metrics, name=name)
            path.write_text(written, encoding="utf-8")
        except Exception as error:
            warnings.append(f"{NO_REPORT}{type(error).__name__}: {error}")
            with suppress(OSError):
                path.unlink(missing_ok=True)


@freed_memory_kept()
def register(
    moving: Source,
    fixed: Source | None = None,
    model: str | os.PathLike[str] = "default",
    *,
    labels: Source | None = None,
    fixed_labels: Source | None = None,
    mask: Source | None = None,
    fixed_mask: Source | None = None,
    brain_extract: str = "auto",
    extractor: str = "deepbet",
    bias: bool | None = None,
    affine: bool = True,
    refine: bool | int = False,
    refine_seconds: float | None = None,
    smoothness: float | None = None,
    device: str = "auto",
    seed: int = 0,
    cache: bool = True,
    progress: Progress | None = None,
) -> Registration:
    """Find the deformation that aligns the moving scan with the fixed one.

    What is doubtful about the scans or the result stands in ``metrics["warnings"]``.

    Args:
        moving, fixed: heads or brain-extracted scans of any size, spacing and orientation:
            paths, or images of nibabel's. ``fixed`` defaults to the MNI152 template.
        model: name of an installed model, or a model's folder.
        labels: label map on the moving scan's grid; it is carried along.
        fixed_labels: label map on the fixed scan's grid, for Dice.
        mask, fixed_mask: brain masks on the scans' grids; other than 0 is brain.
        brain_extract: extract the brains ("yes"), take the scans for brains ("no"), or look at
            each ("auto").
        extractor: name of what extracts them, see ``brain.extractor``.
        bias: correct the bias field; None: of heads, not of brains.
        affine: align linearly first; without it the scans must be aligned in world space.
        refine: go on from the network's answer by optimisation of this pair, in at most so many
            steps (True: 16); 0 or False: not.
        refine_seconds: time that the refinement may take; no limit without.
        smoothness: factor of how smooth refined deformations are, and those of models that are
            made by optimisation; 1 without.
        device: "auto", "cpu" or "cuda".
        seed: of what is random; nothing is so far, and it is only recorded.
        cache: remember what was found in each scan, and look there first.
        progress: called with the name of each stage as it begins.

    Raises:
        InputError: an input, the model or the device is not there or not usable.
    """
    if not 0 <= seed < 2**31 - 1:
        raise InputError(f"seed {seed}: a whole number from 0 to {2**31 - 2} is wanted")
    settings = Settings(brain_extract, extractor, bias, affine)
    refinement = _refinement(refine, refine_seconds)
    check_smoothness(smoothness)
    unused = fixed_labels is not None and labels is None
    target = torch_device(device)
    clock = _Clock(progress)
    clock.start("read")
    if fixed is None and fixed_mask is not None:
        raise InputError("a mask of the fixed scan is given, but no fixed scan")
    m = _Scan(*read_scan(moving, "moving", labels, mask))
    f = _Scan(
        *read_scan(template_path() if fixed is None else fixed, "fixed", fixed_labels, fixed_mask)
    )
    inputs = _inputs(
        **{"moving": moving, "fixed": fixed, "labels": labels, "fixed_labels": fixed_labels},
        **{"mask": mask, "fixed_mask": fixed_mask},
    )
    loaded = Model.load(model, target)
    if fixed is None and loaded.recipe.alignment != "mni152":
        raise InputError(
            f"model {loaded.name}: its scans are not in MNI152 space: give a fixed scan"
        )
    check_adjustable(loaded, smoothness, refined=refinement is not None)
    clock.start("prepare")
    _prepare_both(f, m, loaded.recipe, settings, fixed_is_template=fixed is None, cache=cache)
    clock.start("network")
    images = images_of(m.prepared, f.prepared, target)
    deformation = deform(loaded, *images, smoothness=smoothness)
    if refinement:
        clock.start("refine")
        deformation = loaded.refine(*images, deformation, refinement, smoothness=smoothness)
    both = both_ways(deformation)
    clock.start("compose")
    warp, inverse_warp = on_fixed_grid(both, loaded, f.prepared, f.volume.grid)
    brain = f.brain_mask()
    result = Registration(
        fixed=f.volume,
        moving=m.volume,
        affine=m.prepared.template_to_scan.after(f.prepared.template_to_scan.inverse()),
        warp=warp,
        inverse_warp=inverse_warp,
        labels=m.labels,
        fixed_labels=f.labels,
        brain=brain,
        moving_mask=m.mask_to_keep(),
        fixed_mask=brain if f.found.mask else None,
        metrics={},
    )
    clock.start("resample")
    _ = result.warped, result.inverse_warped, result.warped_labels, result.warped_mask
    clock.start("measure")
    measured = _measure(result, f, m.prepared, both[0])
    if measured["jacobian"]["folds_any_difference"] and (refinement or loaded.adjustable):
        # Made without folds on the working grid; resampling onto this one has brought some.
        result = replace(result, warp=without_folds(result.warp, result.brain.data != 0))
        measured = _measure(result, f, m.prepared, both[0])
    clock.stop()
    result.metrics.update(
        versions=versions(),
        inputs=inputs,
        model=_described(loaded),
        settings={
            "brain_extract": brain_extract,
            "extractor": extractor,
            "bias": bias,
            "affine": affine,
            "refine": asdict(refinement) if refinement else None,
            "smoothness": smoothness,
            "device": str(target),
            "precision": "bf16 convolutions" if has_bfloat16(target) else "float32",
            "seed": seed,
            "threads": torch.get_num_threads(),
        },
        preparation={"fixed": f.found.described(), "moving": m.found.described()},
        grids={
            name: {
                "shape": list(scan.volume.grid.shape),
                "affine": scan.volume.grid.affine.tolist(),
            }
            for name, scan in (("fixed", f), ("moving", m))
        },
        seconds=clock.seconds,
        **measured,
        warnings=[
            *m.doubts("moving"),
            *f.doubts("fixed"),
            *_without_effect(loaded, settings),
            *_doubts(measured, unused),
        ],
    )
    return result


@dataclass
class _Scan:
    """What is known of one side of a registration, as it becomes known."""

    volume: Volume
    labels: Volume | None
    mask: Volume | None
    found: Findings = field(init=False)
    prepared: Prepared = field(init=False)

    def examine(self, settings: Settings, recipe: Recipe, cache: bool) -> None:
        if recipe.alignment == "mni152":
            self.found, _ = examined(self.volume, settings, self.mask, use=cache)
        else:
            self.found = unaligned(self.volume, recipe, self.mask)

    def brain_mask(self) -> Volume:
        """The brain on the scan's own grid."""
        return brain_mask(self.found, self.volume, self.volume.grid)

    def mask_to_keep(self) -> Volume | None:
        """The same, if the scan shows more than the brain."""
        return self.brain_mask() if self.found.mask else None

    def doubts(self, role: str) -> list[str]:
        return [*self.volume.doubts, *self.found.doubts(f"{role} image {self.volume.name}")]


def _prepare_both(
    fixed: _Scan,
    moving: _Scan,
    recipe: Recipe,
    settings: Settings,
    *,
    fixed_is_template: bool,
    cache: bool,
) -> None:
    with ThreadPoolExecutor(2) as pool:  # PyTorch and SimpleITK let go of the interpreter
        m = pool.submit(moving.examine, settings, recipe, cache)
        if fixed_is_template:
            fixed.found = Findings("brain", fixed.volume.grid, Affine(np.eye(4)))
        else:
            fixed.examine(replace(settings, affine=True), recipe, cache)
        m.result()
    if not settings.affine and recipe.alignment == "mni152":
        # The two share their world: what leads to one leads to the other.
        there = fixed.found.template_to_scan
        moving.found = placed(moving.found, moving.volume, there)
    fixed.prepared, moving.prepared = prepare_both(
        recipe, (fixed.volume, fixed.found), (moving.volume, moving.found)
    )


def prepare_both(recipe: Recipe, *scans: tuple[Volume, Findings]) -> list[Prepared]:
    """Put scans on the working grid, two at a time."""
    with ThreadPoolExecutor(min(2, torch.get_num_threads())) as pool:
        return list(pool.map(lambda scan: prepare(scan[0], recipe, scan[1]), scans))


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Make sure, before anything costs time, that the outputs can be written to ``folder``.

    Raises:
        InputError: it is no folder, holds outputs already, or cannot be written.
    """
    check_writable(folder, OUTPUTS, overwrite=overwrite)
    check_other_record(folder, PREPROCESSED)


def images_of(
    moving: Prepared, fixed: Prepared, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Moving and fixed on the working grid as networks take them, (1, 1, X, Y, Z)."""
    return moving.image[None, None].to(device), fixed.image[None, None].to(device)


def deform(
    model: Model,
    moving: torch.Tensor,
    fixed: torch.Tensor,
    *,
    smoothness: float | None = None,
) -> Deformation:
    """The model's answer on the working grid, with its inverse."""
    answer = model.deform(moving, fixed, smoothness=smoothness if model.adjustable else None)
    if answer.inverse is None:
        answer = answer._replace(inverse=fields.invert(answer.displacement))
    return answer


def both_ways(deformation: Deformation) -> tuple[torch.Tensor, torch.Tensor]:
    """φ and φ⁻¹ as displacements (3, X, Y, Z) in voxels of the working grid."""
    assert deformation.inverse is not None
    return deformation.displacement[0].cpu(), deformation.inverse[0].cpu()


LEAST_SMOOTHNESS, MOST_SMOOTHNESS = 0.5, 8.0


def check_smoothness(smoothness: float | None) -> None:
    """Refuse factors that no lattice can follow.

    Raises:
        InputError: it is not between 0.5 and 8.
    """
    if smoothness is not None and not LEAST_SMOOTHNESS <= smoothness <= MOST_SMOOTHNESS:
        raise InputError(
            f"smoothness {smoothness}: a factor from {LEAST_SMOOTHNESS} to {MOST_SMOOTHNESS:.0f} "
            f"is wanted"
        )


def check_adjustable(model: Model, smoothness: float | None, *, refined: bool) -> None:
    """Refuse a smoothness that nothing would follow.

    Raises:
        InputError: the model decides by itself, and its answer is not refined.
    """
    if smoothness is not None and not (refined or model.adjustable):
        raise InputError(
            f"smoothness: model {model.name} decides on it by itself; refine its answer, or take "
            f"another model"
        )


def _refinement(refine: bool | int, seconds: float | None) -> Refinement | None:
    """What is asked for; a time alone asks for one."""
    if refine is False and seconds is None:
        return None
    if refine is True or refine is False:
        refine = STEPS
    if not 0 <= refine <= 1000:
        raise InputError(f"refine {refine}: 1 to 1000 steps are wanted, or 0 for none")
    if seconds is not None and not 0 < seconds < math.inf:
        raise InputError(f"refine_seconds {seconds}: a time above 0 is wanted")
    return Refinement(refine, seconds) if refine else None


def on_fixed_grid(
    displacements: Iterable[torch.Tensor], model: Model, fixed: Prepared, grid: Grid
) -> list[Warp]:
    """Displacements of the working grid as warps of the fixed scan's space, on its grid."""
    space = fixed.template_to_scan.inverse()
    warps = (Warp.from_voxels(displacement, model.recipe.grid) for displacement in displacements)
    return [_rounded(carry(warp, space, grid)) for warp in warps]


def without_folds(warp: Warp, brain: np.ndarray) -> Warp:
    """The warp, smoothed around the voxels of ``brain`` where it folds by any differences."""
    x, y, z = bounding_box(brain)
    displacement = warp.in_voxels()
    part = displacement[None, :, x, y, z]
    if not (least_determinant(part)[0] <= 0)[torch.from_numpy(brain[x, y, z])].any():
        return warp
    displacement[:, x, y, z] = unfolded(part, least=Plan.least_volume)[0]
    return _rounded(Warp.from_voxels(displacement, warp.grid))


def _rounded(warp: Warp) -> Warp:
    """Displacements to 2⁻¹³ mm (0.1 µm): files 30 % smaller, written in a quarter less time.

    Everything is computed from the rounded field, so that the files say exactly what was done.
    """
    np.multiply(warp.displacement, 8192, out=warp.displacement)
    np.rint(warp.displacement, out=warp.displacement)
    np.divide(warp.displacement, 8192, out=warp.displacement)
    return warp


def _measure(
    result: Registration, fixed: _Scan, moving: Prepared, displacement: torch.Tensor
) -> dict[str, Any]:
    target, labels = fixed.prepared.image, result.fixed_labels
    moved = fields.warp(moving.image[None, None], displacement[None])[0, 0]
    scores = None
    if labels is not None and result.warped_labels is not None:
        each = dice(result.warped_labels.data, labels.data)
        scores = {
            "mean": float(np.mean(list(each.values()))),
            "per_label": each,
            "labels": "nearest neighbour",
        }
    return {
        "similarity": {
            "before": similarity(target, moving.image),
            "after": similarity(target, moved),
        },
        "dice": scores,
        "jacobian": jacobian_statistics(result.warp, result.brain.data != 0),
    }


def _without_effect(model: Model, settings: Settings) -> list[str]:
    """Options that a model has no use for, whose scans are not taken to MNI152 space."""
    asked = {
        "--no-affine": not settings.affine,
        "--bias": settings.bias is True,
        "--brain-extract yes": settings.brain_extract == "yes",
    }
    named = [option for option, given in asked.items() if given]
    if model.recipe.alignment == "mni152" or not named:
        return []
    return [
        f"{', '.join(named)} had no effect: model {model.name} places scans by their "
        f"{model.recipe.alignment} and takes them as they are"
    ]


def _doubts(measured: dict[str, Any], unused_labels: bool) -> list[str]:
    """Reasons to look twice at the result."""
    doubts = ["fixed labels need labels of the moving scan for Dice"] if unused_labels else []
    before, after = (measured["similarity"][when]["local_ncc"] for when in ("before", "after"))
    if before == 0:
        doubts.append("the scans do not overlap: they are not aligned in world space")
    elif after < before - 0.005:
        doubts.append(
            f"the scans are less alike after the registration: local NCC {before:.3f} → {after:.3f}"
        )
    elif after < 0.15:
        doubts.append(f"the scans are hardly alike after the registration: local NCC {after:.3f}")
    correlation = measured["similarity"]["after"]["correlation"]
    if before and correlation < 0.5 and after >= 0.15:
        doubts.append(
            f"the scans are not much alike after the registration (correlation "
            f"{correlation:.2f}): are they of one contrast?"
        )
    if measured["jacobian"]["folds"]:
        doubts.append(
            f"the deformation folds in {measured['jacobian']['folds']} voxels of the fixed brain"
        )
    return doubts


def _described(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "weights_sha256": model.sha256,
        "licence": model.card.get("licence"),
    }


def _inputs(**sources: Source | None) -> dict[str, Any]:
    """Path and SHA-256 of every input; the template stands in for a fixed image not given."""
    described = {name: origin(source) for name, source in sources.items()}
    if described["fixed"] is None:
        described["fixed"] = {"template": "MNI152, ICBM 2009a symmetric"}
    return described


class _Clock:
    """Times of the stages, and word of each as it begins."""

    def __init__(self, progress: Progress | None):
        self.seconds: dict[str, float] = {}
        self._progress, self._stage, self._since = progress, "", 0.0

    def start(self, stage: str) -> None:
        self.stop()
        self._stage, self._since = stage, time.perf_counter()
        if self._progress:
            self._progress(stage)

    def stop(self) -> None:
        if self._stage:
            self.seconds[self._stage] = round(time.perf_counter() - self._since, 3)
        self._stage = ""
