"""``voxwarp morphometry``: where the people of a group differ in shape and size."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import cluster_options, options
from .console import DONE, DOUBTFUL, answer, echo, say
from .options import INPUTS, OUTPUT

LONGITUDINAL = "Changes within a person"


def morphometry(
    results: Annotated[
        Path,
        typer.Argument(help="Folder of voxwarp cohort or voxwarp template.", metavar="RESULTS"),
    ],
    *,
    out: options.OutFolder,
    fwhm: Annotated[
        str | None,
        typer.Option(
            help="Smooth the maps, too, by Gaussians of these widths (full width at half maximum), "
            "separated by commas, such as 4,8.",
            metavar="MM",
            show_default="not smoothed",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    atlas: Annotated[
        Path | None,
        typer.Option(
            help="Label map in the space of the results; the volumes of its regions are measured. "
            "A table of the same name (.tsv; columns index and name) names them.",
            metavar="FILE",
            show_default="the labels of the template, if it has any",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    modulate: Annotated[
        str | None,
        typer.Option(
            help="Map of each person to modulate, such as the probability of grey matter: a "
            "pattern with {folder}, {stem} and {name} of the scan, such as "
            "{folder}/{stem}_gm.nii.gz.",
            metavar="PATTERN",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    longitudinal: Annotated[
        bool,
        typer.Option(
            "--longitudinal",
            help="Measure the change between the first and the last scan of each person, at their "
            "midpoint.",
            rich_help_panel=LONGITUDINAL,
        ),
    ] = False,
    times: Annotated[
        Path | None,
        typer.Option(
            help="Table with participant_id, session_id and age, years, date or acq_time; changes "
            "are then also given per year.",
            metavar="FILE",
            rich_help_panel=LONGITUDINAL,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Model whose preparation and working grid the two scans of a person get; they are "
            "registered by the images alone.",
            metavar="NAME",
            rich_help_panel=LONGITUDINAL,
        ),
    ] = "default",
    nprocs: cluster_options.Processors = None,
    omp_nthreads: cluster_options.ThreadsOfEach = None,
    mem_gb: cluster_options.Memory = None,
    dask_scheduler: cluster_options.DaskScheduler = None,
    dask_config: cluster_options.DaskConfig = None,
) -> int:
    """Map where the people of a group differ in shape and size, and measure volumes.

    For each scan, the folder gets maps of the logarithm of the Jacobian determinant: relative
    (without the affine map) and absolute (with it), positive where the region is larger in the
    person than in the template; smoothed and modulated maps; tables with brain and head size and
    all regions of the atlas; maps.tsv, ready for a second level in nilearn; and a report.

    Examples:
    voxwarp morphometry derivatives/voxwarp -o morphometry --fwhm 6
    voxwarp morphometry template -o morphometry --atlas atlas_dseg.nii.gz
    voxwarp morphometry derivatives/voxwarp -o changes --longitudinal --times sessions.tsv
    """
    from ..cohort.run import new_run
    from ..dbm.run import MorphometryRequest, measure_group
    from ..dbm.settings import MorphometrySettings

    request = MorphometryRequest(
        results=results,
        out=out,
        settings=MorphometrySettings(
            fwhm=_widths(fwhm),
            atlas=atlas,
            modulate=modulate,
            longitudinal=longitudinal,
            times=times,
            model=model,
            threads=omp_nthreads or 1,
        ),
        cluster=cluster_options.cluster_of(nprocs, mem_gb, dask_scheduler, dask_config),
        run=new_run(),
    )
    done = measure_group(request, echo)
    answer(
        [*done.tables, f"report: {done.report}"],
        {"tables": done.tables, "report": done.report, "failed": done.failed},
    )
    for key, reason in done.failed.items():
        say(f"failed: {key}: {reason}")
    return DOUBTFUL if done.failed else DONE


def _widths(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise InputError(
            f"fwhm must be numbers separated by commas, such as 4,8, got {text!r}"
        ) from error
