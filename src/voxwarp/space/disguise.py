"""Images that are gzipped although their names do not say so, or the reverse.

People rename files; nibabel goes by the names.
"""

from io import IOBase
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from isal import igzip
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.filename_parser import TypesFilenamesError
from nibabel.imageclasses import all_image_classes

GZIP = b"\x1f\x8b"
_SNIFFED = 1024  # bytes by which nibabel recognises a header


class Undisguised(NamedTuple):
    """How an image can be read nevertheless.

    Args:
        kind: its class in nibabel.
        files: its files by their roles, as ``kind.from_file_map`` takes them.
    """

    kind: Any
    files: dict[str, Any]


def undisguised(path: Path) -> Undisguised | None:
    """Recognise an image of which a file is gzipped against its name, or not; None of all others.

    Raises:
        OSError, EOFError, isal_zlib.error: a file cannot be read, or is damaged.
    """
    for kind in all_image_classes:
        try:
            files: dict[str, Any] = dict(kind.filespec_to_file_map(str(path)))
        except (ImageFileError, TypesFilenamesError):  # not by its ending
            continue
        streams = {
            role: _opened(Path(holder.filename))
            for role, holder in files.items()
            if _is_disguised(Path(holder.filename))
        }
        if streams and _fits(kind, path, files, streams):
            opened: dict[str, Any] = {
                role: FileHolder(files[role].filename, cast(IOBase, stream))
                for role, stream in streams.items()
            }
            return Undisguised(kind, files | opened)
        for stream in streams.values():
            stream.close()
    return None


def is_gzipped(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with open(path, "rb") as stream:
        return stream.read(len(GZIP)) == GZIP


def _is_disguised(path: Path) -> bool:
    return path.is_file() and is_gzipped(path) != path.name.lower().endswith((".gz", ".mgz"))


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, igzip.open(path)) if is_gzipped(path) else open(path, "rb")


def _fits(kind: Any, path: Path, files: dict[str, Any], streams: dict[str, BinaryIO]) -> bool:
    """Whether the header is one of this class."""
    role = "header" if "header" in files else "image"
    header = streams.get(role) or _opened(Path(files[role].filename))
    start = header.read(_SNIFFED)
    if role in streams:
        header.seek(0)
    else:
        header.close()
    fits, _ = kind.path_maybe_image(str(path), (start, files[role].filename))
    return bool(fits)
