"""``voxwarp register``: register two scans, one to the template, or many to one fixed scan."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._allocation import share_freed_memory
from .._process import seconds_since_start
from .._several import one_per_scan
from ..errors import InputError
from ..runtime import Runtime
from . import options
from .console import REFUSED, answer, complain, echo, prepare_kernels, stages, warn
from .options import COMPUTING, INPUTS, OUTPUT, TRANSFORM, preparation_of, refinement_of, runtime_of

if TYPE_CHECKING:
    from ..registration.line import RegisteredScan

COMPOSITES = "composite"  # the output
TEMPLATE = "template"  # as the fixed scan: the one of the model
START = "start"  # the stage before those of the registration: interpreter, imports, options


class TransformName(StrEnum):
    """Kinds of transforms between two scans."""

    rigid = "rigid"
    affine = "affine"
    deformable = "deformable"


def register(
    moving: Annotated[
        list[Path],
        typer.Argument(
            help="Scan to align: a head or a skull-stripped brain (NIfTI, or another format that "
            "nibabel reads). Of two scans, the second is FIXED, unless --fixed is given; three or "
            "more are all aligned. Without a fixed scan, they are aligned with the template of the "
            "model (MNI152).",
            metavar="MOVING",
        ),
    ],
    *,
    fixed: Annotated[
        str | None,
        typer.Option(
            help="Fixed scan, with which all MOVING are aligned; or the word template, for the "
            "template of the model.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="Label map on the grid of the moving scan; it is transformed, too. For several "
            "scans, repeat it in their order.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    fixed_labels: Annotated[
        Path | None,
        typer.Option(
            help="Label map on the grid of the fixed scan. With --labels, metrics.json gets the "
            "Dice overlap.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            help="Brain mask on the grid of the moving scan (0 outside), instead of brain "
            "extraction. For several scans, repeat it in their order.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    fixed_mask: Annotated[
        Path | None,
        typer.Option(
            help="Brain mask on the grid of the fixed scan.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    lesion_mask: Annotated[
        list[Path] | None,
        typer.Option(
            help="Mask of a lesion or resection in the space of the moving scan; nothing in it "
            "pulls, and the deformation continues smoothly through it. Repeat it for several "
            "lesions; of several scans, give one for each, in their order.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    fixed_lesion_mask: Annotated[
        list[Path] | None,
        typer.Option(
            help="Mask of a lesion in the space of the fixed scan; repeat it for several.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    companion: Annotated[
        list[Path] | None,
        typer.Option(
            help="T1-weighted scan of the same person as the moving scan, for moving scans of "
            "another contrast: it is aligned with that by a rigid map, and registered in its "
            "place. For several scans, repeat it in their order.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    fixed_companion: Annotated[
        Path | None,
        typer.Option(
            help="T1-weighted scan of the same person as the fixed scan.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    model: options.Model = "default",
    transform: Annotated[
        TransformName,
        typer.Option(
            help="rigid, affine or deformable. rigid and affine run no model and write no warp.",
            metavar="KIND",
            rich_help_panel=TRANSFORM,
        ),
    ] = TransformName.deformable,
    initial: Annotated[
        list[Path] | None,
        typer.Option(
            help="Start from this linear transform (ITK .mat, .txt or .h5) from the fixed to the "
            "moving space, and try no other start. For several scans, repeat it in their order.",
            metavar="FILE",
            rich_help_panel=TRANSFORM,
        ),
    ] = None,
    refine: options.Refine = None,
    refine_steps: options.RefineSteps = None,
    refine_seconds: options.RefineSeconds = None,
    smoothness: options.Smoothness = None,
    brain_extract: options.BrainExtract = options.BrainExtractName.auto,
    extractor: options.Extractor = "deepbet",
    bias: options.Bias = None,
    affine: options.Affine = True,
    out: options.OutFolder,
    save: Annotated[
        str,
        typer.Option(
            help="Write only these outputs, separated by commas: transforms, inverse, composite, "
            "warped, inverse-warped, labels, masks, report. metrics.json is always written.",
            metavar="NAMES",
            rich_help_panel=OUTPUT,
        ),
    ] = "all",
    composite: Annotated[
        bool,
        typer.Option(
            "--composite/--no-composite",
            help="Write the transforms as Composite.h5 and InverseComposite.h5, too, which hold "
            "all parts in one file (ITK).",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report",
            help="Write report.html, a page of pictures and measurements to check the result.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    strict: options.Strict = False,
    overwrite: options.Overwrite = False,
    device: options.Device = options.DeviceName.auto,
    threads: options.Threads = None,
    cache: options.Cache = True,
    seed: Annotated[
        int,
        typer.Option(
            help="Without effect, because nothing in a registration is random; for scripts that "
            "give a seed to every tool.",
            metavar="N",
            min=0,
            max=2**31 - 2,
            rich_help_panel=COMPUTING,
        ),
    ] = 0,
) -> int:
    """Align the scan MOVING with the scan FIXED, or with the MNI152 template.

    The scans may differ in size, spacing and orientation. The folder of --out gets the moved scan
    (Warped.nii.gz), the transforms (0GenericAffine.mat, 1Warp.nii.gz, 1InverseWarp.nii.gz; ANTs,
    ITK and 3D Slicer read them), measurements and warnings (metrics.json) and report.html.

    With --fixed, or if there are three or more, all scans are aligned with the same fixed scan,
    in less time than by a command for each. Each gets a folder of its name in that of --out. If one
    of several scans cannot be used, the others are still registered and the exit code is 2.

    Examples:
    voxwarp register sub-01_T1w.nii.gz -o out
    voxwarp register moving.nii.gz fixed.nii.gz -o pair --refine
    voxwarp register bold_mean.nii.gz t1.nii.gz -o bold_to_t1 --transform rigid
    voxwarp register study/sub-*.nii.gz -o registered --fixed fixed.nii.gz
    """
    share_freed_memory()
    scans, target = _roles(moving, fixed)
    save = f"{save},{COMPOSITES}" if composite else save
    writing: dict[str, Any] = {"save": save, "overwrite": overwrite, "report": report}
    if len(scans) == 1:
        from ..registration.result import check_output

        check_output(out, save=save, overwrite=overwrite)
    if not labels and "labels" in [name.strip() for name in save.split(",")]:
        raise InputError("save includes labels, but no labels are given; give them with `labels`")
    of_each: dict[str, Any] = {
        "labels": labels,
        "mask": mask,
        "companion": companion,
        "initial": initial,
    }
    settings: dict[str, Any] = {
        "fixed": target,
        "model": model,
        "fixed_labels": fixed_labels,
        "fixed_mask": fixed_mask,
        "lesion_mask": lesion_mask,
        "fixed_lesion_mask": fixed_lesion_mask,
        "fixed_companion": fixed_companion,
        "preparation": preparation_of(brain_extract, extractor, bias, affine),
        "transform": transform.value,
        "refine": refinement_of(refine, refine_steps, refine_seconds),
        "smoothness": smoothness,
    }
    runtime = runtime_of(device=device, cache=cache, threads=threads)
    if len(scans) == 1:
        settings |= {name: one_per_scan(files, scans, name)[0] for name, files in of_each.items()}
        return _register_one(scans[0], out, writing, strict, runtime, settings)
    return _register_many(scans, out, strict, runtime, settings | of_each | writing)


def _roles(scans: list[Path], fixed: str | None) -> tuple[list[Path], Path | None]:
    """The moving scans, and the fixed scan or None for the template."""
    if fixed is not None:
        return scans, None if fixed == TEMPLATE else Path(fixed)
    if len(scans) == 2:
        return scans[:1], scans[1]
    return scans, None


def _register_one(
    moving: Path,
    out: Path,
    writing: Mapping[str, Any],
    strict: bool,
    runtime: Runtime,
    settings: Mapping[str, Any],
) -> int:
    """Register a single scan and write the result to ``out`` itself."""
    from ..registration.register import register as run
    from ..registration.result import write_registration

    with stages() as progress:
        start = seconds_since_start()
        result = run(moving, runtime=replace(runtime, progress=progress), **settings)
        if start is not None:
            seconds = {START: round(start, 3), **result.metrics["seconds"]}
            result = result.with_metrics({**result.metrics, "seconds": seconds})
        progress("write")
        written = write_registration(result, out, **writing)
    answer(
        [*written.files, *_described(written.metrics)],
        {"files": written.files, **_record(written.metrics)},
    )
    return warn(written.metrics["warnings"], strict)


def _described(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the scans were taken for, and what came out."""
    examined = metrics["preparation"]
    yield ", ".join(f"{name}: a {examined[name]['seen_as']}" for name in ("moving", "fixed"))
    if contrast := _other_contrast(metrics):
        yield contrast
    yield _summary(metrics)


def _record(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``metrics.json`` that is printed as JSON."""
    similarity, dice = metrics["similarity"], metrics["dice"]
    return {
        "seen_as": {name: metrics["preparation"][name]["seen_as"] for name in ("moving", "fixed")},
        "local_ncc": {when: similarity[when]["local_ncc"] for when in ("before", "after")},
        "mean_dice": dice["mean"] if dice else None,
        "folds": metrics["jacobian"]["folds"],
        "seconds": sum(metrics["seconds"].values()),
        "warnings": metrics["warnings"],
    }


def _register_many(
    movings: list[Path], out: Path, strict: bool, runtime: Runtime, settings: Mapping[str, Any]
) -> int:
    """Register several scans, each into a folder of its name in ``out``."""
    from ..registration.many import register_many

    started = time.monotonic() - (seconds_since_start() or 0.0)
    prepare_kernels()
    runtime = replace(runtime, progress=echo)
    scans = register_many(movings, out=out, runtime=runtime, **settings)
    seconds = time.monotonic() - started
    failed = [scan for scan in scans if scan.error is not None]
    warned = warn(_warnings(scans), strict)
    for scan in failed:
        complain(_naming(scan, scan.error))
    done = len(scans) - len(failed)
    summary = (
        f"{done} of {len(scans)} scans registered in {seconds:.1f} s, "
        f"{3600 * done / seconds:.0f} an hour"
    )
    records = [
        {
            "scan": scan.moving,
            "error": None if scan.error is None else _naming(scan, scan.error),
            **(_record(scan.metrics) if scan.error is None else {}),
        }
        for scan in scans
    ]
    answer([summary], {"seconds": seconds, "scans": records})
    for scan in failed:
        if scan.error is not None and not isinstance(scan.error, InputError):
            raise scan.error  # a bug: with its traceback
    return REFUSED if failed else warned


def _warnings(scans: "Sequence[RegisteredScan]") -> list[str]:
    """The warnings about all scans; one that each of them has, such as of the fixed scan, once."""
    of_each = [scan.metrics["warnings"] for scan in scans if scan.error is None]
    shared = [text for text in of_each[0] if all(text in own for own in of_each)] if of_each else []
    own = [
        _naming(scan, text)
        for scan in scans
        for text in scan.metrics.get("warnings", ())
        if text not in shared
    ]
    return shared + own


def _naming(scan: "RegisteredScan", problem: object) -> str:
    """A warning or an error that names the scan."""
    text = str(problem)
    if isinstance(problem, Exception) and not isinstance(problem, InputError):
        text = f"{type(problem).__name__}: {problem}"
    return text if str(scan.moving) in text else f"{scan.moving}: {text}"


def _other_contrast(metrics: Mapping[str, Any]) -> str:
    """How scans were registered of which a model does not know the contrast; empty if it does."""
    contrast, model = metrics["contrast"], metrics["model"]
    if not contrast or all(contrast["known"].values()):
        return ""
    scans = " and ".join(name for name, is_known in contrast["known"].items() if not is_known)
    how = (
        f"it was adapted to that of the {'fixed' if scans == 'moving' else 'moving'} scan"
        if contrast["adapted"]
        else f"{model['name']} registered them"
    )
    return f"{contrast['asked_model']} does not know the contrast of the {scans} scan: {how}"


def _summary(metrics: Mapping[str, Any]) -> str:
    similarity = metrics["similarity"]
    before, after = (similarity[when]["local_ncc"] for when in ("before", "after"))
    parts = [
        f"local NCC {before:.3f} -> {after:.3f}",
        f"folds {metrics['jacobian']['folds']}",
        f"{sum(metrics['seconds'].values()):.1f} s",
    ]
    if metrics["dice"]:
        parts.insert(1, f"mean Dice {metrics['dice']['mean']:.3f}")
    return ", ".join(parts)
