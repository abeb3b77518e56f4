"""``voxwarp models``: list, show and import models."""

from pathlib import Path
from typing import Annotated

import typer

from .._files import check_readable, check_writable, staging
from .._folders import models_folder
from .._publish import place
from . import options
from .command import Command, Group, Question
from .console import Manner, answer, help_without_command, told

app = typer.Typer(cls=Group, invoke_without_command=True)


@app.callback()
def models(context: typer.Context) -> None:
    """List, show and import models.

    Examples:
    voxwarp models list
    voxwarp models show default
    voxwarp models import vm2_cc.h5
    """
    help_without_command(context)


@app.command("list", cls=Question)
def list_models(json: options.AsJson = False) -> None:
    """List the installed models: name and folder, separated by a tab."""
    from ..networks.installed import installed

    models = installed()
    with told(Manner(as_json=json)):
        answer((f"{name}\t{folder}" for name, folder in models.items()), models)


@app.command("show", cls=Question)
def show_model(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.", metavar="MODEL")],
) -> None:
    """Print the description of a model as JSON: network, preparation, training data, scores.

    Examples:
    voxwarp models show default
    voxwarp models show runs/my
    """
    from ..networks.installed import MODEL, find

    path = find(model) / MODEL
    check_readable(path, "model")
    typer.echo(path.read_text(encoding="utf-8").rstrip())


@app.command("import", cls=Command)
def import_model(
    weights: Annotated[
        Path,
        typer.Argument(
            help="Keras weights (HDF5) of VoxelMorph-1 or VoxelMorph-2 as their authors "
            "published them.",
            metavar="FILE.h5",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for the model.",
            metavar="FOLDER",
            show_default="the user's models, so that --model finds it by name",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Convert published VoxelMorph weights into a model for register --model.

    It prints the name and the folder of the model.

    Examples:
    voxwarp models import vm2_cc.h5
    voxwarp register moving.nii.gz fixed.nii.gz -o out --model vm2_cc
    """
    from ..networks.installed import MODEL, WEIGHTS
    from ..networks.keras import import_keras

    model = import_keras(weights)
    folder, files = out or models_folder() / model.name, (WEIGHTS, MODEL)
    check_writable(folder, files, overwrite=overwrite)
    with staging(folder) as stage:
        model.save(stage)
        place(stage, folder, files, overwrite=overwrite)
    typer.echo(f"{model.name}\t{folder}")
