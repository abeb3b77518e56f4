"""Images that are gzipped although their names do not say so, or the reverse.

People rename files; nibabel goes by the names.
"""

import io
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from isal import igzip
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.filename_parser import TypesFilenamesError
from nibabel.imageclasses import all_image_classes

from .nifti_header import file_map

GZIP = b"\x1f\x8b"
_SNIFFED = 1 << 16  # bytes in which every header ends


class Undisguised(NamedTuple):
    """How an image can be read nevertheless.

    Args:
        kind: its class in nibabel.
        files: its files by their roles, as ``kind.from_file_map`` takes them.
    """

    kind: Any
    files: dict[str, Any]


class Beginning(io.BytesIO):
    """The first bytes of a file, with its header."""


def undisguised(path: Path, *, header_only: bool = False) -> Undisguised | None:
    """Recognise an image of which a file is gzipped against its name, or not; None of all others.

    Args:
        path: of the image.
        header_only: the files that are not what their names say are not read to their ends.

    Raises:
        OSError, EOFError, isal_zlib.error: a file cannot be read, or is damaged.
    """
    for kind in all_image_classes:
        try:
            files: dict[str, Any] = dict(file_map(kind, str(path)))
        except (ImageFileError, TypesFilenamesError):  # not by its ending
            continue
        contents = {
            role: _contents(Path(holder.filename), header_only)
            for role, holder in files.items()
            if _is_disguised(Path(holder.filename))
        }
        if contents and _fits(kind, path, files, contents):
            opened: dict[str, Any] = {
                role: FileHolder(files[role].filename, content)
                for role, content in contents.items()
            }
            return Undisguised(kind, files | opened)
    return None


def is_gzipped(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with open(path, "rb") as stream:
        return stream.read(len(GZIP)) == GZIP


def open_contents(path: Path) -> BinaryIO:
    """Open a file for reading, unzipped if it is gzipped, whatever its name."""
    return cast(BinaryIO, igzip.open(path)) if is_gzipped(path) else open(path, "rb")


def _is_disguised(path: Path) -> bool:
    return path.is_file() and is_gzipped(path) != path.name.lower().endswith((".gz", ".mgz"))


def _contents(path: Path, header_only: bool) -> io.BytesIO:
    with open_contents(path) as stream:
        return Beginning(stream.read(_SNIFFED)) if header_only else io.BytesIO(stream.read())


def _fits(kind: Any, path: Path, files: dict[str, Any], contents: dict[str, io.BytesIO]) -> bool:
    """Whether the header is one of this class."""
    role = "header" if "header" in files else "image"
    header = contents.get(role) or _contents(Path(files[role].filename), True)
    fits, _ = kind.path_maybe_image(str(path), (header.getvalue()[:_SNIFFED], files[role].filename))
    return bool(fits)
