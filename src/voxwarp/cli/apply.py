"""``voxwarp apply``: images through a saved registration."""

import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files import check_writable, staging, without_ending
from .options import InverseOption, OverwriteOption, TransformOption


class InterpolationName(str, Enum):
    """How values between voxels are found."""

    linear = "linear"
    nearest = "nearest"
    cubic = "cubic"


def apply(
    images: Annotated[
        list[Path], typer.Argument(help="Images, label maps or 4-D series.", metavar="IMAGE...")
    ],
    *,
    transform: TransformOption,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Output file; a folder for several images.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-r",
            help="Image whose grid the result gets.",
            show_default="the other scan",
        ),
    ] = None,
    inverse: InverseOption = False,
    interpolation: Annotated[
        InterpolationName | None,
        typer.Option(
            help="How values between voxels are found.",
            show_default="nearest for labels, else linear",
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Carry images from the moving scan's space to the fixed scan's, resampled once."""
    from ..registration.apply import apply_to_image, chain_of, interpolation_of
    from ..space.volume import read_series, write_volume

    targets = _targets(images, out, overwrite)
    chain = chain_of(transform)
    method: Any = interpolation.value if interpolation else None
    with staging(targets[0].parent) as stage:  # all of them or none
        used = []
        for image, target in zip(images, targets, strict=True):
            volume = read_series(image)
            used.append(method or interpolation_of(volume))
            carried = apply_to_image(
                volume, chain, reference=reference, inverse=inverse, interpolation=used[-1]
            )
            write_volume(carried, stage / target.name)
        for target in targets:
            os.replace(stage / target.name, target)
    for target, how in zip(targets, used, strict=True):
        typer.echo(f"{target}  ({how})")


def _targets(images: list[Path], out: Path, overwrite: bool) -> list[Path]:
    """Where each image goes: ``out`` itself, or files of the images' names in it."""
    from ..space.volume import check_nifti_name

    if len(images) == 1 and not out.is_dir():
        targets = [out]
    else:
        names = [f"{without_ending(image.name)}.nii.gz" for image in images]
        if len(set(names)) < len(names):
            raise InputError(f"output {out}: two of the images have the same name")
        targets = [out / name for name in names]
    for target in targets:
        check_nifti_name(target)
    check_writable(targets[0].parent, tuple(t.name for t in targets), overwrite=overwrite)
    return targets
