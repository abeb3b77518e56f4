"""Image files: read with nibabel and checked to the end, written atomically as NIfTI-1.

Every way in which a file can be unreadable becomes one ``InputError`` that names the file.
"""

import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import IOBase
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import FileBasedImage
from nibabel.fileholders import FileHolder
from nibabel.openers import ImageOpener
from nibabel.spatialimages import SpatialImage

from .._files import check_readable, write_file
from ..errors import InputError
from .disguise import Beginning, is_gzipped, undisguised
from .grid import Grid
from .nifti_header import lenient, load, stored_header
from .placement import Placement, placement_of

_log = logging.getLogger(__name__)
_OPENING = threading.Lock()

#: The NIfTI codes of intents: a label map; vectors in RAS mm; vectors in any frame, ITK's LPS.
LABEL, DISPLACEMENT, VECTOR = 1002, 1006, 1007
# Voxels by which the corners of qform and sform of a written image may differ. Set by hand: of 25
# oblique scans of one site, all but one have less.
SAME_FORMS = 1e-2
# Deviation of a slope from 1, and of an intercept from 0, that is rounding. Set by hand: the header
# has 32 bits for them.
ROUNDED = 1e-6

_CHUNK = 1 << 20  # bytes
_MOST_DEFLATED = 1032  # bytes from one, the limit of the format


def open_image(
    source: str | os.PathLike[str] | SpatialImage, what: str, *, header_only: bool = False
) -> SpatialImage:
    """Open an image of three or more dimensions; its voxels are not decoded yet.

    Args:
        source: a path or a nibabel image.
        what: the role of the file, the first words of messages.
        header_only: leave the voxels of a gzipped file unread, too, and its end unchecked.

    Raises:
        InputError: the file is missing, is no image, or has fewer than three dimensions.
    """
    image = source if isinstance(source, SpatialImage) else _loaded(source, what, header_only)
    if not isinstance(image, SpatialImage) or len(image.shape) < 3:
        raise InputError(
            f"{what} {image_name(source)}: expected a 3-D image, got {shape_text(image)}"
        )
    return image


class Loaded(NamedTuple):
    """An image that was read.

    Args:
        image: the nibabel image.
        data: its array in the stored axes, with the stored scaling applied.
        placement: where its voxels are.
    """

    image: SpatialImage
    data: np.ndarray
    placement: Placement


def load_image(source: str | os.PathLike[str] | SpatialImage, what: str) -> Loaded:
    """Load an image of three or more dimensions.

    Args:
        source: a path or a nibabel image.
        what: the role of the file ("moving image"), the first words of messages.

    Raises:
        InputError: the file is missing, is no image, is damaged, has fewer than three dimensions,
            holds something other than real numbers, or its header places it nowhere or has a
            size that no head has.
    """
    image = open_image(source, what)
    placement = readable_placement(image, what, image_name(source))
    with reading(image_name(source), what):
        return Loaded(image, np.asarray(image.dataobj), placement)


def readable_placement(image: SpatialImage, what: str, name: str) -> Placement:
    """Where the voxels of an image are, after checks that they can be read.

    Raises:
        InputError: they are no real numbers, the file is shorter than its header says, or its
            header places it nowhere or has a size that no head has.
    """
    placement = placement_of(image, f"{what} {name}")
    if image.get_data_dtype().kind not in "iufb":
        raise InputError(
            f"{what} {name}: voxels must be real numbers, got {image.get_data_dtype()}"
        )
    with reading(name, what):
        _check_length(image)
    return placement


@contextmanager
def reading(name: object, what: str) -> Iterator[None]:
    """Turn the errors of damaged voxels into one ``InputError`` that names the file."""
    try:
        with np.errstate(all="ignore"):  # values that are not finite are seen to later
            yield
    except Exception as error:  # as in ``_loaded``
        raise InputError(
            f"{what} {name}: the data are damaged or cut off ({_first_line(error)})"
        ) from error


def native(data: np.ndarray, image: SpatialImage) -> np.ndarray:
    """Native byte order, floats of 32 or 64 bits; scaled integers of up to 16 bits take 32.

    Integers that are scaled by 1 but for rounding, as by programs that compute the scaling from
    the range of the values, are what is stored.
    """
    if data.dtype.kind != "f":
        return data.astype(data.dtype.newbyteorder("="), copy=False)
    stored, scaled = image.get_data_dtype(), scaling(image)
    if stored.kind in "iu" and scaled is not None:
        slope, intercept = scaled
        if abs(slope - 1) <= ROUNDED and abs(intercept) <= ROUNDED:
            integers = np.rint((data.astype(np.float64) - intercept) / slope)
            return integers.astype(stored.newbyteorder("="))
    narrow = stored.itemsize <= (4 if stored.kind == "f" else 2)
    with np.errstate(over="ignore"):  # beyond 32 bits is infinite, and is seen to later
        return data.astype(np.float32 if narrow else np.float64, copy=False)


def scaling(image: SpatialImage) -> tuple[float, float] | None:
    """Slope and intercept by which the stored numbers of a file become values.

    None of images in memory, and of formats that scale slices or frames differently (MINC, AFNI,
    PAR/REC).
    """
    proxy = image.dataobj
    return (float(proxy.slope), float(proxy.inter)) if type(proxy) is ArrayProxy else None


def nifti(data: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """A NIfTI-1 image in the array's own type, coded for the space of its grid.

    Its qform is the same as its sform, or has code 0 where it would be another one: it cannot
    express shears, and its quaternion has the precision of 32 bits, which is little near half a
    turn.
    """
    image = nib.Nifti1Image(data, None, dtype=data.dtype)
    image.set_sform(grid.affine, code=grid.space_code)
    image.set_qform(grid.affine, code=grid.space_code)
    by_qform, by_sform = (Grid(grid.shape, x) for x in (image.get_qform(), image.get_sform()))
    if not by_sform.matches(by_qform, tolerance=SAME_FORMS):
        image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm", "sec")
    return image


def write_nifti(
    image: nib.Nifti1Image,
    path: str | os.PathLike[str],
    contents: Iterable[np.ndarray] | None = None,
) -> None:
    """Write a NIfTI-1 image atomically, gzipped if the name ends in ``.gz`` (in any case).

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
        if not str(path).lower().endswith(".gz"):
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
    if not str(path).lower().endswith((".nii", ".nii.gz")):
        raise InputError(f"output {path}: the name must end in .nii or .nii.gz")


def image_name(source: str | os.PathLike[str] | SpatialImage) -> str:
    """The path of an image, or the type of an image in memory, for messages."""
    if isinstance(source, SpatialImage):
        return source.get_filename() or f"<{type(source).__name__}>"
    return str(source)


def frame_spacing(image: SpatialImage) -> float:
    """Seconds between frames: the header's fourth zoom, in the unit that the header names."""
    zooms = image.header.get_zooms()
    per_second = 1e3 if isinstance(image, nib.MGHImage) else 1.0
    if isinstance(image, nib.Nifti1Pair):  # the codes of NIfTI for ms and µs
        per_second = {16: 1e3, 24: 1e6}.get(int(image.header["xyzt_units"]) & 0x38, 1.0)
    return float(zooms[3]) / per_second if len(zooms) > 3 and zooms[3] > 0 else 1.0


class Intent(NamedTuple):
    """What the values of a NIfTI file mean: the code, and the name that a program may add."""

    code: int
    name: str


def intent(image: SpatialImage) -> Intent:
    """The NIfTI intent; code 0 for other formats."""
    if not isinstance(image, nib.Nifti1Pair):
        return Intent(0, "")
    name = image.header["intent_name"].item().decode("latin-1")
    return Intent(int(image.header["intent_code"]), name)


def shape_text(image: np.ndarray | FileBasedImage) -> str:
    """A shape for messages, such as "181×217×181"."""
    return "×".join(str(n) for n in getattr(image, "shape", ())) or "no voxel array"


def _loaded(source: str | os.PathLike[str], what: str, header_only: bool) -> FileBasedImage:
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
        unzipped = None if header_only else _unzipped(path, what)
        # nibabel computes with the numbers of a header in their own types, which may be narrow.
        with _nibabel_messages_in_our_log(f"{what} {path}"), np.errstate(over="ignore"):
            found = undisguised(path, header_only=header_only)
            image = lenient(found.kind).from_file_map(found.files) if found else load(str(path))
            if unzipped is not None and list(image.file_map) == ["image"]:
                holder = FileHolder(str(path), io.BytesIO(unzipped))
                image = type(image).from_file_map({"image": holder})
            _check_stored_spacing(image, what, path)
    except InputError:
        raise
    except Exception as error:  # nibabel and what it reads with raise nearly everything
        # What 3D Slicer and ITK write by default.
        theirs = path.suffix.lower() in (".nrrd", ".nhdr", ".mha", ".mhd")
        raise InputError(
            f"{what} {path}: not an image that can be read ("
            + ("save it as .nii.gz)" if theirs else f"{_first_line(error)})")
        ) from error
    return image


def _unzipped(path: Path, what: str) -> bytes | None:
    """The contents of a gzipped file, read to its end, where the checksum is; None of others.

    nibabel stops before the checksum, and unzips with zlib, which is slower.
    """
    if not is_gzipped(path):
        return None
    try:
        with igzip.open(path) as stream:
            return cast(bytes, stream.read())
    except Exception as error:
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
        # The list of filters belongs to the process: one thread at a time may exchange it.
        with _OPENING, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            _log.info("%s: %s", which, warning.message)
    finally:
        logger.removeFilter(redirect)


def _check_stored_spacing(image: FileBasedImage, what: str, path: Path) -> None:
    """Refuse zero and negative spacings, which nibabel repairs silently when it loads a file."""
    if not isinstance(image, nib.Nifti1Pair):
        return
    stored = stored_header(image)["pixdim"][1:4]
    if image.ndim >= 3 and not (np.isfinite(stored).all() and (stored > 0).all()):
        raise InputError(
            f"{what} {path}: voxel spacing must be positive, but the header (pixdim) has "
            f"{stored.tolist()}; correct the header"
        )


def _check_length(image: SpatialImage) -> None:
    """Make sure that a file is as long as its header says, before that much memory is allocated.

    Raises:
        OSError: it is shorter.
    """
    proxy = image.dataobj
    if isinstance(proxy, np.ndarray):
        return
    expected = math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize
    if isinstance(proxy, ArrayProxy):
        expected, found = expected + proxy.offset, _most_bytes(proxy.file_like)
    else:  # formats that may be compressed within
        name = image.file_map["image"].filename
        found = _MOST_DEFLATED * os.path.getsize(name) if name and os.path.exists(name) else None
    if found is not None and found < expected:
        raise OSError(f"expected {expected} bytes, but there are {found}")


def _most_bytes(source: object) -> int | None:
    """How many bytes a file can have when it is unzipped; None if somebody else has opened it."""
    if isinstance(source, io.BytesIO) and not isinstance(source, Beginning):
        return source.getbuffer().nbytes
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source)
    ending = path.suffix.lower()
    if ending in (".gz", ".mgz"):
        return _MOST_DEFLATED * path.stat().st_size
    if ending not in ImageOpener.compress_ext_map:
        return path.stat().st_size
    with ImageOpener(str(path)) as stream:
        return sum(map(len, iter(partial(stream.read, _CHUNK), b"")))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
