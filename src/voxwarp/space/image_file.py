"""Image files: read with nibabel and checked to the end, written atomically as NIfTI-1.

Every way in which a file can be unreadable becomes one ``InputError`` that names the file.
"""

import io
import logging
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import IOBase
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import FileBasedImage, ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError, ImageDataError, SpatialImage

from .._files import check_readable, write_file
from ..errors import InputError
from .grid import Grid

_log = logging.getLogger(__name__)

# What nibabel and the modules below it raise for damaged files.
_UNREADABLE = (
    *(ImageFileError, ImageDataError, HeaderDataError, OSError, EOFError, zlib.error),
    *(ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError),
)


def load_image(
    source: str | os.PathLike[str] | SpatialImage, what: str
) -> tuple[SpatialImage, np.ndarray]:
    """Load an image of three or more dimensions.

    Args:
        source: a path or a nibabel image.
        what: the role of the file ("moving image"), the first words of messages.

    Returns:
        The nibabel image, and its array in the stored axes with the stored scaling applied.

    Raises:
        InputError: the file is missing, is no image, is damaged, has fewer than three dimensions,
            or holds something other than real numbers.
    """
    name, image = image_name(source), _open(source, what)
    if not isinstance(image, SpatialImage) or len(image.shape) < 3:
        raise InputError(f"{what} {name}: expected a 3-D image, got {shape_text(image)}")
    if image.get_data_dtype().kind not in "iufb":
        raise InputError(
            f"{what} {name}: voxels must be real numbers, got {image.get_data_dtype()}"
        )
    try:
        return image, np.asarray(image.dataobj)
    except _UNREADABLE as error:
        raise InputError(
            f"{what} {name}: the data are damaged or cut off ({_first_line(error)})"
        ) from error


def image_grid(image: SpatialImage, name: object, what: str) -> Grid:
    """The grid of a nibabel image, by the affine that nibabel chooses (sform before qform).

    Raises:
        InputError: the affine in the header is not a valid geometry.
    """
    try:
        return Grid(image.shape[:3], image.affine)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{what} {name}: the header has no valid geometry ({_first_line(error)}); "
            f"correct its sform or qform"
        ) from error


def nifti(data: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """A NIfTI-1 image in the array's own type, with the same qform and sform."""
    image = nib.Nifti1Image(data, None, dtype=data.dtype)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    return image


def write_nifti(
    image: nib.Nifti1Image,
    path: str | os.PathLike[str],
    contents: Iterable[np.ndarray] | None = None,
) -> None:
    """Write a NIfTI-1 image atomically, gzipped if the name ends in ``.gz``.

    Args:
        image: the image.
        path: the file.
        contents: the voxels in the type and order of the file, in parts; by default nibabel
            takes them from the image, with a copy of it if they lie in another order.

    Raises:
        InputError: the name does not end in .nii or .nii.gz, or the file cannot be written.
    """
    check_nifti_name(path)

    def put(stream: BinaryIO) -> None:
        if contents is None:
            image.to_stream(cast(IOBase, stream))
            return
        image.header.set_slope_inter(1, 0)  # as nibabel writes it
        image.header.write_to(stream)
        for part in contents:
            stream.write(part.data)

    def write(stream: BinaryIO) -> None:
        if not str(path).endswith(".gz"):
            put(stream)
            return
        # Level 1 of ISA-L, not of zlib: on one 61 MB warp 0.34 s of a CPU against 1.86 s, and
        # 38.6 MB against 36.8 MB. Higher levels save a few percent.
        with igzip.IGzipFile("", "wb", 1, stream, mtime=0) as zipped:
            put(cast(BinaryIO, zipped))

    write_file(path, write)


def check_nifti_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name for an output image that is not a NIfTI name.

    Raises:
        InputError: the name does not end in .nii or .nii.gz.
    """
    if not str(path).endswith((".nii", ".nii.gz")):
        raise InputError(f"output {path}: the name must end in .nii or .nii.gz")


def image_name(source: str | os.PathLike[str] | SpatialImage) -> str:
    """The path of an image, or the type of an image in memory, for messages."""
    if isinstance(source, SpatialImage):
        return source.get_filename() or f"<{type(source).__name__}>"
    return str(source)


def header_warnings(image: SpatialImage, grid: Grid, which: str) -> tuple[str, ...]:
    """Warn if qform and sform place the voxels differently, since tools differ in which they use.

    Args:
        image: an image; only NIfTI can have both.
        grid: its grid, see ``image_grid``; ``Grid.matches`` says what counts as different.
        which: role and path of the image, the first words of the warning.
    """
    if not isinstance(image, nib.Nifti1Pair):
        return ()
    qform, code = image.get_qform(coded=True)
    if not code or not image.get_sform(coded=True)[1]:
        return ()
    try:
        same = grid.matches(Grid(grid.shape, qform))
    except ValueError:
        same = False
    warning = f"{which}: qform and sform differ; the sform was used. Other tools may use the qform"
    return () if same else (warning,)


def frame_spacing(image: SpatialImage) -> float:
    """Seconds between frames: the header's fourth zoom, in the unit that the header names."""
    zooms = image.header.get_zooms()
    units = "msec" if isinstance(image, nib.MGHImage) else "sec"
    if hasattr(image.header, "get_xyzt_units"):
        units = image.header.get_xyzt_units()[1]
    per_second = {"msec": 1e3, "usec": 1e6}.get(units, 1.0)
    return float(zooms[3]) / per_second if len(zooms) > 3 and zooms[3] > 0 else 1.0


def intent(image: SpatialImage) -> str:
    """The NIfTI intent in nibabel's words, such as "label"; "none" for other formats."""
    header = image.header
    return str(header.get_intent()[0]) if hasattr(header, "get_intent") else "none"


def shape_text(image: np.ndarray | FileBasedImage) -> str:
    """A shape for messages, such as "181×217×181"."""
    return "×".join(str(n) for n in getattr(image, "shape", ())) or "no voxel array"


def _open(source: str | os.PathLike[str] | SpatialImage, what: str) -> FileBasedImage:
    if isinstance(source, SpatialImage):
        return source
    if isinstance(source, np.ndarray):
        raise InputError(
            f"{what}: an array has no grid; make an image of it with "
            f"nibabel.Nifti1Image(array, affine)"
        )
    path = Path(source)
    check_readable(path, what)
    if path.is_dir():
        raise InputError(f"{what} {path}: this is a folder, not an image file")
    try:
        unzipped = _unzipped(path, what)
        with _nibabel_messages_in_our_log(f"{what} {path}"):
            image = nib.load(path)
            if unzipped is not None and list(image.file_map) == ["image"]:
                holder = FileHolder(str(path), io.BytesIO(unzipped))
                image = type(image).from_file_map({"image": holder})
            _check_stored_spacing(image, what, path)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(
            f"{what} {path}: not an image that can be read ({_first_line(error)})"
        ) from error
    return image


def _unzipped(path: Path, what: str) -> bytes | None:
    """The contents of a gzipped file, read to its end, where the checksum is; None of others.

    nibabel stops before the checksum, and unzips with zlib, which is slower.
    """
    with open(path, "rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            return None
    try:
        with igzip.open(path) as stream:
            return cast(bytes, stream.read())
    except (OSError, EOFError, zlib.error, cast(type[Exception], isal_zlib.error)) as error:
        raise InputError(
            f"{what} {path}: not an image that can be read: it is damaged or cut off ({error}); "
            f"copy or download it again"
        ) from error


@contextmanager
def _nibabel_messages_in_our_log(which: str) -> Iterator[None]:
    """Log what nibabel repairs in a header; nibabel itself would print it to stderr.

    Headers that matter are refused by the checks of this module instead.
    """
    logger, thread = logging.getLogger("nibabel.global"), threading.get_ident()

    def redirect(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        _log.info("%s: nibabel repaired the header: %s", which, record.getMessage())
        return False

    logger.addFilter(redirect)
    try:
        yield
    finally:
        logger.removeFilter(redirect)


def _check_stored_spacing(image: FileBasedImage, what: str, path: Path) -> None:
    """Refuse zero and negative spacings, which nibabel repairs silently when it loads a file."""
    if not isinstance(image, nib.Nifti1Pair):
        return
    with image.file_map.get("header", image.file_map["image"]).get_prepare_fileobj("rb") as stream:
        stored = type(image.header).from_fileobj(stream, check=False)["pixdim"][1:4]
    if image.ndim >= 3 and not (np.isfinite(stored).all() and (stored > 0).all()):
        raise InputError(
            f"{what} {path}: voxel spacing must be positive, but the header (pixdim) has "
            f"{stored.tolist()}; correct the header"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
