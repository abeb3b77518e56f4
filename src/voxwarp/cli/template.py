"""``voxwarp template``: an unbiased template of one's own scans."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import cluster_options, options
from .cluster_options import WHICH
from .console import DONE, DOUBTFUL, answer, echo, say
from .options import INPUTS, OUTPUT, TRANSFORM

if TYPE_CHECKING:
    from ..templates.build import BuiltTemplate


class AverageName(StrEnum):
    """How intensities are averaged."""

    mean = "mean"
    median = "median"
    trimmed = "trimmed"


def template(
    scans: Annotated[
        list[Path],
        typer.Argument(
            help="Scans of one contrast, heads or brains; or one table of scans (CSV, TSV), folder "
            "of images, or BIDS data set.",
            metavar="SCANS...",
        ),
    ],
    *,
    out: options.OutFolder,
    name: Annotated[
        str,
        typer.Option(
            help="Name of the template and its space, letters and digits.",
            metavar="NAME",
            rich_help_panel=OUTPUT,
        ),
    ] = "template",
    cohort: Annotated[
        str | None,
        typer.Option(
            help="Label of the group of people, for the names of files (tpl-NAME_cohort-LABEL).",
            metavar="LABEL",
            show_default="none",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    spacing: Annotated[
        float,
        typer.Option(help="Voxel size of the template.", metavar="MM", rich_help_panel=OUTPUT),
    ] = 1.0,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="Label maps, for a vote and the probability of each label: a pattern with columns "
            "of the table, such as labels/{id}.nii.gz; else with {folder}, {stem} and {name} of "
            "each scan.",
            metavar="PATTERN",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    label_names: Annotated[
        Path | None,
        typer.Option(
            help="Table with the names of the labels: a column index or value, and a column name "
            "or structure.",
            metavar="FILE",
            show_default="no names",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    scan: Annotated[
        str | None,
        typer.Option(
            "--scan",
            help="For a table: path of each scan, such as t1/{id}.nii.gz; for a folder: the names "
            "of the scans, such as *_T1w.nii.gz.",
            metavar="PATTERN",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    also: cluster_options.Also = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Only the scans of this split, of a table with the column split.",
            metavar="NAME",
            show_default="all",
            rich_help_panel=WHICH,
        ),
    ] = None,
    participant_label: cluster_options.ParticipantLabel = None,
    bids_filter_file: cluster_options.FilterFile = None,
    longitudinal: Annotated[
        bool,
        typer.Option(
            "--longitudinal",
            help="Several scans of a person are meant; each person counts once. Scans of one "
            "person alone are aligned by rigid maps.",
            rich_help_panel=WHICH,
        ),
    ] = False,
    rounds: Annotated[
        int,
        typer.Option(
            help="Rounds of deformable registration to the mean, 1 to 20.",
            metavar="N",
            rich_help_panel=TRANSFORM,
        ),
    ] = 4,
    average: Annotated[
        AverageName,
        typer.Option(
            help="Average the intensities by mean, median, or trimmed: the mean without the lowest "
            "and the highest tenth.",
            metavar="NAME",
            rich_help_panel=TRANSFORM,
        ),
    ] = AverageName.mean,
    symmetric: Annotated[
        bool,
        typer.Option(
            "--symmetric",
            help="Make left and right mirror images: each scan counts as it is, and mirrored.",
            rich_help_panel=TRANSFORM,
        ),
    ] = False,
    sharpen: Annotated[
        bool,
        typer.Option("--sharpen", help="Sharpen the finished template.", rich_help_panel=TRANSFORM),
    ] = False,
    model: options.Model = "default",
    smoothness: options.Smoothness = None,
    brain_extract: options.BrainExtract = options.BrainExtractName.auto,
    extractor: options.Extractor = "deepbet",
    bias: options.Bias = None,
    nprocs: cluster_options.Processors = None,
    omp_nthreads: cluster_options.ThreadsOfEach = None,
    mem_gb: cluster_options.Memory = None,
    work_dir: cluster_options.WorkDir = None,
    dask_scheduler: cluster_options.DaskScheduler = None,
    dask_config: cluster_options.DaskConfig = None,
) -> int:
    """Build an unbiased template of scans: their mean in shape and in intensity.

    No person is the start: the scans are aligned by rigid maps and averaged, then by affine maps,
    then by rounds of deformable registration to the mean, which takes the mean shape of all after
    each. The folder gets the template in the names of TemplateFlow (tpl-NAME/), the averages of all
    rounds, the transforms of each person, and template.html. Killed at any time, the command goes
    on where it was when it is run again, and gives the same template.

    Examples:
    voxwarp template sub-*_T1w.nii.gz -o template --name Ours
    voxwarp template bids -o template --name Ours --also T2w
    voxwarp template subjects.csv -o template --scan t1/{id}.nii.gz --labels labels/{id}.nii.gz
    """
    from ..cohort.dataset import Selection, read_filters
    from ..cohort.run import new_run
    from ..templates.build import TemplateRequest, build
    from ..templates.settings import TemplateSettings

    request = TemplateRequest(
        sources=scans,
        out=out,
        selection=Selection(
            participants=tuple(participant_label or ()),
            filters={} if bids_filter_file is None else read_filters(bids_filter_file),
            also=tuple(dict.fromkeys(also or ())),
            scan=scan,
            labels=labels,
            split=split,
        ),
        settings=TemplateSettings(
            name=name,
            cohort=cohort,
            model=model,
            rounds=rounds,
            average=average.value,
            spacing=spacing,
            symmetric=symmetric,
            sharpen=sharpen,
            longitudinal=longitudinal,
            smoothness=smoothness,
            brain_extract=brain_extract.value,
            extractor=extractor,
            bias=bias,
            threads=omp_nthreads or 1,
        ),
        cluster=cluster_options.cluster_of(nprocs, mem_gb, dask_scheduler, dask_config),
        work=work_dir,
        run=new_run(),
        label_names=label_names,
    )
    return _report(build(request, echo))


def _report(built: "BuiltTemplate") -> int:
    """Say what was written, and what was left out."""
    report = built.out / "template.html"
    answer(
        [f"template: {built.image}", f"report: {report}"],
        {"template": built.image, "report": report, "left_out": built.left_out},
    )
    for key, reason in built.left_out.items():
        say(f"left out: {key}: {reason}")
    return DOUBTFUL if built.left_out else DONE
