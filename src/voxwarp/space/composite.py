"""Composite transforms of ITK in HDF5 (``.h5``), as antsRegistration and fMRIPrep write them.

A file lists its transforms in the reverse of the order in which points pass through them. This is
the layout of ITK's ``HDF5TransformIO``: one group for each transform, with its kind and its
numbers; the first says that it is a composite. The vectors of a displacement field are in LPS mm.
"""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from isal import isal_zlib

from .._files import check_readable, write_bytes
from ..errors import InputError
from .formats import (
    affine_of,
    field_geometry,
    grid_of_field,
    lps_vectors,
    read_affine,
    record_of,
)
from .transform import Affine, Warp

if TYPE_CHECKING:
    import h5py

ENDINGS = ".h5", ".hdf5"

_GROUP = "TransformGroup"
_COMPOSITE, _FIELD = "CompositeTransform", "DisplacementFieldTransform"
# ITK wrote the second before version 5.
_NUMBERS = ("TransformParameters", "TranformParameters")
_GEOMETRY = ("TransformFixedParameters", "TranformFixedParameters")
_CHUNK = 1 << 18  # numbers that are compressed together
_MOST_TRANSFORMS = 64  # a file with more is damaged; set by hand
_MOST_DEFLATED = 1032  # bytes from one, the limit of the format


def is_composite_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a transform in HDF5 by its name."""
    return os.fspath(path).lower().endswith(ENDINGS)


def write_composite(
    transforms: Sequence[Affine | Warp], path: str | os.PathLike[str], comment: str = "voxwarp"
) -> None:
    """Write transforms as one composite that ANTs, SimpleITK and nitransforms read.

    Fields are stored as 32-bit floats and compressed. The bytes depend on the transforms alone.

    Args:
        transforms: in the order in which points pass through them.
        path: the file, .h5.
        comment: stored where ITK stores its own version.

    Raises:
        ValueError: the grid of a warp is sheared, which ITK files cannot express.
        InputError: the file cannot be written.
    """
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        _write_text(file, "ITKVersion", comment)
        group = file.create_group(_GROUP)
        _write_text(group.create_group("0"), "TransformType", f"{_COMPOSITE}_double_3_3")
        for number, transform in enumerate(reversed(transforms), 1):
            _write_one(group.create_group(str(number)), transform)
    write_bytes(path, stream.getvalue())


def _write_one(group: "h5py.Group", transform: Affine | Warp) -> None:
    if isinstance(transform, Affine):
        kind, parameters, fixed = record_of(transform)
        _write_text(group, "TransformType", kind)
        group[_GEOMETRY[0]] = np.asarray(fixed, np.float64)
        group[_NUMBERS[0]] = np.asarray(parameters, np.float64)
        return
    _write_text(group, "TransformType", f"{_FIELD}_double_3_3")
    group[_GEOMETRY[0]] = field_geometry(transform.grid)
    _write_compressed(group, _NUMBERS[0], lps_vectors(transform.displacement))


def _write_text(group: "h5py.Group", name: str, text: str) -> None:
    import h5py

    group.create_dataset(name, data=[text], dtype=h5py.string_dtype("ascii"))


def _write_compressed(group: "h5py.Group", name: str, numbers: np.ndarray) -> None:
    """Write numbers as HDF5's own gzip filter would, with its byte shuffle, but by ISA-L.

    On one field of 82 MB that takes 0.3 s instead of 3 s.
    """
    size = min(_CHUNK, numbers.size)
    dataset = group.create_dataset(
        name, numbers.shape, "<f4", chunks=(size,), compression="gzip", shuffle=True
    )
    for first in range(0, numbers.size, size):
        part = np.zeros(size, "<f4")  # a chunk is stored whole
        part[: numbers.size - first] = numbers[first : first + size]
        shuffled = np.ascontiguousarray(part.view(np.uint8).reshape(-1, 4).T)
        dataset.id.write_direct_chunk((first,), isal_zlib.compress(shuffled.data, 1))


def read_composite(path: str | os.PathLike[str], what: str = "transform") -> list[Affine | Warp]:
    """Read the transforms of an HDF5 file of ITK, a composite or a single one.

    Linear transforms of every kind and displacement fields can be read.

    Args:
        path: the file.
        what: the role of the file, the first words of messages.

    Returns:
        The transforms in the order in which points pass through them.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    import h5py

    path = Path(path)
    check_readable(path, what)
    try:
        with h5py.File(path) as file, np.errstate(all="ignore"):
            groups = _groups(file)
            return [_read_one(group, path.stat().st_size) for group in reversed(groups)]
    except Exception as error:  # HDF5 and h5py raise nearly everything for damaged files
        reason = " ".join(str(error).split())
        raise InputError(
            f"{what} {path}: not a composite transform of ITK that can be read ({reason}); "
            f"expected linear transforms and displacement fields, as antsRegistration writes them"
        ) from error


def read_linear(path: str | os.PathLike[str], what: str = "transform") -> Affine:
    """Read a linear transform of ITK in any format: .mat, .txt, .tfm, or a composite in HDF5.

    Args:
        path: the file.
        what: the role of the file, the first words of messages.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    if not is_composite_name(path):
        return read_affine(path, what)
    whole = Affine(np.eye(4))
    for step in read_composite(path, what):
        if isinstance(step, Warp):
            raise InputError(
                f"{what} {path}: it holds a deformation, but a linear transform is needed here; "
                f"give a file of linear transforms"
            )
        whole = step.after(whole)
    return whole


def _groups(file: "h5py.File") -> list["h5py.Group"]:
    """The groups of the transforms, in their order in the file."""
    top = _inside(file, _GROUP)
    if not 1 <= len(top) <= _MOST_TRANSFORMS:
        raise ValueError(f"it holds {len(top)} transforms")
    groups = [_inside(top, str(number)) for number in range(len(top))]
    is_composite = [_kind(group).startswith(f"{_COMPOSITE}_") for group in groups]
    if any(is_composite[1:]):
        raise ValueError("it holds a composite within a composite")
    groups = groups[1:] if is_composite[0] else groups
    if not groups:
        raise ValueError("it holds no transform")
    return groups


def _inside(group: "h5py.Group", *names: str) -> Any:
    """What is in a group under the first of the names that it has; other files are not opened."""
    import h5py

    for name in names:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.HardLink):
            return group[name]
        if link is not None:
            raise ValueError(f"{name} is a link")
    raise ValueError(f"{names[0]} is missing")


def _kind(group: "h5py.Group") -> str:
    text = _inside(group, "TransformType")
    if text.size != 1:
        raise ValueError(f"{text.name} holds {text.size} texts")
    value = np.ravel(text[()])[0]
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _read_one(group: "h5py.Group", file_size: int) -> Affine | Warp:
    kind = _kind(group)
    fixed = _numbers(_inside(group, *_GEOMETRY), file_size)
    values = _inside(group, *_NUMBERS)
    if not kind.startswith(f"{_FIELD}_"):
        numbers = _numbers(values, file_size)
        return affine_of([(kind, numbers.tolist(), fixed.tolist())])
    grid = grid_of_field(fixed)
    if values.size != 3 * math.prod(grid.shape):
        raise ValueError(
            f"its field has {values.size} numbers for {'×'.join(map(str, grid.shape))} voxels"
        )
    numbers = _numbers(values, file_size)
    if not np.isfinite(numbers).all():
        raise ValueError("some displacements are NaN or infinite")
    vectors = numbers.astype(np.float32, copy=False).reshape((3, *grid.shape), order="F")
    return Warp(lps_vectors(vectors, to_ras=True), grid)


def _numbers(values: "h5py.Dataset", file_size: int) -> np.ndarray:
    """The numbers of a data set, which cannot be more than the file can hold."""
    if values.dtype.kind != "f" or values.is_virtual or values.external:
        raise ValueError(f"{values.name} holds no numbers")
    if values.nbytes > _MOST_DEFLATED * file_size:
        raise ValueError(f"{values.name} claims {values.nbytes} bytes, more than the file can hold")
    return np.ravel(values[()])
