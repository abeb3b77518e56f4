"""``voxwarp register``: two scans, or one and the template."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import stages, warn
from .options import (
    AffineOption,
    BiasOption,
    BrainExtractOption,
    CacheOption,
    DeviceOption,
    ExtractorOption,
    ModelOption,
    OverwriteOption,
    RefineOption,
    RefineSecondsOption,
    RefineStepsOption,
    SmoothnessOption,
    StrictOption,
    ThreadsOption,
    preparation_of,
    refinement_of,
    runtime_of,
)


class TransformName(str, Enum):
    """Kinds of maps between two scans."""

    rigid = "rigid"
    affine = "affine"
    deformable = "deformable"


def register(
    moving: Annotated[Path, typer.Argument(help="Scan to be moved.", metavar="MOVING")],
    fixed: Annotated[
        Path | None,
        typer.Argument(
            help="Scan to align it with; the MNI152 template if left out.", metavar="FIXED"
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    model: ModelOption = "default",
    labels: Annotated[
        Path | None,
        typer.Option(help="Label map of the moving scan, to be carried along."),
    ] = None,
    fixed_labels: Annotated[
        Path | None,
        typer.Option(help="Label map of the fixed scan; gives Dice in metrics.json."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Brain mask of the moving scan; none is extracted then.")
    ] = None,
    fixed_mask: Annotated[
        Path | None, typer.Option(help="Brain mask of the fixed scan; none is extracted then.")
    ] = None,
    brain_extract: BrainExtractOption = None,
    extractor: ExtractorOption = None,
    bias: BiasOption = None,
    affine: AffineOption = None,
    transform: Annotated[
        TransformName,
        typer.Option(help="rigid or affine: a linear map alone, no model runs."),
    ] = TransformName.deformable,
    initial: Annotated[
        Path | None,
        typer.Option(
            help="Linear transform (ITK .mat or .txt) from the fixed to the moving space to start "
            "from; no other start is tried.",
            metavar="FILE",
        ),
    ] = None,
    refine: RefineOption = None,
    refine_steps: RefineStepsOption = None,
    refine_seconds: RefineSecondsOption = None,
    smoothness: SmoothnessOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Without effect: nothing in a registration is random.", min=0, max=2**31 - 2
        ),
    ] = 0,
    cache: CacheOption = None,
    report: Annotated[bool, typer.Option(help="Write report.html, a page to look at.")] = True,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> int:
    """Align MOVING with FIXED, heads or brains; write images, ITK transforms, metrics to OUT."""
    from ..registration.register import register as run
    from ..registration.result import check_output, write_registration

    check_output(out, overwrite=overwrite)
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
        written = write_registration(result, out, overwrite=overwrite, report=report)
    for file in written.files:
        typer.echo(file)
    seen = written.metrics["preparation"]
    typer.echo(f"moving: a {seen['moving']['seen_as']}, fixed: a {seen['fixed']['seen_as']}")
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
