"""NIfTI images whose headers nibabel would not read, or would read otherwise than all other tools.

The copies of nibabel's classes here differ in two points. A quaternion that rounding, or a careless
program, has made longer than 1 is a half turn about its axis, as for ITK, FSL and AFNI (which all
follow ``nifti_quatern_to_mat44`` of nifti1_io.c); nibabel raises an error. And extensions, which
nobody here needs, are left unread: a damaged one could claim any size.
"""

import io
import os
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import FileBasedImage
from nibabel.fileholders import FileHolder
from nibabel.imageclasses import all_image_classes

from .mat_file import LARGEST, checked_mat


class _NoExtensions(nib.nifti1.Nifti1Extensions):
    @classmethod
    def from_fileobj(cls, fileobj: Any, size: int, byteswap: bool) -> "_NoExtensions":
        return cls()


class _LongQuaternions:
    """A mixin for nibabel's NIfTI headers."""

    exts_klass = _NoExtensions

    def get_qform_quaternion(self: Any) -> np.ndarray:
        """The quaternion of the qform, (4,): w, x, y, z."""
        xyz = np.array([self[f"quatern_{name}"] for name in "bcd"], np.float64)
        length = np.linalg.norm(xyz)
        if length**2 - 1 < self.quaternion_threshold:  # nibabel takes more for wrong
            return super().get_qform_quaternion()  # type: ignore[misc]
        return np.array([0.0, *(xyz / length)])


def _with_long_quaternions(kind: type) -> type:
    header = kind.header_class  # type: ignore[attr-defined]
    lenient = type(header.__name__, (_LongQuaternions, header), {})
    return type(kind.__name__, (kind,), {"header_class": lenient})


class _ClosedMGHImage(nib.MGHImage):
    """An MGH image whose file is closed when its header is read; nibabel leaves it open."""

    @classmethod
    def from_file_map(
        cls, file_map: Mapping[str, FileHolder], *, mmap: Any = True, keep_file_open: Any = None
    ) -> "_ClosedMGHImage":
        holder = file_map["image"]
        with holder.get_prepare_fileobj("rb") as stream:
            header = cls.header_class.from_fileobj(stream)
        data = cls.ImageArrayProxy(
            holder.file_like, header.copy(), mmap=mmap, keep_file_open=keep_file_open
        )
        return cls(data, header.get_affine(), header, file_map=file_map)


_KINDS: dict[type, Any] = {nib.MGHImage: _ClosedMGHImage} | {
    kind: _with_long_quaternions(kind)
    for kind in (nib.Nifti1Pair, nib.Nifti1Image, nib.Nifti2Pair, nib.Nifti2Image)
}


def lenient(kind: type) -> Any:
    """The class that reads what a class of nibabel reads, and more; other classes as they are."""
    return _KINDS.get(kind, kind)


def file_map(kind: Any, path: str) -> dict[str, FileHolder]:
    """The files of an image by their roles, as nibabel names them.

    A single file keeps its name, of which nibabel changes endings such as ``.Nii.GZ``. A MINC file
    is in memory, where SciPy cannot be made to allocate what it claims to have. The .mat
    file of SPM is checked.

    Raises:
        ImageFileError, TypesFilenamesError: the ending is not one of this class.
        ValueError: the .mat file is damaged.
    """
    files: dict[str, FileHolder] = kind.filespec_to_file_map(path)
    if len(files) == 1:
        holder = FileHolder(path)
        if issubclass(kind, nib.Minc1Image) and not path.lower().endswith((".gz", ".bz2", ".zst")):
            with open(path, "rb") as stream:
                holder.fileobj = io.BytesIO(stream.read())
        return dict.fromkeys(files, holder)
    mat = str(files["mat"].filename) if "mat" in files else ""
    if os.path.isfile(mat):
        with open(mat, "rb") as stream:
            files["mat"].fileobj = io.BytesIO(checked_mat(stream.read(LARGEST + 1)))
    return files


def load(path: str) -> FileBasedImage:
    """Load an image as ``nibabel.load`` does; its data are read later.

    Args:
        path: of the file.

    Raises:
        Various errors of nibabel and of the modules below it, if the file cannot be read.
    """
    sniff = None
    for kind in all_image_classes if os.path.getsize(path) else ():
        fits, sniff = kind.path_maybe_image(path, sniff)
        if fits:
            return lenient(kind).from_file_map(file_map(kind, path))
    return nib.load(path)  # raises an error that says why


def stored_header(image: nib.Nifti1Pair) -> nib.Nifti1Header:
    """The header of an image from ``load`` as it is in the file; of others, the one that they have.

    nibabel corrects some fields of a header when it reads it, by other rules than other tools.
    """
    header = image.header
    if not isinstance(header, _LongQuaternions):
        return header
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as stream:
        return type(header)(stream.read(header.template_dtype.itemsize), check=False)


def qform(header: nib.Nifti1Header) -> np.ndarray:
    """(4, 4) matrix of the qform, in the unit of the header.

    The third axis is flipped if ``pixdim[0]`` is negative, as ITK, FSL and AFNI do; nibabel
    corrects every value but 1 and −1 to 1.

    Raises:
        ValueError, HeaderDataError: a spacing is negative.
    """
    kind = _KINDS[nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image]
    copy = kind.header_class(header.binaryblock, header.endianness, check=False)
    copy["pixdim"][0] = -1 if copy["pixdim"][0] < 0 else 1
    return copy.get_qform()
