"""Series of images, read from their files and written to them one frame at a time."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import IOBase
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError

from ..errors import InputError
from .disguise import open_contents
from .image_file import (
    image_name,
    native,
    open_image,
    readable_placement,
    reading,
    write_nifti,
)
from .values import storable
from .volume import ImageLike, Volume, read_series, series_shape, volume_of

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Series:
    """An image, or the frames of a 4-D one in their order.

    Args:
        first: the image, or the first frame; with what the header says of all.
        length: number of frames; None for a 3-D image.
        following: the frames after the first, each (X, Y, Z) in the type of ``first``. They can
            be read once.
    """

    first: Volume
    length: int | None
    following: Iterator[np.ndarray]


def open_series(source: ImageLike, what: str = "image") -> Series:
    """Open an image or a series; of a NIfTI, Analyze or MGH file, one frame is read at a time.

    Args:
        source: a path, a nibabel image or a volume.
        what: the role of the file, the first words of messages.

    Raises:
        InputError: as ``read_series``; also later, where the file is found to be damaged.
    """
    if isinstance(source, (str, os.PathLike)):
        image = open_image(source, what, header_only=True)
        path, shape = Path(source), series_shape(image, what, image_name(source))
        if len(shape) == 4 and type(image.dataobj) is ArrayProxy and _can_be_read_on(path):
            placement = readable_placement(image, what, image_name(source))
            frames = _frames(image, shape, path, what)
            first = volume_of(image, next(frames), placement, image_name(source))
            return Series(first, shape[-1], frames)
    whole = read_series(source, what)
    if whole.data.ndim == 3:
        return Series(whole, None, iter(()))
    first, *following = np.moveaxis(whole.data, -1, 0)
    return Series(replace(whole, data=first), whole.data.shape[-1], iter(following))


def _can_be_read_on(path: Path) -> bool:
    """Whether reading goes on where it ended, instead of unzipping from the start each time."""
    return not path.name.lower().endswith((".bz2", ".zst"))


def _frames(image: Any, shape: tuple[int, ...], path: Path, what: str) -> Iterator[np.ndarray]:
    """The frames of a file; a gzipped one is read to its end, where the checksum is."""
    source = image.file_map["image"].filename
    with reading(path, what):
        stream = open_contents(Path(source))
    with stream:
        with reading(path, what):
            files = image.file_map | {"image": FileHolder(source, cast(IOBase, stream))}
            image = type(image).from_file_map(files)
        for t in range(shape[-1]):
            with reading(path, what):
                index = (slice(None),) * 3 + (t,) + (0,) * (image.ndim - 4)
                frame = native(np.asarray(image.dataobj[index]), image)
            yield frame
        with reading(path, what):
            while stream.read(1 << 20):  # to the end, where the checksum is
                pass


def write_series(
    first: Volume, length: int, following: Iterator[np.ndarray], path: str | os.PathLike[str]
) -> None:
    """Write a series as ``write_volume`` does, one frame at a time; the bytes are the same.

    Args:
        first: the first frame.
        length: number of frames.
        following: the frames after the first, which are made while the ones before are written.
        path: the file.

    Raises:
        InputError: as ``write_volume``; or the series is too long for NIfTI-1.
    """
    image = first.to_nibabel()
    try:
        image.header.set_data_shape((*first.grid.shape, length))
    except HeaderDataError as error:
        raise InputError(
            f"output {path}: NIfTI-1 has at most 32767 voxels or frames along each axis, but the "
            f"result has {'×'.join(map(str, (*first.grid.shape, length)))}"
        ) from error
    image.header.set_zooms((*first.grid.spacing, first.frame_spacing))

    def contents() -> Iterator[np.ndarray]:
        yield _in_file_order(storable(first.data, first.name))
        for frame in _ahead(following):
            yield _in_file_order(storable(frame, first.name))

    write_nifti(image, path, contents())


def _in_file_order(frame: np.ndarray) -> np.ndarray:
    """A frame (Z, Y, X) as it is in a file, where x changes fastest.

    A plane at a time is three times as fast as all at once, which leaps through memory.
    """
    if frame.flags.f_contiguous:
        return frame.T
    out = np.empty(frame.shape[::-1], frame.dtype)
    for y in range(frame.shape[1]):
        out[:, y, :] = frame[:, y, :].T
    return out


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made in another thread while the one before is used."""
    nothing: Any = object()
    make: Callable[[], Any] = lambda: next(items, nothing)  # noqa: E731
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(make)
        while (item := upcoming.result()) is not nothing:
            upcoming = pool.submit(make)
            yield item
