"""Volumes: an array on a grid, read from anything nibabel reads, written whole or not at all."""

import gzip
import logging
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from io import IOBase
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import FileBasedImage, ImageFileError
from nibabel.spatialimages import HeaderDataError, ImageDataError, SpatialImage

from ..errors import InputError
from ..files import check_readable, write_file
from .grid import Grid, canonical_axes

_log = logging.getLogger(__name__)

_NEIGHBOURS = slice(None, -1), slice(1, None)


_UNREADABLE = (
    *(ImageFileError, ImageDataError, HeaderDataError, OSError, EOFError, zlib.error),
    *(ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError),
)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image, or a series of them on one grid.

    Args:
        data: (X, Y, Z) or (X, Y, Z, T) array, axes as nibabel gives them, in the file's own
            type where no scaling is stored, else as floats with the scaling applied.
        grid: where the voxels are.
        name: what to call the volume in messages: its path.
        is_label_file: the header says that the values are labels (NIfTI intent 1002).
        frame_spacing: time between the frames of a series, seconds.
        header_warnings: what is odd about the file, a sentence each.
    """

    data: np.ndarray
    grid: Grid
    name: str = "image"
    is_label_file: bool = False
    frame_spacing: float = 1.0
    header_warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.data.shape[:3] != self.grid.shape:
            raise ValueError(f"data of shape {self.data.shape} on a grid of {self.grid.shape}")

    def to_nibabel(self) -> nib.Nifti1Image:
        """The same as an image of nibabel's; labels are marked as such (intent 1002)."""
        image = nifti(self.data, self.grid)
        image.header.set_intent("label" if self.is_label_file else "none")
        if self.data.ndim == 4:
            image.header.set_zooms((*self.grid.spacing, self.frame_spacing))
        return image

    def holds_labels(self) -> bool:
        """Whether the values are labels rather than intensities.

        Intensities are often stored as integers too. A label map either says so in its header
        or has an integer type and few values, or an integer type and flat patches: half of the
        neighbouring voxels, other than of the commonest value, are equal, which in a scan they
        hardly ever are. Of a series the first frame is looked at.
        """
        return self._holds_labels

    @cached_property
    def _holds_labels(self) -> bool:
        if self.is_label_file:
            return True
        if self.data.dtype.kind not in "iub":
            return False
        frame = self.data.reshape(*self.data.shape[:3], -1)[..., 0]
        values, counts = np.unique(frame, return_counts=True)
        if len(values) <= 32:
            return True
        background, pairs, equal = values[counts.argmax()], 0, 0
        for axis in range(3):
            first, second = (np.moveaxis(frame, axis, 0)[part] for part in _NEIGHBOURS)
            foreground = (first != background) & (second != background)
            pairs += int(foreground.sum())
            equal += int((first == second)[foreground].sum())
        return equal >= pairs / 2


#: What an image can be given as.
ImageLike = str | os.PathLike[str] | SpatialImage | Volume


def read_volume(source: ImageLike, what: str = "image") -> Volume:
    """Read a 3-D scan for registration.

    Args:
        source: a path, an image of nibabel's, or a volume.
        what: what the file is to the user ("moving image"), for messages.

    Returns:
        The volume; trailing axes of length one are dropped.

    Raises:
        InputError: the file is missing, no image, damaged, not 3-D, not finite, constant, or
            its header places voxels nowhere.
    """
    volume = read_series(source, what)
    if volume.data.ndim != 3:
        raise InputError(
            f"{what} {volume.name}: one 3-D volume is wanted, the file is a series of shape "
            f"{_shape(volume.data)}"
        )
    _check_values(volume, what)
    return volume


def read_labels(source: ImageLike, image: Volume, what: str = "label map") -> Volume:
    """Read a label map that lies on the grid of ``image``.

    Raises:
        InputError: as ``read_volume``; also where values are not whole numbers, no label is
            there, or the grid is not the image's.
    """
    volume = read_series(source, what)
    if volume.data.ndim != 3:
        raise InputError(f"{what} {volume.name}: 3-D is wanted, got {_shape(volume.data)}")
    if not volume.grid.matches(image.grid):
        raise InputError(
            f"{what} {volume.name}: its grid ({_shape(volume.data)}, {_spacing(volume.grid)}) is "
            f"not that of {image.name} ({_shape(image.data)}, {_spacing(image.grid)})"
        )
    data = volume.data
    if data.dtype.kind == "f":
        if not np.isfinite(data).all() or (data != np.round(data)).any():
            raise InputError(f"{what} {volume.name}: labels are whole numbers, found fractions")
        data = data.astype(np.int64 if np.abs(data).max() >= 2**31 else np.int32)
    if not data.any():
        raise InputError(f"{what} {volume.name}: the label map is empty (all zero)")
    return Volume(data, volume.grid, volume.name, is_label_file=True)


def read_series(source: ImageLike, what: str = "image") -> Volume:
    """Read a 3-D image or a 4-D series, without a look at its values.

    Raises:
        InputError: the file is missing, no image, damaged, of fewer than three dimensions or
            of a type that is not a real number, or its header places voxels nowhere.
    """
    if isinstance(source, Volume):
        return source
    image, data = load_image(source, what)
    name = _name(source)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim > 4 or min(data.shape) < 2:
        raise InputError(f"{what} {name}: a 3-D volume is wanted, this is {_shape(image)}")
    grid = image_grid(image, name, what)
    return Volume(
        _native(data, image),
        grid,
        name,
        is_label_file=_intent(image) == "label",
        frame_spacing=_frame_spacing(image),
        header_warnings=_header_warnings(image, grid, f"{what} {name}"),
    )


def load_image(
    source: str | os.PathLike[str] | SpatialImage, what: str
) -> tuple[SpatialImage, np.ndarray]:
    """The image behind ``source`` and its array, of three dimensions or more, as stored.

    Raises:
        InputError: see ``read_series``.
    """
    name, image = _name(source), _open(source, what)
    if not isinstance(image, SpatialImage) or len(image.shape) < 3:
        raise InputError(f"{what} {name}: a 3-D volume is wanted, this is {_shape(image)}")
    if image.get_data_dtype().kind not in "iufb":
        raise InputError(f"{what} {name}: numbers are wanted, not {image.get_data_dtype()}")
    try:
        return image, np.asarray(image.dataobj)
    except _UNREADABLE as error:
        raise InputError(
            f"{what} {name}: the data are damaged or cut off ({_first(error)})"
        ) from error


def image_grid(image: SpatialImage, name: object, what: str) -> Grid:
    """Where the voxels of an image of nibabel's are, by the affine that nibabel chooses.

    Raises:
        InputError: the header's affine is no valid geometry.
    """
    try:
        return Grid(image.shape[:3], image.affine)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{what} {name}: the header is no valid geometry: {_first(error)}"
        ) from error


def to_canonical(volume: Volume) -> Volume:
    """The same volume with axes permuted and flipped to run R, A, S as nearly as they can.

    Nothing is interpolated. All 48 ways of storing one scan give the same bytes here, which
    is what makes everything computed from them the same too.
    """
    order = np.argsort(canonical_axes(volume.grid.affine))
    affine = volume.grid.affine[:, [*order, 3]].copy()
    data = volume.data.transpose(*order, *range(3, volume.data.ndim))
    for axis in range(3):
        if affine[axis, axis] < 0:
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:, axis] *= -1
            data = np.flip(data, axis)
    grid = Grid(data.shape[:3], affine + 0.0)  # no negative zeros: they are other bytes
    return replace(volume, data=np.ascontiguousarray(data), grid=grid)


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write NIfTI-1 (``.nii`` or ``.nii.gz``), qform and sform both set, atomically.

    The bytes depend on the data and the grid alone: no time, no file name is stored. Labels
    are marked as such (intent 1002).

    Raises:
        InputError: the name does not end in .nii or .nii.gz, or the file cannot be written.
    """
    write_nifti(volume.to_nibabel(), path)


def nifti(data: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """An image of nibabel's in the array's own type, its place said twice (qform and sform)."""
    image = nib.Nifti1Image(data, None, dtype=data.dtype)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    return image


def write_nifti(image: nib.Nifti1Image, path: str | os.PathLike[str]) -> None:
    """Write an image of nibabel's, gzipped where the name says so, atomically.

    Raises:
        InputError: as ``write_volume``.
    """
    check_nifti_name(path)

    def write(stream: BinaryIO) -> None:
        if not str(path).endswith(".gz"):
            image.to_stream(cast(IOBase, stream))
            return
        # Level 1: many times faster than the default on fields and scans, for a few % of size.
        with gzip.GzipFile("", "wb", 1, stream, mtime=0) as zipped:
            image.to_stream(zipped)

    write_file(path, write)


def check_nifti_name(path: str | os.PathLike[str]) -> None:
    """Refuse an output name that is not NIfTI's.

    Raises:
        InputError: the name does not end in .nii or .nii.gz.
    """
    if not str(path).endswith((".nii", ".nii.gz")):
        raise InputError(f"output {path}: the name must end in .nii or .nii.gz")


def _name(source: str | os.PathLike[str] | SpatialImage) -> str:
    if isinstance(source, SpatialImage):
        return source.get_filename() or f"<{type(source).__name__}>"
    return str(source)


def _open(source: str | os.PathLike[str] | SpatialImage, what: str) -> FileBasedImage:
    if isinstance(source, SpatialImage):
        return source
    path = Path(source)
    check_readable(path, what)
    if path.is_dir():
        raise InputError(f"{what} {path}: this is a folder, an image file is wanted")
    try:
        _check_gzip(path, what)
        with _nibabels_repairs(f"{what} {path}"):
            image = nib.load(path)
            _check_stored_spacing(image, what, path)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(
            f"{what} {path}: not an image that can be read ({_first(error)})"
        ) from error
    return image


def _check_gzip(path: Path, what: str) -> None:
    """Read a gzipped file to its end, where the checksum is; nibabel stops before that."""
    with open(path, "rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            return
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 24):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{what} {path}: not an image that can be read: it is damaged or cut off ({error})"
        ) from error


@contextmanager
def _nibabels_repairs(which: str) -> Iterator[None]:
    """What nibabel repairs in a header it tells our log: what matters is refused in a sentence."""
    logger, ours = logging.getLogger("nibabel.global"), threading.get_ident()

    def retold(record: logging.LogRecord) -> bool:
        if record.thread != ours:
            return True
        _log.info("%s: nibabel found: %s", which, record.getMessage())
        return False

    logger.addFilter(retold)
    try:
        yield
    finally:
        logger.removeFilter(retold)


def _check_stored_spacing(image: FileBasedImage, what: str, path: Path) -> None:
    """Nibabel repairs zero and negative spacings in silence; here the stored ones count."""
    if not isinstance(image, nib.Nifti1Pair):
        return
    with image.file_map.get("header", image.file_map["image"]).get_prepare_fileobj("rb") as stream:
        stored = type(image.header).from_fileobj(stream, check=False)["pixdim"][1:4]
    if image.ndim >= 3 and not (np.isfinite(stored).all() and (stored > 0).all()):
        raise InputError(
            f"{what} {path}: voxel spacing must be positive, the header says {stored.tolist()}"
        )


def _check_values(volume: Volume, what: str) -> None:
    data = volume.data
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        bad = int(data.size - np.isfinite(data).sum())
        raise InputError(f"{what} {volume.name}: {bad} voxels are NaN or infinite")
    low, high = data.min(), data.max()
    if low == high:
        kind = "all zero" if high == 0 else f"constant ({high})"
        raise InputError(f"{what} {volume.name}: the image is {kind}, there is nothing to align")


def _native(data: np.ndarray, image: SpatialImage) -> np.ndarray:
    """Native byte order, floats of 32 or 64 bits; scaled integers of up to 16 bits take 32."""
    if data.dtype.kind != "f":
        return data.astype(data.dtype.newbyteorder("="), copy=False)
    stored = image.get_data_dtype()
    narrow = stored.itemsize <= (4 if stored.kind == "f" else 2)
    return data.astype(np.float32 if narrow else np.float64, copy=False)


def _header_warnings(image: SpatialImage, grid: Grid, which: str) -> tuple[str, ...]:
    """Whether the header places the voxels in two ways, of which other tools may take the other."""
    if not isinstance(image, nib.Nifti1Pair):
        return ()
    qform, code = image.get_qform(coded=True)
    if not code or not image.get_sform(coded=True)[1]:
        return ()
    try:
        same = grid.matches(Grid(grid.shape, qform))
    except ValueError:
        same = False
    return () if same else (f"{which}: qform and sform differ; the sform was used",)


def _frame_spacing(image: SpatialImage) -> float:
    """Seconds between frames: the header's fourth zoom, in the unit that the header names."""
    zooms = image.header.get_zooms()
    units = "msec" if isinstance(image, nib.MGHImage) else "sec"
    if hasattr(image.header, "get_xyzt_units"):
        units = image.header.get_xyzt_units()[1]
    per_second = {"msec": 1e3, "usec": 1e6}.get(units, 1.0)
    return float(zooms[3]) / per_second if len(zooms) > 3 and zooms[3] > 0 else 1.0


def _intent(image: SpatialImage) -> str:
    header = image.header
    return str(header.get_intent()[0]) if hasattr(header, "get_intent") else "none"


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _shape(image: np.ndarray | FileBasedImage) -> str:
    return "×".join(str(n) for n in getattr(image, "shape", ())) or "no array"


def _spacing(grid: Grid) -> str:
    return "×".join(f"{s:.3g}" for s in grid.spacing) + " mm"
