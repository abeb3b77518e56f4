"""``voxwarp models``: which there are, what they are, and others' weights as one of them."""

from pathlib import Path
from typing import Annotated

import typer

from ..files import check_writable
from ..folders import models_folder
from .console import help_without_command
from .options import OverwriteOption

app = typer.Typer(help="List, show and import models.", invoke_without_command=True)


@app.callback()
def models(context: typer.Context) -> None:
    """List, show and import models."""
    help_without_command(context)


@app.command("list")
def list_models() -> None:
    """Names and folders of the installed models."""
    from ..networks.model import installed

    for name, folder in installed().items():
        typer.echo(f"{name}\t{folder}")


@app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="Name of a model, or its folder.", metavar="MODEL")],
) -> None:
    """What a model is and was trained on."""
    from ..networks.model import find

    typer.echo((find(model) / "model.json").read_text(encoding="utf-8").rstrip())


@app.command("import")
def import_model(
    weights: Annotated[
        Path, typer.Argument(help="Keras HDF5 weights of VoxelMorph-1 or -2.", metavar="FILE.h5")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder of the model.", show_default="among the user's models"
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert published VoxelMorph weights into a model that register --model takes."""
    from ..networks.keras import import_keras

    model = import_keras(weights)
    folder = out or models_folder() / model.name
    check_writable(folder, ("model.json", "weights.safetensors"), overwrite=overwrite)
    model.save(folder)
    typer.echo(f"{model.name}\t{folder}")
