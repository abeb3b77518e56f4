"""MATLAB files: whether they are as long as they claim, before SciPy allocates what they claim."""

import struct

_ITEM_SIZES = 8, 4, 4, 2, 2, 1  # bytes, by the third digit of a type of version 4
LARGEST = 1 << 20  # bytes; a transform, or the two matrices of SPM, have a few hundred; set by hand


def checked_mat(contents: bytes) -> bytes:
    """The contents of a MATLAB file of version 4 or 5, if its variables are within it.

    Args:
        contents: the first ``LARGEST`` bytes of the file, or one more if it is longer.

    Raises:
        ValueError: they are not.
    """
    if len(contents) > LARGEST:
        raise ValueError("it is larger than 1 MB")
    is_version_4 = 0 in contents[:4] or not contents[:4]
    end = _end_of_version_4(contents) if is_version_4 else _end_of_version_5(contents)
    if end > len(contents):
        raise ValueError(f"it is cut off: {end} bytes were expected, but it has {len(contents)}")
    return contents


def _end_of_version_4(contents: bytes) -> int:
    """Where the variables end by what the file says; the first that does not fit is the last."""
    at = 0
    while at < len(contents):
        if at + 20 > len(contents):
            return at + 20
        kind = struct.unpack_from("<i", contents, at)[0]
        order = "<" if 0 <= kind < 5000 else ">"
        kind, rows, columns, is_complex, name = struct.unpack_from(f"{order}5i", contents, at)
        digit = kind // 10 % 10
        if min(kind, rows, columns, name) < 0 or digit >= len(_ITEM_SIZES):
            raise ValueError("it is no MATLAB file")
        at += 20 + name + rows * columns * _ITEM_SIZES[digit] * (2 if is_complex else 1)
    return at


def _end_of_version_5(contents: bytes) -> int:
    at = 128
    order = "<" if contents[126:128] == b"IM" else ">"
    while at < len(contents):
        if at + 8 > len(contents):
            return at + 8
        at += 8 + struct.unpack_from(f"{order}I", contents, at + 4)[0]
    return at
