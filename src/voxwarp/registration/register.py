"""Register two scans: prepare, run the model, refine, compose, resample once, measure."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from .._allocation import release_free_memory
from .._device import has_bfloat16
from .._meter import Meter
from .._provenance import versions
from ..errors import InputError
from ..measures.deformation import jacobian_statistics
from ..measures.similarity import similarity
from ..networks.model import Model
from ..networks.refine import Refinement
from ..preparation.affine import refined_affine
from ..preparation.companion import prepared_by_companion
from ..preparation.examination import placed_at
from ..preparation.masking import lesion_on
from ..preparation.rigid import register_rigid
from ..preparation.scan import Prepared, Scan, prepare, prepare_scans, several
from ..preparation.settings import DEFAULTS, Preparation
from ..runtime import DEFAULT_RUNTIME, Runtime
from ..space.composite import read_linear
from ..space.transform import PART_VOXELS, Affine, Warp
from ..space.volume import ImageLike, Volume
from .contrast import Choice
from .deform import (
    PairDeformation,
    check_lesions_count,
    check_smoothness,
    check_smoothness_applies,
    compute_deformation,
    inverted,
    on_fixed_grid,
    smooth_folds,
)
from .lesions import described as lesions_described
from .lesions import lesion_volumes
from .lesions import warnings as lesion_warnings
from .measure import Measures, measure
from .memory import check_memory
from .result import Registration

TransformKind = Literal["rigid", "affine", "deformable"]
AnyLinear = Affine | str | os.PathLike[str]


def register(
    moving: ImageLike | Scan,
    fixed: ImageLike | Scan | None = None,
    model: str | os.PathLike[str] | Model = "default",
    *,
    labels: ImageLike | None = None,
    fixed_labels: ImageLike | None = None,
    mask: ImageLike | None = None,
    fixed_mask: ImageLike | None = None,
    lesion_mask: ImageLike | Sequence[ImageLike] | None = None,
    fixed_lesion_mask: ImageLike | Sequence[ImageLike] | None = None,
    companion: ImageLike | Scan | None = None,
    fixed_companion: ImageLike | Scan | None = None,
    preparation: Preparation = DEFAULTS,
    transform: TransformKind = "deformable",
    initial: AnyLinear | None = None,
    refine: bool | Refinement = False,
    smoothness: float | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Registration:
    """Find the transform that aligns the moving scan with the fixed scan.

    If the scans or the result look wrong, ``warnings`` of the result says why. To register many
    scans, pass a ``Scan`` and a ``Model`` that you loaded once: each is then prepared once.

    Args:
        moving, fixed: heads or skull-stripped brains of any size, spacing and orientation: paths,
            nibabel images, volumes or scans. ``fixed`` is the template of the model by default.
        model: name of an installed model, folder of a model, or a model (which is moved to the
            device of the runtime).
        labels: label map on the grid of the moving scan; it is transformed, too.
        fixed_labels: label map on the grid of the fixed scan; with ``labels``, Dice is measured.
        mask, fixed_mask: brain masks on the grids of the scans; every value but 0 is brain.
        lesion_mask, fixed_lesion_mask: masks of lesions or resections, one or several, in the
            spaces of the scans; what lies in them pulls nothing, and the deformation continues
            smoothly through them.
        companion, fixed_companion: T1-weighted scans of the same persons. Each is aligned with its
            scan by a rigid map, and registered in its place; for scans of other contrasts, of which
            no brain can be extracted.
        preparation: how the scans are prepared for the model.
        transform: "deformable"; or "rigid" or "affine", a linear map, for which no model runs.
        initial: linear map from the fixed to the moving space to start from, an ``Affine`` or the
            path of an ITK file; no other start is tried.
        refine: continue from the result of the model by optimising this pair; True, or a
            ``Refinement``.
        smoothness: factor by which the deformation is smoother, 0.5 to 8; for refined results and
            for models that optimise each pair.
        runtime: device, threads, cache and progress.

    Returns:
        The result, in memory; ``save`` writes it.

    Raises:
        InputError: an input, the model or the device is missing or cannot be used.

    Example:
        >>> import voxwarp
        >>> result = voxwarp.register("moving.nii.gz", "fixed.nii.gz")
        >>> result.moved.shape == result.fixed_grid.shape  # a nibabel image
        True
        >>> rigid = voxwarp.register("moving.nii.gz", "fixed.nii.gz", transform="rigid")
        >>> rigid.affine.matrix.shape
        (4, 4)
    """
    refinement = Refinement.from_value(refine)
    check_smoothness(smoothness)
    check_transform_kind(transform, refinement, smoothness)
    start = initial if isinstance(initial, Affine | None) else read_linear(initial)
    device = runtime.torch_device()
    meter = Meter(memory=False, announce=runtime.progress)
    with runtime.with_threads():
        meter.start("read")
        check_fixed_inputs(
            fixed,
            fixed_mask=fixed_mask,
            fixed_lesion_mask=fixed_lesion_mask,
            fixed_companion=fixed_companion,
        )
        moving_scan = scan_of(moving, "moving", labels, mask, lesion_mask)
        # Without a fixed scan, it is the template of the model, which is loaded first.
        fixed_scan = None
        if fixed is not None:
            fixed_scan = scan_of(fixed, "fixed", fixed_labels, fixed_mask, fixed_lesion_mask)
        companions = Companions(
            *(
                None if scan is None else scan_of(scan, f"{role}companion", None, None)
                for scan, role in ((companion, ""), (fixed_companion, "fixed "))
            )
        )
        loaded = model if isinstance(model, Model) else Model.load(model, device)
        if isinstance(model, Model):
            loaded.network.to(device)
        fixed_scan = fixed_scan or template_of(loaded, fixed_labels)
        check_smoothness_applies(loaded, smoothness, refined=refinement is not None)
        task = RegistrationTask(
            moving_scan,
            fixed_scan,
            loaded,
            preparation,
            refinement,
            smoothness,
            transform,
            start,
            companions,
        )
        return task.run(device, runtime.cache, meter)


def check_fixed_inputs(fixed: object, **inputs: object) -> None:
    """Check that nothing is given for a fixed scan that is not given.

    Raises:
        InputError: there is.
    """
    for name, value in inputs.items():
        if fixed is None and value is not None:
            raise InputError(f"{name} needs a fixed scan, but none was given")


def check_transform_kind(
    kind: str, refinement: Refinement | None, smoothness: float | None
) -> None:
    """Check the kind of transform, and that nothing else contradicts it.

    Raises:
        InputError: the kind is unknown, or a linear transform is to be refined or smoothed.
    """
    if kind not in get_args(TransformKind):
        raise InputError(f"transform must be rigid, affine or deformable, got {kind!r}")
    if kind != "deformable":
        for name, value in (("refine", refinement), ("smoothness", smoothness)):
            if value is not None:
                raise InputError(f"{name} needs a deformable transform, got transform {kind!r}")


def scan_of(
    scan: ImageLike | Scan,
    role: str,
    labels: ImageLike | None,
    mask: ImageLike | None,
    lesion_mask: ImageLike | Sequence[ImageLike] | None = None,
) -> Scan:
    """Read a scan, unless it was read before.

    Raises:
        InputError: a file is missing or cannot be used; or the scan was read before, and labels
            or masks are given now.
    """
    if not isinstance(scan, Scan):
        return Scan.read(scan, labels=labels, mask=mask, lesion_mask=lesion_mask, role=role)
    if labels is not None or mask is not None or several(lesion_mask):
        raise InputError(
            f"{role} scan {scan.name}: this Scan was read before; give its labels and masks to "
            f"Scan.read instead"
        )
    return scan


class Companions(NamedTuple):
    """T1-weighted scans of the same persons, which are registered in the place of the scans."""

    moving: Scan | None = None
    fixed: Scan | None = None


NO_COMPANIONS = Companions()


def template_of(model: Model, labels: ImageLike | None) -> Scan:
    """The template of the model as the fixed scan.

    Raises:
        InputError: the model has no template.
    """
    if model.recipe.template is None:
        raise InputError(
            f"model {model.name} has no template to register to; give a fixed scan (`fixed`)"
        )
    return Scan.of_template(model.recipe.template, labels)


@dataclass(frozen=True, eq=False)
class RegistrationTask:
    """A pair of scans, and how to register it.

    Args:
        moving, fixed: the scans.
        model: the model that registers them.
        preparation, refinement, smoothness, initial: see ``register``.
        kind: the kind of transform, see ``transform`` of ``register``.
        companions: of the scans, see ``register``.
    """

    moving: Scan
    fixed: Scan
    model: Model
    preparation: Preparation
    refinement: Refinement | None
    smoothness: float | None
    kind: TransformKind = "deformable"
    initial: Affine | None = None
    companions: Companions = NO_COMPANIONS

    def run(self, device: torch.device, cache: bool, meter: Meter) -> Registration:
        """Register the pair; the meter measures the time of the stages."""
        meter.start("prepare")
        moving, fixed = self.prepared(cache)
        return self.computed(moving, fixed, device, meter)

    def computed(
        self, moving: Prepared, fixed: Prepared, device: torch.device, meter: Meter
    ) -> Registration:
        """Register the pair, prepared by ``prepared``."""
        if self.kind != "deformable":
            return self._linear(moving, fixed, device, meter)
        deformation = compute_deformation(
            self.model,
            moving=moving,
            fixed=fixed,
            device=device,
            refinement=self.refinement,
            smoothness=self.smoothness,
            meter=meter,
        )
        return self.with_deformation(deformation, moving, fixed, device, meter)

    def with_deformation(
        self,
        deformation: PairDeformation,
        moving: Prepared,
        fixed: Prepared,
        device: torch.device,
        meter: Meter,
    ) -> Registration:
        """Make the result of a deformation of the prepared pair."""
        meter.start("compose")
        if math.prod(self.fixed.grid.shape) > PART_VOXELS:
            release_free_memory()  # in pieces that are too small for its fields
        warp = on_fixed_grid(deformation.displacement, self.model, fixed, self.fixed.grid)
        brain = self.fixed.brain_mask(fixed.examination)
        jacobian = jacobian_statistics(warp, brain.data != 0)
        if jacobian["folds_any_difference"] and self._has_no_folds:
            # Resampling from the working grid to the fixed grid has introduced these.
            smooth_folds(warp, brain.data != 0)
            jacobian = jacobian_statistics(warp, brain.data != 0)
        affine = moving.template_to_scan.after(fixed.template_to_scan.inverse())
        warps = warp, inverted(warp)
        result = self._result(moving, fixed, affine, warps, brain, meter)
        meter.start("measure")
        measures = _measure(result, moving, fixed, deformation, jacobian)
        record = self._record(result, moving, fixed, device, measures, deformation.choice, meter)
        return result.with_metrics(record)

    def _linear(
        self, moving: Prepared, fixed: Prepared, device: torch.device, meter: Meter
    ) -> Registration:
        """Register the pair by a rigid or affine transform alone."""
        meter.start(self.kind)
        start = moving.template_to_scan.after(fixed.template_to_scan.inverse())
        sides = {"moving": (self.moving, moving), "fixed": (self.fixed, fixed)}
        brains = {name: scan.brain(found.examination) for name, (scan, found) in sides.items()}
        lesions: dict[str, Any] = {
            f"{name}_lesion": lesion_on(brains[name].grid, found.examination.lesion)
            for name, (_, found) in sides.items()
        }
        if self.kind == "affine":
            affine = refined_affine(start=start, **brains, **lesions)
        else:  # scans of one session are often aligned by their headers: another start
            more_starts = [] if self.initial is not None else [Affine(np.eye(4))]
            affine = register_rigid(start, *more_starts, **brains, **lesions)
        zero_warp = Warp(np.zeros((3, *self.fixed.grid.shape), np.float32), self.fixed.grid)
        brain = self.fixed.brain_mask(fixed.examination)
        result = self._result(moving, fixed, affine, (zero_warp, zero_warp), brain, meter)
        meter.start("measure")
        by_header, moved = (
            prepare(
                self.moving.image,
                self.model.recipe,
                replace(
                    moving.examination, template_to_scan=to_moving.after(fixed.template_to_scan)
                ),
            )
            for to_moving in (Affine(np.eye(4)), affine)
        )
        zeros = torch.zeros(1, 3, *fixed.image.shape[2:])
        jacobian = jacobian_statistics(zero_warp, brain.data != 0)
        choice = Choice(self.model, self.model, {})
        still = PairDeformation(zeros, None, choice)
        measures = _measure(result, moved, fixed, still, jacobian)
        before = similarity(moved=by_header.image[0, 0], fixed=fixed.image[0, 0])
        measures = replace(measures, before=before)
        record = self._record(result, moving, fixed, device, measures, choice, meter)
        return result.with_metrics(record)

    def _result(
        self,
        moving: Prepared,
        fixed: Prepared,
        affine: Affine,
        warps: tuple[Warp, Warp],
        brain: Volume,
        meter: Meter,
    ) -> Registration:
        """The result without its record; each image is resampled once, from the original scan."""
        moving_mask = (
            self.moving.brain_mask(moving.examination) if moving.examination.mask else None
        )
        result = Registration(
            fixed=self.fixed,
            moving=self.moving,
            affine=affine,
            warp=warps[0],
            inverse_warp=warps[1],
            brain=brain,
            moving_mask=moving_mask,
            fixed_mask=brain if fixed.examination.mask else None,
            metrics={"settings": {"transform": self.kind}},
        )
        meter.start("resample")
        _ = result.warped, result.inverse_warped, result.warped_labels, result.warped_mask
        _ = result.warped_lesion
        return result

    @property
    def _has_no_folds(self) -> bool:
        """Whether the deformation has no folds on the working grid, as that of a descent."""
        return self.refinement is not None or self.model.capabilities.is_descent

    def prepared(self, cache: bool) -> list[Prepared]:
        """The moving and the fixed scan on the working grid.

        Raises:
            InputError: there is not enough memory to register them, no brain is found in one, or
                the model cannot leave lesions out.
        """
        recipe, settings = self.model.recipe, self.preparation
        if self.kind == "deformable":
            has_lesions = any(scan.lesion is not None for scan in (self.moving, self.fixed))
            check_lesions_count(self.model, has_lesions, refined=self.refinement is not None)
        check_memory(
            self.moving,
            self.fixed,
            recipe,
            settings,
            deformable=self.kind == "deformable",
            refined=self.refinement is not None,
            companions=self.companions,
        )
        if any(self.companions):
            return self._prepared_by_companions(cache)
        with ThreadPoolExecutor(2) as pool:  # PyTorch and SimpleITK release the interpreter lock
            steps = settings if self.initial is None else replace(settings, affine=False)
            job = pool.submit(self.moving.examined, recipe, steps, cache=cache)
            fixed = self.fixed.examined(recipe, replace(settings, affine=True), cache=cache)
            moving = job.result()
        if self.initial is not None:
            template_to_moving = self.initial.after(fixed.template_to_scan)
            if recipe.template is None:
                moving = replace(moving, template_to_scan=template_to_moving)
            else:
                moving = placed_at(moving, self.moving.image, template_to_moving)
        elif not settings.affine and recipe.template is not None:
            # The two scans share their world space, so one map leads to both.
            moving = placed_at(moving, self.moving.image, fixed.template_to_scan)
        return prepare_scans(recipe, (self.moving, moving), (self.fixed, fixed))

    def _prepared_by_companions(self, cache: bool) -> list[Prepared]:
        """As ``prepared``, if at least one scan has a companion."""
        self._check_companions()
        recipe, settings = self.model.recipe, self.preparation

        def prepared(scan: Scan, companion: Scan | None) -> Prepared:
            if companion is None:
                return scan.prepared(recipe, scan.examined(recipe, settings, cache=cache))
            return prepared_by_companion(scan, companion, recipe, settings, cache=cache)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(prepared, (self.moving, self.fixed), self.companions))

    def _check_companions(self) -> None:
        """Refuse what contradicts a companion.

        Raises:
            InputError: something does.
        """
        if self.initial is not None or not self.preparation.affine:
            name = "initial" if self.initial is not None else "affine=False"
            raise InputError(
                f"companion: it is aligned with its scan, and with the template; so `{name}` "
                f"cannot be given as well"
            )
        if self.model.recipe.template is None:
            raise InputError(
                f"companion: model {self.model.name} aligns scans by their "
                f"{self.model.recipe.alignment_name}; it takes no companions"
            )
        for scan, companion in zip((self.moving, self.fixed), self.companions, strict=True):
            if companion is not None and scan.mask is not None:
                raise InputError(
                    f"companion: the brain mask of {scan.name} is that of its companion "
                    f"{companion.name}; give either the mask or the companion"
                )

    def _record(
        self,
        result: Registration,
        moving: Prepared,
        fixed: Prepared,
        device: torch.device,
        measures: Measures,
        choice: Choice,
        meter: Meter,
    ) -> dict[str, Any]:
        """The contents of ``metrics.json``; making it ends the last stage of the meter."""
        volumes = lesion_volumes(result)
        record = {
            "versions": versions(),
            "inputs": self._inputs(),
            "model": None
            if self.kind != "deformable"
            else {
                "name": choice.model.name,
                "weights_sha256": choice.model.sha256,
                "licence": choice.model.card.get("licence"),
            },
            "contrast": choice.described(),
            "settings": {
                **asdict(self.preparation),
                "transform": self.kind,
                "initial": None if self.initial is None else self.initial.matrix.tolist(),
                "refine": self.refinement and asdict(self.refinement),
                "smoothness": self.smoothness,
                "device": str(device),
                "precision": "bf16 convolutions" if has_bfloat16(device) else "float32",
                "threads": torch.get_num_threads(),
            },
            "preparation": {
                "fixed": fixed.examination.described(),
                "moving": moving.examination.described(),
            },
            "grids": {
                "fixed": self.fixed.grid.described(),
                "moving": self.moving.grid.described(),
            },
            "seconds": {},
            **measures.described(),
            "lesions": lesions_described(volumes),
            "warnings": [
                *self.moving.warnings(moving.examination, "moving"),
                *self.fixed.warnings(fixed.examination, "fixed"),
                *self._ignored_settings(),
                *measures.warnings(
                    trust=choice.model.descent.trust,
                    contrasts_may_differ=choice.contrasts_may_differ,
                ),
                *lesion_warnings(volumes),
                *result.border_warnings,
            ],
        }
        meter.stop()
        return record | {"seconds": meter.rounded()}

    def _inputs(self) -> dict[str, Any]:
        """Path and SHA-256 of every input; of a template its name."""
        moving, fixed = self.moving.origins, self.fixed.origins
        return {
            "moving": moving.get("image"),
            "fixed": fixed.get("image"),
            "labels": moving.get("labels"),
            "fixed_labels": fixed.get("labels"),
            "mask": moving.get("mask"),
            "fixed_mask": fixed.get("mask"),
            "lesion_masks": moving.get("lesion_masks"),
            "fixed_lesion_masks": fixed.get("lesion_masks"),
            "companion": self.companions.moving and self.companions.moving.origins.get("image"),
            "fixed_companion": self.companions.fixed and self.companions.fixed.origins.get("image"),
        }

    def _ignored_settings(self) -> list[str]:
        """Warnings about settings that had no effect, one sentence each."""
        warnings = list[str]()
        recipe = self.model.recipe
        if recipe.template is None:
            unused = {
                "`affine=False`": not self.preparation.affine,
                "`bias=True`": self.preparation.bias is True,
                "`brain_extract=yes`": self.preparation.brain_extract == "yes",
            }
            names = [name for name, is_set in unused.items() if is_set]
            if names:
                warnings.append(
                    f"{' and '.join(names)} had no effect, because model {self.model.name} aligns "
                    f"scans by their {recipe.alignment_name} and does not prepare them"
                )
        if self.fixed.labels is not None and self.moving.labels is None:
            warnings.append("Dice was not measured: give `labels`, too, not only `fixed_labels`")
        return warnings


def _measure(
    result: Registration,
    moving: Prepared,
    fixed: Prepared,
    deformation: PairDeformation,
    jacobian: dict[str, float | int],
) -> Measures:
    moved_labels, fixed_labels = result.warped_labels, result.fixed.labels
    return measure(
        moving=moving,
        fixed=fixed,
        displacement=deformation.displacement,
        jacobian=jacobian,
        labels=(moved_labels, fixed_labels) if moved_labels and fixed_labels else None,
        unsure=deformation.unsure,
    )
