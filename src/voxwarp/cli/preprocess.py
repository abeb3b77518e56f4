"""``voxwarp preprocess``: prepare scans as models need them, each in a folder of its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .._several import folders_of, one_per_scan
from ..errors import InputError
from . import options
from .console import DONE, REFUSED, answer, complain, echo, stages, warn
from .options import INPUTS, PREPARATION, preparation_of, runtime_of


def preprocess(
    scans: Annotated[
        list[Path],
        typer.Argument(help="Heads, or skull-stripped brains.", metavar="SCAN"),
    ],
    *,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="Label map on the grid of the scan; it is aligned, too. For several scans, repeat "
            "it in their order.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            help="Brain mask on the grid of the scan (0 outside), instead of brain extraction. For "
            "several scans, repeat it in their order.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    conform: Annotated[
        bool,
        typer.Option(
            "--conform/--no-conform",
            help="Resample to 1 mm and 256 x 256 x 256 voxels, or keep the voxels of the scan.",
            rich_help_panel=PREPARATION,
        ),
    ] = True,
    bias: options.Bias = None,
    brain_extract: options.BrainExtract = options.BrainExtractName.auto,
    extractor: options.Extractor = "deepbet",
    affine: Annotated[
        bool,
        typer.Option(
            "--affine/--no-affine",
            help="Align with the MNI152 template, or take the scan to be in that space already.",
            rich_help_panel=PREPARATION,
        ),
    ] = True,
    crop: Annotated[
        bool,
        typer.Option(
            "--crop/--no-crop",
            help="Crop to 160 x 192 x 224 voxels around the brain, or keep 256 x 256 x 256.",
            rich_help_panel=PREPARATION,
        ),
    ] = True,
    normalise: Annotated[
        bool,
        typer.Option(
            "--normalise/--no-normalise",
            help="Scale intensities to 0 to 1, or keep them.",
            rich_help_panel=PREPARATION,
        ),
    ] = True,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="Folder for the results; each scan gets a folder of its name in it. Scans of the "
            "same name get the names of their folders in front.",
            metavar="FOLDER",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    strict: options.Strict = False,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    cache: options.Cache = True,
) -> int:
    """Prepare scans without registering them: conform, bias field, brain, alignment, crop, scale.

    Each folder gets the conformed scan, brain masks, the aligned brain in MNI152 space, and the
    affine transform between the two, which voxwarp apply takes. If one of several scans cannot be
    used, the others are still prepared and the exit code is 2.

    Examples:
    voxwarp preprocess sub-01_T1w.nii.gz sub-02_T1w.nii.gz -o prep
    voxwarp preprocess sub-03_T1w.nii.gz -o prep --labels sub-03_seg.nii.gz
    voxwarp apply seg_mni.nii.gz -t prep/sub-01_T1w --inverse -o seg_native.nii.gz
    """
    from ..preparation.preprocess import check_output
    from ..preparation.preprocess import preprocess as run

    preparation = preparation_of(brain_extract, extractor, bias, affine, conform)
    runtime = runtime_of(cache=cache, threads=threads)
    jobs = list(
        zip(
            scans,
            folders_of(scans, out),
            one_per_scan(labels, scans, "labels"),
            one_per_scan(mask, scans, "mask"),
            strict=True,
        )
    )
    for _, folder, _, _ in jobs:
        check_output(folder, overwrite=overwrite)
    code, records = DONE, list[dict[str, Any]]()
    for scan, folder, segmentation, brain_mask in jobs:
        try:
            with stages() as progress, runtime.with_threads():
                progress(scan.name)
                result = run(
                    scan,
                    labels=segmentation,
                    mask=brain_mask,
                    preparation=preparation,
                    crop=crop,
                    normalise=normalise,
                    cache=runtime.cache,
                )
                files = result.save(folder, overwrite=overwrite)
        except InputError as error:  # the other scans can be prepared nevertheless
            complain(str(error))
            records.append({"scan": scan, "error": str(error)})
            code = REFUSED
            continue
        found, warnings = result.record["found"], result.record["warnings"]
        for line in (*files, _summary(found)):
            echo(str(line))
        seen = {name: found[name] for name in ("seen_as", "brain_mask_ml")}
        records.append({"scan": scan, "error": None, "files": files, **seen, "warnings": warnings})
        warned = warn(warnings, strict)
        code = code or warned
    answer([], {"scans": records})
    return code


def _summary(examination: Mapping[str, Any]) -> str:
    parts = [f"a {examination['seen_as']}"]
    if examination["brain_mask_ml"] is not None:
        parts.append(f"brain of {examination['brain_mask_ml']:.0f} mL")
    if fit := examination["agreement_with_template"]:
        parts.append(f"overlap with MNI152 {fit['overlap']:.3f}, local NCC {fit['local_ncc']:.3f}")
    seconds = sum(examination["seconds"].values())
    parts.append("from the cache" if examination["from_cache"] else f"{seconds:.1f} s")
    return ", ".join(parts)
