"""``voxwarp train``: a model of the user's own scans."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .console import DONE, REFUSED, say, stages, warn
from .options import DeviceOption, OverwriteOption, runtime_of

if TYPE_CHECKING:
    from ..training.checkpoint import TrainingState
    from ..training.config import Config


def train(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; --knobs lists what it may say.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="In place of values of the file.", metavar="[KEY=VALUE]..."),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder of the model.", show_default="runs/NAME of the file"
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read everything, train nothing, tell what is wrong.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that is in the folder.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after as many, to be resumed.", min=0)
    ] = None,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
    knobs: Annotated[
        bool, typer.Option("--knobs", help="Print every key, its default and what it does.")
    ] = False,
) -> int:
    """Train a model on your own scans; register --model takes the folder."""
    from ..training.config import knobs as all_knobs
    from ..training.config import read_config

    if knobs:
        for name, default, meaning in all_knobs():
            typer.echo(f"{name}{f' = {default}' if default else ''}\n    {meaning}")
        return DONE
    if config is None:
        raise InputError("a configuration is wanted: voxwarp train CONFIG.yaml")
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
        typer.echo(f"{folder}: {done.step} of {settings.steps} steps; --resume goes on")
        return DONE
    typer.echo(folder / "model.json")
    typer.echo(f"{settings.steps} steps in {done.seconds / 60:.1f} min{_scores(done)}")
    return DONE


def _check(settings: "Config", device: str) -> int:
    """Tell what a training would find; 2 where something is wrong."""
    from ..data.scans import gather
    from ..device import torch_device
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
    size = f"{report.bytes_needed / 1e9:.2f} GB of {report.bytes_free / 1e9:.2f} GB that are free"
    typer.echo(f"to be prepared in {report.folder}: {size}")
    warn(report.warnings)
    problems = list(report.problems)
    try:
        check_beforehand(settings, scans, torch_device(device))
    except InputError as error:
        problems += [str(error)] if str(error) not in problems else []
    for problem in problems:
        say(f"error: {problem}")
    return REFUSED if problems else DONE


def _scores(done: "TrainingState") -> str:
    best, start = done.best, done.start
    if "val_dice" in best:
        return (
            f", validation Dice {start.get('val_dice', 0):.3f} -> {best['val_dice']:.3f}, folds "
            f"{best['val_folds_percent']:.4f} % (step {best['step']})"
        )
    return f", validation loss {best['val_loss']:.4f}" if "val_loss" in best else ""
