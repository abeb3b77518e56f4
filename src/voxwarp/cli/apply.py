"""``voxwarp apply``: transform images by saved registrations."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .._allocation import share_freed_memory
from .._files import check_writable, staging, without_extension
from .._publish import place
from ..errors import InputError
from . import options
from .console import answer, warn


class InterpolationName(StrEnum):
    """How values between voxels are computed."""

    linear = "linear"
    nearest = "nearest"
    cubic = "cubic"


def apply(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Scans, label maps or 4-D series in the space of the moving scan (with "
            "--inverse, of the fixed scan).",
            metavar="IMAGE",
        ),
    ],
    *,
    transform: options.Transforms,
    inverse: options.Inverse = False,
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            help="File to write (.nii or .nii.gz), or a folder for files of the images' names; the "
            "name of a new folder ends in a slash, unless there are several images.",
            metavar="PATH",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-r",
            help="Image whose grid the result gets.",
            metavar="FILE",
            show_default="the fixed scan; with --inverse, the moving scan",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    interpolation: Annotated[
        InterpolationName | None,
        typer.Option(
            help="linear, nearest (neighbour) or cubic (B-spline); the command prints which one "
            "it used.",
            metavar="METHOD",
            show_default="nearest for label maps, linear for all others",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    background: Annotated[
        float | None,
        typer.Option(
            help="Value outside of the image, such as -1024 in CT.",
            metavar="VALUE",
            show_default="that of its outer voxels, if nearly all have the same; else 0",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    strict: options.Strict = False,
    overwrite: options.Overwrite = False,
) -> int:
    """Transform images from the moving space to the fixed space, or back with --inverse.

    Each image is resampled once, through the whole chain of transforms.

    Examples:
    voxwarp apply bold.nii.gz -t out -o bold_mni.nii.gz
    voxwarp apply atlas_labels.nii.gz -t out --inverse -o atlas_native.nii.gz
    voxwarp apply bold.nii.gz -t bold_to_t1 -t out -r grid.nii.gz -o mni.nii.gz
    """
    share_freed_memory()  # frames are made in one thread and written in another
    from ..registration.apply import apply_to_file
    from ..registration.saved_transform import chain_of

    targets = _targets(images, out, overwrite)
    chain = chain_of(transform)
    method: Any = interpolation.value if interpolation else None
    folder, names = targets[0].parent, [target.name for target in targets]
    with staging(folder) as stage:  # all of them or none
        moved = [
            apply_to_file(
                image,
                stage / name,
                chain,
                reference=reference,
                inverse=inverse,
                interpolation=method,
                background=background,
            )
            for image, name in zip(images, names, strict=True)
        ]
        place(stage, folder, names, overwrite=overwrite)
    warnings = list(dict.fromkeys(text for one in moved for text in one.warnings))
    written = [(file, one.interpolation) for file, one in zip(targets, moved, strict=True)]
    answer(
        [f"{file}  ({how})" for file, how in written],
        {
            "files": [{"path": file, "interpolation": how} for file, how in written],
            "warnings": warnings,
        },
    )
    return warn(warnings, strict)


def _targets(images: list[Path], name: str, overwrite: bool) -> list[Path]:
    """The file to write for each image: ``out`` itself, or files of the images' names in it."""
    from ..space.image_file import check_nifti_name

    out = Path(name)
    if len(images) == 1 and not out.is_dir() and not options.is_folder_name(name):
        targets = [out]
    else:
        if out.name.lower().endswith((".nii", ".nii.gz")) and not out.is_dir():
            raise InputError(
                f"output {out}: several images need a folder, but this is the name of an image"
            )
        names = [f"{without_extension(image.name)}.nii.gz" for image in images]
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"output {out / name}: two of the images have this name; give them different "
                    f"names, or transform them one at a time"
                )
        targets = [out / name for name in names]
    for target in targets:
        check_nifti_name(target)
    check_writable(targets[0].parent, tuple(t.name for t in targets), overwrite=overwrite)
    return targets
