"""ITK files and images: the only place where LPS millimetres exist.

In ITK (ANTs, SimpleITK, 3D Slicer) x grows to the Left and y to the Posterior side; in nibabel and
in all of voxwarp to the Right and the Anterior side. D = diag(−1, −1, 1) converts either way.
"""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nibabel.nifti1 import intent_codes
from scipy.io import loadmat, savemat, whosmat
from scipy.io.matlab import MatReadError, matfile_version

from .._files import check_readable, write_bytes
from ..errors import InputError
from .foreign import conversion_of
from .grid import Grid
from .image_file import (
    DISPLACEMENT,
    VECTOR,
    intent,
    load_image,
    nifti,
    open_image,
    shape_text,
    write_nifti,
)
from .mat_file import LARGEST, checked_mat
from .placement import placement_of
from .transform import PART_VOXELS, Affine, Warp
from .volume import Volume

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_SIGNS = np.array([-1.0, -1.0, 1.0], dtype=np.float32)


def lps(points: np.ndarray) -> np.ndarray:
    """Convert points (..., 3) from RAS mm to LPS mm, or back, which is the same."""
    return points * _SIGNS.astype(np.float64)


def write_affine(affine: Affine, path: str | os.PathLike[str]) -> None:
    """Write an affine as ANTs does (``0GenericAffine.mat``): MATLAB v4, double, zero centre.

    Raises:
        InputError: the file cannot be written.
    """
    kind, parameters, fixed = record_of(affine)
    stream = BytesIO()
    columns = (np.asarray(numbers, np.float64)[:, None] for numbers in (parameters, fixed))
    savemat(stream, dict(zip((kind, "fixed"), columns, strict=True)), format="4")
    write_bytes(path, stream.getvalue())


def write_elastix_affine(affine: Affine, path: str | os.PathLike[str]) -> None:
    """Write an affine as an elastix ``TransformParameters`` file, for its initial transform.

    Raises:
        InputError: the file cannot be written.
    """
    matrix = _FLIP @ affine.matrix @ _FLIP
    numbers = " ".join(repr(float(x)) for x in (*matrix[:3, :3].ravel(), *matrix[:3, 3]))
    lines = [
        '(Transform "AffineTransform")',
        "(NumberOfParameters 12)",
        f"(TransformParameters {numbers})",
        '(InitialTransformParametersFileName "NoInitialTransform")',
        '(HowToCombineTransforms "Compose")',
        "(FixedImageDimension 3)",
        "(MovingImageDimension 3)",
        "(CenterOfRotationPoint 0 0 0)",
    ]
    write_bytes(path, "\n".join([*lines, ""]).encode())


def read_affine(path: str | os.PathLike[str], what: str = "transform") -> Affine:
    """Read a linear ITK transform: MATLAB ``.mat``, or text ``.txt`` or ``.tfm``.

    Every linear kind can be read (affine, rigid, similarity, scaling, translation, about any
    centre), and a text file may hold a composite of them.

    Args:
        path: the file.
        what: the role of the file, the first words of messages.

    Raises:
        InputError: the file is missing, or is not one linear 3-D transform.
    """
    path = Path(path)
    check_readable(path, what)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        raise InputError(
            f"{what} {path}: this is an image, not an ITK affine; to use the warp of a "
            f"registration, give the whole result folder"
        )
    if path.is_dir():
        raise InputError(
            f"{what} {path}: this is a folder, but it must be a file; give the linear transform "
            f"in it, such as {path / '0GenericAffine.mat'}"
        )
    try:
        records = _read_mat(path) if path.suffix.lower() == ".mat" else _read_text(path)
        return affine_of(records)
    except (*_UNREADABLE, MatReadError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{what} {path}: not an ITK affine transform ({reason}); "
            + (conversion_of(path) or _EXPECTED)
        ) from error


_EXPECTED = "expected one linear 3-D transform in a .mat, .txt or .tfm file"


# What SciPy, SimpleITK and ``Affine`` raise for files that hold something else.
_UNREADABLE = (
    *(KeyError, ValueError, TypeError, OSError, IndexError),
    *(NotImplementedError, OverflowError, RuntimeError, MemoryError, UserWarning),
)

# The linear kinds by their names in files. SimpleITK turns the numbers of each into a matrix, but
# its ReadTransform is not used, because it is not safe: without a line of fixed parameters it
# returns the identity, of two transforms it returns the first, both without an error; it prints
# to stderr; and after some files of unknown kinds, the process crashes when it exits.
_KINDS: dict[str, Callable[[], sitk.Transform]] = {
    "AffineTransform": lambda: sitk.AffineTransform(3),
    "MatrixOffsetTransformBase": lambda: sitk.AffineTransform(3),  # ANTs and c3d
    "ComposeScaleSkewVersor3DTransform": sitk.ComposeScaleSkewVersor3DTransform,
    "Euler3DTransform": sitk.Euler3DTransform,
    "IdentityTransform": lambda: sitk.Transform(3, sitk.sitkIdentity),
    "ScaleSkewVersor3DTransform": sitk.ScaleSkewVersor3DTransform,
    "ScaleTransform": lambda: sitk.ScaleTransform(3),
    "ScaleVersor3DTransform": sitk.ScaleVersor3DTransform,
    "Similarity3DTransform": sitk.Similarity3DTransform,
    "TranslationTransform": lambda: sitk.TranslationTransform(3),
    "VersorRigid3DTransform": sitk.VersorRigid3DTransform,
    "VersorTransform": sitk.VersorTransform,
}
#: A linear transform as ITK stores it: kind, parameters, fixed parameters.
Record = tuple[str, Sequence[float], Sequence[float]]


def record_of(affine: Affine) -> Record:
    """An affine as ITK stores it, about the centre 0."""
    matrix = _FLIP @ affine.matrix @ _FLIP
    parameters = [*matrix[:3, :3].ravel().tolist(), *matrix[:3, 3].tolist()]
    return "AffineTransform_double_3_3", parameters, [0.0, 0.0, 0.0]


def affine_of(records: Sequence[Record]) -> Affine:
    """The affine of one or several linear transforms, of which points pass the last one first.

    Raises:
        ValueError: the numbers or a kind are not those of a linear transform in three dimensions.
    """
    with np.errstate(all="ignore"):  # numbers that are too large are refused by ``Affine``
        matrices = [_matrix(_linear_transform(*record)) for record in records]
        return Affine(_FLIP @ reduce(np.matmul, matrices) @ _FLIP)


LARGEST_TEXT = 1 << 20  # bytes; a linear transform has a few hundred; set by hand


def _read_mat(path: Path) -> list[Record]:
    contents = io.BytesIO(checked_mat(_beginning(path, LARGEST + 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # SciPy warns if numbers may be read wrong
        if matfile_version(contents)[0] != 0:
            raise ValueError("it is a MATLAB file of another version than ITK's, 4")
        names = [name for name, *_ in whosmat(contents)]
        kinds = [name for name in names if name != "fixed"]
        if len(kinds) != 1 or len(names) != 2:
            raise ValueError(f"it holds {', '.join(names) or 'nothing'}")
        variables = loadmat(contents)
    values = [variables[name].ravel() for name in (kinds[0], "fixed")]
    if any(np.iscomplexobj(v) for v in values):
        raise ValueError("its numbers are complex")
    parameters, fixed = (v.astype(np.float64).tolist() for v in values)
    return [(kinds[0], parameters, fixed)]


def _read_text(path: Path) -> list[Record]:
    """The transforms of a text file; those of a composite in their order."""
    try:
        contents = _beginning(path, LARGEST_TEXT + 1)
        if len(contents) > LARGEST_TEXT:
            raise ValueError("it is larger than 1 MB")
        text = contents.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is neither a text file nor a MATLAB file") from None
    sections: list[dict[str, str]] = []
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if colon and key == "Transform":
            sections.append({key: value})
        elif colon and sections:
            sections[-1][key] = value
    kinds = [section["Transform"] for section in sections]
    if kinds and kinds[0].startswith("CompositeTransform_"):
        del sections[0]
    elif len(kinds) > 1:
        sections = []
    if not sections:
        raise ValueError(f"it holds {', '.join(kinds) or 'no transform'}")
    return [
        (s["Transform"], _numbers(s, "Parameters"), _numbers(s, "FixedParameters"))
        for s in sections
    ]


def _beginning(path: Path, size: int) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(size)


def _numbers(section: dict[str, str], key: str) -> list[float]:
    if key not in section:
        raise ValueError(f"it has no line {key}")
    return [float(word) for word in section[key].split()]


def _linear_transform(
    kind: str, parameters: Sequence[float], fixed: Sequence[float]
) -> sitk.Transform:
    """The SimpleITK transform of one kind with these numbers."""
    match = re.fullmatch(r"(\w+)_(?:double|float)_3_3", kind)
    if match is None or match[1] not in _KINDS:
        raise ValueError(f"it holds {kind}")
    if match[1] == "Euler3DTransform" and len(fixed) == 3:
        fixed = [*fixed, 0.0]  # older files, from before the order of the axes could be chosen
    transform = _KINDS[match[1]]()
    expected = len(transform.GetParameters()), len(transform.GetFixedParameters())
    if expected != (len(parameters), len(fixed)):
        raise ValueError(
            f"expected {expected[0]} parameters and {expected[1]} fixed parameters, "
            f"got {len(parameters)} and {len(fixed)}"
        )
    transform.SetFixedParameters(list(fixed))
    transform.SetParameters(list(parameters))
    return transform


def _matrix(transform: Any) -> np.ndarray:
    """(4, 4) matrix, LPS mm, of a linear SimpleITK transform: x ↦ A x + t + c − A c."""
    matrix = np.eye(4)
    if not hasattr(transform, "GetMatrix"):  # a translation, or the identity
        matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
        return matrix
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    center = np.array(transform.GetCenter())
    shift = transform.GetTranslation() if hasattr(transform, "GetTranslation") else np.zeros(3)
    matrix[:3, 3] = shift + center - matrix[:3, :3] @ center
    return matrix


def write_warp(warp: Warp, path: str | os.PathLike[str]) -> None:
    """Write an ITK displacement field: (X, Y, Z, 1, 3) float32, LPS mm, intent 1007 (vector).

    Intent 1006 (displacement) is avoided: ITK 5.4 reads such files as RAS, older versions as LPS.
    The grid's space code is written, see ``Grid``.

    Raises:
        ValueError: the grid is sheared, which ITK files cannot express.
        InputError: the file cannot be written.
    """
    _check_right_angles(warp.grid)
    # No copy of the field: only a view of its shape in the file.
    view = warp.displacement.transpose(1, 2, 3, 0)[:, :, :, None, :]
    image = nifti(view, warp.grid)
    image.header.set_intent("vector")
    write_nifti(image, path, _reordered(warp))


def _reordered(warp: Warp) -> Iterator[np.ndarray]:
    """A warp in the order of its file, in which x changes fastest, some planes at a time.

    The compressed bytes depend on how many, the values do not.
    """
    planes = max(1, PART_VOXELS // (warp.grid.shape[0] * warp.grid.shape[1]))
    for values, sign in zip(warp.displacement, _SIGNS, strict=True):
        for first in range(0, warp.grid.shape[2], planes):
            part = values[:, :, first : first + planes].T
            yield np.multiply(part, np.float32(sign), order="C")


def lps_vectors(vectors: np.ndarray, *, to_ras: bool = False) -> np.ndarray:
    """The numbers of a displacement field as ITK stores them: the components of a voxel together.

    Args:
        vectors: (3, X, Y, Z) float32, RAS mm.
        to_ras: convert back: (3, X, Y, Z), LPS mm, to RAS mm.

    Returns:
        (3 X Y Z,), x fastest after the components, LPS mm; with ``to_ras`` (3, X, Y, Z).
    """
    flipped = vectors * _SIGNS[:, None, None, None]
    return np.ascontiguousarray(flipped) if to_ras else flipped.ravel(order="F")


def field_geometry(grid: Grid) -> np.ndarray:
    """The 18 fixed parameters of a displacement field of ITK: size, origin, spacing, direction.

    Raises:
        ValueError: the grid is sheared, which they cannot express.
    """
    _check_right_angles(grid)
    direction = _FLIP[:3, :3] @ grid.direction
    return np.array(
        [*grid.shape, *lps(grid.affine[:3, 3]), *grid.spacing, *direction.ravel()], np.float64
    )


def grid_of_field(fixed: np.ndarray) -> Grid:
    """The grid that the 18 fixed parameters of a displacement field describe.

    Raises:
        ValueError: they are not 18, or describe no grid.
    """
    if fixed.shape != (18,):
        raise ValueError(f"a displacement field has 18 fixed parameters, got {fixed.size}")
    affine = np.eye(4)
    affine[:3, :3] = _FLIP[:3, :3] @ fixed[9:].reshape(3, 3) * fixed[6:9]
    affine[:3, 3] = lps(fixed[3:6])
    return Grid(tuple(fixed[:3]), affine)


def _check_right_angles(grid: Grid) -> None:
    if grid.is_sheared():
        raise ValueError(
            "warp must have a grid with orthogonal axes to be written as an ITK file, "
            "see Grid.unsheared"
        )


def read_warp(path: str | os.PathLike[str]) -> Warp:
    """Read an ITK displacement field as written by ``write_warp``, ANTs or greedy.

    Its vectors are in LPS mm if its intent is 1007 (vector), in RAS mm if it is 1006
    (displacement), as ITK reads both since version 5.4.

    Raises:
        InputError: the file is missing, damaged, or not a displacement field.
    """
    image, data, placement = load_image(path, "transform")
    if data.ndim != 5 or data.shape[3:] != (1, 3):
        others = (
            "; fields of X×Y×Z×3, as FSL and VoxelMorph write them, are in another frame: "
            "docs/how-to has lines of Python that convert them"
        )
        raise InputError(
            f"transform {path}: expected a displacement field of shape X×Y×Z×1×3, "
            f"got {shape_text(data)}{others if data.shape[3:] == (3,) else ''}"
        )
    signs = _signs_of(*intent(image), path)
    if not np.isfinite(data).all():
        raise InputError(
            f"transform {path}: some displacements are NaN or infinite; compute the warp again"
        )
    vectors = np.moveaxis(data[:, :, :, 0, :], -1, 0) * signs[:, None, None, None]
    return Warp(np.ascontiguousarray(vectors, np.float32), placement.grid)


def warp_warnings(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """What the header of a displacement field leaves in doubt, one sentence each.

    Raises:
        InputError: the file is missing or damaged.
    """
    return placement_of(
        open_image(path, "transform", header_only=True), f"transform {path}"
    ).warnings


# Fields of other programs, whose vectors are not displacements in LPS mm although their intent is
# 1007: the intent's name, and what it is.
_FOREIGN = {
    "Mapping": "a deformation of SPM, which holds coordinates",
    "NREG_TRANS": "a transform of NiftyReg",
}
_CONVERTED = {"Mapping": ": docs/how-to/spm.md has the lines of Python"}


def _signs_of(code: int, name: str, path: str | os.PathLike[str]) -> np.ndarray:
    """What the components of a field are multiplied with to be RAS mm.

    Raises:
        InputError: the intent is not that of a displacement field of ITK.
    """
    if code == VECTOR and name in _FOREIGN:
        raise InputError(
            f"transform {path}: this is {_FOREIGN[name]} (its intent is 1007, vector, named "
            f"{name}); convert it to a displacement field of ITK{_CONVERTED.get(name, '')}"
        )
    if code not in (VECTOR, DISPLACEMENT):
        raise InputError(
            f"transform {path}: its intent is {code} ({_intent_name(code)}), but a displacement "
            f"field has 1007 (vector, LPS mm, as ANTs and greedy write it) or 1006 (displacement "
            f"vector, RAS mm); set the intent that it has"
        )
    return _SIGNS if code == VECTOR else np.ones_like(_SIGNS)


def _intent_name(code: int) -> str:
    """The name of an intent in NIfTI, as nibabel has it."""
    return str(intent_codes.label[code]) if code in intent_codes.code else "not one of NIfTI"


def to_sitk(volume: Volume) -> sitk.Image:
    """Convert a 3-D volume to a SimpleITK image of float32, with the same voxels in place."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.T, dtype=np.float32))
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin(lps(volume.grid.affine[:3, 3]).tolist())
    image.SetDirection((_FLIP[:3, :3] @ volume.grid.direction).ravel().tolist())
    return image
