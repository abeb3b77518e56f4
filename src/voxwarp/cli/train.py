"""``voxwarp train``: train a model on the user's own scans."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import options
from .console import DONE, REFUSED, complain, stages, warn
from .options import OUTPUT, runtime_of

if TYPE_CHECKING:
    from ..training.checkpoint import TrainingState
    from ..training.config import Config

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
        for name, default, meaning in settings_table():
            typer.echo(f"{name}{f' = {default}' if default else ''}\n    {meaning}")
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
    )
    if os.environ.get("RANK", "0") != "0":
        return DONE
    if done.step < settings.steps:
        typer.echo(f"{folder}: {done.step} of {settings.steps} steps; --resume continues")
        return DONE
    typer.echo(folder / "model.json")
    typer.echo(f"{settings.steps} steps in {done.seconds / 60:.1f} min{_scores(done)}")
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
    for dataset, splits in report.counts.items():
        for split, count in splits.items():
            if count.scans:
                subjects = f"{count.scans} scans of {count.subjects} subjects"
                typer.echo(f"{dataset}, {split}: {subjects}, {count.labelled} with labels")
    typer.echo(f"{len(report.structures)} structures")
    size = f"{report.bytes_needed / 1e9:.2f} GB needed, {report.bytes_free / 1e9:.2f} GB free"
    typer.echo(f"prepared scans in {report.folder}: {size}")
    warn(report.warnings)
    problems = list(report.problems)
    try:
        check_beforehand(settings, scans, torch_device(device))
    except InputError as error:
        problems += [str(error)] if str(error) not in problems else []
    for problem in problems:
        complain(problem)
    if not problems:
        typer.echo("no problems found")
    return REFUSED if problems else DONE


def _scores(done: "TrainingState") -> str:
    best, start = done.best, done.start
    if "val_dice" in best:
        return (
            f", validation Dice {start.get('val_dice', 0):.3f} -> {best['val_dice']:.3f}, folds "
            f"{best['val_folds_percent']:.4f} % (step {best['step']})"
        )
    return f", validation loss {best['val_loss']:.4f}" if "val_loss" in best else ""
