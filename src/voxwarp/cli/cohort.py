"""``voxwarp cohort``: register every scan of a data set, as a BIDS App."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import cluster_options, options
from .cluster_options import WHICH
from .console import DONE, DOUBTFUL, answer, complain, echo, say
from .options import INPUTS, OTHER, OUTPUT

if TYPE_CHECKING:
    from ..cohort.run import Cohort, Summary

SHOWN = 20  # failed scans that are listed


class Level(StrEnum):
    """Levels of analysis."""

    participant = "participant"
    group = "group"


class ReferenceName(StrEnum):
    """Which scan stands for a person or a session."""

    first_lex = "first-lex"
    sessionwise = "sessionwise"
    unbiased = "unbiased"


def cohort(
    bids_dir: Annotated[
        Path,
        typer.Argument(
            help="BIDS data set; or a table of scans (CSV, TSV), or a folder of images.",
            metavar="BIDS_DIR",
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the derivatives.", metavar="OUT_DIR")],
    levels: Annotated[
        list[Level],
        typer.Argument(
            help="participant registers the scans; group sums up their results. Both may be given.",
            metavar="LEVEL",
        ),
    ],
    *,
    participant_label: cluster_options.ParticipantLabel = None,
    session_label: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these sessions, with or without ses-; several may follow.",
            metavar="LABEL",
            rich_help_panel=WHICH,
        ),
    ] = None,
    bids_filter_file: cluster_options.FilterFile = None,
    subject_anatomical_reference: Annotated[
        ReferenceName,
        typer.Option(
            help="If there are several T1w scans: first-lex takes the first by name of each "
            "person, sessionwise that of each session.",
            metavar="RULE",
            rich_help_panel=WHICH,
        ),
    ] = ReferenceName.first_lex,
    skip_bids_validation: Annotated[
        bool,
        typer.Option(
            "--skip-bids-validation",
            help="Do not check that BIDS_DIR says that it is a BIDS data set.",
            rich_help_panel=WHICH,
        ),
    ] = False,
    also: cluster_options.Also = None,
    lesion: Annotated[
        bool,
        typer.Option(
            "--lesion",
            help="Use masks of lesions (label-lesion_roi): nothing in them pulls, and they are "
            "transformed, too.",
            rich_help_panel=INPUTS,
        ),
    ] = False,
    fixed: Annotated[
        Path | None,
        typer.Option(
            help="Template or scan with which all scans are aligned.",
            metavar="FILE",
            show_default="the template of the model, MNI152",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    fixed_mask: Annotated[
        Path | None,
        typer.Option(
            help="Brain mask on the grid of the template.",
            metavar="FILE",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Name of the template's space in file names, letters and digits.",
            metavar="NAME",
            show_default="MNI152NLin2009aSym; with --fixed, from its name",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    model: options.Model = "default",
    refine: options.Refine = None,
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
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List what would be done, and why.", rich_help_panel=OTHER),
    ] = False,
    reports_only: Annotated[
        bool,
        typer.Option(
            "--reports-only",
            help="Write index.html and quality.tsv of the results that are there, no more.",
            rich_help_panel=OTHER,
        ),
    ] = False,
    stop_on_first_crash: Annotated[
        bool,
        typer.Option(
            "--stop-on-first-crash",
            help="Begin no further scans after one has failed.",
            rich_help_panel=OTHER,
        ),
    ] = False,
    run_uuid: Annotated[
        str | None,
        typer.Option(
            help="Name of this run in logs.",
            metavar="UUID",
            show_default="the time, and a random part",
            rich_help_panel=OTHER,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=lambda value: _print_version(value),
            rich_help_panel=OTHER,
        ),
    ] = False,
) -> int:
    """Register the T1w scans of a BIDS data set to a template, as a BIDS App.

    OUT_DIR gets the derivatives: warped scans, brain masks, transforms (.h5), a report for each
    person, index.html with those first that should be looked at, and quality.tsv. A run does what
    is missing, and what now follows from other inputs, settings or another version; killed at any
    time, it picks up where it left off when it is run again. A scan that cannot be registered does
    not stop the others; the exit code is 3 then, and logs/ says why.

    Examples:
    voxwarp cohort bids derivatives/voxwarp participant
    voxwarp cohort bids derivatives/voxwarp participant group --participant-label 01 02
    voxwarp cohort bids derivatives/voxwarp participant --dry-run
    """
    from ..cohort.dataset import Selection, read_filters
    from ..cohort.run import Cohort, new_run
    from ..cohort.settings import CohortSettings, space_of

    _check(space, fixed, fixed_mask, run_uuid)
    if not skip_bids_validation:
        _check_bids(bids_dir)
    request = Cohort(
        source=bids_dir,
        out=out,
        selection=Selection(
            participants=tuple(participant_label or ()),
            sessions=tuple(session_label or ()),
            filters={} if bids_filter_file is None else read_filters(bids_filter_file),
            reference=subject_anatomical_reference.value,
            also=tuple(dict.fromkeys(also or ())),
            lesion=lesion,
        ),
        settings=CohortSettings(
            fixed=fixed,
            fixed_mask=fixed_mask,
            space=space or space_of(fixed, model),
            model=model,
            refine=bool(refine),
            smoothness=smoothness,
            brain_extract=brain_extract.value,
            extractor=extractor,
            bias=bias,
            threads=omp_nthreads or 1,
        ),
        cluster=cluster_options.cluster_of(nprocs, mem_gb, dask_scheduler, dask_config),
        work=work_dir,
        stop_on_first_crash=stop_on_first_crash,
        run=run_uuid or new_run(),
    )
    if dry_run or reports_only:
        return _without_registering(request, dry_run)
    code, record = DONE, dict[str, Any]()
    if Level.participant in levels:
        code = _participant(request, record)
    if Level.group in levels:
        code = _group(request, code, record)
    answer([], record)
    return code


def _print_version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"voxwarp {__version__}")
        raise typer.Exit


def _check(
    space: str | None,
    fixed: Path | None,
    fixed_mask: Path | None,
    run_uuid: str | None,
) -> None:
    """Check what options say on their own, and together."""
    if space is not None and not re.fullmatch(r"[A-Za-z0-9]+", space):
        raise InputError(f"space must be of letters and digits, as in BIDS, got {space!r}")
    if space == "T1w":
        raise InputError("space must be another name than T1w, which is that of the scans")
    if run_uuid is not None and not re.fullmatch(r"[\w.-]+", run_uuid):
        raise InputError(f"run_uuid must be of letters, digits, -, _ and ., got {run_uuid!r}")
    if fixed_mask is not None and fixed is None:
        raise InputError("fixed_mask needs a fixed scan, but none was given")


def _check_bids(bids_dir: Path) -> None:
    """Warn if a data set does not say that it is one of BIDS; tables and folders are others."""
    from .._json import read_json

    path = bids_dir / "dataset_description.json"
    if not bids_dir.is_dir() or not any(bids_dir.glob("sub-*")):
        return
    try:
        problem = None if "BIDSVersion" in read_json(path) else "it has no BIDSVersion"
    except FileNotFoundError:
        problem = "this file does not exist"
    except (OSError, ValueError, TypeError) as error:
        problem = f"it cannot be read ({error})"
    if problem:
        say(
            f"warning: bids_dir {path}: {problem}, so {bids_dir} may be no BIDS data set; "
            f"--skip-bids-validation leaves this check out"
        )


def _without_registering(request: "Cohort", dry_run: bool) -> int:
    """List what is to be done, or write the pages of what is there."""
    from ..cohort.job import HIDDEN
    from ..cohort.ledger import Ledger
    from ..cohort.run import pages_of, survey

    if dry_run:
        ledger = Ledger(request.out / HIDDEN)
        scans, tasks = survey(request, ledger, write=False)
        ledger.close()
        todo = sum(bool(task.reason) for task in tasks)
        answer(
            [
                *(f"{x.scan.key}  {x.reason or 'done'}  {x.scan.path}" for x in tasks),
                *(f"skipped: {reason}" for reason in scans.skipped.values()),
                f"{todo} of {len(tasks)} scans would be registered, {len(tasks) - todo} are done",
            ],
            {
                "scans": [
                    {"scan": x.scan.key, "path": x.scan.path, "to_do": x.reason} for x in tasks
                ],
                "skipped": list(scans.skipped.values()),
            },
        )
        return DONE
    files = pages_of(request).write()
    if not files:
        raise InputError(f"output {request.out}: there is no result of voxwarp cohort")
    answer(files, {"files": files})
    return DONE


def _participant(request: "Cohort", record: dict[str, Any]) -> int:
    """Register; ``record`` gets what was done."""
    from ..cohort.run import register_cohort
    from .cohort_watch import watcher

    with watcher(request) as watch:
        summary = register_cohort(request, watch)
    record["scans"] = {
        task.scan.key: _state(summary, task.scan.key, bool(task.reason)) for task in summary.tasks
    }
    record["failed"] = {key: outcome.error for key, outcome in summary.failed.items()}
    record["stopped"] = summary.stopped
    return _report(request, summary)


def _state(summary: "Summary", key: str, was_to_do: bool) -> str:
    """What became of a scan: done, failed, left, or there already."""
    if key in summary.outcomes:
        return str(summary.outcomes[key].state)
    return "left" if was_to_do else "there"


def _report(request: "Cohort", summary: "Summary") -> int:
    """Say what was done, and how to run what failed again."""
    from ..cohort.pages import crash_path
    from ..review.overview import INDEX

    done = len(summary.outcomes) - len(summary.failed)
    there = sum(not task.reason for task in summary.tasks)
    if not summary.outcomes and not summary.stopped:
        echo(f"nothing to do: all {there} results are up to date")
        return DONE
    parts = [f"{done} registered"]
    parts += [f"{there} were there already"] if there else []
    parts += [f"{len(summary.failed)} failed"] if summary.failed else []
    parts += [f"{len(summary.left)} not begun"] if summary.left else []
    number = len(summary.tasks)
    echo(f"{number} scan{'s' * (number != 1)}: {', '.join(parts)}; {request.out / INDEX}")
    if not summary.failed and not summary.stopped:
        return DONE
    failed = list(summary.failed.items())
    for key, outcome in failed[:SHOWN]:
        say(f"failed: {key}: {outcome.error} ({request.out / crash_path(key)})")
    if len(failed) > SHOWN:
        say(f"failed: {len(failed) - SHOWN} more; see {request.out / INDEX}")
    if failed:
        subjects = {task.scan.key: task.scan.subject for task in summary.tasks}
        labels = " ".join(dict.fromkeys(subjects[key] for key, _ in failed))
        say(f"to run just those again, add: --participant-label {labels}")
    if summary.stopped:
        complain(summary.stopped)
    return DOUBTFUL


def _group(request: "Cohort", code: int, record: dict[str, Any]) -> int:
    """Sum up; without any result, that is no error beside those of the scans.

    ``record`` gets the files.
    """
    from ..cohort.run import sum_up

    try:
        files = sum_up(request)
    except InputError as error:
        if code == DONE:
            raise
        complain(str(error))
        return code
    for file in files:
        echo(str(file))
    record["files"] = files
    return code
