"""``voxwarp register``: register two scans, or one scan to the template."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from . import options
from .console import stages, warn
from .options import COMPUTING, INPUTS, OUTPUT, TRANSFORM, preparation_of, refinement_of, runtime_of


class TransformName(str, Enum):
    """Kinds of transforms between two scans."""

    rigid = "rigid"
    affine = "affine"
    deformable = "deformable"


def register(
    moving: Annotated[
        Path,
        typer.Argument(
            help="Scan to align: a head or a skull-stripped brain (NIfTI, or another format that "
            "nibabel reads).",
            metavar="MOVING",
        ),
    ],
    fixed: Annotated[
        Path | None,
        typer.Argument(
            help="Scan to align it with. Without it, the model's template (MNI152).",
            metavar="FIXED",
        ),
    ] = None,
    *,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Label map on the grid of the moving scan; it is transformed, too.",
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
        Path | None,
        typer.Option(
            help="Brain mask on the grid of the moving scan (0 outside), instead of brain "
            "extraction.",
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
        Path | None,
        typer.Option(
            help="Start from this linear transform (ITK .mat or .txt) from the fixed to the moving "
            "space, and try no other start.",
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
            help="Write only these outputs, separated by commas: transforms, inverse, warped, "
            "inverse-warped, labels, masks, report. metrics.json is always written.",
            metavar="NAMES",
            rich_help_panel=OUTPUT,
        ),
    ] = "all",
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

    Examples:
    voxwarp register sub-01_T1w.nii.gz -o out
    voxwarp register moving.nii.gz fixed.nii.gz -o pair --refine
    voxwarp register bold_mean.nii.gz t1.nii.gz -o bold_to_t1 --transform rigid
    """
    from ..registration.register import register as run
    from ..registration.result import check_output, write_registration

    check_output(out, save=save, overwrite=overwrite)
    if labels is None and "labels" in [name.strip() for name in save.split(",")]:
        raise InputError("save includes labels, but no labels are given; give them with `labels`")
    with stages() as progress:
        result = run(
            moving,
            fixed,
            model,
            labels=labels,
            fixed_labels=fixed_labels,
            mask=mask,
            fixed_mask=fixed_mask,
            preparation=preparation_of(brain_extract, extractor, bias, affine),
            transform=transform.value,
            initial=initial,
            refine=refinement_of(refine, refine_steps, refine_seconds),
            smoothness=smoothness,
            runtime=runtime_of(device=device, cache=cache, threads=threads, progress=progress),
        )
        progress("write")
        written = write_registration(result, out, save=save, overwrite=overwrite, report=report)
    for file in written.files:
        typer.echo(file)
    examined = written.metrics["preparation"]
    scans = (f"{name}: a {examined[name]['seen_as']}" for name in ("moving", "fixed"))
    typer.echo(", ".join(scans))
    typer.echo(_summary(written.metrics))
    return warn(written.metrics["warnings"], strict)


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
