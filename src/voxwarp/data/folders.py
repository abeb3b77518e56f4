"""Find the images in a folder or a BIDS data set, and their subjects, by file name."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from .._files import without_extension
from ..errors import InputError
from .tables import fill_pattern, placeholders


def images_in_folder(folder: Path, pattern: str) -> dict[Path, str]:
    """Find the files that match a pattern such as ``*.nii.gz``; each is one subject.

    Returns:
        The subject by path: the file's path in the folder, without its extension.

    Raises:
        InputError: the pattern is not valid.
        OSError: the folder cannot be read.
    """
    try:
        # Broken links stay in the list: reading them gives a clear error.
        paths = sorted(path for path in folder.glob(pattern) if not path.is_dir())
    except (ValueError, NotImplementedError) as error:
        raise InputError(
            f"folder {folder}: {pattern!r} is not a valid file pattern; use a relative one such "
            f"as *.nii.gz or */T1.nii.gz"
        ) from error
    return {
        path: without_extension(str(path.relative_to(folder)))
        for path in paths
        if not path.name.startswith(".")
    }


def images_in_bids(root: Path, suffix: str) -> dict[Path, str]:
    """Find the raw images with a suffix, of all subjects (sub-*), sessions and runs.

    Returns:
        The subject by path, such as ``sub-01``.

    Raises:
        OSError: a folder cannot be read.
    """
    folders = [*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")]
    name = re.compile(rf"[^.].*_{re.escape(suffix)}\.nii(\.gz)?", re.IGNORECASE)
    files = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    paths = sorted(path for path in files if name.fullmatch(path.name))
    return {path: path.relative_to(root).parts[0] for path in paths}


def label_maps_of(images: Iterable[Path], folder: Path, pattern: str) -> dict[Path, Path]:
    """Find the label maps of images; images without one are left out.

    Args:
        images: paths in the folder.
        folder: the folder that the pattern is relative to.
        pattern: path of a label map, with {name}, {stem} and {folder} of the image.

    Returns:
        The label map by image.

    Raises:
        InputError: the pattern has other placeholders, or no image has a label map.
    """
    for name in placeholders(pattern):
        if name not in ("name", "stem", "folder"):
            raise InputError(
                f"labels of {folder}: the pattern {pattern} has the unknown placeholder {name!r}; "
                f"use {{name}}, {{stem}} or {{folder}}"
            )
    expected = {path: folder / str(fill_pattern(pattern, _parts(path, folder))) for path in images}
    maps = {path: Path(os.path.normpath(place)) for path, place in expected.items()}
    maps = {path: place for path, place in maps.items() if os.path.lexists(place)}
    if not maps:
        first = next(iter(expected.values()))
        raise InputError(
            f"labels of {folder}: none of the scans has a label map; for example, {first} does "
            f"not exist"
        )
    return maps


def _parts(path: Path, folder: Path) -> dict[str, str]:
    """The values of the placeholders for one image."""
    parent = str(path.parent.relative_to(folder))
    return {"name": path.name, "stem": without_extension(path.name), "folder": parent}
