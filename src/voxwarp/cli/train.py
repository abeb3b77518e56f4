"""``voxwarp train``: train a model on the user's own scans."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import options
from .console import DONE, REFUSED, answer, complain, is_quiet, stages, warn
from .options import OUTPUT, runtime_of

if TYPE_CHECKING:
    from ..training.checkpoint import TrainingState
    from ..training.config import Config
    from ..training.inspection import Report

TRAINING = "Training"


def train(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="YAML file that names the scans and settings of the training.",
            metavar="CONFIG.yaml",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings that replace those of the file, such as optimiser.batch=2.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    *,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Read all scans, list every problem, and train nothing.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the training in the folder of --out.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Stop after this time; --resume continues.",
            metavar="N",
            min=0,
            show_default="no limit",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    show_settings: Annotated[
        bool,
        typer.Option(
            "--show-settings",
            help="Print every setting, its default and what it does.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for the model, its record and checkpoints.",
            metavar="FOLDER",
            show_default="runs/ and the name of the YAML file",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Remove the training in the folder and start again.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    device: options.Device = options.DeviceName.auto,
) -> int:
    """Train a model on your own scans; register --model takes its folder.

    The smallest CONFIG.yaml names a table of scans (data: sources: table). All other settings have
    defaults: see --show-settings. Ctrl-C stops after the current step and saves.

    Examples:
    voxwarp train my.yaml --check
    voxwarp train my.yaml -o runs/my losses.diffusion.weight=0.5
    voxwarp register moving.nii.gz fixed.nii.gz -o out --model runs/my
    """
    from ..training.config import read_config, settings_table

    if show_settings:
        table = list(settings_table())
        answer(
            [f"{name}{f' = {value}' if value else ''}\n    {text}" for name, value, text in table],
            [{"name": name, "default": value, "meaning": text} for name, value, text in table],
        )
        return DONE
    if config is None:
        raise InputError("no configuration is given: voxwarp train CONFIG.yaml")
    settings = read_config(config, overrides or [])
    runtime = runtime_of(device=device)
    if check:
        return _check(settings, runtime.device)
    from ..training.train import train as run

    folder = out or Path("runs") / config.stem
    done = run(
        settings,
        folder,
        resume=resume,
        overwrite=overwrite,
        device=runtime.device,
        minutes=float("inf") if minutes is None else minutes,
        show=not is_quiet(),
    )
    if os.environ.get("RANK", "0") != "0":
        return DONE
    lines: list[object] = [f"{folder}: {done.step} of {settings.steps} steps; --resume continues"]
    if done.step >= settings.steps:
        time = f"{settings.steps} steps in {done.seconds / 60:.1f} min"
        lines = [folder / "model.json", f"{time}{_scores(done)}"]
    steps = {"step": done.step, "steps": settings.steps, "seconds": done.seconds}
    answer(lines, {"model": folder, **steps, "start": done.start, "best": done.best})
    return DONE


def _check(settings: "Config", device: str) -> int:
    """Print what a training would use, and every problem; 2 if there is one."""
    from .._device import torch_device
    from ..data.scans import gather
    from ..training.inspection import check, check_beforehand

    scans = gather(settings.data, settings.seed)
    with stages() as progress:
        progress(f"read {len(scans)} scans")
        report = check(settings, scans)
    problems = list(report.problems)
    try:
        check_beforehand(settings, scans, torch_device(device))
    except InputError as error:
        problems += [str(error)] if str(error) not in problems else []
    answer(
        _what_is_used(report),
        {
            "scans": {
                dataset: {split: asdict(count) for split, count in splits.items()}
                for dataset, splits in report.counts.items()
            },
            "structures": report.structures,
            "prepared_scans": report.folder,
            "bytes_needed": report.bytes_needed,
            "bytes_free": report.bytes_free,
            "warnings": report.warnings,
            "problems": problems,
        },
    )
    warn(report.warnings)
    for problem in problems:
        complain(problem)
    if not problems:
        typer.echo("no problems found")
    return REFUSED if problems else DONE


def _what_is_used(report: "Report") -> Iterator[str]:
    for dataset, splits in report.counts.items():
        for split, count in splits.items():
            if count.scans:
                subjects = f"{count.scans} scans of {count.subjects} subjects"
                yield f"{dataset}, {split}: {subjects}, {count.labelled} with labels"
    yield f"{len(report.structures)} structures"
    size = f"{report.bytes_needed / 1e9:.2f} GB needed, {report.bytes_free / 1e9:.2f} GB free"
    yield f"prepared scans in {report.folder}: {size}"


def _scores(done: "TrainingState") -> str:
    best, start = done.best, done.start
    if "val_dice" in best:
        return (
            f", validation Dice {start.get('val_dice', 0):.3f} -> {best['val_dice']:.3f}, folds "
            f"{best['val_folds_percent']:.4f} % (step {best['step']})"
        )
    return f", validation loss {best['val_loss']:.4f}" if "val_loss" in best else ""
