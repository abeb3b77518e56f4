"""Register two brain scans: prepare, run the model, refine, compose, resample once, measure."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

from ..device import has_bfloat16
from ..errors import InputError
from ..measures.similarity import similarity
from ..meter import Meter
from ..networks.model import Model
from ..networks.refine import Refinement
from ..preparation.affine import refined_affine
from ..preparation.examination import placed_at
from ..preparation.rigid import register_rigid
from ..preparation.scan import Prepared, Scan, prepare, prepare_both
from ..preparation.settings import DEFAULTS, Preparation
from ..provenance import versions
from ..runtime import DEFAULT_RUNTIME, Runtime
from ..space.formats import read_affine
from ..space.transform import Affine, Warp
from ..space.volume import ImageLike, Volume
from .deform import answer_of, check_obeyed, check_smoothness, on_fixed_grid, without_folds
from .measure import Measures, measure
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
    preparation: Preparation = DEFAULTS,
    transform: TransformKind = "deformable",
    initial: AnyLinear | None = None,
    refine: bool | Refinement = False,
    smoothness: float | None = None,
    runtime: Runtime = DEFAULT_RUNTIME,
) -> Registration:
    """Find the deformation that aligns the moving scan with the fixed one.

    What is doubtful about the scans or the result stands in the result's ``warnings``. A scan
    that is registered more than once is prepared once if it is handed over as a ``Scan``, and a
    model is loaded once if it is handed over as a ``Model``.

    Args:
        moving, fixed: heads or brain-extracted scans of any size, spacing and orientation:
            paths, images of nibabel's, or scans that were read. ``fixed`` defaults to the
            model's template.
        model: name of an installed model, a model's folder, or a model, which is moved to the
            runtime's device.
        labels: label map on the moving scan's grid; it is carried along.
        fixed_labels: label map on the fixed scan's grid, for Dice.
        mask, fixed_mask: brain masks on the scans' grids; other than 0 is brain.
        preparation: which steps are taken before the model runs.
        transform: "rigid" or "affine": a linear map between the two scans, and no model runs;
            "deformable".
        initial: linear map from the fixed to the moving space to start from, as an ``Affine`` or
            the path of ITK's; no other start is tried then.
        refine: go on from the model's answer by optimisation of this pair.
        smoothness: factor of how smooth refined deformations are, and those of models that are
            made by optimisation; 1 without.
        runtime: device, cache, threads, progress.

    Raises:
        InputError: an input, the model or the device is not there or not usable.
    """
    refinement = Refinement.from_value(refine)
    check_smoothness(smoothness)
    check_kind(transform, refinement, smoothness)
    start = initial if isinstance(initial, Affine | None) else read_affine(initial)
    device = runtime.torch_device()
    meter = Meter(memory=False, announce=runtime.progress)
    with runtime.with_threads():
        meter.start("read")
        if fixed is None and fixed_mask is not None:
            raise InputError("a mask of the fixed scan is given, but no fixed scan")
        moving_scan = _scan(moving, "moving", labels, mask)
        # The template's grid is that of the labels, so the model has to be known for it.
        fixed_scan = None if fixed is None else _scan(fixed, "fixed", fixed_labels, fixed_mask)
        loaded = model if isinstance(model, Model) else Model.load(model, device)
        if isinstance(model, Model):
            loaded.network.to(device)
        fixed_scan = fixed_scan or _template(loaded, fixed_labels)
        check_obeyed(loaded, smoothness, refined=refinement is not None)
        pair = RegistrationTask(
            moving_scan, fixed_scan, loaded, preparation, refinement, smoothness, transform, start
        )
        return pair.registered(device, runtime.cache, meter)


def check_kind(kind: str, refinement: Refinement | None, smoothness: float | None) -> None:
    """Refuse a kind of transform that is none, and what a linear one has no use for.

    Raises:
        InputError: it is so.
    """
    if kind not in get_args(TransformKind):
        raise InputError(f"transform {kind!r}: rigid, affine or deformable is needed")
    if kind != "deformable" and (refinement or smoothness is not None):
        raise InputError(f"transform {kind}: only a deformable one can be refined or smoothed")


def _scan(
    scan: ImageLike | Scan, role: str, labels: ImageLike | None, mask: ImageLike | None
) -> Scan:
    if not isinstance(scan, Scan):
        return Scan.read(scan, labels=labels, mask=mask, role=role)
    if labels is not None or mask is not None:
        raise InputError(
            f"{role} scan {scan.name}: it was read already: give its labels and its mask to "
            f"Scan.read"
        )
    return scan


def _template(model: Model, labels: ImageLike | None) -> Scan:
    """The fixed scan where none is given.

    Raises:
        InputError: the model's scans are not aligned with a template.
    """
    if model.recipe.template is None:
        raise InputError(
            f"model {model.name}: its scans are not in MNI152 space: give a fixed scan"
        )
    return Scan.of_template(model.recipe.template, labels)


@dataclass(frozen=True, eq=False)
class RegistrationTask:
    """What is to be registered, and how.

    Args:
        moving, fixed: the scans.
        model: that registers them.
        preparation, refinement, smoothness, initial: see ``register``.
        kind: its ``transform``.
    """

    moving: Scan
    fixed: Scan
    model: Model
    preparation: Preparation
    refinement: Refinement | None
    smoothness: float | None
    kind: TransformKind = "deformable"
    initial: Affine | None = None

    def registered(self, device: torch.device, cache: bool, meter: Meter) -> Registration:
        """The result; the meter takes the time of the stages."""
        meter.start("prepare")
        moving, fixed = self._prepared(cache)
        if self.kind != "deformable":
            return self._linear(moving, fixed, device, meter)
        answer = answer_of(
            self.model,
            moving=moving,
            fixed=fixed,
            device=device,
            refinement=self.refinement,
            smoothness=self.smoothness,
            meter=meter,
        )
        meter.start("compose")
        ways = answer.displacement, cast(torch.Tensor, answer.inverse)
        warp, inverse = on_fixed_grid(ways, self.model, fixed, self.fixed.grid)
        affine = moving.template_to_scan.after(fixed.template_to_scan.inverse())
        result = self._result(moving, fixed, affine, warp, inverse, meter)
        meter.start("measure")
        measures = _measured(result, moving, fixed, answer.displacement)
        if measures.jacobian["folds_any_difference"] and self._is_free_of_folds:
            # Made without folds on the working grid; resampling onto this one has brought some.
            warp, back = without_folds(warp, inverse, result.brain.data != 0)
            result = replace(result, warp=warp, inverse_warp=cast(Any, back))
            measures = _measured(result, moving, fixed, answer.displacement)
        meter.stop()
        return replace(result, metrics=self._record(moving, fixed, device, measures, meter))

    def _linear(
        self, moving: Prepared, fixed: Prepared, device: torch.device, meter: Meter
    ) -> Registration:
        """The result where the map between the two scans is to be rigid or affine."""
        meter.start(self.kind)
        start = moving.template_to_scan.after(fixed.template_to_scan.inverse())
        brains = {
            "moving": self.moving.brain(moving.found),
            "fixed": self.fixed.brain(fixed.found),
        }
        if self.kind == "affine":
            affine = refined_affine(start=start, **brains)
        else:  # scans of one session lie on each other by their headers
            by_headers = [] if self.initial is not None else [Affine(np.eye(4))]
            affine = register_rigid(start, *by_headers, **brains)
        still = Warp(np.zeros((3, *self.fixed.grid.shape), np.float32), self.fixed.grid)
        result = self._result(moving, fixed, affine, still, still, meter)
        meter.start("measure")
        by_header, moved = (
            prepare(
                self.moving.image,
                self.model.recipe,
                replace(moving.found, template_to_scan=one.after(fixed.template_to_scan)),
            )
            for one in (Affine(np.eye(4)), affine)
        )
        nowhere = torch.zeros(1, 3, *fixed.image.shape[2:])
        measures = _measured(result, moved, fixed, nowhere)
        unmoved = similarity(moved=by_header.image[0, 0], fixed=fixed.image[0, 0])
        measures = replace(measures, before=unmoved)
        meter.stop()
        return replace(result, metrics=self._record(moving, fixed, device, measures, meter))

    def _result(
        self,
        moving: Prepared,
        fixed: Prepared,
        affine: Affine,
        warp: Warp,
        inverse: Warp,
        meter: Meter,
    ) -> Registration:
        """The result but for its record; everything that is written is resampled once."""
        brain = self.fixed.brain_mask(fixed.found)
        result = Registration(
            fixed=self.fixed,
            moving=self.moving,
            affine=affine,
            warp=warp,
            inverse_warp=inverse,
            brain=brain,
            moving_mask=self.moving.brain_mask(moving.found) if moving.found.mask else None,
            fixed_mask=brain if fixed.found.mask else None,
            metrics={"settings": {"transform": self.kind}},
        )
        meter.start("resample")
        _ = result.warped, result.inverse_warped, result.warped_labels, result.warped_mask
        return result

    @property
    def _is_free_of_folds(self) -> bool:
        return self.refinement is not None or self.model.capabilities.is_descent

    def _prepared(self, cache: bool) -> list[Prepared]:
        """Moving and fixed on the working grid."""
        recipe, wanted = self.model.recipe, self.preparation
        with ThreadPoolExecutor(2) as pool:  # PyTorch and SimpleITK let go of the interpreter
            steps = wanted if self.initial is None else replace(wanted, affine=False)
            job = pool.submit(self.moving.examined, recipe, steps, cache=cache)
            fixed = self.fixed.examined(recipe, replace(wanted, affine=True), cache=cache)
            moving = job.result()
        if self.initial is not None:
            there = self.initial.after(fixed.template_to_scan)
            if recipe.template is None:
                moving = replace(moving, template_to_scan=there)
            else:
                moving = placed_at(moving, self.moving.image, there)
        elif not wanted.affine and recipe.template is not None:
            # The two share their world: what leads to one leads to the other.
            moving = placed_at(moving, self.moving.image, fixed.template_to_scan)
        return prepare_both(recipe, (self.moving, moving), (self.fixed, fixed))

    def _record(
        self,
        moving: Prepared,
        fixed: Prepared,
        device: torch.device,
        measures: Measures,
        meter: Meter,
    ) -> dict[str, Any]:
        """What ``metrics.json`` holds."""
        return {
            "versions": versions(),
            "inputs": self._inputs(),
            "model": None
            if self.kind != "deformable"
            else {
                "name": self.model.name,
                "weights_sha256": self.model.sha256,
                "licence": self.model.card.get("licence"),
            },
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
                "fixed": fixed.found.described(),
                "moving": moving.found.described(),
            },
            "grids": {
                "fixed": self.fixed.grid.described(),
                "moving": self.moving.grid.described(),
            },
            "seconds": meter.rounded(),
            **measures.described(),
            "warnings": [
                *self.moving.warnings(moving.found, "moving"),
                *self.fixed.warnings(fixed.found, "fixed"),
                *self._without_effect(),
                *measures.warnings(),
            ],
        }

    def _inputs(self) -> dict[str, Any]:
        """Path and SHA-256 of every input; the template stands in for a fixed image not given."""
        moving, fixed = self.moving.origins, self.fixed.origins
        return {
            "moving": moving.get("image"),
            "fixed": fixed.get("image"),
            "labels": moving.get("labels"),
            "fixed_labels": fixed.get("labels"),
            "mask": moving.get("mask"),
            "fixed_mask": fixed.get("mask"),
        }

    def _without_effect(self) -> list[str]:
        """What was asked for and did nothing, a sentence each."""
        told = list[str]()
        if self.fixed.labels is not None and self.moving.labels is None:
            told.append("fixed labels need labels of the moving scan for Dice")
        asked = {
            "--no-affine": not self.preparation.affine,
            "--bias": self.preparation.bias is True,
            "--brain-extract yes": self.preparation.brain_extract == "yes",
        }
        named = [option for option, given in asked.items() if given]
        recipe = self.model.recipe
        if named and recipe.template is None:
            told.insert(
                0,
                f"{', '.join(named)} had no effect: model {self.model.name} places scans by their "
                f"{recipe.alignment_name} and takes them as they are",
            )
        return told


def _measured(
    result: Registration, moving: Prepared, fixed: Prepared, displacement: torch.Tensor
) -> Measures:
    return measure(
        moving=moving,
        fixed=fixed,
        displacement=displacement,
        warp=result.warp,
        brain=result.brain.data != 0,
        labels=_label_maps(result),
    )


def _label_maps(result: Registration) -> tuple[Volume, Volume] | None:
    """The moved label map and the fixed one, if there are both."""
    moved, fixed = result.warped_labels, result.fixed.labels
    return None if moved is None or fixed is None else (moved, fixed)
