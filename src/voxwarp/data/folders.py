"""The images in a folder or in a BIDS data set, each with whose it is, found by their names."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from .tables import check_pattern, filled


def images_in_folder(folder: Path, pattern: str) -> dict[Path, str]:
    """The files that a pattern such as ``*.nii.gz`` matches; each is of another subject.

    Raises:
        InputError: it is no pattern.
        OSError: the folder cannot be read.
    """
    try:
        # Links that lead nowhere are left in: whoever reads them says so.
        found = sorted(path for path in folder.glob(pattern) if not path.is_dir())
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"folder {folder}: {pattern!r} is no pattern of files in it") from error
    return {
        path: without_suffix(path.relative_to(folder))
        for path in found
        if not path.name.startswith(".")
    }


def images_in_bids(root: Path, suffix: str) -> dict[Path, str]:
    """The images of a suffix, of all subjects (sub-*), sessions and runs, but not the derivatives.

    Raises:
        OSError: a folder cannot be read.
    """
    places = [*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")]
    name = re.compile(rf"[^.].*_{re.escape(suffix)}\.nii(\.gz)?")
    files = (path for place in places if place.is_dir() for path in place.iterdir())
    found = sorted(path for path in files if name.fullmatch(path.name))
    return {path: path.relative_to(root).parts[0] for path in found}


def label_maps_of(images: Iterable[Path], folder: Path, pattern: str) -> dict[Path, Path]:
    """The label maps of images, of those that have one.

    Args:
        images: in the folder.
        folder: where the pattern's path starts.
        pattern: filled from {name}, {stem} and {folder} of the image.

    Raises:
        InputError: the pattern has other names, or no image has a label map.
    """
    check_pattern(pattern, ("name", "stem", "folder"), f"labels of {folder}")
    named = {path: folder / str(filled(pattern, _words(path, folder))) for path in images}
    maps = {path: Path(os.path.normpath(place)) for path, place in named.items()}
    maps = {path: place for path, place in maps.items() if os.path.lexists(place)}
    if not maps:
        first = next(iter(named.values()))
        raise InputError(f"labels of {folder}: no scan has any; there is no {first}, say")
    return maps


def _words(path: Path, folder: Path) -> dict[str, str]:
    """What a pattern of label maps can be filled with."""
    place = str(path.parent.relative_to(folder))
    return {"name": path.name, "stem": without_suffix(Path(path.name)), "folder": place}


def without_suffix(path: Path) -> str:
    """A path without its ending, ``.nii.gz`` and the like."""
    whole = path.with_name(path.name.removesuffix(".gz") or path.name)
    return str(whole.with_suffix(""))
